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
# # 09 · What does the method see in my own photographs?
#
# **Question.** Which lesions does the method find in a folder of photographs, which two groups do the photographs fall into, and which of them show the most lesions? Neither masks nor labels are needed.
#
# | | |
# | --- | --- |
# | Paper | Sections 2.1 and 2.2, Eq. 1 to 6 |
# | Reads | the diagnosis cohort of notebook 01; the models of notebook 02 |
# | Writes | `clusters`, `table_clusters`, `table_lesions_found` (csv, md); `fig_clusters`; `fig_lesions_found` |
# | Needs | synthetic: 9 s, 1.7 GB · open: 2 min, 6.4 GB; on two CPU cores, `run.json` |
#
# In the profile `folder` these are your photographs ([docs/own_images.md](../docs/own_images.md)). In the other profiles they are the cohort that notebooks 03 to 05 diagnose, whose labels only score the two groups. **Research only: a cluster is not a diagnosis.**

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import numpy as np
import pandas as pd
from ruranet_utils.clustering.areas import SORTED_BY, group_by_areas, log_areas, within_1_dd
from ruranet_utils.clustering.study import label_free_clusters, project, score
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.macula import find_all, zone_table
from ruranet_utils.features.reduction import reduce
from ruranet_utils.networks.weights import find_weights, reference_backbone
from ruranet_utils.profiles import DISPLAY, LESIONS
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.tables import show
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.model_file import load_all
from ruranet_utils.segmentation.study import finds_disc, lesion_masks
from ruranet_utils.storage import paths
from sklearn.metrics import silhouette_samples

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Lesions
#
# The networks are this project's, unless you have masks of your own to train on. `iou` is the score of a network on the test images of its own data set, which it was not trained on; on photographs from another camera it may do worse, so look at the figure before using a number. A photograph counts as having a lesion if a single pixel was found, correctly or not.

# %%
segmentation, photographs = run.cohorts
masks = lesion_masks(segmentation, photographs.images, run.profile, run.store)
area = pd.DataFrame(100 * masks.mean(axis=(2, 3)), columns=LESIONS)
trained_by = {
    lesion: run.profile.name if lesion in segmentation.annotated else run.profile.models for lesion in LESIONS
}
cards = pd.concat(
    load_all(paths.models(trained_by[lesion]), [lesion])[lesion].table.query("lesion == @lesion") for lesion in LESIONS
)
shows = dict(
    zip(LESIONS, cards["note"].str.capitalize().where(cards["note"] != "", cards["lesion"].map(DISPLAY)), strict=True)
)
found = pd.DataFrame(
    {
        "lesion": LESIONS,
        "photographs with any pixel": (area > 0).sum().to_numpy(),
        "n": len(photographs),
        "median area (%)": area.where(area > 0).median().to_numpy(),
    }
).merge(cards[["lesion", "encoder", "trained on", "iou", "note"]])
show(run.save_table(found, "table_lesions_found"), "What the networks find")

# %% [markdown]
# ## Two groups
#
# `areas` is the one to use: k-medoids on the logarithm of the areas of hard exudates, microaneurysms, and hemorrhages, which [10](10_lesions_alone.ipynb) compares with deep features. `kmedoids` and `dmh` are the paper's methods: features of the masked photographs, reduced by PCA, all lesion weights 1, without and with projection heads (of the first seed; [04](04_clustering.ipynb) has ten). The silhouette, in [-1, 1], says how well separated the two groups are; near 0, a single cloud was cut in two.

# %%
backbone = reference_backbone(run.profile)
features = lesion_features(photographs.images, masks, [backbone], run.profile, run.store)[backbone]
reduced = reduce(features, run.profile.n_components)
by_area = log_areas(masks)
groups = group_by_areas(by_area)
spaces = {"kmedoids": reduced, "dmh": project(reduced, run.profile, run.store).embedding}
found_by = {"areas": (groups.more.astype(int), by_area)}
found_by |= {m: label_free_clusters(space, m, run.profile) for m, space in spaces.items()}
clusters, rows = pd.DataFrame({"image_id": photographs.table["image_id"], "severity": groups.severity}), []
for method, (labels, clustered) in found_by.items():
    several = 1 < len(np.unique(labels)) < len(labels)
    more = labels == np.argmax([groups.severity[labels == side].mean() if several else side for side in (0, 1)])
    clusters[method] = np.where(more, "more lesions", "fewer lesions")
    clusters[f"{method} certainty"] = silhouette_samples(clustered, labels) if several else np.nan
    row = {"method": method, "more lesions": more.sum(), "fewer lesions": (~more).sum(), "n": len(more)}
    row |= {"silhouette": clusters[f"{method} certainty"].mean()}
    row |= {"weights": "none" if method == "areas" else find_weights(backbone, run.profile).origin}
    if photographs.labeled:
        scores = score(clustered, labels, photographs)
        row |= {name: scores[name] for name in ("accuracy", "accuracy_low", "accuracy_high")}
    rows.append(row)
