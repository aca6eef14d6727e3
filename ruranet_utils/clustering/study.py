"""From lesion features to a diagnosis: projection heads, weighting, clustering, scores (Tables 4 and 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ruranet_utils.clustering import dmh, weighting
from ruranet_utils.clustering.estimators import Clustering, unchecked
from ruranet_utils.clustering.weighting import WEIGHT_GRID, WeightSearch, aggregate, search_weights
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import Profile
from ruranet_utils.statistics.intervals import accuracy_interval
from ruranet_utils.statistics.metrics import both_averages, clustering_scores, match_clusters
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store, digest_arrays

_ESTIMATORS = ("features.reduction", "clustering.estimators", "clustering.weighting")
HEADS = Step("projection_heads", 3, (*_ESTIMATORS, "clustering.heads", "clustering.dmh"))
SEARCH, STABILITY = Step("weight_search", 2, _ESTIMATORS), Step("weight_stability", 1, _ESTIMATORS)
SELECTIONS = ("equal", "silhouette", "held_out", "oracle")
N_SEEDS = 10  # times the heads are trained for Tables 4 and 5


def project(reduced: np.ndarray, profile: Profile, store: Store) -> dmh.HeadsResult:
    """Projection heads (Eq. 3 to 5) for the profile's seed, trained once per store; see :func:`project_all`."""
    return project_all({"": reduced}, profile, store, 1)[""][0]


def project_all(
    spaces: Mapping[Hashable, np.ndarray], profile: Profile, store: Store, n_seeds: int = N_SEEDS, **variant
) -> dict[Hashable, list[dmh.HeadsResult]]:
    """Projection heads for several features and several seeds, trained in parallel, each once per store.

    Parameters
    ----------
    spaces : mapping to ndarray of float, shape (n_images, n_lesions, k)
        From :func:`ruranet_utils.features.reduction.reduce`.
    profile : Profile
        Its seed is the first; its ``dmh_epochs`` and ``dmh_lambda`` are used.
    store : Store
    n_seeds : int
    **variant
        ``epochs``, ``rule``, ``reading``, ``start`` or ``course`` of :func:`ruranet_utils.clustering.dmh.train_heads`.

    Raises
    ------
    ValueError
        As for ``train_heads``; names the seed. Averaging the remaining seeds would put another number under the same
        name.
    """

    def compute(reduced: np.ndarray, settings: dict) -> dict[str, np.ndarray]:
        try:
            result = dmh.train_heads(reduced, **settings)
        except ValueError as error:
            raise ValueError(f"projection heads of seed {settings['seed']}: {error}") from error
        course = {f"after {epoch}": outputs for epoch, outputs in result.course.items()}
        return {"embedding": result.embedding, "history": result.history.to_numpy(dtype=np.float64), **course}

    jobs = {}
    for key, reduced in spaces.items():
        for seed in range(profile.seed, profile.seed + n_seeds):
            settings = {"epochs": profile.dmh_epochs, "lam": profile.dmh_lambda, "seed": seed, **variant}
            described = {**profile.settings("threads"), **settings, "reduced": digest_arrays(reduced)}
            jobs[key, seed] = described, partial(compute, reduced, settings)
    results = {key: [] for key in spaces}
    for (key, _), arrays in store.fetch_all(HEADS, jobs, profile.workers).items():
        history = pd.DataFrame(arrays["history"], columns=dmh.HISTORY).astype({"epoch": int})
        course = {int(name.split()[1]): arrays[name] for name in arrays if name.startswith("after")}
        results[key].append(dmh.HeadsResult(arrays["embedding"], history, course))
    return results


