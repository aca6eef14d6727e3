"""Weighted aggregation over lesions (Eq. 2), and the search for the weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_score
from sklearn.model_selection import StratifiedGroupKFold

from ruranet_utils.clustering.estimators import PAM_LIMIT, Clustering, unchecked
from ruranet_utils.features.reduction import one_thread
from ruranet_utils.profiles import LESION_WEIGHTS, LESIONS
from ruranet_utils.statistics.metrics import UNMATCHED, match_clusters, matched_accuracy
from ruranet_utils.storage.progress import progress

WEIGHT_GRID = np.array(list(product(LESION_WEIGHTS, repeat=len(LESIONS))))
EQUAL = 0  # row of the grid in which all weights are 1
N_DRAWS, SHARE = 10, 0.8  # draws, and the share of the patients in each
LEAST_SHARE = 0.05  # of the images in the smaller cluster; less is a few outliers, not a diagnosis
CRITERIA = ("silhouette", "calinski_harabasz", "davies_bouldin")


def aggregate(lesion_features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the lesions (Eq. 2): ``F = 1/L * sum_i w_i f_i``.

    Parameters
    ----------
    lesion_features : ndarray of float, shape (n_images, n_lesions, d)
    weights : array_like of float, shape (n_lesions,)
        In [1, 10]; not normalized, as in the paper.

    Returns
    -------
    ndarray of float64, shape (n_images, d)

    Raises
    ------
    ValueError
        If the shapes do not fit or a weight is outside [1, 10].

    References
    ----------
    RURANET++, Eq. 2.
    """
    lesion_features = np.asarray(lesion_features, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    if lesion_features.ndim != 3:
        raise ValueError(f"expected shape (n_images, n_lesions, d), got {lesion_features.shape}")
    n_lesions = lesion_features.shape[1]
    if weights.shape != (n_lesions,):
        raise ValueError(f"weights must have shape ({n_lesions},), one per lesion, got {weights.shape}")
    low, high = min(LESION_WEIGHTS), max(LESION_WEIGHTS)
    for weight in weights:
        if not low <= weight <= high:
            raise ValueError(f"weights must lie in [{low:g}, {high:g}], got {weight:g}")
    return np.einsum("l,nld->nd", weights, lesion_features) / n_lesions


@dataclass(frozen=True)
class WeightSearch:
    """The clusterings of one set of features under every weighting of ``WEIGHT_GRID``.

    Attributes
    ----------
    labels : ndarray of int64, shape (81, n_images)
    criteria : dict of str to ndarray of float64, shape (81,)
        By ``CRITERIA``, for each clustering in its own aggregated features: the mean silhouette, in [-1, 1], of a
        sample of ``PAM_LIMIT`` images if there are more; the Calinski-Harabasz index, larger for better separated
        clusters; the Davies-Bouldin index, smaller for them. NaN if all images fell into one cluster or every image is
        its own cluster. None changes when all weights are doubled, so they are comparable across weightings.

    References
    ----------
    Rousseeuw (1987), J. Comput. Appl. Math. 20, 53-65. doi:10.1016/0377-0427(87)90125-7
    Calinski & Harabasz (1974), Commun. Stat. 3, 1-27. doi:10.1080/03610927408827101
    Davies & Bouldin (1979), IEEE Trans. Pattern Anal. 1, 224-227. doi:10.1109/TPAMI.1979.4766909
    """

    labels: np.ndarray
    criteria: dict[str, np.ndarray]


@one_thread
@unchecked
def search_weights(lesion_features: np.ndarray, method: str, seed: int = 0) -> WeightSearch:
    """Cluster under every weighting of ``WEIGHT_GRID``; the features are computed only once.

    :func:`by_silhouette`, :func:`oracle` and :func:`held_out` choose one.

    Parameters
    ----------
    lesion_features : ndarray of float, shape (n_images, 4, d)
        Reduced features, or for DMH the outputs of its heads.
    method : str
        As for :class:`ruranet_utils.clustering.estimators.Clustering`.
    seed : int

    Raises
    ------
    ValueError
        As for :func:`aggregate` and :meth:`ruranet_utils.clustering.estimators.Clustering.fit`.
    """
    labels, scores = [], []
    for weights in WEIGHT_GRID:
        features = aggregate(lesion_features, weights)
        labels.append(Clustering(method, random_state=seed).fit_predict(features))
        scores.append(_criteria(features, labels[-1], seed))
    criteria = dict(zip(CRITERIA, np.array(scores).T, strict=True))
    return WeightSearch(labels=np.array(labels), criteria=criteria)


def by_silhouette(search: WeightSearch) -> int:
    """Index of the :func:`eligible` weighting with the largest silhouette; no label is used. The first one wins ties.

    Raises
    ------
    ValueError
        If no clustering has a silhouette.
    """
    return best(np.where(eligible(search.labels), search.criteria["silhouette"], np.nan))


def eligible(labels: np.ndarray) -> np.ndarray:
    """Weightings that leave at least ``LEAST_SHARE`` of the images in the smaller cluster; all of them if none does.

    Criteria that see no label like a single image far from all others. It is a cluster, but not one of two diagnoses.

    Parameters
    ----------
    labels : ndarray of int, shape (n_weightings, n_images)
        Two clusters by each weighting, numbered 0 and 1.

    Returns
    -------
    ndarray of bool, shape (n_weightings,)
    """
    share = labels.mean(axis=1)
    found = np.minimum(share, 1 - share) >= LEAST_SHARE
    return found if found.any() else ~found


def best(criterion: np.ndarray) -> int:
    """Index of the largest value; the first one wins ties.

    Raises
    ------
    ValueError
        If all are NaN: no weighting splits the images.
    """
    if np.isnan(criterion).all():
        raise ValueError(f"none of the {len(criterion)} weightings split the images into clusters")
    # Proportional weightings, such as (1, 1, 1, 1) and (5, 5, 5, 5), have equal scores except for the last bits.
    scale = np.nanmax(np.abs(criterion)) or 1.0
    return int(np.nanargmax((criterion / scale).round(9)))


def oracle(search: WeightSearch, y_true: np.ndarray) -> int:
    """Index of the weighting whose clustering agrees best with the true labels; the first one wins ties.

    This is the paper's protocol ("maximizing clustering accuracy"). It uses the labels, so the resulting score is an
    upper bound over the grid, not an estimate for new images.

    Parameters
    ----------
    search : WeightSearch
    y_true : ndarray of int, shape (n_images,)
    """
    clusterings, of_weighting = np.unique(search.labels, axis=0, return_inverse=True)  # most weightings share one
    accuracies = np.array([matched_accuracy(y_true, labels) for labels in clusterings])
    return int(np.argmax(accuracies[of_weighting.ravel()]))


def held_out(search: WeightSearch, y_true: np.ndarray, patients: np.ndarray, seed: int) -> tuple[list[int], np.ndarray]:
    """The oracle's choice without its advantage: the labels of one half choose the weights for the other.

    Parameters
    ----------
    search : WeightSearch
    y_true : ndarray of int, shape (n_images,)
    patients : ndarray, shape (n_images,)
        The patient of each image; both eyes go to one half.
    seed : int
        For the halves, in which the classes have the same shares as far as possible.

    Returns
    -------
    indices : list of two int
        The weighting used on each half.
    predicted : ndarray of int, shape (n_images,)
        Class of every image, its cluster named by the other half: 0 or 1, or -1 in an unnamed cluster.

    Raises
    ------
    ValueError
        If there are fewer than two patients, or images of either class.
    """
    y_true, indices = np.asarray(y_true), []
    predicted = np.empty(len(y_true), dtype=int)
    halves = StratifiedGroupKFold(2, shuffle=True, random_state=seed).split(y_true, y_true, patients)
    for chooses, scored in halves:
        index = oracle(WeightSearch(search.labels[:, chooses], {}), y_true[chooses])
        clusters = search.labels[index]
        named = dict(zip(clusters[chooses], match_clusters(y_true[chooses], clusters[chooses]), strict=True))
        predicted[scored] = [named.get(cluster, UNMATCHED) for cluster in clusters[scored]]
        indices.append(index)
    return indices, predicted


@one_thread
def stability(lesion_features: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int) -> np.ndarray:
    """How well k-medoids recovers its clusters from ``SHARE`` of the patients, under each weighting of the grid.

    Parameters
    ----------
    lesion_features : ndarray of float, shape (n_images, 4, d)
    labels : ndarray of int, shape (81, n_images)
        Clusters of all images.
    patients : ndarray, shape (n_images,)
    seed : int
        For the ``N_DRAWS`` draws.

    Returns
    -------
    ndarray of float, shape (81,)
        Mean adjusted Rand index against the clusters of all images, in [-0.5, 1].

    References
    ----------
    Ben-Hur, Elisseeff & Guyon (2002), Pac. Symp. Biocomput. 7, 6-17. doi:10.1142/9789812799623_0002
    """
    rng, names = np.random.default_rng(seed), np.unique(patients)
    kept = max(2, round(SHARE * len(names)))
    drawn = [np.isin(patients, rng.choice(names, kept, replace=False)) for _ in range(N_DRAWS)]
    agreed = []
    for weights, whole in progress(list(zip(WEIGHT_GRID, labels, strict=True)), desc="stability", unit="weighting"):
        features = aggregate(lesion_features, weights)
        again = [Clustering("kmedoids").fit_predict(features[rows]) for rows in drawn]
        agreed.append([adjusted_rand_score(whole[rows], found) for rows, found in zip(drawn, again, strict=True)])
    return np.mean(agreed, axis=1)


def _criteria(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float, float]:
    if not 1 < len(np.unique(labels)) < len(labels):
        return (np.nan,) * len(CRITERIA)
    sample_size = PAM_LIMIT if len(features) > PAM_LIMIT else None
    return (
        float(silhouette_score(features, labels, sample_size=sample_size, random_state=seed)),
        float(calinski_harabasz_score(features, labels)),
        float(davies_bouldin_score(features, labels)),
    )