n_more = (clusters["areas"] == "more lesions").sum()
run.answer(f"{n_more} of {len(clusters)} photographs fall into the group with more lesions.")
show(run.save_table(pd.DataFrame(rows), "table_clusters"), f"Two groups; features of {DISPLAY[backbone]}")

# %% [markdown]
# `clusters.csv` lists the photographs from most to fewest lesions. Its columns are `severity`, the mean of the standardized log areas; the group that each method assigns and how certain it is (a silhouette; below 0 means closer to the other group); the area of each lesion in percent of the photograph; and, if the optic disc was found, the area of each lesion within one disc diameter (DD) of the fovea, in disc areas, and the distance from the fovea to the nearest exudate, in DD.

# %%
maculae = find_all(photographs, masks, run.profile, run.store, finds_disc(segmentation, run.profile))
zones = zone_table(masks, maculae)
for lesion in SORTED_BY:
    clusters[f"{lesion} within 1 DD"] = within_1_dd(zones, lesion)
clusters["nearest exudate (DD)"] = zones["hard_exudates nearest"].replace(np.inf, np.nan)
listed = clusters.join(area.add_suffix(" (%)")).sort_values("severity", ascending=False, kind="stable")
listed = run.save_table(listed, "clusters")
show(listed.head(10), f"The first 10 of {len(listed)} rows of clusters.csv")

# %% [markdown]
# ## Figure · The two groups
#
# Top: every photograph by its severity and by how certain its group is. Look along the horizontal axis: a gap suggests two groups; points without a gap are one cloud that was cut in two. Certainty is low near the cut in either case. Bottom: the area that each lesion covers.

# %% alt="Top, every photograph as a point by severity and certainty, colored by group; bottom, the area of each lesion in every photograph as a tick, by group."
order = ["fewer lesions", "more lesions"]
run.save_figure(plots.groups(clusters, area.rename(columns=shows), order), "fig_clusters")

# %% [markdown]
# ## Figure · The most typical photographs of each group
#
# The photographs whose group is most certain, more lesions on top, fewer at the bottom, with outlines of what was found. The outlines may be wrong: poorly trained networks mistake the bright optic disc for exudates. Photographs of patients are shown here but saved only where git does not look.

# %% alt="Eight photographs with the outlines of the lesions found in them: top, four from the cluster with more lesions; bottom, four from the one with fewer."
typical = [
    row
    for group in reversed(order)
    for row in clusters[clusters["areas"] == group].nlargest(4, "areas certainty").index
]
titles = photographs.table["image_id"] + "\n" + clusters["areas"]
rows = [(photographs.images[row], masks[row], titles[row]) for row in typical]
run.save_figure(plots.outlined(rows, shows), "fig_lesions_found", shows_images=True)

# %% [markdown]
# ## Paper versus ours
#
# The paper reports an accuracy of 0.84 on photographs it does not identify. Only labels can tell what the two clusters mean for yours: with a `labels.csv`, notebooks 03, 04, 08, and 10 run as well, and Table 4 says how well clusters and labels agree.
#
# **Limits.** The networks only know the cameras they were trained on: in `open` one for lesions and one for healthy eyes, in `synthetic` two painted ones. The clusters are fitted to the photographs at hand, and there are always two, whether or not there are two kinds of photographs: a silhouette near 0 gives no reason to believe in two.

# %% [markdown]
# ## Checks

# %%
assert masks.shape == (len(photographs), len(LESIONS), *photographs.images.shape[2:])
assert len(listed) == len(photographs) and listed["image_id"].is_unique

# %% [markdown]
# Next: [10 · What do the lesions tell us on their own?](10_lesions_alone.ipynb) To lay out your folder, see [docs/own_images.md](../docs/own_images.md).
