"""From lesion features to a diagnosis: projection heads, weighting, clustering, scores (Tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial

import numpy as np
import pandas as pd

from ruranet_utils.clustering import dmh, weighting
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.weighting import WEIGHT_GRID, WeightSearch, aggregate, search_weights
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import Profile
from ruranet_utils.statistics.comparisons import compare, mean_pairwise_ari
from ruranet_utils.statistics.intervals import accuracy_interval
from ruranet_utils.statistics.metrics import both_averages, clustering_scores, match_clusters
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store, digest_arrays

_ESTIMATORS = ("features.reduction", "clustering.estimators", "clustering.weighting")
_DMH = (*_ESTIMATORS, "clustering.heads", "clustering.dmh")
HEADS, STABILITY = Step("projection_heads", 2, _DMH), Step("stability", 2, (*_DMH, "clustering.study"))
SEARCH = Step("weight_search", 1, _ESTIMATORS)
SELECTIONS = ("equal", "label_free", "held_out", "oracle")


def project(reduced: np.ndarray, profile: Profile, store: Store) -> dmh.HeadsResult:
    """Outputs and history of the projection heads (Eq. 3 to 5), trained once per store.

    Parameters
    ----------
    reduced : ndarray of float, shape (n_images, n_lesions, k)
        From :func:`ruranet_utils.features.reduction.reduce`.
    """
    return project_all({"": reduced}, profile, store)[""]


def project_all(
    spaces: Mapping[Hashable, np.ndarray], profile: Profile, store: Store
) -> dict[Hashable, dmh.HeadsResult]:
    """:func:`project` for several features, side by side."""

    def compute(reduced: np.ndarray) -> dict[str, np.ndarray]:
        result = dmh.train_heads(reduced, epochs=profile.dmh_epochs, lam=profile.dmh_lambda, seed=profile.seed)
        return {"embedding": result.embedding, "history": result.history.to_numpy(dtype=np.float64)}

    shared = profile.settings("seed", "threads", "dmh_epochs", "dmh_lambda")
    jobs = {
        key: ({**shared, "reduced": digest_arrays(reduced)}, partial(compute, reduced))
        for key, reduced in spaces.items()
    }
    results = {}
    found = store.fetch_all(HEADS, jobs, profile.workers)
    for key, arrays in found.items():
        history = pd.DataFrame(arrays["history"], columns=dmh.HISTORY).astype({"epoch": int})
        results[key] = dmh.HeadsResult(embedding=arrays["embedding"], history=history)
    return results


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
    search = weight_search(embedded, method, profile, store)
    row = weighting.label_free(search)
    return search.labels[row], aggregate(embedded, WEIGHT_GRID[row])


def diagnose(
    embedded: np.ndarray, method: str, cohort: Cohort, profile: Profile, store: Store
) -> list[dict[str, float | str | np.ndarray]]:
    """Weight, cluster and score one embedding in four ways of choosing the lesion weights (Eq. 2).

    ``equal``: all 1. ``label_free``: the largest silhouette, no label seen. ``held_out``: the highest accuracy on the
    other half of the patients. ``oracle``: the highest accuracy on the true labels, the paper's protocol and an upper
    bound rather than an estimate.

    Parameters
    ----------
    embedded : ndarray of float, shape (n_images, n_lesions, k)
        Reduced features, or for ``"dmh"`` the outputs of :func:`project`.
    method : str
        One of ``profiles.METHODS``.
    cohort : Cohort
        The images' labels and patients.

    Returns
    -------
    list of four dict
        ``method``, ``selection``, ``lesion_weights`` (in the order of ``profiles.LESIONS``), what :func:`score`
        returns, and ``predicted``: the class of every image. ``held_out`` has two weightings, hence no score that looks
        at the features.
    """
    search = weight_search(embedded, method, profile, store)
    chosen = {
        "equal": 0,
        "label_free": weighting.label_free(search),
        "oracle": weighting.oracle(search, cohort.labels),
    }
    rows = {}
    for selection, index in chosen.items():
        features, clusters = aggregate(embedded, WEIGHT_GRID[index]), search.labels[index]
        predicted = match_clusters(cohort.labels, clusters)
        about = {"lesion_weights": _spelled(index), **score(features, clusters, cohort, profile)}
        rows[selection] = {**about, "predicted": predicted}
    indices, predicted = weighting.held_out(search, cohort.labels, cohort.patients, profile.seed)
    scores = {**both_averages(cohort.labels, predicted), **_interval(predicted, cohort, profile)}
    rows["held_out"] = {"lesion_weights": " | ".join(map(_spelled, indices)), **scores, "predicted": predicted}
    return [{"method": method, "selection": selection, **rows[selection]} for selection in SELECTIONS]


def weight_search(embedded: np.ndarray, method: str, profile: Profile, store: Store) -> WeightSearch:
    """Clusterings under all 81 weightings, once per store; arguments as for :func:`diagnose`."""
    return weight_search_all({("", method): embedded}, profile, store)["", method]


def weight_search_all(
    spaces: Mapping[tuple[Hashable, str], np.ndarray], profile: Profile, store: Store
) -> dict[tuple[Hashable, str], WeightSearch]:
    """:func:`weight_search` for several features and methods, side by side.

    Parameters
    ----------
    spaces : mapping
        What to cluster, by any name and the method.
    """

    def compute(embedded: np.ndarray, algorithm: str) -> dict[str, np.ndarray]:
        search = search_weights(embedded, algorithm, profile.seed)
        return {"labels": search.labels, "silhouette": search.silhouette}

    jobs = {}
    for (name, method), embedded in spaces.items():
        algorithm = "kmedoids" if method == "dmh" else method
        settings = {**profile.settings("seed", "threads"), "method": algorithm, "embedded": digest_arrays(embedded)}
        jobs[name, method] = settings, partial(compute, embedded, algorithm)
    found = store.fetch_all(SEARCH, jobs, profile.workers)
    return {key: WeightSearch(**arrays) for key, arrays in found.items()}


def stability(reduced: np.ndarray, method: str, profile: Profile, store: Store, n_seeds: int = 10) -> float:
    """Mean pairwise adjusted Rand index of the clusterings by many seeds, all weights 1; in [-0.5, 1].

    Parameters
    ----------
    reduced : ndarray of float, shape (n_images, n_lesions, k)
    method : str
        One of ``profiles.METHODS``; ``"dmh"`` trains its heads anew for each seed.
    n_seeds : int
        At least 2; the seeds are 0, 1, ...
    """

    def compute() -> dict[str, np.ndarray]:
        return {"labels": np.array([cluster(seed) for seed in progress(range(n_seeds), desc=method, unit="seed")])}

    def cluster(seed: int) -> np.ndarray:
        if method == "dmh":
            return dmh.DMH(epochs=profile.dmh_epochs, lam=profile.dmh_lambda, random_state=seed).fit_predict(reduced)
        weights = np.ones(reduced.shape[1])
        return Clustering(method, random_state=seed).fit_predict(aggregate(reduced, weights))

    settings = {**profile.settings("threads", "dmh_epochs", "dmh_lambda"), "method": method, "n_seeds": n_seeds}
    settings["reduced"] = digest_arrays(reduced)
    return mean_pairwise_ari(store.fetch(STABILITY, settings, compute)["labels"])


def score(features: np.ndarray, clusters: np.ndarray, cohort: Cohort, profile: Profile) -> dict[str, float]:
    """Scores of one clustering with the interval of its accuracy.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, d)
        What was clustered.
    clusters : ndarray of int, shape (n_images,)

    Returns
    -------
    dict of float
        The scores of :func:`ruranet_utils.statistics.metrics.clustering_scores`, ``accuracy_low`` and
        ``accuracy_high`` (95 %, bootstrap over patients) and ``n``.
    """
    scores = clustering_scores(features, cohort.labels, clusters)
    return {**scores, **_interval(match_clusters(cohort.labels, clusters), cohort, profile)}


def diagnose_images(features: np.ndarray, cohort: Cohort, profile: Profile) -> dict[str, float | str | np.ndarray]:
    """K-Medoids on one vector per image, without lesions or weights (Table 5a); as a row of :func:`diagnose`."""
    clusters = Clustering("kmedoids", random_state=profile.seed).fit_predict(features)
    row = {
        "method": "kmedoids",
        "selection": "none",
        "lesion_weights": "",
        **score(features, clusters, cohort, profile),
    }
    return {**row, "predicted": match_clusters(cohort.labels, clusters)}


def lesion_channel(
    whole: np.ndarray, predicted: np.ndarray, masks: np.ndarray, cohort: Cohort, profile: Profile
) -> pd.DataFrame:
    """What looking at lesions adds to looking at images, without labels.

    Parameters
    ----------
    whole : ndarray of float, shape (n_images, k)
        Reduced features of the unmasked images.
    predicted : ndarray of int, shape (n_images,)
        Classes by the features of the lesions, from :func:`diagnose`.
    masks : ndarray of bool, shape (n_images, n_lesions, h, w)
        Their areas are clustered, too: the logarithm of the share of the image, standardized.

    Returns
    -------
    DataFrame
        ``clustered``: what K-Medoids saw; ``accuracy``, ``accuracy_low``, ``accuracy_high``; what :func:`compare`
        returns against the whole image; ``n``.
    """
    area = np.log10(masks.mean(axis=(2, 3)) + 1e-4)  # a share of 1e-4 is 26 pixels of 512 x 512
    area = (area - area.mean(axis=0)) / np.where(area.std(axis=0) > 0, area.std(axis=0), 1)
    seen = {
        "whole image, features": diagnose_images(whole, cohort, profile)["predicted"],
        "lesions, features": predicted,
    }
    for name, columns in (("lesions, areas", slice(None)), ("hard exudates, area", slice(1))):
        if area[:, columns].any():  # some image shows the lesion, and not all to the same extent
            seen[name] = diagnose_images(area[:, columns], cohort, profile)["predicted"]
    baseline = seen["whole image, features"] == cohort.labels
    rows = []
    for name, classes in seen.items():
        right = classes == cohort.labels
        difference = compare(right, baseline, cohort.patients, profile.seed) if rows else {}
        rows.append({"clustered": name, "accuracy": right.mean(), **_interval(classes, cohort, profile), **difference})
    return pd.DataFrame(rows)


def _interval(predicted: np.ndarray, cohort: Cohort, profile: Profile) -> dict[str, float]:
    return accuracy_interval(predicted == cohort.labels, cohort.patients, profile.seed)


def _spelled(index: int) -> str:
    return " ".join(f"{weight:g}" for weight in WEIGHT_GRID[index])
