# ---
# jupyter:
#   jupytext:
#     formats: ipynb,text//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Which encoder finds which lesion? Tables 1 and 2
#
# **Question.** Ten encoders compete inside an SCSE-U-Net for four lesions. Which is best for which, and how good is it on images it has not seen?
#
# | | |
# | --- | --- |
# | Paper | Sections 2.1 and 3.2, Eq. 1, Tables 1 and 2 |
# | Reads | the segmentation cohort of notebook 01 |
# | Writes | `table_1`, `table_2` (csv, md); `fig_encoders`, `fig_training`, `fig_segmentation` |
# | Needs | synthetic: 4 min, 3.4 GB · open: 13 min, 8.3 GB; on two CPU cores, `run.json` |
#
# Each model is a binary U-Net whose skip connections pass spatial and channel squeeze-and-excitation (SCSE, Roy et al. 2018). Its loss is Dice plus Focal,
#
# $$\mathrm{FocalLoss} = -\alpha_t (1 - p_t)^\gamma \log(p_t) \qquad (1)$$
#
# Adam with early stopping on the Dice score of the validation images; **scored once on the test images**, which neither training nor stopping nor the choice of the encoder has seen. Scores are pooled over all pixels of the test images; the interval is a 95 % bootstrap over patients.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # of the profile "folder" alone: where your photographs lie (docs/own_images.md)
# None below: the profile's own value (ruranet_utils/config.py)
n_images = None  # of the diagnosis cohort, half of each class
epochs = None  # of a segmentation training
encoders = None  # of Tables 1 and 2, such as "resnet18,vgg16"
classifiers = None  # of Table 3
extractors = None  # of Tables 4 and 5
models = None  # profile whose segmentation models find the lesions of which your photographs have no masks
workers = None  # processes that compute side by side, each with one thread

# %%
from ruranet_utils import published
from ruranet_utils.config import DISPLAY, LESIONS
from ruranet_utils.lesions import LesionSegmenter, best_encoders
from ruranet_utils.models import load
from ruranet_utils.report import PALETTE, paper_versus_ours, show
from ruranet_utils.run import start

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

run = start(
    profile=profile,
    seed=seed,
    data_dir=data_dir,
    n_images=n_images,
    epochs=epochs,
    encoders=encoders,
    classifiers=classifiers,
    extractors=extractors,
    models=models,
    workers=workers,
)

# %% [markdown]
# ## Train and score
#
# Every finished model is kept in the store, so that this cell continues where it was stopped.

# %%
segmentation, _ = run.cohorts
segmenter = LesionSegmenter(segmentation, run.profile, run.store)
study = segmenter.study()
lesions = segmentation.annotated
names = {lesion: segmentation.lesion_notes.get(lesion, DISPLAY[lesion]).capitalize() for lesion in lesions}

# %% [markdown]
# ## Table 1 · All encoders on all lesions
#
# The paper prints two of the four lesions. `weights` says what the encoders started from: `random` means that no ImageNet weights were used, and such a row measures the method, not the encoder at its best.

# %%
keys, scores = ["lesion", "encoder"], published.SEGMENTATION
columns = ["iou_low", "iou_high", "recall", "dice", "iou_mean", "n", "weights", "note"]
table_1 = paper_versus_ours(study[[*keys, *scores, *columns]], published.table_1(), keys, scores)
table_1 = run.save_table(table_1, "table_1")
show(table_1, "Table 1 · paper versus ours, test images", best={"iou ours": "max"})

# %% [markdown]
# ## Figure · IoU of every encoder
#
# Points are ours with their intervals, crosses the paper's.

# %%
fig, axes = plt.subplots(1, len(lesions), figsize=(3 * len(lesions), 4), sharey=True, squeeze=False)
axes = axes[0]
printed = published.table_1().set_index(keys)["iou"]
for ax, lesion in zip(axes, lesions, strict=True):
    rows = study[study["lesion"] == lesion].reset_index(drop=True)
    low, high = rows["iou"] - rows["iou_low"], rows["iou_high"] - rows["iou"]
    ax.errorbar(rows["iou"], rows.index, xerr=[low.clip(0), high.clip(0)], fmt="o", color=PALETTE[0], label="ours")
    paper = [printed.get((lesion, encoder), np.nan) for encoder in rows["encoder"]]
    ax.plot(paper, rows.index, "x", color=PALETTE[3], label="paper")
    ax.set(
        title=names[lesion],
        xlabel="IoU",
        xlim=(-0.03, 1),
        yticks=rows.index,
        yticklabels=rows["encoder"].map(DISPLAY),
    )
    ax.grid(axis="x", alpha=0.3)
