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
# # 08 · Diagnosis or camera? The source confound
#
# **Question.** The paper merges six data sets. If one class comes mostly from one of them, a method can find the class by recognizing the camera. How much accuracy does that give, without looking at a single lesion? And which other ingredient of the released code could explain an accuracy of 0.84?
#
# | | |
# | --- | --- |
# | Paper | Section 3.1 (six sources, 151 + 151 images, sources of each class not stated); accuracy 0.8411, abstract |
# | Reads | synthetic: eyes painted here; open: both cohorts, lesion models as in notebook 02 and three more for the folds |
# | Writes | `table_confound`, `table_confound_cohorts`, `table_confound_camera`, `table_confound_versus_paper`, `table_ladder` (csv, md); `fig_confound`, `fig_confound_camera`, `fig_confound_photographs`, `fig_ladder` |
# | Needs | synthetic: 1 min, 3.1 GB · open: 32 min, 6.4 GB; on two CPU cores, `run.json` |
#
# If class and camera agree in a share $q$ of the images, a method that looks only at the camera reaches
#
# $$\text{accuracy}_{\text{camera}} = \max(q, 1 - q)$$
#
# That is 0.5 if class and camera are independent (untied), 0.75 if they are tied 3 : 1, and 1 if each class has its own camera.
#
# We run the same methods on cohorts that differ in which camera photographed whom; in `open` they then differ in who was photographed, too. Every cohort also comes **without its lesions**. A method that still finds the class there does not use the lesions.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
from ruranet_utils import published
from ruranet_utils.evidence.confound import (
    SUPERVISED,
    TRANSFERRED,
    camera_from_features,
    diagnose_cohort,
    make_pool,
    pool_features,
)
from ruranet_utils.evidence.ladder import climb
from ruranet_utils.networks.weights import find_weights, reference_backbone
from ruranet_utils.profiles import DISPLAY, METHODS
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.tables import show
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.study import lesion_masks
from ruranet_utils.storage.progress import progress

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## The cohorts
#
# - `synthetic`: each eye is painted once and photographed by cameras A and B, so the three cohorts show the *same eyes*, and only the camera differs. Untied: class and camera are independent, and B photographs half of each class. Partly tied: B photographs three quarters of class 1 and one quarter of class 0. Fully tied: B photographs class 1 and nobody else. Without lesions: the same eye painted without them, so no trace of them is left. The lesion features use the painted masks, not predicted ones, so their accuracies are higher than in [04](04_clustering.ipynb).
# - `open`: we replace none, half, or all of SRahim's positives with IDRiD photographs, all of which show lesions but have no edema grade; class 0 always comes from SRahim. Untied: SRahim alone, one camera. Without lesions: what the models found and what IDRiD's graders drew is filled in from its surroundings (biharmonic inpainting). Each photograph is also inpainted where a photograph of the other source has lesions, so that the inpainting does not give away the source. The lesions are found by networks that saw no healthy eyes of SRahim as counterexamples, and in IDRiD's training photographs out of fold: no network segments what it was trained on.
# - `paper`: class 0 consists of graded IDRiD photographs alone, or of the mixture in which photographs from other sources are assumed to be free of edema.

# %%
segmentation, diagnosis = run.cohorts
pool = make_pool(segmentation, diagnosis, run.profile, run.store)
table = pool.photographs.table
counts = pd.concat([table.iloc[rows].assign(cohort=name) for name, rows in pool.cohorts.items()])
counts = counts.groupby(["cohort", "label", "camera"], sort=False)["patient_id"].agg(n="size", patients="nunique")
show(run.save_table(counts.reset_index(), "table_confound_cohorts"), "Images of each class and camera")

# %% [markdown]
# ## Figure · What the controls look like
#
# One eye for each camera, of class 1 if that camera has any, with and without its lesions.

# %% alt="One row of pictures for each camera: an eye as it is on the left, without its lesions on the right."
shown = {camera: rows["label"].astype(int).idxmax() for camera, rows in table.groupby("camera", sort=False)}
fig = plots.with_and_without(pool.photographs.images, pool.cleaned, shown)
run.save_figure(fig, "fig_confound_photographs", shows_images=True)

# %% [markdown]
# ## Is the camera in the features?
#
# A logistic regression identifies the camera from the features, among images of class 1 alone, so that the class cannot help; it is cross-validated over patients. An AUC of 0.5 is chance. Lesion features see little of the image but still carry part of the camera: colors, sharpness, and, on real images, which lesions were found and the optic disc (which is what the mask called edema shows in `open`). `n` counts the images, `n second` those of the second camera.

