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
# # 05 · Which part does the work? Table 5
#
# **Question.** Segmentation, SCSE, projection heads, PCA: what does each add?
#
# | | |
# | --- | --- |
# | Paper | Section 3.4, Table 5 |
# | Reads | both cohorts of notebook 01, the encoders of notebook 02 |
# | Writes | `table_5`, `table_5_steps`, in `open` `table_5_seeds` (csv, md); `fig_ablation` |
# | Needs | synthetic: 39 s, 2.6 GB · open: 9 min, 5.1 GB; on two CPU cores, `run.json` |
#
# | variant | segmentation | SCSE | heads | PCA |
# | --- | --- | --- | --- | --- |
# | a | – | – | – | – |
# | a+ | – | – | – | yes |
# | b | yes | – | – | yes |
# | c | yes | yes | – | yes |
# | d | yes | yes | yes | yes |
# | e | yes | yes | yes | – |
#
# All variants cluster with K-Medoids. Variants b to e use features from GoogLeNet, the paper's backbone, or from a backbone with ImageNet weights if GoogLeNet has none. We read "the original K-Medoids algorithm without feature engineering" (a) as clustering the pixels of the image; a+, which the paper does not report, uses the backbone's features of the whole image instead. b differs from a+ by the segmentation and the mean over lesions (Eq. 2 in [04](04_clustering.ipynb)); under `oracle` and `held_out` it also uses weights that were chosen with labels, so read that step under `equal`. The heads of d and e are trained with ten seeds: their scores are means.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pandas as pd
from IPython.display import display
from ruranet_utils import published
from ruranet_utils.clustering.study import SELECTIONS, diagnose, diagnose_images, project_all
from ruranet_utils.features.extract import image_features, lesion_features, resize
from ruranet_utils.features.reduction import reduce, standardize
from ruranet_utils.networks.weights import find_weights, reference_backbone
from ruranet_utils.profiles import DISPLAY
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.tables import paper_versus_ours, show
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.study import lesion_masks
from ruranet_utils.statistics.comparisons import adjust, compare

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Without segmentation (a, a+)

# %%
segmentation, diagnosis = run.cohorts
backbone, n_components = reference_backbone(run.profile), run.profile.n_components
pixels = resize(diagnosis.images, run.profile.feature_size_px).flatten(1).numpy()
whole = image_features(diagnosis.images, backbone, run.profile, run.store)
inputs = {"a": pixels, "a+": reduce(whole, n_components)}
rows = [{"variant": name, **diagnose_images(one, diagnosis, run.profile)} for name, one in inputs.items()]

# %% [markdown]
# ## With segmentation: without SCSE (b) and with it (c)
#
# Both use the same encoders, the ones that Table 2 chose with SCSE.

# %%
features = {}
for attention in (None, "scse"):
    masks = lesion_masks(segmentation, diagnosis.images, run.profile, run.store, attention)
    features[attention] = lesion_features(diagnosis.images, masks, [backbone], run.profile, run.store)[backbone]
without_scse, with_scse = (reduce(features[attention], n_components) for attention in (None, "scse"))
spaces = {"d": with_scse, "e": standardize(features["scse"])}
heads = project_all(spaces, run.profile, run.store)
variants = {"b": ("kmedoids", [without_scse]), "c": ("kmedoids", [with_scse])}
variants |= {variant: ("dmh", [one.embedding for one in heads[variant]]) for variant in spaces}
for variant, (method, trainings) in variants.items():
    rows += [{"variant": variant, **row} for row in diagnose(trainings, method, diagnosis, run.profile, run.store)]

# %% [markdown]
# ## Table 5 · Paper versus ours
#
# The paper's row a scores the positive class, its rows b to e are weighted averages; ours are weighted throughout. `oracle` is the paper's protocol, `held_out` chooses the lesion weights on the labels of other patients, and `equal` uses no labels; a and a+ have no weights to choose.

# %%
results = pd.DataFrame(rows).assign(weights=find_weights(backbone, run.profile).origin)
results.loc[results["variant"] == "a", "weights"] = "none"
further = ["accuracy_sd", "accuracy_low", "accuracy_high", "n_seeds", "lesion_weights", "n", "weights"]
lead = ["selection", "variant", "accuracy paper", "accuracy ours", "accuracy_low", "accuracy_high", "n", "weights"]
tables = []
for selection in ("oracle", "held_out", "equal"):
    ours = results[results["selection"].isin([selection, "none"])]
    ours = ours[["variant", *published.CLUSTERING, *further]]
    table = paper_versus_ours(ours, published.table_5(), ["variant"], published.CLUSTERING)
    tables.append(table.assign(selection=selection))
table_5 = run.save_table(pd.concat(tables), "table_5")
show(table_5, f"Table 5 · paper versus ours, {DISPLAY[backbone]}", {"accuracy ours": "max"}, "selection", lead)

# %% [markdown]
# ## What each step adds
#
# Each row is the accuracy of a variant minus that of the one before it (e is d without PCA), on the same images, with a 95 % interval over patients, and over seeds where heads are trained. `p adjusted` (Benjamini and Hochberg) corrects for the six comparisons under `equal` and decides the verdict. Where the labels chose the weights (`oracle`), a test against the same labels would not hold, so there is none; the intervals of these rows ignore the choice and show only how the images scatter. The paper has no a+: its step is the one from a to b; ours from a+ to b compares the same kind of features. Its b and c are possible only with multiples of 50 images, its a, d, and e with 302 ([07](07_paper_audit.ipynb)).

