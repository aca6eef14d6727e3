"""From lesion features to a diagnosis: projection heads, weighting, clustering, scores (Tables 4 and 5)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ruranet_utils import clustering, dmh
from ruranet_utils.clustering import WEIGHT_GRID, WeightSearch, aggregate, cluster, search_weights
from ruranet_utils.cohort import Cohort
from ruranet_utils.config import Profile
from ruranet_utils.metrics import clustering_scores, match_clusters, ratio_interval
from ruranet_utils.store import Store, digest_arrays

SELECTIONS = ("equal", "label_free", "oracle")


def project(reduced: np.ndarray, profile: Profile, store: Store) -> dmh.HeadsResult:
    """Outputs and history of the projection heads (Eq. 3 to 5), trained once per store.

    Parameters
    ----------
    reduced : ndarray of float, shape (n_images, n_lesions, k)
        From :func:`ruranet_utils.reduction.reduce`.
    """

    def compute() -> dict[str, np.ndarray]:
        result = dmh.train_heads(reduced, epochs=profile.dmh_epochs, lam=profile.dmh_lambda, seed=profile.seed)
        return {"embedding": result.embedding, "history": result.history.to_numpy(dtype=np.float64)}

    settings = {**profile.settings("seed", "threads", "dmh_epochs", "dmh_lambda"), "reduced": digest_arrays(reduced)}
    arrays = store.fetch("projection_heads", settings, compute, [dmh, clustering])
    history = pd.DataFrame(arrays["history"], columns=dmh.HISTORY)
    return dmh.HeadsResult(embedding=arrays["embedding"], history=history.astype({"epoch": int}))


def label_free_clusters(
    embedded: np.ndarray, method: str, profile: Profile, store: Store
) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters under the lesion weights with the largest silhouette; no label is needed.

    Parameters
    ----------
    embedded, method
        As for :func:`diagnose`.

    Returns
    -------
    clusters : ndarray of int64, shape (n_images,)
    features : ndarray of float64, shape (n_images, k)
        What was clustered: the weighted mean over the lesions (Eq. 2).
    """
    search = _search(embedded, method, profile, store)
    row = clustering.label_free(search)
    return search.labels[row], aggregate(embedded, WEIGHT_GRID[row])


def diagnose(
    embedded: np.ndarray, method: str, cohort: Cohort, profile: Profile, store: Store
) -> list[dict[str, float | str]]:
    """Weight, cluster and score one embedding in three ways of choosing the lesion weights (Eq. 2).

    ``equal``: all 1. ``label_free``: the largest silhouette, no label seen. ``oracle``: the highest accuracy on the
    true labels, the paper's protocol and an upper bound rather than an estimate.

    Parameters
    ----------
    embedded : ndarray of float, shape (n_images, n_lesions, k)
        Reduced features, or for ``"dmh"`` the outputs of :func:`project`.
    method : str
        One of ``config.METHODS``.
    cohort : Cohort
        The images' labels and patients.

    Returns
    -------
    list of three dict
        ``method``, ``selection``, ``lesion_weights`` (in the order of ``config.LESIONS``), the scores of
        :func:`ruranet_utils.metrics.clustering_scores`, ``accuracy_low`` and ``accuracy_high`` (95 %, bootstrap over
        patients) and ``n``.
    """
    search = _search(embedded, method, profile, store)
    chosen = {
        "equal": 0,
        "label_free": clustering.label_free(search),
        "oracle": clustering.oracle(search, cohort.labels),
    }
    return [
        {
            "method": method,
            "selection": selection,
            "lesion_weights": " ".join(f"{weight:g}" for weight in WEIGHT_GRID[row]),
            **score(aggregate(embedded, WEIGHT_GRID[row]), search.labels[row], cohort, profile),
        }
        for selection, row in chosen.items()
    ]


def _search(embedded: np.ndarray, method: str, profile: Profile, store: Store) -> WeightSearch:
    algorithm = "kmedoids" if method == "dmh" else method

    def compute() -> dict[str, np.ndarray]:
        search = search_weights(embedded, algorithm, profile.seed)
        return {"labels": search.labels, "silhouette": search.silhouette}

    settings = {**profile.settings("seed", "threads"), "method": algorithm, "embedded": digest_arrays(embedded)}
    return WeightSearch(**store.fetch("weight_search", settings, compute, [clustering]))


def score(features: np.ndarray, clusters: np.ndarray, cohort: Cohort, profile: Profile) -> dict[str, float]:
    """Scores of one clustering with the interval of its accuracy.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, d)
        What was clustered.
    clusters : ndarray of int, shape (n_images,)
    """
    correct = match_clusters(cohort.labels, clusters) == cohort.labels
    low, high = ratio_interval(correct, np.ones(len(cohort)), cohort.patients, np.random.default_rng(profile.seed))
    scores = clustering_scores(features, cohort.labels, clusters)
    return {**scores, "accuracy_low": low, "accuracy_high": high, "n": len(cohort)}


def diagnose_images(features: np.ndarray, cohort: Cohort, profile: Profile) -> dict[str, float | str]:
    """K-Medoids on one vector per image, without lesions or weights (Table 5a)."""
    clusters = cluster("kmedoids", features, seed=profile.seed)
    row = {"method": "kmedoids", "selection": "none", "lesion_weights": ""}
    return {**row, **score(features, clusters, cohort, profile)}