# %%
backbone = reference_backbone(run.profile)
weights = find_weights(backbone, run.profile).origin
features = pool_features(pool, backbone, run.profile, run.store)
camera = camera_from_features(pool, features, run.profile).assign(backbone=backbone, weights=weights)
show(run.save_table(camera, "table_confound_camera"), "Area under the ROC curve for identifying the camera")

# %% [markdown]
# ## Figure · How well can the camera be identified?
#
# The farther a point lies to the right of the dotted line, the better a method could recognize the camera instead of the disease.

# %% alt="Area under the ROC curve for identifying the camera from lesion features, from whole images, and from images without their lesions, with intervals; a dotted line marks chance."
fig, ax = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
plots.forest(ax, camera, camera["seen"], "auc", guessing=0.5)
ax.set(xlabel="AUC for identifying the camera", xlim=(0.4, 1.02))
run.save_figure(fig, "fig_confound_camera")

# %% [markdown]
# ## Accuracy of every method in every cohort
#
# The clusterings and DMH see no labels (all lesion weights are 1); DMH, the mean of ten seeds, needs lesions, so it has no row without them. Logistic regression is the supervised method, cross-validated over patients; *the same models* are then scored on the untied cohort's images of the same held-out patients. Two clusters matched to two classes score slightly above 0.5 by chance.

# %%
rows = []
for cohort in progress(pool.cohorts, desc="cohorts", unit="cohort"):
    for seen, values in features.items():
        for method, scored in diagnose_cohort(values, pool, cohort, run.profile, run.store).items():
            rows.append({"cohort": cohort, "seen": seen, "method": method, **scored})
scores = pd.DataFrame(rows)
blind = scores[(scores["seen"] == "lesions removed") & scores["method"].isin(METHODS)]
most = ", ".join(
    f"{one:.2f} ({cohort})" for cohort, one in blind.groupby("cohort", sort=False)["accuracy"].max().items()
)
n_images = len(next(iter(pool.cohorts.values())))
run.answer(f"The best clustering *without lesions* reaches an accuracy of {most}; N = {n_images} in each cohort.")
wide = scores.pivot_table(index=["seen", "method"], columns="cohort", values="accuracy", sort=False)
show(wide.reset_index(), f"Accuracy, {DISPLAY[backbone]}, {n_images} images in each cohort")

# %% [markdown]
# ## Figure · Accuracy by how closely class and camera are tied
#
# Top: what the method is made for. Lesions reveal the class where the camera does not, and the tie adds accuracy for most methods. Middle: whole images. Bottom: images without lesions, so any rise there comes from the camera (in `open` also from who was photographed, and from what inpainting leaves). The dotted line is the paper's 0.84. The dashed line is the same supervised models scored where class and camera are untied: what they learned from the camera is worth nothing there. The 95 % intervals are over patients, for DMH also over its ten seeds, and not adjusted for the number of comparisons.

# %% alt="Three panels, for lesions, whole images, and images without lesions: the accuracy of every method where class and camera are untied, partly tied, and fully tied, with the paper's 0.84 as a dotted line."
labels = {method: DISPLAY.get(method, method) for method in (*METHODS, SUPERVISED)}
labels[TRANSFERRED] = "logistic regression, scored on untied"
fig = plots.confounds(scores, labels, published.TEXT["accuracy"].value)
run.save_figure(fig, "fig_confound")

# %% [markdown]
# ## Paper versus ours
#
# The accuracy that the paper's abstract calls its maximum, that of DMH on lesion features, next to each of ours. `above` counts the label-free methods that reach or exceed it.

# %%
table = scores.rename(columns={"accuracy": "accuracy ours"}).assign(backbone=backbone, weights=weights)
table.insert(3, "accuracy paper", published.TEXT["accuracy"].value)
run.save_table(table, "table_confound")
free = table[table["method"].isin(METHODS)].groupby(["seen", "cohort"], sort=False)
ranges = free["accuracy ours"].agg(methods="size", lowest="min", highest="max")
ranges["above"] = free["accuracy ours"].agg(lambda ours: (ours >= published.TEXT["accuracy"].value).sum())
ranges = ranges.assign(**{"accuracy paper": published.TEXT["accuracy"].value}).reset_index()
show(run.save_table(ranges, "table_confound_versus_paper"), "Accuracies of the label-free methods")

