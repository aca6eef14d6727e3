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
# # 04 · Does clustering find DME? Table 4
#
# **Question.** Four clustering methods on the features of eight backbones: does any find the diagnosis without labels, and is the multi-projection head (DMH) the best? What lesions tell without any backbone is in [10](10_lesions_alone.ipynb).
#
# | | |
# | --- | --- |
# | Paper | Sections 2.2 and 3.3, Eq. 2 to 5, Table 4 |
# | Reads | both cohorts of notebook 01, the models of notebook 02 |
# | Writes | `table_4`, `table_4_all_scores`, `table_4_summary`, `table_4_paired`, `table_4_sensitivity`, `table_4_choices` (csv, md); `fig_2_module`, `fig_2_embedding`, `fig_clustering`, `fig_course`, `fig_weights` |
# | Needs | synthetic: 80 s, 3.5 GB · open: 15 min, 3.8 GB; on two CPU cores, `run.json` |
#
# Each image is multiplied by each of its four predicted lesion masks and passed through a backbone without its classifier, which gives features $x_1 \dots x_4$. They are standardized and reduced to 50 principal components $z_1 \dots z_4$ with one basis for all lesions, fitted on the images outside the test split. DMH passes each $z_i$, centered, through a projection head of its own, a perceptron of two layers whose output is scaled to length 1, $f_i = h_i(z_i)$; the other methods cluster $f_i = z_i$. The heads are trained by
#
# $$\mathcal{L} = \mathcal{L}_{div} + \lambda\,\mathcal{L}_{cluster}, \quad \lambda = 0.3 \qquad (3)$$
#
# The first term keeps the heads apart: $S_{ij}$ holds the $N \times N$ cosines between all images seen by head $i$ and all seen by head $j$, the maximum is that of its row $n$, and the $C_4^2 = 6$ pairs of heads that are more alike than the threshold $T$ are penalized. $T$ starts at 0.5, shrinks by 1 % per epoch while the heads are more alike than that and otherwise grows by 1 %, the rule of DivClust (Metaxas et al. 2023), since the paper gives none. The second term pulls every image to the nearer of its lesion's two medoids $m_1, m_2$ ($E$ is the mean over images).
#
# $$\mathcal{L}_{div} = \frac{1}{C_4^2} \sum_{i<j} \mathrm{ReLU}\Big(\frac{1}{2N} \sum_{n=1}^{N} \big(\max S_{ij}^{(n)} + \max S_{ji}^{(n)}\big) - T\Big) \qquad (4)$$
#
# $$\mathcal{L}_{cluster} = \frac{1}{4} \sum_{i=1}^{4} E\Big[\min\big(\lVert f_i - m_1^{(i)} \rVert_2, \lVert f_i - m_2^{(i)} \rVert_2\big)\Big] \qquad (5)$$
#
# All methods then cluster the weighted mean
#
# $$F_{global} = \tfrac{1}{4}\sum_{i=1}^{4} w_i f_i, \qquad w \in \{1, 5, 10\}^4 \qquad (2)$$
#
# into two. **The weights are chosen in four ways**: `equal` (all 1, no label seen, the default); `silhouette` (the largest one, no label seen); `held_out` (the highest accuracy on the labels of the other half of the patients); `oracle` (the highest accuracy on the true labels, the paper's protocol). The last one uses the answer: it bounds the accuracy from above and estimates nothing.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # of the profile "folder" alone: where your photographs lie (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ruranet_utils import published
from ruranet_utils.clustering.choices import compare_choices
from ruranet_utils.clustering.sensitivity import course, sensitivity
from ruranet_utils.clustering.study import diagnose, project_all, weight_search_all
from ruranet_utils.clustering.weighting import WEIGHT_GRID, by_silhouette, oracle
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.reduction import planes, reduce
from ruranet_utils.networks.weights import find_weights, reference_backbone
from ruranet_utils.profiles import DISPLAY, METHODS
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.diagrams import draw_clustering
from ruranet_utils.reporting.tables import paper_versus_ours, show
from ruranet_utils.reporting.widgets import weigh_lesions
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.study import lesion_masks
from ruranet_utils.statistics.comparisons import adjust, compare
from ruranet_utils.statistics.metrics import match_clusters, matched_accuracy
from ruranet_utils.storage.progress import progress

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Lesions, features, heads, clusters
#
# The masks are predicted by the networks of Table 2. On the synthetic profile, as in the paper, some of these images trained them; in the open one none did. DMH is trained by ten seeds.