def label_free_clusters(embedded: np.ndarray, method: str, profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters with all lesion weights 1; no labels are needed.

    Parameters
    ----------
    embedded : ndarray of float, shape (n_images, n_lesions, k)
        Reduced features, or for ``"dmh"`` the outputs of :func:`project`.
    method : str
        One of ``profiles.METHODS``.
    profile : Profile

    Returns
    -------
    clusters : ndarray of int64, shape (n_images,)
    features : ndarray of float64, shape (n_images, k)
        What was clustered: the mean over lesions (Eq. 2).
    """
    features = aggregate(embedded, WEIGHT_GRID[weighting.EQUAL])
    return Clustering(_algorithm(method), random_state=profile.seed).fit_predict(features), features


@unchecked
def diagnose(
    embedded: np.ndarray | Sequence[np.ndarray], method: str, cohort: Cohort, profile: Profile, store: Store
) -> list[dict[str, float | str | np.ndarray]]:
    """Weight, cluster and score features with four ways of choosing the lesion weights (Eq. 2).

    ``equal``: all 1. ``silhouette``: the largest silhouette, no label used. ``held_out``: the highest accuracy on the
    other half of the patients. ``oracle``: the highest accuracy on the true labels, which is the paper's protocol and
    an upper bound rather than an estimate.

    Parameters
    ----------
    embedded : ndarray of float, shape (n_images, n_lesions, k), or a sequence of them
        Reduced features, or for ``"dmh"`` the outputs of the heads, one array per training.
    method : str
        One of ``profiles.METHODS``.
    cohort : Cohort
        The images' labels and patients.
    profile : Profile
    store : Store

    Returns
    -------
    list of four dict
        ``method``, ``selection``; ``lesion_weights`` (in the order of ``profiles.LESIONS``), the most frequent choice
        over several trainings; what :func:`score` returns, averaged over the trainings, with intervals over patients
        and trainings; ``accuracy_sd`` over ``n_seeds`` trainings; and ``predicted``: the class of every image, shape
        (n_seeds, n_images). ``held_out`` uses two weightings, hence has no score that depends on the features.
    """
    trainings = [embedded] if isinstance(embedded, np.ndarray) else embedded
    spaces = {("", method, number): training for number, training in enumerate(trainings)}
    searches = weight_search_all(spaces, profile, store).values()
    selected = [
        _select(training, search, cohort, profile) for training, search in zip(trainings, searches, strict=True)
    ]
    rows = []
    for selection in SELECTIONS:
        weights, scores, predicted = zip(*(one[selection] for one in selected), strict=True)
        predicted = np.stack(predicted)
        (spelled, times), *_ = Counter(weights).most_common(1)
        of_seeds = f" ({times} of {len(weights)})" if len(weights) > 1 else ""
        rows.append(
            {
                "method": method,
                "selection": selection,
                "lesion_weights": f"{spelled}{of_seeds}",
                **pd.DataFrame(scores).mean().to_dict(),
                **accuracy_interval(predicted == cohort.labels, cohort.patients),
                "accuracy_sd": pd.Series([one["accuracy"] for one in scores]).std(),
                "n_seeds": len(weights),
                "predicted": predicted,
            }
        )
    return rows


def _select(
    embedded: np.ndarray, search: WeightSearch, cohort: Cohort, profile: Profile
) -> dict[str, tuple[str, dict[str, float], np.ndarray]]:
    """For one training and each of ``SELECTIONS``: the weights, the scores, and the class of every image."""
    chosen = {
        "equal": weighting.EQUAL,
        "silhouette": weighting.by_silhouette(search),
        "oracle": weighting.oracle(search, cohort.labels),
    }
    found = {}
    for selection, index in chosen.items():
        features, clusters = aggregate(embedded, WEIGHT_GRID[index]), search.labels[index]
        scores = clustering_scores(features, cohort.labels, clusters)
        found[selection] = _spelled(index), scores, match_clusters(cohort.labels, clusters)
    indices, predicted = weighting.held_out(search, cohort.labels, cohort.patients, profile.seed)
    found["held_out"] = " | ".join(map(_spelled, indices)), both_averages(cohort.labels, predicted), predicted
    return found


def weight_search_all(
    spaces: Mapping[tuple[Hashable, str, int], np.ndarray], profile: Profile, store: Store
) -> dict[tuple[Hashable, str, int], WeightSearch]:
    """Clusterings under all 81 weightings, for several features, methods and trainings, each once per store.

    Parameters
    ----------
    spaces : mapping
        What to cluster, by any name, the method and the number of the training.
    profile : Profile
    store : Store
    """

    def compute(embedded: np.ndarray, algorithm: str) -> dict[str, np.ndarray]:
        search = search_weights(embedded, algorithm, profile.seed)
        return {"labels": search.labels, **search.criteria}

    jobs = {}
    for (name, method, number), embedded in spaces.items():
        algorithm = _algorithm(method)
        settings = {**profile.settings("seed", "threads"), "method": algorithm, "embedded": digest_arrays(embedded)}
        jobs[name, method, number] = settings, partial(compute, embedded, algorithm)
    found = store.fetch_all(SEARCH, jobs, profile.workers)
    return {key: WeightSearch(arrays.pop("labels"), arrays) for key, arrays in found.items()}


def weight_stability(
    reduced: np.ndarray, search: WeightSearch, patients: np.ndarray, profile: Profile, store: Store
) -> np.ndarray:
    """:func:`ruranet_utils.clustering.weighting.stability` of the clusters of k-medoids, once per store."""
    settings = {**profile.settings("seed", "threads"), "reduced": digest_arrays(reduced)}
    settings["patients"] = digest_arrays(np.unique(patients, return_inverse=True)[1])

    def compute() -> dict[str, np.ndarray]:
        return {"stability": weighting.stability(reduced, search.labels, patients, profile.seed)}

    return store.fetch(STABILITY, settings, compute)["stability"]


def score(features: np.ndarray, clusters: np.ndarray, cohort: Cohort) -> dict[str, float]:
    """Scores of one clustering with the interval of its accuracy.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, d)
        What was clustered.
    clusters : ndarray of int, shape (n_images,)
    cohort : Cohort
        The images' labels and patients.

    Returns
    -------
    dict of float
        The scores of :func:`ruranet_utils.statistics.metrics.clustering_scores`, ``accuracy_low`` and
        ``accuracy_high`` (95 %, over patients) and ``n``.
    """
    scores = clustering_scores(features, cohort.labels, clusters)
    return {**scores, **_interval(match_clusters(cohort.labels, clusters), cohort)}


def diagnose_images(features: np.ndarray, cohort: Cohort, profile: Profile) -> dict[str, float | str | np.ndarray]:
    """K-medoids on one vector per image, without lesions or weights (Table 5a); as a row of :func:`diagnose`."""
    clusters = Clustering("kmedoids", random_state=profile.seed).fit_predict(features)
    row = {
        "method": "kmedoids",
        "selection": "none",
        "lesion_weights": "",
        **score(features, clusters, cohort),
        "n_seeds": 1,
    }
    return {**row, "predicted": match_clusters(cohort.labels, clusters)[None]}


def _algorithm(method: str) -> str:
    """What clusters the features of a method: DMH is k-medoids after its heads."""
    return "kmedoids" if method == "dmh" else method


def _interval(predicted: np.ndarray, cohort: Cohort) -> dict[str, float]:
    return accuracy_interval(predicted == cohort.labels, cohort.patients)


def _spelled(index: int) -> str:
    return " ".join(f"{weight:g}" for weight in WEIGHT_GRID[index])