# %% [markdown]
# ## Does the released code explain 0.84? One ingredient at a time
#
# The code released with the paper differs from the paper's text, and from our protocol, in the ingredients below. Each row adds one of them to our protocol (k-medoids, all weights 1); the last rows combine them. Differences are relative to our protocol on the same images; `p adjusted` (Benjamini and Hochberg) corrects for their number. All networks are those that saw no healthy eyes, so only the ingredient differs. Two ingredients have no row where they cannot change anything: the sum over the lesions in place of their mean, and GoogLeNet without its own input transformation, unless its weights are torchvision's.
#
# - `inverted disc`: the mask called edema is an optic disc, and the released code inverts it, so this "lesion" covers almost the whole image.
# - `small dropped`: parts of a mask with at most 10 pixels are removed.
# - `pca last`: features are standardized and reduced after the lesions are averaged, not before.
# - `random start`: k-medoids starts at random (mean of ten starts).
# - `agglomerative three clusters`: images in the cluster without a class count as errors.
# - `half of images`: the first half of each class, by file name.
# - `weights by labels`: lesion weights from {0.1, 1, 10} with the highest accuracy on the labels that are scored.
# - `segmentation trained on test images`: lesions found by the networks of the protocol `released` ([02](02_backbone_study.ipynb)).
# - `classes from two sources`: the fully tied cohort. This is our guess about the paper's data, not a choice of its code.
# - `all but the sources`: the others combined, with either clustering. `all, k-medoids` adds the two sources but not the segmentation trained on test images.

# %%
given = replace(segmentation, healthy=None), diagnosis.images, run.profile, run.store
masks = lesion_masks(*given, keeps=segmentation.healthy is None)
of_test = None if run.profile.name == "folder" else lesion_masks(*given, protocol="released")
last = list(pool.cohorts.values())[-1]
tied = pool.photographs.subset(last), pool.masks[last]
ladder = climb(diagnosis, masks, of_test, tied, backbone, run.profile, run.store)
reached = ladder.loc[ladder["accuracy"] >= published.TEXT["accuracy"].value, "protocol"]
finding = f"at or above the paper's {published.TEXT['accuracy'].value}: {', '.join(reached) or 'none'}"
show(run.save_table(ladder, "table_ladder"), f"{DISPLAY[backbone]}; {finding}")

# %% [markdown]
# ## Figure · From our protocol to the released one
#
# The accuracies of the table with their intervals. The table's verdict, not the position of a point, says whether an ingredient raises or lowers the accuracy. An ingredient that reaches the dotted line could explain the paper's accuracy but does not prove that it does. Rows with another n use other images and cannot be compared with the solid line.

# %% alt="Accuracy with its interval of our protocol, of each ingredient of the released one added to it, and of their combinations; the paper's 0.84 as a dotted line."
fig, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
labels = [f"{row.protocol} (n = {row.n})" for row in ladder.itertuples()]
plots.forest(ax, ladder, labels, paper=published.TEXT["accuracy"].value, ours=ladder["accuracy"][0])
run.save_figure(fig, "fig_ladder")

# %% [markdown]
# **Reading.** An accuracy of 0.84 on merged sources is evidence of a diagnosis only if both classes come from the same sources in the same proportions, or if the same accuracy is reached within one source. This does not mean that the paper's method recognizes the camera: its merge cannot be rebuilt from what the paper prints. It means that the printed number cannot tell the two apart. Only one of the six sources grades edema ([data card](../data/README.md)). Notebooks [03](03_supervised.ipynb) to [05](05_ablation.ipynb) measure the diagnosis on cohorts with one camera (`open`) or with cameras independent of the class (`synthetic`).
#
# **Limits.** There are only two cameras; on real images the second source also means another hospital, another population, and another grading rule, and we cannot separate these effects here. The IDRiD photographs show lesions but have no edema grade. Inpainting leaves smooth patches, and lesions that nobody found remain. In `open`, the lesion networks were trained on other photographs of IDRiD, so they may find more lesions there than in SRahim. The lesions of IDRiD's own training photographs come from networks trained on the other two folds, which saw only two thirds of the examples and may find fewer.

# %% [markdown]
# ## Checks

# %%
assert list(camera["seen"]) == list(features) and scores["accuracy"].between(0, 1).all()
sizes = {name: len(rows) for name, rows in pool.cohorts.items()}
assert len(set(sizes.values())) == 1 and scores["n"].isin(sizes.values()).all()
if run.profile.name == "synthetic":
    blind = wide.loc["lesions removed"]
    assert blind.loc[SUPERVISED, "fully tied"] > 0.9 > 0.65 > blind.loc[SUPERVISED, "untied"]
    assert blind.loc[TRANSFERRED, "fully tied"] < 0.65

# %% [markdown]
# Next: [09 · Your own photographs](09_own_images.ipynb)
