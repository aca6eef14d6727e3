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
# | Writes | `table_1`, `table_2`, `table_2_inverted`, `table_protocols`, `table_scse`, `table_healthy`, `time_1`, in `open` `table_field` (csv, md); `fig_encoders`, `fig_training`, `fig_1_module`, `fig_1_attention`, `fig_segmentation` |
# | Needs | synthetic: 3 min, 3.1 GB · open: half an hour to an hour for each network, two side by side, kept for good (`time_1`); on two CPU cores, `run.json` |
#
# The paper trains a binary U-Net for each lesion; the synthetic profile does so, too (`masks = "per_lesion"`). The open one trains **one network with a channel for each lesion** (`masks = "joint"`), in a third of the time: its loss is the mean of the Dice losses plus five times the Focal loss, a lesion is drawn first and then a photograph that shows it, and masks that nobody drew take no part. A second part of the training shows it what the first takes for lesions in photographs without retinopathy, of patients outside the diagnosis cohort. It is trained on all training images for a fixed number of epochs, so that nothing is chosen on any image; three-fold cross-validation takes the place of the validation images, and the threshold is 0.3, which did best out of fold.
#
# Each U-Net has spatial and channel squeeze-and-excitation (SCSE, Roy et al. 2018) in its decoder: the features $x$ of a stage, those from the skip connection included, are reweighted per channel ($C$, from their mean over the image) and per pixel ($S$, from all channels there),
#
# $$\hat{x} = x \odot C + x \odot S,$$
#
# $$C = \sigma(W_2\,\mathrm{ReLU}(W_1\,\bar{x})), \qquad S = \sigma(w \ast x),$$
#
# with the sigmoid $\sigma$, the product of elements $\odot$, and learned 1 × 1 convolutions $W_1$, $W_2$ and $w$.
#
# The loss is Dice plus Focal. With the probability $p$ and the truth $y$ of each pixel, $p_t = p$ where $y = 1$, else $1 - p$, and $\alpha_t$ the weight of a pixel of its class ($\alpha$ for the lesion, $1 - \alpha$ for the rest; $\alpha$ and $\gamma$ of each profile stand in `ruranet_utils/profiles.py`):
#
# $$\mathrm{DiceLoss} = 1 - \frac{2 \sum p\,y}{\sum p + \sum y}$$
#
# $$\mathrm{FocalLoss} = -\alpha_t (1 - p_t)^\gamma \log(p_t) \qquad (1)$$
#
# A network of one lesion is trained by Adam, with early stopping on the Dice score of the validation images. A pixel's probability is the mean over the image and its three mirror images; it counts as lesion above the threshold with the best IoU on the validation images. **Scored on the test images** at the end, which neither training nor stopping nor the choice of threshold and encoder has seen. The score of the tables is the intersection over union, $\mathrm{IoU} = TP / (TP + FP + FN)$, of the lesion pixels that were found ($TP$), false positives ($FP$) and missed ($FN$). Scores are pooled over all pixels of the test images; the interval is a 95 % bootstrap over patients.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # of the profile "folder" alone: where your photographs lie (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from ruranet_utils import published
from ruranet_utils.data.sources import idrid
from ruranet_utils.networks.backbones import as_float, normalize
from ruranet_utils.profiles import ANNOTATIONS, DISPLAY
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.diagrams import attention_maps, draw_scse, layers
from ruranet_utils.reporting.tables import paper_versus_ours, show
from ruranet_utils.reporting.widgets import browse_lesions
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.apply import segment
from ruranet_utils.segmentation.full_size import field_table, histograms
from ruranet_utils.segmentation.healthy_eyes import found_table
from ruranet_utils.segmentation.study import (
    best_encoders,
    compare_protocols,
    encoder_table,
    invert_edema,
    keep,
    segmenter_of,
)
from ruranet_utils.segmentation.unet import restore
from ruranet_utils.storage import paths

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Train and score
#
# Every finished model is kept in the store, so that this cell continues where it was stopped.