# %%
segmentation, diagnosis = run.cohorts
masks = lesion_masks(segmentation, diagnosis.images, run.profile, run.store)
features = lesion_features(diagnosis.images, masks, run.profile.extractors, run.profile, run.store)
outside_test = (diagnosis.table["split"] != "test").to_numpy()
reduced = {name: reduce(features[name], run.profile.n_components, outside_test) for name in features}
heads = project_all(reduced, run.profile, run.store)
spaces = {(name, m): [reduced[name]] for name in features for m in METHODS if m != "dmh"}
spaces |= {(name, "dmh"): [one.embedding for one in heads[name]] for name in features}
each = {(*key, i): space for key, trainings in spaces.items() for i, space in enumerate(trainings)}
searches = weight_search_all(each, run.profile, run.store)
rows = []
for (backbone, method), trainings in progress(spaces.items(), desc="clustering", unit="method"):
    for row in diagnose(trainings, method, diagnosis, run.profile, run.store):
        rows.append({"backbone": backbone, **row, "weights": find_weights(backbone, run.profile).origin})
results = pd.DataFrame(rows)
keys = ["method", "backbone"]
results = results.sort_values(keys, key=lambda x: x.map([*METHODS, *run.profile.extractors].index), kind="stable")

# %% [markdown]
# ## Is DMH better than k-medoids?
#
# On the same images, all weights 1: the difference of the accuracies, DMH as the mean over ten seeds, with its 95 % interval over patients and seeds. `p adjusted` (Benjamini and Hochberg) allows for the number of backbones, and the verdict follows it. The paper's difference is that of its printed accuracies, which are not of the same images ([07](07_paper_audit.ipynb)).

# %%
predicted = results.set_index(["selection", "method", "backbone"])["predicted"]
right = {key: classes == diagnosis.labels for key, classes in predicted.items()}
pairs = {key: [right["equal", method, key] for method in ("dmh", "kmedoids")] for key in run.profile.extractors}
paired = adjust(pd.DataFrame([compare(*pair, diagnosis.patients) for pair in pairs.values()]))
printed = published.table_4().pivot_table(index="backbone", columns="method", values="accuracy")
paired.insert(0, "backbone", list(pairs))
paired.insert(1, "difference paper", (printed["dmh"] - printed["kmedoids"]).reindex(list(pairs)).to_numpy())
paired = paired.rename(columns={"difference": "difference ours"})
paired = paired.assign(n=len(diagnosis), weights=[find_weights(key, run.profile).origin for key in pairs])
name = reference_backbone(run.profile)
alone = paired.set_index("backbone").loc[name]
accuracy = {m: right["equal", m, name].mean() for m in ("dmh", "kmedoids")}
said = {"higher": "DMH is better than", "lower": "DMH is worse than"}.get(
    alone["verdict"], "No difference is shown between DMH and"
)
answer = f"{said} k-medoids without heads on features of {DISPLAY[name]} ({alone['weights']} weights): accuracy {accuracy['dmh']:.3f} (mean of ten seeds) against {accuracy['kmedoids']:.3f}, difference {alone['difference ours']:+.3f} [{alone['difference_low']:.3f}, {alone['difference_high']:.3f}], N = {len(diagnosis)}. The paper prints {alone['difference paper']:+.3f}."
run.answer(answer)
show(run.save_table(paired, "table_4_paired"), "Accuracy of DMH minus that of k-medoids, all weights 1")

# %% [markdown]
# ## Table 4 · Paper versus ours
#
# By the paper's protocol (`oracle`), all 32 combinations; the paper prints 20. Precision, recall and F1 are weighted over the classes, as the paper's are. `lesion weights` are those of hard exudates, microaneurysms, hemorrhages and edema, in this order; `weights` is what the backbone starts from, and random ones measure the method, not the backbone.

