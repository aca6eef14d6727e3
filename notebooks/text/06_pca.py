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
# # 06 · How many dimensions are enough? PCA
#
# **Question.** The paper keeps 50 principal components: 94.32 % of the variance, with a reconstruction error of 0.0568. How much do 50 components keep here, and what does that error mean?
#
# | | |
# | --- | --- |
# | Paper | Section 2.2, Eq. 6 |
# | Reads | the masks of notebook 02, the features of notebook 04 |
# | Writes | `table_pca`, `table_pca_smallest_k`, `table_pca_versus_paper` (csv, md); `fig_pca` |
# | Needs | synthetic: 5 s, 1.0 GB · open: 21 s, 2.2 GB; on two CPU cores, `run.json` |
#
# $$\mathrm{ReconstructionError}(k) = \frac{1}{N}\sum_{n=1}^{N} \lVert X^{(n)} - W_k W_k^T X^{(n)} \rVert_2^2 \qquad (6)$$
#
# $X^{(n)}$ is the standardized feature vector of row $n$ of $N$ (one row for each image and lesion), and the columns of $W_k$ are the first $k$ principal directions. For standardized features, Eq. 6 is the unexplained variance summed over the features. Divided by the number of features that vary, it is exactly one minus the explained variance ratio. The paper's two numbers are related in the same way, 1 - 0.9432 = 0.0568, so its "reconstruction error" repeats its explained variance. Both normalizations are plotted below.

# %% tags=["parameters"]
profile = "synthetic"  # "synthetic": made here, CPU; "open": real, openly licensed; "paper": six Kaggle sources; "folder": yours
seed = 0
data_dir = None  # only for the profile "folder": where your photographs are (docs/own_images.md)
# any other setting of ruranet_utils/profiles.py: papermill -p epochs 3, or start(..., epochs=3) in the next cell

# %%
import numpy as np
import pandas as pd
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.reduction import smallest_k, variance_curve
from ruranet_utils.networks.weights import find_weights, reference_backbone
from ruranet_utils.profiles import DISPLAY
from ruranet_utils.published import TEXT
from ruranet_utils.reporting import plots
from ruranet_utils.reporting.tables import show
from ruranet_utils.running.start import start
from ruranet_utils.segmentation.study import lesion_masks

run = start(profile, seed=seed, data_dir=data_dir)

# %% [markdown]
# ## Features and their principal components
#
# The rows are the lesion features of all images, the same rows on which notebook 04 fits its components.

# %%
segmentation, diagnosis = run.cohorts
backbone = reference_backbone(run.profile)
masks = lesion_masks(segmentation, diagnosis.images, run.profile, run.store)
features = lesion_features(diagnosis.images, masks, [backbone], run.profile, run.store)[backbone]
curve = variance_curve(features, k_max=100)
varying = int((features.reshape(-1, features.shape[2]).std(axis=0) > 0).sum())
curve_table = run.save_table(curve, "table_pca")
k, ratio, error = (TEXT[name].value for name in ("n_components", "cumulative_variance", "reconstruction_error"))
kept = curve.set_index("k").loc[min(k, curve["k"].max())]
run.answer(
    f"{kept.name} components keep {kept['explained_ratio']:.1%} of the variance; the paper reports {ratio:.1%}. "
    f"Its error, {error:.4f}, is 1 minus its share of the variance."
)
show(
    curve_table[curve_table["k"].isin([1, 2, 5, 10, 20, 50, 100])],
    f"{DISPLAY[backbone]}: {features.shape[0] * features.shape[1]} rows of {features.shape[2]} features, of which {varying} vary",
)

# %% [markdown]
# ## Figure · Cumulative variance and reconstruction error
#
# The cross marks the paper's values. If it lies above our curve in the left panel, 50 components keep more of the variance of the paper's features than of ours.

# %% alt="Against the number of components: left, the cumulative explained variance; right, the reconstruction error per feature and summed. Crosses mark the paper's values at 50 components."
run.save_figure(plots.components(curve, (k, ratio, error)), "fig_pca")

# %% [markdown]
# ## Smallest k for a given share of the variance
#
# A dash means that more than 100 components are needed.

# %%
show(run.save_table(smallest_k(curve), "table_pca_smallest_k"), "Components needed")

# %% [markdown]
# ## Paper versus ours
#
# `n` counts images; `rows` counts four lesions for each image.

# %%
versus = pd.DataFrame(
    {
        "quantity": ["cumulative explained variance", "reconstruction error per feature"],
        "k": int(kept.name),
        "paper": [ratio, error],
        "ours": [kept["explained_ratio"], kept["reconstruction_error_per_feature"]],
        "n": len(features),
        "rows": features.shape[0] * features.shape[1],
        "features": features.shape[2],
        "weights": find_weights(backbone, run.profile).origin,
    }
)
show(run.save_table(versus, "table_pca_versus_paper"), "PCA: paper versus ours")

# %% [markdown]
# **Limits, and what differs from the paper.** There is only one backbone (the line above the first table names it). The share of the variance that 50 components keep depends on how many rows there are and how similar the masked images look: empty masks all give the same features, which few components are enough to reconstruct.

# %% [markdown]
# ## Checks

# %%
assert curve["explained_ratio"].is_monotonic_increasing
assert np.allclose(curve["reconstruction_error_per_feature"], 1 - curve["explained_ratio"], atol=1e-6)
assert abs((1 - ratio) - error) < 1e-9, "the paper's two numbers are one"

# %% [markdown]
# Next: [07 · Do the paper's numbers fit each other?](07_paper_audit.ipynb)