# %%
segmentation, diagnosis = run.cohorts
segmenter = segmenter_of(segmentation, run.profile, run.store)
lesions = segmentation.annotated
pairs = [(lesion, encoder) for lesion in lesions for encoder in run.profile.encoders]
seeds = range(run.profile.seed, run.profile.seed + run.profile.n_seeds)
study = encoder_table(segmenter, [segmenter.with_seed(each).scores(pairs) for each in seeds])
names = {lesion: segmentation.lesion_notes.get(lesion, DISPLAY[lesion]).capitalize() for lesion in lesions}
found = [
    f"{names[row.lesion]} {row.iou:.2f} [{row.iou_low:.2f}, {row.iou_high:.2f}] with {DISPLAY[row.encoder]}"
    for row in study[study["chosen"]].itertuples()
]
run.answer(f"IoU on {study['n'].iloc[0]} photographs that no network has seen: {'; '.join(found)}.")

# %% [markdown]
# ## Table 1 · All encoders on all lesions
#
# The paper prints two of the four lesions; soft exudates, which it leaves out, are a fifth lesion where a data set annotates them. IoU, accuracy, precision, recall, Dice and AUPR (area under the precision-recall curve) are **pooled** over the pixels of all `n` test images, of which `n_with` show the lesion, and are means over `n_seeds` seeds (`iou_sd` is their spread). The interval is that of the first seed. `iou_mean` and `aupr_mean` are **averages over images**, without those where the score is undefined: neither truth nor prediction (IoU), no truth (AUPR). The encoder of Table 2 is the one with the best `validation_iou`, not the one in bold here.
#
# `weights` says what the encoders started from: `random` means that no ImageNet weights were used, and such a row measures the method, not the encoder at its best.

# %%
keys, scores = ["lesion", "encoder"], published.SEGMENTATION
LEAD = [*keys, "iou paper", "iou ours", "iou_low", "iou_high", "n"]  # columns that are shown first
columns = ["iou_sd", "n_seeds", "iou_low", "iou_high", "recall", "dice", "aupr", "iou_mean", "aupr_mean"]
columns += ["n", "n_with", "validation_iou", "threshold", "parameters", "weights", "note"]
table_1 = paper_versus_ours(study[[*keys, *scores, *columns]], published.table_1(), keys, scores)
table_1 = run.save_table(table_1, "table_1")
more = [
    "iou_sd",
    "n_seeds",
    "recall",
    "dice",
    "aupr",
    "iou_mean",
    "aupr_mean",
    "n_with",
    "validation_iou",
    "threshold",
    "parameters",
]
show(table_1.drop(columns=more), "Table 1 · paper versus ours, test images", {"iou ours": "max"}, "lesion", LEAD)

# %%
show(table_1[[*keys, *more]].dropna(subset="threshold"), "Table 1, continued · what the paper does not print")

# %% [markdown]
# ## Figure · IoU of every encoder
#
# Points are ours with their intervals, crosses the paper's. Where the intervals of the encoders overlap, the table ranks them by luck; where a cross lies far to the right of every point, no choice of encoder explains the difference.

# %% alt="One panel for each lesion: the IoU of every encoder as a point with its interval, and the paper's IoU as a cross where it prints one."
printed = published.table_1().set_index(keys)["iou"]
fig = plots.encoder_scores(study, printed, names)
run.save_figure(fig, "fig_encoders")

# %% [markdown]
# ## What a model costs
#
# Parameters, the machine that the network was trained on, seconds, patches per second, and the share of a step spent waiting for data. The photographs are decoded once; patches are cut, turned and colored where the network runs.

# %% tags=["nbval-ignore-output"]
# not compared: seconds differ on every run
cost = study[["lesion", "encoder", "parameters", "machine", "time_s"]].assign(
    patches_per_s=study["patches"] / study["time_s"], waiting=study["waited_s"] / study["time_s"]
)
show(run.save_table(cost, "time_1"), "Training, first seed", digits=2)

# %% [markdown]
# ## Table · Two protocols
#
# `held_out`: the models above. `released`: the code released beside the paper (`ouiiyu/DME` on GitHub) trains on the testing images, chooses the epoch on them and scores on them; here the same is done with ours, threshold included; a network for all lesions is shown no healthy eye here. Where that scores higher it is memory, not skill. Where it scores lower, as for most lesions of the synthetic run, a short training has learned less from the few test images than from the training images. `nearer` is the one whose IoU is nearer to the paper's (Table 1's row of the encoder, or Table 2's of the lesion).

