"""Ways of choosing the lesion weights of Eq. 2 without labels, and what each choice is worth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ruranet_utils.clustering.study import weight_search_all, weight_stability
from ruranet_utils.clustering.weighting import CRITERIA, EQUAL, WEIGHT_GRID, WeightSearch, best, eligible, oracle
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import Profile
from ruranet_utils.statistics.comparisons import adjust, compare, mean_pairwise_ari
from ruranet_utils.statistics.intervals import accuracy_interval
from ruranet_utils.statistics.metrics import match_clusters
from ruranet_utils.storage.store import Store

OTHERS = ("kmeans", "agglomerative")  # methods whose clusters may agree with those of k-medoids


def compare_choices(reduced: np.ndarray, cohort: Cohort, profile: Profile, store: Store) -> pd.DataFrame:
    """Accuracy of k-medoids with the weights that each rule chooses, beside equal weights and the labels' choice.

    Parameters
    ----------
    reduced : ndarray of float, shape (n_images, n_lesions, k)
        From :func:`ruranet_utils.features.reduction.reduce`.
    cohort : Cohort
        The images' labels, used only for scoring, and patients.
    profile : Profile
    store : Store

    Returns
    -------
    DataFrame
        ``choice``, as in :func:`choose`, and last ``"oracle"``, the labels' choice; ``lesion_weights`` in the order of
        ``profiles.LESIONS``; ``accuracy`` with ``accuracy_low`` and ``accuracy_high`` (95 %, over patients), ``n``;
        what :func:`ruranet_utils.statistics.comparisons.compare` and ``adjust`` return against equal weights (missing
        in their own row).
    """
    methods = ("kmedoids", *OTHERS)
    searches = weight_search_all({("", method, 0): reduced for method in methods}, profile, store)
    by_method = {method: searches["", method, 0] for method in methods}
    stability = weight_stability(reduced, by_method["kmedoids"], cohort.patients, profile, store)
    chosen = {**choose(by_method, stability), "oracle": oracle(by_method["kmedoids"], cohort.labels)}
    right = {name: _right(by_method["kmedoids"].labels[index], cohort) for name, index in chosen.items()}
    rows = []
    for name, index in chosen.items():
        about = {"choice": name, "lesion_weights": " ".join(f"{weight:g}" for weight in WEIGHT_GRID[index])}
        about |= {"accuracy": right[name].mean(), **accuracy_interval(right[name], cohort.patients)}
        difference = {} if name == "equal" else compare(right[name], right["equal"], cohort.patients)
        rows.append({**about, **difference})
    return adjust(pd.DataFrame(rows), chosen=[name == "oracle" for name in chosen])


def choose(searches: Mapping[str, WeightSearch], stability: np.ndarray) -> dict[str, int]:
    """Row of ``WEIGHT_GRID`` that each rule chooses for k-medoids; no label is used, and the first row wins ties.

    All but ``equal`` choose among the :func:`ruranet_utils.clustering.weighting.eligible` weightings.

    Parameters
    ----------
    searches : mapping
        By method, k-medoids first.
    stability : ndarray of float, shape (81,)
        From :func:`ruranet_utils.clustering.study.weight_stability`.

    Returns
    -------
    dict of str to int
        ``equal``: all weights 1; ``silhouette``, ``calinski_harabasz``: largest; ``davies_bouldin``: smallest;
        ``stability``: largest; ``agreement``: largest mean adjusted Rand index between the methods.
    """
    signs, first = dict.fromkeys(CRITERIA, 1) | {"davies_bouldin": -1}, next(iter(searches.values()))
    values = {name: sign * first.criteria[name] for name, sign in signs.items()} | {"stability": stability}
    clusterings = zip(*(search.labels for search in searches.values()), strict=True)
    values["agreement"] = np.array([mean_pairwise_ari(of_weighting) for of_weighting in clusterings])
    usable = eligible(first.labels)
    return {"equal": EQUAL, **{name: best(np.where(usable, value, np.nan)) for name, value in values.items()}}


def _right(clusters: np.ndarray, cohort: Cohort) -> np.ndarray:
    return match_clusters(cohort.labels, clusters) == cohort.labels