# %%
steps = []
for selection in ("equal", "oracle"):
    chosen = results[results["selection"].isin([selection, "none"])].set_index("variant")["predicted"]
    right = {variant: predicted == diagnosis.labels for variant, predicted in chosen.items()}
    for before, after in (("a", "b"), *pairwise(("a", "a+", "b", "c", "d", "e"))):
        difference = compare(right[after], right[before], diagnosis.patients)
        steps.append({"selection": selection, "before": before, "after": after, **difference})
renamed, steps = {"difference": "difference ours"}, pd.DataFrame(steps)
steps = adjust(steps, "selection", steps["selection"] == "oracle").rename(columns=renamed)
printed = published.table_5().set_index("variant")["accuracy"]
steps.insert(3, "difference paper", steps["after"].map(printed) - steps["before"].map(printed))
steps = steps.assign(n=len(diagnosis), weights=find_weights(backbone, run.profile).origin)
gain = "{before} to {after} {difference ours:+.2f} [{difference_low:.2f}, {difference_high:.2f}]".format_map
gains = ", ".join(map(gain, steps[steps["selection"] == "equal"][1:].to_dict("records")))  # not the paper's, a to b
run.answer(f"Accuracy gained at each step, all weights 1: {gains}; N = {len(diagnosis)}.")
shown = steps[steps["verdict"] != "no difference shown"].query("selection == 'equal'")
finding = ", ".join(f"{row.before} to {row.after} {row.verdict}" for row in shown.itertuples()) or "no difference shown"
show(run.save_table(steps, "table_5_steps"), f"Differences in accuracy; with all weights 1: {finding}")

# %% [markdown]
# ## SCSE over several training runs
#
# In the open profile, the networks of b and c are each trained with `n_seeds` seeds; the rest of the pipeline is the same. `difference` is c minus b, averaged over the seeds, with an interval over patients and training runs.

# %%
if run.profile.masks == "joint" and run.profile.n_seeds > 1:
    seeds, correct = range(run.profile.seed, run.profile.seed + run.profile.n_seeds), {}
    for number, attention in product(seeds, (None, "scse")):
        used = replace(run.profile, seed=number)
        masks = lesion_masks(segmentation, diagnosis.images, used, run.store, attention, keeps=False)
        found = lesion_features(diagnosis.images, masks, [backbone], run.profile, run.store)[backbone]
        for row in diagnose(reduce(found, n_components), "kmedoids", diagnosis, run.profile, run.store):
            right = row["predicted"][0] == diagnosis.labels
            correct.setdefault((row["selection"], attention), []).append(right)
    by_seed = []
    for selection in SELECTIONS:
        without, with_scse = (np.array(correct[selection, attention]) for attention in (None, "scse"))
        about = {"selection": selection, "b": without.mean(), "c": with_scse.mean(), "n_seeds": len(without)}
        about |= {"b sd": without.mean(axis=1).std(ddof=1), "c sd": with_scse.mean(axis=1).std(ddof=1)}
        by_seed.append(about | compare(with_scse, without, diagnosis.patients))
    table = adjust(pd.DataFrame(by_seed), chosen=[selection == "oracle" for selection in SELECTIONS])
    table = table.rename(columns=renamed).assign(n=len(diagnosis), weights=results["weights"].iloc[-1])
    table.insert(1, "difference paper", printed["c"] - printed["b"])
    display(show(run.save_table(table, "table_5_seeds"), "Accuracy without SCSE (b) and with it (c)"))

# %% [markdown]
# ## Figure · Step by step
#
# Accuracy with a 95 % interval over patients, and over seeds in d and e. Follow one color from left to right: each step from a to d adds a part, and a part that helps raises the accuracy; e takes PCA away, so there the accuracy drops if PCA helps. The dashed line is 0.5; random clusters matched to the classes score slightly higher ([04](04_clustering.ipynb)). To see whether a step is more than chance, read the paired differences in the table above.

# %% alt="Accuracy of the six variants from pixels to the full model and without PCA, for three ways of choosing the weights, with intervals; crosses mark the paper's accuracies, a dashed line marks chance."
run.save_figure(plots.ablation(results, printed, len(diagnosis)), "fig_ablation")

# %% [markdown]
# **Limits.** There is only one backbone. All variants are scored on the same images, so read the paired differences above instead of checking whether two intervals overlap.
#
# **What differs from the paper.** Its claim that DMH (d) is best is contradicted by its own row c (0.8600 versus 0.8411). With at most 400 images, its accuracies for a, d, and e are possible only with 302, those for b and c only with multiples of 50: the rows were not scored on the same images. Ours were.

# %% [markdown]
# ## Checks

# %%
assert set(results["variant"]) == set(published.table_5()["variant"]) | {"a+"} and results["n"].eq(len(diagnosis)).all()
assert all(one.shape[:2] == (len(diagnosis), 4) for _, trainings in variants.values() for one in trainings)

# %% [markdown]
# Next: [06 · How many dimensions are enough?](06_pca.ipynb)