# %%
encoder_of = best_encoders(study)
protocols = compare_protocols(segmenter, study)
show(run.save_table(protocols, "table_protocols"), "Trained apart from the test images, and on them")

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
show(run.save_table(table_2, "table_2"), "Table 2 · paper versus ours", first=[*table_2.columns[:3], *LEAD[2:]])

# %% [markdown]
# ### The edema row, like with like
#
# The code released beside the paper inverts the mask that it calls edema before use: its row is the score of the image *without* the region. Nearly all of an image is that, so the score says little: the last row paints every pixel. Computed from the row above, of which errors, hits and the region's share follow from accuracy, IoU and recall.

# %%
if "edema" in names:
    inverted = invert_edema(study[study["chosen"]])
    display(show(run.save_table(inverted, "table_2_inverted"), f"IoU of the edema row; ours: {names['edema'].lower()}"))

# %% [markdown]
# ## Beside the field
#
# In the open profile: IoU of hard and soft exudates, hemorrhages and microaneurysms on IDRiD's 27 test images, scored as others score it, at the photographs' own size and threshold 0.5; beside it at the network's 512 px and at its own threshold. `mean ap` is average precision; `mean aupr` is the trapezoid over 11 thresholds that others print, which is larger. The interval is a bootstrap over photographs, `sd` the spread over `n_seeds` seeds. The published rows were chosen on the test images or are the best of several runs (`note`).

# %%
if run.profile.name == "open" and run.profile.masks == "joint":
    records = {record.image_id: record for record in idrid.records(paths.data_root() / "idrid", parts="A")}
    seeds = range(run.profile.seed, run.profile.seed + run.profile.n_seeds)
    scored = segmentation.split("test")
    found = [segmenter.with_seed(seed).probabilities(scored.images, encoder_of[lesions[0]]) for seed in seeds]
    counted = [histograms(probability, lesions, scored, records, run.store) for probability in found]
    field = run.save_table(field_table(counted, lesions, study["threshold"].iloc[0], run.profile.seed), "table_field")
    display(show(field, "IDRiD, mean of four lesions", {"mean iou": "max", "mean aupr": "max"}))

# %% [markdown]
# ## Healthy eyes stay empty
#
# Every IDRiD photograph with masks shows lesions; a network that has seen no other paints lesions on healthy eyes. Below: in which share of the photographs each lesion is found (20 px of 512 x 512 or more), by diagnosis, with 95 % intervals over patients. None of these photographs was trained on. `auc` compares the area of the lesion in healthy eyes and in those with macular edema; no threshold decides on it. On the synthetic profile the classes are with and without edema, and the one without has lesions, too.

# %%
learned = segmentation.patients[segmentation.table["split"] != "test"]
unseen = diagnosis.subset(~np.isin(diagnosis.patients, learned))
edema = unseen.table["label"].eq(1).fillna(False).to_numpy(dtype=bool)
healthy = np.asarray(unseen.table.get("healthy", ~edema), dtype=bool)
groups = {"healthy": healthy, "others": ~healthy & ~edema, "edema": edema}
groups = {name: chosen for name, chosen in groups.items() if chosen.any()}
if {"healthy", "edema"} <= set(groups):
    painted = segmenter.masks(unseen.images, encoder_of)
    found = found_table(painted, list(encoder_of), groups, unseen.patients, run.profile.seed)
    display(show(run.save_table(found, "table_healthy"), "Share of photographs in which the lesion is found"))

# %% [markdown]
# ## Figure · How the chosen models learned
#
# Left the loss on the training patches, right the Dice score on the validation images, whose best epoch is kept. A curve that still rises at its end was stopped by the number of epochs; one that falls while its loss does, too, overfits. Lesions that few images show are trained for more epochs, so the curves differ in length. A network of all lesions has no validation images, and so no right panel.

# %% alt="Two panels with one curve for each lesion, over the epochs: left the training loss, right the Dice score on the validation images."
together = run.profile.masks == "joint"
networks = {"All lesions": lesions[0]} if together else {names[lesion]: lesion for lesion in lesions}
histories = {
    f"{name} · {DISPLAY[encoder_of[lesion]]}": segmenter.train(lesion, encoder_of[lesion])["history"]
    for name, lesion in networks.items()
}
run.save_figure(plots.learning_curves(histories), "fig_training")