axes[0].invert_yaxis()
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncol=2, bbox_to_anchor=(0.5, -0.06))
fig.tight_layout()
run.save_figure(fig, "fig_encoders")

# %% [markdown]
# ## Table 2 · The best encoder of each lesion
#
# Derived from the **validation** IoU of the models above, so that the test score of the chosen one is not the best of ten draws.

# %%
chosen = study[study["chosen"]].rename(columns={"encoder": "encoder ours"})
paper = published.table_2().rename(columns={"encoder": "encoder paper"})
table_2 = paper_versus_ours(chosen[["lesion", *scores, "encoder ours", *columns]], paper, ["lesion"], scores)
table_2.insert(1, "encoder paper", table_2["lesion"].map(paper.set_index("lesion")["encoder paper"]))
table_2.insert(2, "encoder ours", table_2.pop("encoder ours"))
show(run.save_table(table_2, "table_2"), "Table 2 · paper versus ours")

# %% [markdown]
# ## Figure · How the chosen models learned

# %%
encoder_of = best_encoders(study)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
for lesion, color in zip(lesions, PALETTE, strict=False):
    epoch, loss, dice = segmenter.train(lesion, encoder_of[lesion])["history"].T
    axes[0].plot(epoch, loss, color=color, label=f"{names[lesion]} · {DISPLAY[encoder_of[lesion]]}")
    axes[1].plot(epoch, dice, color=color)
axes[0].set(xlabel="epoch", ylabel="training loss (Dice + Focal)")
axes[1].set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
for ax in axes:
    ax.xaxis.get_major_locator().set_params(integer=True)
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncol=2, bbox_to_anchor=(0.5, 0), fontsize=10)
fig.tight_layout()
run.save_figure(fig, "fig_training")

# %% [markdown]
# ## Figure · What the models see
#
# One test image per lesion, the one with the largest lesion: green is found, red is invented, blue is missed.

# %%
test = segmentation.split("test")
predicted = segmenter.masks(test.images, encoder_of)
fig, axes = plt.subplots(2, len(lesions), figsize=(2.75 * len(lesions), 5.8), squeeze=False)
for column, lesion in enumerate(lesions):
    row = test.table[f"{lesion}_px"].argmax()
    image, found = test.images[row].transpose(1, 2, 0), predicted[row, column]
    truth = test.masks[row, LESIONS.index(lesion)]
    errors = image // 3
    for area, color in (
        (truth & found, (60, 220, 60)),
        (found & ~truth, (240, 60, 40)),
        (truth & ~found, (70, 130, 255)),
    ):
        errors[area] = color
    axes[0, column].imshow(image)
    axes[1, column].imshow(errors)
    axes[0, column].set_title(names[lesion], fontsize=11)
for ax in axes.flat:
    ax.axis("off")
fig.tight_layout()
run.save_figure(fig, "fig_segmentation", shows_images=True)

# %% [markdown]
# ## The models as files
#
# Each with its card: what it was trained on, how it scored, what it is for. They find the lesions in photographs that have no masks ([09](09_own_images.ipynb)).

# %%
kept = [load(file).card for file in segmenter.keep(study)]
columns = ["lesion", "encoder", "trained_on", "n_train", "iou", "iou_low", "iou_high", "n_test", "weights"]
show(pd.DataFrame(kept)[columns].assign(trained_on=[", ".join(card["trained_on"]) for card in kept]), "Model cards")

# %% [markdown]
# ## Paper versus ours
#
# **What differs by construction.** The paper's Table 1 may be a fit to its own test images: the code released beside it trains and validates on one folder. Ours are held out. The paper's images are not ours, its number of test images is not stated, and its edema row (IoU 0.9925 above accuracy 0.9867) cannot come from one count of pixels, since the accuracy is never below the IoU.

# %%
gap = table_1.dropna(subset=["iou paper", "iou ours"]).assign(
    difference=lambda table: table["iou ours"] - table["iou paper"]
)
gap = gap.groupby("lesion", sort=False)["difference"].agg(["count", "mean", "min", "max"]).reset_index()
show(gap, "IoU, ours minus the paper's, over the encoders both have")

# %% [markdown]
# ## Checks

# %%
assert len(study) == len(lesions) * len(run.profile.encoders)
assert (study["accuracy"] >= study["iou"].fillna(0)).all(), "accuracy is never below IoU"
assert study.groupby("lesion")["chosen"].sum().eq(1).all()

# %% [markdown]
# Next: [03 · How good is a supervised diagnosis?](03_supervised.ipynb)
