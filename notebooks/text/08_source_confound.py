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
# **Question.** The paper merges six data sets. If one class comes mostly from one of them, a method can find the class by finding the camera. How much accuracy is to be had that way, without a look at any lesion? And which other ingredient of the released code could explain an accuracy of 0.84?
#
# | | |
# | --- | --- |
# | Paper | Section 3.1 (six sources, 151 + 151 images, the sources of each class are not stated); accuracy 0.8411, abstract |
# | Reads | synthetic: eyes painted here; open: both cohorts and the lesion models of notebook 02 |
# | Writes | `table_confound`, `table_confound_cohorts`, `table_confound_camera`, `table_confound_versus_paper`, `table_ladder` (csv, md); `fig_confound`, `fig_confound_camera`, `fig_confound_photographs`, `fig_ladder` |
# | Needs | synthetic: 20 s, 1.2 GB · open: 75 s, 2.4 GB once the lesions are found; on two CPU cores, `run.json` |
#
# If class and camera agree in a share $q$ of the images, then whoever looks at nothing but the camera is right in
#
# $$\text{accuracy}_{\text{camera}} = \max(q, 1 - q)$$
#
# of them: 0.5 if they are untied, 0.75 if tied 3 : 1, 1 if each class has its own camera.
#
# The same methods see cohorts that differ in one thing: who was photographed by which camera. And every cohort is there a second time **without its lesions**. What finds the class in those does not find it by the lesions.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # of the profile "folder" alone: where your photographs lie (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import matplotlib.pyplot as plt
import pandas as pd
from ruranet_utils import published
from ruranet_utils.evidence.confound import (
    SUPERVISED,
    TRANSFERRED,
    camera_from_features,
    compare_ties,
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

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## The cohorts
#
# - `synthetic`: each eye is painted once and photographed by cameras A and B, so the three cohorts are the *same eyes*, and only the camera differs. Untied: class and camera are independent, B photographs half of each class; partly tied: three quarters of class 1 and one quarter of class 0; fully tied: class 1 and nobody else. Without lesions: the same eye painted without them, so nothing of them is left. The lesion features use the painted masks, not predicted ones, so their accuracies lie above those of [04](04_clustering.ipynb).
# - `open`: we replace none, half or all of SRahim's positives with IDRiD photographs, all of which show lesions; class 0 is SRahim's. Untied: SRahim alone, one camera. Without lesions: what the models found and what IDRiD's graders drew is filled from the surroundings (biharmonic inpainting). Each of SRahim's photographs is also inpainted at the lesion positions of an IDRiD photograph, so that the inpainting does not tell the source.
# - `paper`: class 0 are graded photographs of IDRiD alone, or the mixture in which those of other sources are assumed free of edema.

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
# An eye by each camera, of class 1 where it has any, and without its lesions.

# %% alt="One eye in four pictures: one row for each camera, left as it is, right without its lesions."
cameras = list(dict.fromkeys(table["camera"]))
fig, axes = plt.subplots(len(cameras), 2, figsize=(6, 3.2 * len(cameras)), squeeze=False)
for pair, camera in zip(axes, cameras, strict=True):
    first = table.loc[table["camera"] == camera, "label"].astype(int).idxmax()
    for ax, images, title in zip(pair, (pool.photographs.images, pool.cleaned), ("", ", lesions removed"), strict=True):
        ax.imshow(images[first].transpose(1, 2, 0))
        ax.set_title(f"camera {camera}{title}", fontsize=11)
        ax.axis("off")
fig.tight_layout()
run.save_figure(fig, "fig_confound_photographs", shows_images=True)

# %% [markdown]
# ## Is the camera in the features?
#
# A logistic regression tells the camera from the features, among images of class 1 alone, so that the class cannot help it; scored in folds of patients. 0.5 is guessing. Lesion features see little of the image, and still hold a part of the camera: colors, sharpness, and on real images which lesions were found and the optic disc (what the mask called edema shows in `open`).

# %%
backbone = reference_backbone(run.profile)
weights = find_weights(backbone, run.profile).origin
features = pool_features(pool, backbone, run.profile, run.store)
camera = camera_from_features(pool, features, run.profile).assign(backbone=backbone, weights=weights)
show(run.save_table(camera, "table_confound_camera"), "Area under the ROC curve of telling the camera")

# %% [markdown]
# ## Figure · How well the camera is told
#
# The further to the right of the dashed line, the better a method could name the camera instead of the disease.

# %% alt="Area under the ROC curve of telling the camera from lesion features, from whole images and from images without their lesions, with intervals; guessing as a dashed line."
fig, ax = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
plots.forest(ax, camera, camera["seen"], "auc", guessing=0.5)
ax.set(xlabel="AUC of telling the camera", xlim=(0.4, 1.02))
run.save_figure(fig, "fig_confound_camera")

# %% [markdown]
# ## Accuracy of every method in every cohort
#
# The clusterings and DMH see no label (lesion weights all 1); DMH needs lesions, so it has no row without them. Logistic regression is the supervised method, scored in folds of patients; then *the same models* are scored on the untied cohort's images of the same held-out patients. Two clusters, matched to two classes, reach a little more than 0.5 by chance.

# %%
scores = compare_ties(pool, features, run.profile, run.store)
blind = scores[(scores["seen"] == "lesions removed") & scores["method"].isin(METHODS)]
most = ", ".join(
    f"{one:.2f} ({cohort})" for cohort, one in blind.groupby("cohort", sort=False)["accuracy"].max().items()
)
run.answer(f"The best clustering of photographs *without lesions* has an accuracy of {most}.")
wide = scores.pivot_table(index=["seen", "method"], columns="cohort", values="accuracy", sort=False)
n_images = len(next(iter(pool.cohorts.values())))
show(wide.reset_index(), f"Accuracy, {DISPLAY[backbone]}, {n_images} images in each cohort")

# %% [markdown]
# ## Figure · Accuracy grows with the tie
#
# Top, what the method is made for: lesions tell the class where the camera does not, and the tie adds to most methods. Middle: whole images. Bottom: no lesion is in them, so what rises there is the camera. The dotted line is the paper's 0.84; the dashed line is that of the same supervised models, scored where class and camera are untied: what they learned from the camera is worth nothing there. 95 % intervals over patients, given the clusters and models, not adjusted for the number of comparisons.

# %% alt="Three panels, from lesions, whole images and images without lesions: the accuracy of every method where class and camera are untied, partly tied and fully tied, with the paper's 0.84 as a dotted line."
labels = {method: DISPLAY.get(method, method) for method in (*METHODS, SUPERVISED)}
labels[TRANSFERRED] = "logistic regression, on the untied"
fig = plots.confounds(scores, labels, published.TEXT["accuracy"].value)
run.save_figure(fig, "fig_confound")

# %% [markdown]
# ## Paper versus ours
#
# The accuracy that the paper's abstract calls its maximum, of DMH on lesion features, beside every one of ours. `above` counts the rows in which a method that sees no label is at or above it.

# %%
table = scores.rename(columns={"accuracy": "accuracy ours"}).assign(backbone=backbone, weights=weights)
table.insert(3, "accuracy paper", published.TEXT["accuracy"].value)
run.save_table(table, "table_confound")
free = table[table["method"].isin(METHODS)].groupby(["seen", "cohort"], sort=False)
ranges = free["accuracy ours"].agg(methods="size", lowest="min", highest="max")
ranges["above"] = free["accuracy ours"].agg(lambda ours: (ours >= published.TEXT["accuracy"].value).sum())
ranges = ranges.assign(**{"accuracy paper": published.TEXT["accuracy"].value}).reset_index()
show(run.save_table(ranges, "table_confound_versus_paper"), "Accuracies of the methods that see no label")

# %% [markdown]
# ## Is 0.84 explained? The released protocol, one ingredient at a time
#
# The code released beside the paper differs from the paper's text, and from our protocol, in the ingredients below. Each row adds one of them to ours (k-medoids, all weights 1); the last rows add all. Differences are to ours on the same images. "Inverted disc": the mask called edema is an optic disc, and the released code inverts it, so that this "lesion" covers almost the whole image.

# %%
masks = lesion_masks(segmentation, diagnosis.images, run.profile, run.store)
of_test = None
if run.profile.name != "folder":
    of_test = lesion_masks(segmentation, diagnosis.images, run.profile, run.store, protocol="released")
last = list(pool.cohorts.values())[-1]
tied = pool.photographs.subset(last), pool.masks[last]
ladder = climb(diagnosis, masks, of_test, tied, backbone, run.profile, run.store)
reached = ladder.loc[ladder["accuracy"] >= published.TEXT["accuracy"].value, "protocol"]
finding = f"at or above the paper's {published.TEXT['accuracy'].value}: {', '.join(reached) or 'none'}"
show(run.save_table(ladder, "table_ladder"), f"{DISPLAY[backbone]}; {finding}")

# %% [markdown]
# ## Figure · From our protocol to the released one
#
# The table's accuracies with their intervals: a row right of the thin line is an ingredient that lifts the score, one at the dotted line explains the paper's.

# %% alt="Accuracy with its interval of our protocol, of each ingredient of the released one added to it, and of all of them; the paper's 0.84 as a dotted line."
fig, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
labels = [f"{row.protocol} (n = {row.n})" for row in ladder.itertuples()]
plots.forest(ax, ladder, labels, paper=published.TEXT["accuracy"].value, ours=ladder["accuracy"][0])
run.save_figure(fig, "fig_ladder")

# %% [markdown]
# **Reading.** An accuracy of 0.84 on a merge of sources is evidence of a diagnosis only if the sources of each class are stated, or the same accuracy is reached within one source. This does not say that the paper's result is a camera: its merge cannot be rebuilt from what it prints. It says that the printed number does not tell the two apart. Of the six sources one grades edema ([data card](../data/README.md)). The diagnosis of notebooks [03](03_supervised.ipynb) to [05](05_ablation.ipynb) is measured on cohorts of one camera (`open`) or independent ones (`synthetic`).
#
# **Limits.** Two cameras; on real images the second source is also another hospital, another population and another rule of grading, which cannot be told apart here. IDRiD's photographs have lesions, not a grade of edema. Inpainting leaves smooth patches, and lesions that nobody found stay. The lesion models of `open` were trained on IDRiD and find more there.

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
