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
# **Question.** In the paper, ten encoders compete inside an SCSE-U-Net for four lesions. Which is best for which, and how good is it on images it has not seen? (`open` trains one encoder, MobileNet, so it answers only the second part.)
#
# | | |
# | --- | --- |
# | Paper | Sections 2.1 and 3.2, Eq. 1, Tables 1 and 2 |
# | Reads | the segmentation cohort of notebook 01 |
# | Writes | `table_1`, `table_2`, `table_2_inverted`, `table_protocols`, `table_scse`, `table_healthy`, `time_1`, and, in `open`, `table_field` (csv, md); `fig_encoders`, `fig_training`, `fig_1_module`, `fig_1_attention`, `fig_segmentation` |
# | Needs | synthetic: 4 min, 3.1 GB · open: 119 min, 6.5 GB; on two CPU cores, `run.json` |
#
# The paper trains a binary U-Net for each lesion, and so does the synthetic profile (`masks = "per_lesion"`). The open profile trains **one network with a channel for each lesion** (`masks = "joint"`). Its loss is the mean Dice loss of the channels plus five times the focal loss; a channel without an annotated mask is left out. Patches are drawn by lesion first, then by a photograph that shows it. A second stage of training uses photographs without retinopathy, from patients outside the diagnosis cohort, as hard negatives: patches around what the first stage mistook for lesions. The network is trained on all training images for a fixed number of epochs, so none is held back. Given several encoders, three-fold cross-validation chooses among them. The threshold was chosen on the training images, too: for the network that comes with this project, 0.3 scored better out of fold than 0.5 ([models/README.md](../models/README.md)).
#
# Each U-Net has spatial and channel squeeze-and-excitation (SCSE, Roy et al. 2018) in its decoder: the features $x$ of a stage, including those from the skip connection, are reweighted per channel ($C$, from their mean over the image) and per pixel ($S$, from all channels there),
#
# $$\hat{x} = x \odot C + x \odot S,$$
#
# $$C = \sigma(W_2\,\mathrm{ReLU}(W_1\,\bar{x})), \qquad S = \sigma(w \ast x),$$
#
# where $\sigma$ is the sigmoid, $\odot$ the element-wise product, and $W_1$, $W_2$ and $w$ are learned 1 × 1 convolutions.
#
# The loss is Dice plus focal loss. For each pixel with probability $p$ and truth $y$, $p_t = p$ if $y = 1$ and $1 - p$ otherwise, and $\alpha_t$ is the weight of its class ($\alpha$ for the lesion, $1 - \alpha$ for the rest; each profile's $\alpha$ and $\gamma$ are in `ruranet_utils/profiles.py`):
#
# $$\mathrm{DiceLoss} = 1 - \frac{2 \sum p\,y}{\sum p + \sum y}$$
#
# $$\mathrm{FocalLoss} = -\alpha_t (1 - p_t)^\gamma \log(p_t) \qquad (1)$$
#
# Single-lesion networks are trained with Adam and stopped early on the Dice score of the validation images. A pixel's probability is averaged over the image and its three flips; it counts as lesion above the threshold with the best validation IoU. **All scores are from the test images**, which play no part in training, stopping, or the choice of threshold and encoder; `validation_iou` and the protocol `released` are the exceptions. The tables report the intersection over union, $\mathrm{IoU} = TP / (TP + FP + FN)$, where $TP$ are lesion pixels found, $FP$ false positives and $FN$ lesion pixels missed. Scores are pooled over all pixels of the test images; intervals are 95 % bootstrap intervals over patients, and over seeds where there are several.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
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
    train_ahead,
)
from ruranet_utils.segmentation.unet import restore
from ruranet_utils.storage import paths

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Train and score
#
# Finished models are kept in the store, so this cell resumes where it was stopped. A joint network's seeds are trained side by side, together with the networks without SCSE that [05](05_ablation.ipynb) needs.

# %%
segmentation, diagnosis = run.cohorts
segmenter = segmenter_of(segmentation, run.profile, run.store)
lesions = segmentation.annotated
train_ahead(segmenter)
pairs = [(lesion, encoder) for lesion in lesions for encoder in run.profile.encoders]
seeds = range(run.profile.seed, run.profile.seed + run.profile.n_seeds)
study = encoder_table(segmenter, [segmenter.with_seed(each).scores(pairs) for each in seeds])
names = {lesion: segmentation.lesion_notes.get(lesion, DISPLAY[lesion]).capitalize() for lesion in lesions}
found = [
    f"{names[row.lesion]} {row.iou:.2f} [{row.iou_low:.2f}, {row.iou_high:.2f}] with {DISPLAY[row.encoder]}"
    for row in study[study["chosen"]].itertuples()
]
run.answer(f"IoU on {study['n'].iloc[0]} test photographs, which these networks have not seen: {'; '.join(found)}.")

