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
# # 01 · What are we looking at? The cohort
#
# Diabetic macular edema (DME) is swelling of the central retina (the macula) caused by diabetes. Fundus photographs show the back of the eye and the lesions of diabetic retinopathy: bright ones (hard and soft exudates) and red ones (microaneurysms, hemorrhages). A *profile* is one combination of data and settings. `synthetic`: eyes painted by code, here called phantoms, which anyone can generate; `open`: IDRiD and SRahim, two public collections of photographs; `paper`: the paper's six sources.
#
# **Question.** Which photographs are in the study, which patients do they come from, what is annotated on them, and how are they split?
#
# | | |
# | --- | --- |
# | Paper | Section 3.1 |
# | Reads | the profile's sources (`data/README.md`) |
# | Writes | `cohort_segmentation`, `cohort_diagnosis`, `table_cohort`, `table_left_out`, `table_confounds`, `table_lost_area`, `table_cohort_versus_paper` (csv, md); `fig_cohort`, `fig_lesion_area`, `fig_examples` |
# | Needs | synthetic: 9 s, 1.2 GB · open: 1 min, 1.8 GB; on two CPU cores, `run.json` |
#
# We build two cohorts. The **segmentation cohort** has lesion masks; the networks of notebook 02 are trained on it. The **diagnosis cohort** has one DME label per image; notebooks 03 to 05 diagnose it. In the synthetic profile both cohorts are the same images, as in the paper. In the open profile they are IDRiD (masks, no labels) and SRahim (labels, no masks), because we found no open data set that has both for the same photographs. SRahim's label is maculopathy as graded on the photograph (the name of the folder), not edema as measured by optical coherence tomography; these notebooks call it DME.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import numpy as np
import pandas as pd
from ruranet_utils.data.decoding import AREAS, LOSSES
from ruranet_utils.data.duplicates import confounds
from ruranet_utils.data.splits import balance
from ruranet_utils.profiles import ANNOTATIONS, DISPLAY
from ruranet_utils.published import TEXT
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.figures import PALETTE
from ruranet_utils.reporting.tables import show
from ruranet_utils.running.start import start

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## The merge
#
# Each photograph is cropped to the square around its field of view, so that no pixels are wasted on the black border (`crop_field`; off in the profile `paper`, which squeezes the whole photograph, as the paper does), and resized with bicubic interpolation. A mask pixel is set if the lesion covers at least a quarter of it, so that microaneurysms do not vanish. Splits are by patient, not by image: both eyes of a patient always end up in the same split. The splits below are for segmentation; in `open` its network is trained on the validation images, too. For diagnosis, notebook 03 makes its own splits, and notebooks 04, 05, and 10 cluster all images.

# %%
segmentation, diagnosis = run.cohorts
_ = run.save_table(segmentation.manifest(), "cohort_segmentation")
_ = run.save_table(diagnosis.manifest(), "cohort_diagnosis")
shown = {"segmentation": segmentation.table, "diagnosis": diagnosis.table}
if segmentation.healthy is not None:  # teach the networks what an eye without lesions looks like
    shown["segmentation, healthy eyes"] = segmentation.healthy.table.assign(split="train")
together = pd.concat([table.assign(cohort=name) for name, table in shown.items()], ignore_index=True)
together["label"] = together["label"].map({0: "no DME", 1: "DME"}).fillna("not graded")
by = [together[name] for name in ("cohort", "source", "camera", "label")]
counts = pd.crosstab(by, together["split"]).reindex(columns=["train", "val", "test"], fill_value=0)
counts = counts.assign(total=counts.sum(axis=1)).rename_axis(columns=None).reset_index()
n_patients, n_masked = len(np.unique(diagnosis.patients)), len(segmentation)
run.answer(
    f"{len(diagnosis)} photographs of {n_patients} patients for diagnosis, {n_masked} with masks; by split below."
)
show(run.save_table(counts, "table_cohort"), "Images by cohort, source, camera, label, and split")

# %% [markdown]
# ## Figure · Which camera took which class?
#
# Within a cohort, compare the bars of each camera: if they all have the same label, a method that recognizes the camera passes for one that recognizes the disease. The accuracy that this would give is measured below.

# %% alt="Stacked horizontal bars: how many images of each cohort, camera, and label are in the training, validation, and test sets."
bars = counts.set_index(["cohort", "camera", "label"])[["train", "val", "test"]]
bars.index = [" · ".join(key) for key in bars.index]
ax = bars.iloc[::-1].plot.barh(stacked=True, figsize=(7, 0.7 + 0.45 * len(bars)), color=list(PALETTE[:3]), width=0.7)
ax.set(xlabel="images", ylabel="")
ax.legend(ncol=3, loc="lower center", bbox_to_anchor=(0.4, 1))
run.save_figure(ax.figure, "fig_cohort")

# %% [markdown]
# ## What was left out
#
# Duplicate photographs, identical byte for byte or by perceptual hash (a few bits that survive resizing and resaving), are kept once; if their labels contradict each other, all of them are dropped.

# %%
audits = [cohort.audit for cohort in (segmentation, diagnosis) if cohort.audit is not None]
audit = pd.concat(audits or [diagnosis.manifest().assign(dropped="", duplicate_of="")]).drop_duplicates(
    ["source", "image_id"]
)
names, used = (table["source"] + "/" + table["image_id"] for table in (audit, segmentation.table))
left_out = audit[(audit["dropped"] != "") & ~names.isin(used)]
left_out = left_out[["source", "image_id", "label", "dropped", "duplicate_of"]]
show(run.save_table(left_out, "table_left_out"), f"{len(left_out)} of {len(audit)} images were left out")

