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
# # 10 · What do the lesions tell us on their own?
#
# **Question.** How far can we get without labels and without a backbone, from the lesions alone: their areas, and where they lie?
#
# | | |
# | --- | --- |
# | Paper | Section 2.2; accuracy 0.8411, abstract |
# | Reads | both cohorts of notebook 01, the models of notebook 02, the features of notebook 04 |
# | Writes | `table_lesion_channel`, `table_4_by_kind`, `table_4_doubted`, `table_zones`, `table_natural`, in `open` `table_lesion_channel_unaware` (csv, md); `fig_macula`, `fig_channel` |
# | Needs | synthetic: 4 s, 1.0 GB · open: 7 min, 5.2 GB; on two CPU cores, `run.json` |
#
# Maculopathy is graded by distance: an exudate within one disc diameter (DD) of the fovea. Given the optic disc and the lesions that a network finds, this is a rule that needs no training on diagnoses:
#
# $$\text{edema} \iff \min_{p \,\in\, \text{exudates}} \lVert p - \text{fovea} \rVert \le 1\,\text{DD}$$
#
# In the code, exudates within 1 DD count if they cover at least 0.0035 disc areas (about 20 px of 512 x 512), and a photograph without a disc counts as free of edema.
#
# Here we compare it with k-medoids on the areas of the lesions and on the paper's features.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from ruranet_utils import published
from ruranet_utils.clustering import areas
from ruranet_utils.clustering.study import diagnose, project_all
from ruranet_utils.data.cohort import all_labeled
from ruranet_utils.features.extract import image_features, lesion_features
from ruranet_utils.features.macula import find_all, fovea_error, zone_table
from ruranet_utils.features.reduction import reduce
from ruranet_utils.networks.weights import pretrained, reference_backbone
from ruranet_utils.profiles import DISPLAY, LESIONS
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.figures import draw_macula, outline_legend
from ruranet_utils.reporting.tables import show
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.study import finds_disc, lesion_masks
from ruranet_utils.supervised.study import contradicted, deal, predict

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## The lesions and the paper's features of them
#
# As in [04](04_clustering.ipynb), with all lesion weights 1; DMH is trained with ten seeds.

# %%
segmentation, diagnosis = run.cohorts
name = reference_backbone(run.profile)
masks = lesion_masks(segmentation, diagnosis.images, run.profile, run.store)
features = lesion_features(diagnosis.images, masks, [name], run.profile, run.store)[name]
reduced = reduce(features, run.profile.n_components)
trained = project_all({name: reduced}, run.profile, run.store)[name]
spaces = {"kmedoids": reduced, "dmh": [one.embedding for one in trained]}
predicted = {m: diagnose(space, m, diagnosis, run.profile, run.store)[0]["predicted"] for m, space in spaces.items()}

# %% [markdown]
# ## Figure · Where the lesions lie
#
# We expect the fovea 2.65 DD from the disc, 5.6 degrees below the horizontal, and look for a dark spot within 0.75 DD of that point, the closer the better. For synthetic photographs the disc is given, not found, and the true fovea is known.

# %% alt="Outlines of the lesions found in four photographs, with the disc, the fovea, and a circle of one disc diameter around it."
with_disc = finds_disc(segmentation, run.profile)
maculae = find_all(diagnosis, masks, run.profile, run.store, with_disc)
zones = zone_table(masks, maculae)
missed = fovea_error(maculae, diagnosis)
located = f"Disc found in {np.mean([one.found for one in maculae]):.0%} of {len(diagnosis)} photographs"
located += f"; median distance of the fovea found from the true one {np.median(missed):.2f} DD." if len(missed) else "."
display(Markdown(located))
fig, axes = plt.subplots(1, 4, figsize=(8, 2.6))
for ax, row in zip(axes, np.linspace(0, len(diagnosis) - 1, 4).astype(int), strict=True):
    draw_macula(ax, diagnosis.images[row], masks[row], maculae[row], diagnosis.table["image_id"][row])
outline_legend(fig, {lesion: segmentation.lesion_notes.get(lesion, DISPLAY[lesion]) for lesion in LESIONS})
run.save_figure(fig, "fig_macula", shows_images=True)