# %% [markdown]
# ## Table 1 · All encoders on all lesions
#
# The paper prints two of the four lesions. Soft exudates, which it leaves out, are a fifth lesion if the data set annotates them. IoU, accuracy, precision, recall, Dice and AUPR (area under the precision-recall curve) are **pooled** over the pixels of all `n` test images, of which `n_with` show the lesion, and are means over `n_seeds` seeds (`iou_sd` is their spread; intervals are over patients and seeds). `iou_mean` and `aupr_mean` are **averages over images**, excluding images where the score is undefined: neither truth nor prediction (IoU), or no truth (AUPR). The encoder of Table 2 is the one with the best `validation_iou`, not the one in bold here; a joint network with a single encoder has nothing to choose, and no `validation_iou`.
#
# `weights` says what the encoders started from: `random` means no ImageNet weights; such a row measures the method, not the encoder at its best.

# %%
keys, scores = ["lesion", "encoder"], published.SEGMENTATION
LEAD = [*keys, "iou paper", "iou ours", "iou_low", "iou_high", "n"]  # shown first
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
# Points with intervals are ours, crosses are the paper's. The intervals show how precisely each IoU is known. They do not test one encoder against another: all are scored on the same images, so only a paired comparison could. If a cross lies far to the right of every point, no choice among these encoders explains the difference.

# %% alt="One panel for each lesion: the IoU of every encoder as a point with its interval, and the paper's IoU as a cross where it prints one."
printed = published.table_1().set_index(keys)["iou"]
fig = plots.encoder_scores(study, printed, names)
run.save_figure(fig, "fig_encoders")

# %% [markdown]
# ## What a model costs
#
# Parameters, training machine, seconds, patches per second, and the share of each step spent waiting for data. Photographs are decoded once; patches are cropped, flipped, rotated and recolored on the device that runs the network.

# %% tags=["nbval-ignore-output"]
# not compared: seconds differ on every run
cost = study[["lesion", "encoder", "parameters", "machine", "time_s"]].assign(
    patches_per_s=study["patches"] / study["time_s"], waiting=study["waited_s"] / study["time_s"]
)
show(run.save_table(cost, "time_1"), "Training, first seed", digits=2)

# %% [markdown]
# ## Table · Two protocols
#
# `held_out`: as above, but in `open` trained without healthy eyes, as `released` is. `released`: the code released with the paper (`ouiiyu/DME` on GitHub) trains on the test images, chooses the epoch on them and scores on them. Here we do the same with our networks, with as many training patches as above. Single-lesion networks choose epoch and threshold on the test images; a joint network is never stopped early and chooses only its thresholds on them. If `released` scores higher, that is memory, not skill. If it scores lower, the few test images taught less than the training images. `n choosing` counts the images that choose. `nearer` marks the protocol whose IoU is closer to the paper's (the encoder's row of Table 1, or the lesion's row of Table 2).

# %%
encoder_of = best_encoders(study)
protocols = compare_protocols(segmenter, study)
show(run.save_table(protocols, "table_protocols"), "Trained apart from the test images, and on them")

# %% [markdown]
# ## Table 2 · The best encoder of each lesion
#
# The encoder is chosen by the **validation** IoU of the models above, so its test score is not the best of ten draws.

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
# The code released with the paper inverts the mask it calls edema before using it, so its score is that of the image *outside* the region. That is nearly the whole image, so the score says little: the last row marks every pixel. All rows are computed from the edema row of Table 2: errors, hits and the region's share follow from its accuracy, IoU and recall.

# %%
if "edema" in names:
    inverted = invert_edema(study[study["chosen"]])
    display(show(run.save_table(inverted, "table_2_inverted"), f"IoU of the edema row; ours: {names['edema'].lower()}"))

