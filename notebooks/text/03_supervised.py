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
# # 03 · How good is a supervised diagnosis? Table 3
#
# **Question.** Six backbones are fine-tuned to tell DME from no DME with labels. What should an unsupervised method be measured against?
#
# | | |
# | --- | --- |
# | Paper | Section 3.3, Table 3 |
# | Reads | the diagnosis cohort of notebook 01 |
# | Writes | `table_3` (csv, md); `fig_roc` |
# | Needs | synthetic: 40 s, 3.5 GB · open: 2 min, 4.4 GB; on two CPU cores, `run.json` |
#
# The last layer of each backbone is replaced by one logit, all layers are trained by Adam on binary cross-entropy, the epoch with the best validation AUC is kept, and the test images are scored once. No patient is on both sides.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # of the profile "folder" alone: where your photographs lie (docs/own_images.md)
# None below: the profile's own value (ruranet_utils/config.py)
n_images = None  # of the diagnosis cohort, half of each class
epochs = None  # of a segmentation training
n_seeds = None  # models of each lesion and encoder, to see the spread
encoders = None  # of Tables 1 and 2, such as "resnet18,vgg16"
classifiers = None  # of Table 3
extractors = None  # of Tables 4 and 5
models = None  # profile whose segmentation models find the lesions of which your photographs have no masks
workers = None  # processes that compute side by side, each with one thread

# %%
from ruranet_utils import published
from ruranet_utils.config import DISPLAY
from ruranet_utils.report import PALETTE, paper_versus_ours, show
from ruranet_utils.run import start
from ruranet_utils.supervised import table_3

import matplotlib.pyplot as plt
from sklearn.metrics import roc_curve

run = start(
    profile=profile,
    seed=seed,
    data_dir=data_dir,
    n_images=n_images,
    epochs=epochs,
    n_seeds=n_seeds,
    encoders=encoders,
    classifiers=classifiers,
    extractors=extractors,
    models=models,
    workers=workers,
)

# %% [markdown]
# ## Train and score

# %%
_, diagnosis = run.cohorts
scores, probabilities = table_3(diagnosis, run.profile, run.store)

# %% [markdown]
# ## Table 3 · Paper versus ours
#
# Precision, recall and F1 are those of the positive class at a probability of one half, as in the paper. Its six rows are possible only with 62 test images (31 + 31), a hold-out of 20 % rather than the 10 % it states. With `n` test images one image more or less moves the accuracy by 1/n: read the interval, not the fourth digit.

# %%
columns = [*published.CLASSIFICATION, "auc"]
table = paper_versus_ours(scores, published.table_3(), ["backbone"], columns)
show(run.save_table(table, "table_3"), "Table 3 · paper versus ours, test images", best={"auc ours": "max"})

# %% [markdown]
# ## Figure · ROC curves and accuracies
#
# Left: the curves of our models on the test images. Right: accuracy with its 95 % interval (bootstrap over patients) beside the paper's; the dashed line is what guessing reaches.

# %%
labels = diagnosis.split("test").labels
fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
left.plot([0, 1], [0, 1], "--", color="gray")
for row, color in zip(scores.itertuples(), PALETTE, strict=False):
    false_positive, true_positive, _ = roc_curve(labels, probabilities[row.backbone])
    left.plot(false_positive, true_positive, color=color, alpha=0.8, label=f"{DISPLAY[row.backbone]}, {row.auc:.2f}")
left.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
left.legend(fontsize=9, title="area under the curve", title_fontsize=9)
error = [scores["accuracy"] - scores["accuracy_low"], scores["accuracy_high"] - scores["accuracy"]]
right.errorbar(scores["accuracy"], scores.index, xerr=error, fmt="o", color=PALETTE[0], label="ours")
paper = published.table_3().set_index("backbone")["accuracy"].reindex(scores["backbone"])
right.plot(paper, scores.index, "x", color=PALETTE[3], label="paper")
right.axvline(max(labels.mean(), 1 - labels.mean()), linestyle="--", color="gray")
right.set(xlabel="accuracy", xlim=(0, 1), yticks=scores.index, yticklabels=scores["backbone"].map(DISPLAY))
right.set_ylim(len(scores) - 0.5, -0.5)
_ = fig.legend(*right.get_legend_handles_labels(), loc="lower right", ncol=2, bbox_to_anchor=(0.95, -0.05))
fig.tight_layout()
run.save_figure(fig, "fig_roc")

# %% [markdown]
# **What differs from the paper.** Other images, another number of them, `weights` as stated in the table. The paper does not say how it trained these networks.

# %% [markdown]
# ## Checks

# %%
assert list(scores["backbone"]) == list(run.profile.classifiers)
assert scores["n"].eq(len(labels)).all()
assert scores[["accuracy", "auc"]].stack().between(0, 1).all()

# %% [markdown]
# Next: [04 · Does clustering find DME?](04_clustering.ipynb)