# %% [markdown]
# ## What do the lesions tell us without a backbone?
#
# The rows are k-medoids on features of the whole image; on features of the four lesions, all weights 1; on nothing but the areas of hard exudates, microaneurysms, and hemorrhages, over the whole image and by distance from the fovea; and the clinical rule itself. Labels only decide which cluster stands for which class; the rule does not need them even for that. Differences are relative to the whole image, in balanced accuracy: the mean of the accuracies in the two classes, here equal to the accuracy. `p adjusted` (Benjamini and Hochberg) corrects for the number of rows and decides the verdict.

# %%
whole = reduce(image_features(diagnosis.images, name, run.profile, run.store), run.profile.n_components)
lesions = predicted["kmedoids"][0]
channel = areas.lesion_channel(whole, lesions, masks, zones, diagnosis, run.profile)
reached = ", ".join(f"{row.accuracy:.2f} ({row.clustered})" for row in channel.itertuples())
run.answer(f"Accuracy without labels: {reached}; N = {len(diagnosis)}.")
show(run.save_table(channel, "table_lesion_channel"), f"{DISPLAY[name]}, no labels used", best={"accuracy": "max"})

# %% [markdown]
# ## Figure · Paper versus ours
#
# Accuracy with its 95 % interval for each row of the table above, none of which was fitted to labels. The dotted line is the paper's 0.8411, for which the lesion weights were chosen on the labels.

# %% alt="Accuracy with intervals of k-medoids on whole images, on lesion features, and on lesion areas, and of the clinical rule; the paper's accuracy as a dotted line."
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
plots.forest(ax, channel, channel["clustered"], paper=published.TEXT["accuracy"].value, guessing=0.5)
ax.set_xlabel(f"accuracy (n = {len(diagnosis)})")
run.save_figure(fig, "fig_channel")

# %% [markdown]
# In the open profile, the network was trained partly on photographs graded as free of retinopathy (from other patients), so diagnoses did play a part. Here is the same comparison with a network that has seen none of them:

# %%
unaware = replace(segmentation, healthy=None)
if segmentation.healthy is not None and run.profile.masks == "joint":
    masks_unaware = lesion_masks(unaware, diagnosis.images, run.profile, run.store, keeps=False)
    features_unaware = lesion_features(diagnosis.images, masks_unaware, [name], run.profile, run.store)[name]
    space = reduce(features_unaware, run.profile.n_components)
    found = diagnose(space, "kmedoids", diagnosis, run.profile, run.store)[0]["predicted"][0]
    zones_unaware = zone_table(masks_unaware, find_all(diagnosis, masks_unaware, run.profile, run.store, with_disc))
    channel_unaware = areas.lesion_channel(whole, found, masks_unaware, zones_unaware, diagnosis, run.profile)
    run.save_table(channel_unaware, "table_lesion_channel_unaware")
    display(show(channel_unaware, "The same with a network that saw no healthy eyes", best={"accuracy": "max"}))

# %% [markdown]
# ## Edema, or any retinopathy?
#
# The classes may differ in more than edema: most of SRahim's negatives have no retinopathy at all, while all of its positives have some. The first table shows what share of each kind of eye is classified correctly; the last shows how well each measure ranks the eyes with edema above all others and, in the `dr` columns, above eyes with retinopathy but *without* maculopathy. `label rule` says where the label comes from (in `open`, the folder's grade); `features`, `areas`, and `rule` are the methods; `nearness` is 1 / (1 + distance in DD from the fovea to the nearest exudate); `severity` is the mean of the standardized log areas. The phantoms have no such grades.

# %%
kinds_of = diagnosis.table.assign(
    features=lesions == diagnosis.labels,
    areas=areas.group_by_areas(areas.log_areas(masks)).more == diagnosis.labels,
    rule=areas.rule(zones) == diagnosis.labels,
)
kinds = kinds_of.groupby(["label", "label_rule"]).agg(
    n=("areas", "size"), **{column: (column, "mean") for column in ("features", "areas", "rule")}
)
show(run.save_table(kinds.reset_index(), "table_4_by_kind"), "Share of each kind of eye classified correctly")