# %%
scores = published.CLUSTERING
further = ["accuracy_sd", "accuracy_low", "accuracy_high", "n_seeds", "lesion_weights", "n", "weights"]
lead = [*keys, "accuracy paper", "accuracy ours", "accuracy_low", "accuracy_high", "accuracy_sd", "n", "weights"]
best = {"accuracy ours": "max"}
compared = {
    selection: paper_versus_ours(
        results[results["selection"] == selection][[*keys, *scores, *further]], published.table_4(), keys, scores
    )
    for selection in ("oracle", "held_out", "equal")
}
show(compared["oracle"], "Table 4 · weights chosen on the true labels", best, first=lead)

# %% [markdown]
# Without looking at the labels (`equal`), the rows to believe for new photographs:

# %%
show(compared["equal"], "Table 4 · all weights 1", best, first=lead)

# %% [markdown]
# With weights from the labels of the other half of the patients (`held_out`), what the oracle's choice is worth on patients whose labels it has not seen:

# %%
show(compared["held_out"], "Table 4 · weights chosen on other patients", best, first=lead)

# %%
_ = run.save_table(pd.concat([table.assign(selection=selection) for selection, table in compared.items()]), "table_4")
_ = run.save_table(results.drop(columns="predicted"), "table_4_all_scores")
origin = np.where(results["weights"] == "random", "random", "ImageNet")  # never in one mean
grouped = results.assign(weights=origin).groupby(["selection", "method", "weights"], sort=False)["accuracy"]
summary = grouped.agg(["mean", "min", "max", "size"]).reset_index().rename(columns={"size": "backbones"})
summary["mean paper"] = summary["method"].map(published.table_4().groupby("method")["accuracy"].mean())
caption = f"Accuracy over the backbones of the same weights (n = {len(diagnosis)}), and the mean of the paper's"
show(run.save_table(summary, "table_4_summary"), caption, {"mean": "max"}, "selection")

# %% [markdown]
# ## Figure · What the labels are worth
#
# Each point is one backbone. The step from the labels of other patients (`held_out`) to those that are scored (`oracle`) is what choosing the weights on the answer adds. The dashed line is 0.5; two random clusters, matched to the classes, reach somewhat more (for 56 images 0.55 on average, for 174 images 0.53), except under `held_out`, where the other half's labels decide which cluster is DME.

# %% alt="Accuracy of four clustering methods, one point for each backbone, in four ways of choosing the weights of the lesions, with the paper's accuracies as crosses and guessing as a dashed line."
fig = plots.clusterings(results, published.table_4(), len(diagnosis))
run.save_figure(fig, "fig_clustering")

# %% [markdown]
# ## What DMH depends on
#
# One change at a time, ten seeds each, all weights 1, features of the backbone above. "Until Eq. 3 stops falling": its mean over 20 epochs lies less than 1 % of its first value below that of the 20 epochs before. `agreement` is the mean adjusted Rand index between the clusters of two seeds: 1 if all seeds find the same, 0 if they agree by chance.

# %%
sensitive = sensitivity(reduced[name], diagnosis, run.profile, run.store)
show(run.save_table(sensitive, "table_4_sensitivity"), f"DMH on {DISPLAY[name]}, against k-medoids without heads")

# %% [markdown]
# ## Figure · What more training does
#
# One line per seed, the thick one their mean, for heads trained until Eq. 3 stops falling. Left both terms of Eq. 3; the diversity term is zero once every pair of heads lies below $T$. Then what can be seen without labels, the silhouette of the two clusters; right what only labels tell, the accuracy.

# %% alt="Three panels over the epochs: the two losses of the heads, the silhouette of the clusters, and their accuracy, one thin line per seed and a thick mean."
courses = course(reduced[name], diagnosis, run.profile, run.store)
fig = plots.training_course(courses, accuracy["kmedoids"], len(diagnosis))
run.save_figure(fig, "fig_course")

# %% [markdown]
# ## Choosing the weights without labels
#
# K-medoids without heads. `stability`: the clusters are found again in 80 % of the patients; `agreement`: three methods find the same clusters. Differences are to equal weights. Equal weights are this project's default because they choose nothing: a criterion must be better on more than one cohort to replace them.

# %%
choices = compare_choices(reduced[name], diagnosis, run.profile, run.store)
show(run.save_table(choices, "table_4_choices"), f"{DISPLAY[name]}, k-medoids", {"accuracy": "max"})

# %% [markdown]
# ## Figure · All 81 weightings of DMH
#
# Accuracy of every weighting, first seed: the wider the spread, the more the oracle's choice can gain by luck. The frames mark the choices of the silhouette and of the labels.