# %% [markdown]
# ## Beside the field
#
# Open profile only: IoU of hard and soft exudates, hemorrhages and microaneurysms on IDRiD's 27 test images, scored as others score it, at the photographs' own size and threshold 0.5, and also at the network's 512 px and its own threshold. `mean ap` is average precision; `mean aupr` is the trapezoid over 11 thresholds that others print, which is larger. All are means over `n_seeds` seeds (`sd` is their spread); intervals are bootstrapped over photographs and seeds. `note` says how each published row was chosen: one on the test images, one as the best of three runs; for the other two we do not know.

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
# Every IDRiD photograph with masks shows lesions; a network that has seen no others finds lesions in healthy eyes. The table gives the share of photographs in which each lesion is found (at least 20 px of 512 x 512), by diagnosis, with 95 % intervals over patients. None of these photographs was used in training. `auc` compares the lesion's area in the masks found between healthy eyes and eyes with macular edema; it does not depend on the 20 px. In `open`, the row called edema is the optic disc, which every eye has. In the synthetic profile the classes are with and without edema, and both have lesions.

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
# Left: loss on the training patches. Right: Dice score on the validation images; the best epoch is kept. A Dice curve that is still rising at the end ran out of epochs; one that falls while its loss also falls is overfitting. Lesions that few images show are trained for more epochs, so the curves differ in length. A joint network has no validation images, and therefore no right panel.

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
# Drawn from this run's model: its layers, with the shapes that an image of this size has in each. In the deepest decoder stage, the decoder's features F_d and the encoder's F_e are concatenated to F_cat, the $x$ of the equations above; channel attention C and spatial attention S recalibrate it to F_out, the $\hat{x}$ (Section 2.1).

# %% alt="Flow chart of one SCSE module: the joined features pass through channel attention and through spatial attention, and the two results are added; each box names its layer and shape."
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
# S of each module on the skip connections for one test image, from the deepest stage up. Below, C of all channels, sorted: near 0 a channel is switched off, near 1 it passes.

# %% alt="Above, a test image and the spatial attention of each stage as a heat map; below, the channel attention of each stage, its channels sorted."
test = segmentation.split("test")
row = test.table[f"{lesion}_px"].argmax()
maps = attention_maps(model, normalize(torch.from_numpy(as_float(test.images[row : row + 1]))))
maps = [found for found in maps if "attention1" in found.layer]
run.save_figure(plots.attention(test.images[row], maps, names[lesion]), "fig_1_attention", shows_images=True)

# %% [markdown]
# ## Figure · What the models see
#
# For each lesion, the test image with the largest lesion area. Green pixels were found, red ones are false positives, blue ones were missed.

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
# Each file has a card that says what the model was trained on, how it scored, and what it is for. These models find the lesions in photographs without masks ([09](09_own_images.ipynb)).

# %%
kept = keep(segmenter, study)
show(pd.concat([model.table for model in kept]).drop(columns="note"), "Model cards")

# %% [markdown]
# Two lines apply a model to an array, a file or a folder of photographs and write masks and overlays:

# %%
found = segment(test.images[:4], model=kept[0])
_ = found.save(paths.store() / "found" / paths.results(run.profile))
show(found.table, "What was found")

# %% [markdown]
# ## Figure · Look for yourself
#
# In JupyterLab: choose a lesion, a test image and a threshold. The outlines show what the graders drew (left) and where the network's probability exceeds the threshold (right). A lower threshold finds more lesions and more false positives. The slider starts at the model's own threshold.

# %% alt="One image twice: left with the graders' outlines, right with the outlines of what the network finds above the threshold, and the IoU of the two."
browse_lesions(test, kept, run.profile)

# %% [markdown]
# ## Paper versus ours
#
# **Limits.** The synthetic profile trains each model for seconds, on small images, from random weights: it shows that every part works, not how good an encoder is. The open profile's network has seen the lesions of one camera and one hospital. **How often the test images were looked at.** The joint network's settings were chosen without IDRiD's 27 test images, on which joint networks of five settings have been scored so far ([docs/results.md](../docs/results.md)). Earlier versions of this project trained one network per lesion and scored them on these images three times, so the authors knew how well such networks do there.
#
# **What differs by construction.** The paper's Table 1 may be a fit to its own test images: the code released with it trains and validates on the same folder. Our scores are held out. The paper's images are not ours, it does not state the number of test images, and its edema row (IoU 0.9925, higher than its accuracy of 0.9867) cannot come from one count of pixels, because accuracy is never below IoU.

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