# %% [markdown]
# If every method disagrees with a label, the label may be wrong or the eye unusual. The table counts the images that all label-free methods assign to the other class (lesion features, DMH in at least half of its seeds, areas, rule); those that a supervised model of [03](03_supervised.ipynb) that has not seen the patient confidently contradicts (Northcutt et al. 2021); and those to which both apply.

# %%
if run.profile.name != "folder":
    sides = kinds_of[["features", "areas", "rule"]]
    sides = sides.assign(dmh=(predicted["dmh"] == diagnosis.labels).mean(axis=0) > 0.5)
    classifiers = pretrained(run.profile.classifiers, run.profile)
    classifier = name if name in classifiers else classifiers[0]
    folds = enumerate(deal(diagnosis, run.profile)["cross-validation"])
    trainings = {(classifier, "cross-validation", fold): part for fold, part in folds}
    probability = predict(trainings, run.profile, run.store).set_index("image_id")["probability"]
    confident = contradicted(diagnosis.labels, probability[diagnosis.table["image_id"]].to_numpy())
    doubted = kinds_of.assign(**{"all without labels": ~sides.any(axis=1), "supervised": confident})
    doubted["both"] = doubted["all without labels"] & confident
    doubted = doubted.groupby(["label", "label_rule"])[["all without labels", "supervised", "both"]].sum()
    doubted.insert(0, "n", kinds_of.groupby(["label", "label_rule"]).size())
    doubted = run.save_table(doubted.reset_index(), "table_4_doubted")
    display(show(doubted, "Images of each kind whose label the methods contradict"))

# %%
ranked = areas.feature_aucs(masks, zones, diagnosis, run.profile)
show(run.save_table(ranked, "table_zones"), "Area under the ROC curve", {"auc": "max", "dr_auc": "max"})

# %% [markdown]
# ## All labeled photographs
#
# The same comparison without cutting the larger class to the size of the smaller one. Accuracy says little here: giving the larger class to all photographs scores well (the last row, if the classes differ in size). Compare the balanced accuracy, where that is worth 0.5. In `open` it uses the network that has seen no healthy eyes, since the other network was trained on the photographs that are added here.

# %%
natural = all_labeled(run.profile, run.store)
masks_natural = lesion_masks(unaware, natural.images, run.profile, run.store, keeps=False)
zones_natural = zone_table(masks_natural, find_all(natural, masks_natural, run.profile, run.store, with_disc))
features_natural = lesion_features(natural.images, masks_natural, [name], run.profile, run.store)[name]
space = reduce(features_natural, run.profile.n_components)
found = diagnose(space, "kmedoids", natural, run.profile, run.store)[0]["predicted"][0]
whole_natural = reduce(image_features(natural.images, name, run.profile, run.store), run.profile.n_components)
channel_natural = areas.lesion_channel(whole_natural, found, masks_natural, zones_natural, natural, run.profile)
share = f"{natural.labels.mean():.0%} of {len(natural)} with DME"
show(run.save_table(channel_natural, "table_natural"), share, best={"balanced_accuracy": "max"})

# %% [markdown]
# **Limits.** Labels decide which cluster stands for which class, so guessing scores slightly above 0.5. In `open` these photographs were scored after every change of the lesion network, and healthy eyes were added to its training after looking at some of them ([docs/results.md](../docs/results.md)): the accuracies are not those of a first look. The rule is the graders' own, so photographs graded by it cannot test it. If the network finds no disc, there is no fovea and there are no zones.

# %% [markdown]
# ## Checks

# %%
side = masks.shape[-1]
for row in np.linspace(0, len(diagnosis) - 1, 5).astype(int):
    if maculae[row].found:
        y, x = np.nonzero(masks[row, 0])
        (top, left), unit = maculae[row].fovea, maculae[row].diameter_px
        away = np.hypot(y - top, (x - left) * maculae[row].aspect) / unit
        inside = np.sum(away <= 1) * maculae[row].aspect / (np.pi * unit**2 / 4)
        assert np.isclose(inside, areas.within_1_dd(zones, "hard_exudates")[row])
assert channel["n"].eq(len(diagnosis)).all() and channel_natural["n"].eq(len(natural)).all()

# %% [markdown]
# This was the last notebook. The [README](../README.md#what-came-out) has all results in one table.