# %% [markdown]
# ## Figure 1 · The SCSE module
#
# Drawn from the model of this run: its layers, with the shapes that an image of this size takes in them. In the deepest decoder stage the decoder's features F_d and the encoder's F_e are laid together to F_cat, the $x$ of the equations above; channel attention C and spatial attention S recalibrate them to F_out, the $\hat{x}$ (Section 2.1).

# %% alt="Flow chart of one SCSE module: the joined features pass through channel attention and through spatial attention, and what both have weighed is added; each box names its layer and shape."
lesion = lesions[0]
model = restore(segmenter.train(lesion, encoder_of[lesion]), encoder_of[lesion], "scse", run.profile)
anatomy = layers(model.cpu(), run.profile.image_size_px)
modules = anatomy.loc[anatomy["kind"] == "SCSEModule", "layer"].tolist()
fig, ax = plt.subplots(figsize=(8, 4.6))
draw_scse(ax, anatomy, modules[0])
_ = ax.set_title(f"{modules[0]} of the U-Net with {DISPLAY[encoder_of[lesion]]}")
run.save_figure(fig, "fig_1_module")
show(
    run.save_table(anatomy[anatomy["layer"].isin(modules)], "table_scse"), "The SCSE modules, in the order of the data"
)

# %% [markdown]
# ## Figure · Where attention looks
#
# S of each module on the skip connections for one test image, from the deepest stage upwards. Below, C of all channels, in order of size: near 0 a channel is switched off, near 1 it passes.

# %% alt="Above, a test image and the spatial attention of each stage as a heat map; below, the channel attention of each stage, its channels in order of size."
test = segmentation.split("test")
row = test.table[f"{lesion}_px"].argmax()
maps = attention_maps(model, normalize(torch.from_numpy(as_float(test.images[row : row + 1]))))
maps = [found for found in maps if "attention1" in found.layer]
run.save_figure(plots.attention(test.images[row], maps, names[lesion]), "fig_1_attention", shows_images=True)

# %% [markdown]
# ## Figure · What the models see
#
# One test image per lesion, the one with the largest lesion. Green pixels were found, red ones are false positives, blue ones were missed.

# %% alt="One row for each lesion: a test image, the true mask, the predicted mask, and the image with found pixels in green, false positives in red and missed ones in blue."
predicted, rows = segmenter.masks(test.images, encoder_of), {}
for column, lesion in enumerate(lesions):
    row = test.table[f"{lesion}_px"].argmax()
    truth = test.masks[row, ANNOTATIONS.index(lesion)]
    rows[names[lesion]] = test.images[row], truth, predicted[row, column]
run.save_figure(plots.segmentation_errors(rows), "fig_segmentation", shows_images=True)

# %% [markdown]
# ## The models as files
#
# Each with its card: what it was trained on, how it scored, what it is for. They find the lesions in photographs that have no masks ([09](09_own_images.ipynb)).

# %%
kept = keep(segmenter, study)
show(pd.concat([model.table for model in kept]).drop(columns="note"), "Model cards")

# %% [markdown]
# Two lines apply one to an array, a file or a folder of photographs, and write masks and overlays:

# %%
found = segment(test.images[:4], model=kept[0])
_ = found.save(paths.store() / "found" / paths.results(run.profile))
show(found.table, "What was found")

# %% [markdown]
# ## Figure · Look for yourself
#
# In JupyterLab: choose a lesion, a test image and a threshold. Outlined is what the graders drew (left) and where the network's probability is above the threshold (right). A lower threshold finds more lesions and invents more. The threshold to start from is the one that was chosen on the validation images.

# %% alt="One image twice: left with the outline of what the graders drew, right with the outline of what the network finds above the threshold, and the IoU of both."
browse_lesions(test, kept, run.profile)

# %% [markdown]
# ## Paper versus ours
#
# **Limits.** The synthetic profile trains each model for seconds, on small images, from random weights: it shows that every part works, not how good an encoder is. The open one knows the lesions of one camera and one hospital. **How often the test images were looked at.** The settings of the network for all lesions were chosen without the 27 test images of IDRiD. Earlier versions of this project trained a network for each lesion and scored them there three times, so the authors knew how well such networks do on these images.
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