# %% [markdown]
# ## What predicts the label without looking at the retina?
#
# If an image's source or camera predicts its label, recognizing the camera can pass for a diagnosis. The profile `paper` uses only graded photographs (`negatives = "graded"`); the rows below it show the paper's mixture, in which photographs from other sources are *assumed* to be free of edema. `known` is what is used to guess the label and `groups` how many values it has. `cramers v` is the strength of the association, from 0 to 1; `p value` is from a chi-squared test that counts images, not patients, and is therefore too small. `accuracy` is the accuracy of giving each image the majority label of its group, `guessing` that of giving every image the majority label of the whole cohort. **Read this table before believing Table 4.**

# %%
known = audit[audit["label"].notna() & (audit["dropped"] == "")]
tables = {"this run": diagnosis.table}
if known.get("assumed", pd.Series(False)).any():
    mixtures = {"graded negatives": known[~known["assumed"]], "assumed negatives": known}
    tables |= {name: balance(table, None, seed) for name, table in mixtures.items()}
told = pd.concat(map(confounds, tables.values()), keys=tables, names=["cohort", None]).reset_index(level="cohort")
show(run.save_table(told, "table_confounds"), "Confounds of the diagnosis cohort")

# %% [markdown]
# ## Figure · What the images look like
#
# Eight images, four of each class if there are labels, with outlines of the lesions that are annotated. Images of patients are shown here but never saved where git would pick them up.

# %% alt="Eight fundus images in two rows, four with and four without DME if there are labels, with the outlines of their lesions in a different color for each kind."
has_masks = diagnosis if diagnosis.masks is not None else segmentation
kinds = (has_masks.manifest()[AREAS].fillna(0) > 0).sum(axis=1)
shown = has_masks.table.assign(kinds=kinds, group=has_masks.table["label"].fillna(-1))
shown = shown.sort_values("kinds", ascending=False, kind="stable")
shown = shown.groupby("group").head(8 // shown["group"].nunique()).sort_values("group", ascending=False, kind="stable")
titles = shown["image_id"] + "\n" + shown["label"].map({0: "no DME", 1: "DME"}).fillna("not graded")
outlines = has_masks.masks if has_masks.masks is not None else [None] * len(has_masks)
photographs = [(has_masks.images[row], outlines[row], titles[row]) for row in shown.index]
names = {name: has_masks.lesion_notes.get(name, DISPLAY[name]) for name in has_masks.annotated}
run.save_figure(plots.outlined(photographs, names), "fig_examples", shows_images=True)

# %% [markdown]
# ## Figure · How much of an image does each kind of lesion cover?
#
# Small lesions are hard to segment: all microaneurysms of an image together cover only a few pixels. Area is not everything: in the phantoms, edema covers the largest area but has the least contrast ([02](02_backbone_study.ipynb)).

# %% alt="Box plots on a logarithmic axis: the share of an image that each kind of lesion covers, from well below one percent to a few percent."
names = [segmentation.lesion_notes.get(name, DISPLAY[name]).capitalize() for name in ANNOTATIONS]
area = segmentation.manifest()[AREAS].astype(float) / run.profile.image_size_px**2 * 100
run.save_figure(plots.lesion_areas(area.set_axis(names, axis=1)), "fig_lesion_area")

# %%
lost = segmentation.table.reindex(columns=LOSSES).astype(float).mul(100).agg(["mean", "max"]).T
lost = lost.set_axis(ANNOTATIONS).rename_axis("lesion").reset_index()
show(
    run.save_table(lost, "table_lost_area"),
    "Annotated area lost by resizing the masks (% of the area in each image; none in synthetic images)",
)

# %% [markdown]
# ## Paper versus ours
#
# We cannot tell which images the paper used: its six sources contain thousands of photographs, only one of the sources has DME grades, and none annotates edema on fundus photographs. The last row says what "edema" means in this run.

# %%
ours = {
    "images for diagnosis": (TEXT["n_patients"].value, len(diagnosis)),
    "with DME": (TEXT["n_positive"].value, int((diagnosis.table["label"] == 1).sum())),
    "without DME": (TEXT["n_negative"].value, int((diagnosis.table["label"] == 0).sum())),
    "patients": (302, n_patients),
    "images with lesion masks": (302, int(segmentation.manifest()[AREAS[0]].notna().sum())),
    "image side (px)": (TEXT["image_size_px"].value, run.profile.image_size_px),
    "train : val : test": ("8 : 1 : 1", " : ".join(f"{10 * part:g}" for part in run.profile.split)),
    "sources": (TEXT["n_sources"].value, counts["source"].nunique()),
    "edema masks": ("“edema regions”", segmentation.lesion_notes.get("edema", "exact, painted")),
}
rows = [(name, str(paper), str(here)) for name, (paper, here) in ours.items()]
versus = pd.DataFrame(rows, columns=["quantity", "paper", "ours"])
show(run.save_table(versus, "table_cohort_versus_paper"), "Cohort: paper versus ours")

# %% [markdown]
# **Limits.** If a source does not identify its patients, each photograph counts as a patient. A perceptual hash finds copies of a photograph, not the same eye on another day. The phantoms are painted, perfectly annotated, and cleaner than any clinical photograph: they test the code, not the medicine.

# %% [markdown]
# ## Checks

# %%
for cohort in (segmentation, diagnosis):
    assert cohort.table.groupby("patient_id")["split"].nunique().max() == 1, "a patient is in two splits"
    assert cohort.table["image_id"].is_unique and set(cohort.table["split"]) <= {"train", "val", "test"}
assert len(set(diagnosis.table["label"].value_counts())) <= 1, "the classes differ in size"

# %% [markdown]
# Next: [02 · Which encoder finds which lesion?](02_backbone_study.ipynb)