# %% alt="Heat map of the accuracy of all 81 weightings of the four lesions; a white frame marks the choice of the silhouette, an orange one that of the labels."
search = searches[name, "dmh", 0]
of_weights = np.array([matched_accuracy(diagnosis.labels, labels) for labels in search.labels])
chosen = {"silhouette": by_silhouette(search), "labels (oracle)": oracle(search, diagnosis.labels)}
run.save_figure(plots.weightings(of_weights, chosen), "fig_weights")

# %% [markdown]
# ## Figure · Weigh for yourself
#
# In JupyterLab: move the weights of the four lesions. Left, the images in the plane of the first two components of $F_{global}$: colors are clusters, triangles have DME. Right, the two scores of these weights among those of all 81. If the silhouette knew the diagnosis, the gray points would rise to the right.

# %% alt="Left, the images in the plane of two components, colored by cluster and shaped by diagnosis; right, silhouette and accuracy of these weights among those of all 81."
first = {key: trainings[0] for key, trainings in spaces.items() if key[0] == name}
weigh_lesions(first, {key: searches[(*key, 0)] for key in first}, diagnosis.labels, run.profile.seed)

# %% [markdown]
# ## Figure 2 · The clustering module
#
# What happens to the images of this run on their way to two clusters, with the shapes of the arrays.

# %% alt="Flow chart: four lesions, a feature vector for each, PCA, a projection head for each, their weighted mean, and k-medoids; below each station the shape of its arrays."
n, n_lesions, dim = features[name].shape
kept, head_dim = reduced[name].shape[-1], first[name, "dmh"].shape[-1]
sizes = {
    "lesions": f"{n} images\n{n_lesions} lesions",
    "features": f"{DISPLAY[name]}\n{n} x {n_lesions} x {dim}",
    "components": f"{n} x {n_lesions} x {kept}",
    "heads": f"{n} x {n_lesions} x {head_dim}",
    "mean": f"{n} x {head_dim}",
    "clusters": "2 clusters",
}
fig, ax = plt.subplots(figsize=(8, 3.6))
draw_clustering(ax, sizes)
run.save_figure(fig, "fig_2_module")

# %% [markdown]
# ## Figure · The images before and after the heads
#
# What k-medoids clusters, all weights 1, projected to two dimensions by PCA and by t-SNE, which preserves neighborhoods, not distances. Colors are once the diagnosis and once the clusters, each in the color of the class that it fits best: where the heads help, the two pictures of a line resemble each other more than before.

# %% alt="Eight scatter plots of the images: before the heads and after them, by PCA and by t-SNE, colored by diagnosis on the left and by cluster on the right."
rows = {}
for stage, method in (("before the heads", "kmedoids"), ("after the heads", "dmh")):
    clusters = match_clusters(diagnosis.labels, searches[name, method, 0].labels[0])
    flat = planes(first[name, method].mean(axis=1), run.profile.seed)
    rows[stage] = flat, {"diagnosis": diagnosis.labels, "cluster": clusters}
run.save_figure(plots.projections(rows), "fig_2_embedding")

# %% [markdown]
# **Limits.** Two clusters are matched to two classes by the labels, so guessing scores a little above 0.5. The clusters are of the images at hand: nothing says into which a new photograph falls.
#
# **What differs from the paper.** The rows of its Table 4 were not scored on the same images: the accuracies of k-medoids, k-means and agglomerative are possible with 150 or 300 images only, those of DMH with 302 only. Its agglomerative rows are macro averages over three clusters. Ours are all scored on the same images, after an optimal matching of two clusters to two classes.

# %% [markdown]
# ## Checks

# %%
again = [np.mean([np.mean(one == diagnosis.labels) for one in classes]) for classes in results["predicted"]]
np.testing.assert_allclose(results["accuracy"], again)
wide = results.pivot_table(index=keys, columns="selection", values="accuracy")
assert (wide["oracle"] >= wide[["equal", "silhouette"]].max(axis=1) - 1e-12).all(), "the oracle is an upper bound"
assert len(WEIGHT_GRID) == 81 and len(results) == len(METHODS) * len(run.profile.extractors) * 4

# %% [markdown]
# Next: [05 · Which part does the work?](05_ablation.ipynb)
