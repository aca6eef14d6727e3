"""Weighted aggregation over lesions (Eq. 2), and the search for the weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.model_selection import StratifiedGroupKFold

from ruranet_utils.clustering.estimators import PAM_LIMIT, Clustering
from ruranet_utils.features.reduction import one_thread
from ruranet_utils.profiles import LESION_WEIGHTS, LESIONS
from ruranet_utils.statistics.metrics import UNMATCHED, match_clusters, matched_accuracy

WEIGHT_GRID = np.array(list(product(LESION_WEIGHTS, repeat=len(LESIONS))))


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
    silhouette : ndarray of float64, shape (81,)
        Mean silhouette of each clustering in its own aggregated features, in [-1, 1]; of a sample of ``PAM_LIMIT``
        images where there are more. NaN where all images fell into one cluster or every image is its own.
    """

    labels: np.ndarray
    silhouette: np.ndarray


@one_thread
def search_weights(lesion_features: np.ndarray, method: str, seed: int = 0) -> WeightSearch:
    """Cluster under every weighting of ``WEIGHT_GRID``, from features that are computed once.

    :func:`label_free`, :func:`oracle` and :func:`held_out` choose one.

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
        scores.append(_silhouette(features, labels[-1], seed))
    return WeightSearch(labels=np.array(labels), silhouette=np.array(scores))


def label_free(search: WeightSearch) -> int:
    """Index of the weighting with the largest silhouette; no label is seen.

    The silhouette (Rousseeuw 1987) has no unit and does not change when all weights are doubled, so it can be
    compared across weightings. Of equal scores the first counts.

    Raises
    ------
    ValueError
        If no clustering has a silhouette.

    References
    ----------
    Rousseeuw (1987), J. Comput. Appl. Math. 20, 53-65. doi:10.1016/0377-0427(87)90125-7
    """
    if np.isnan(search.silhouette).all():
        raise ValueError(f"none of the {len(search.silhouette)} weightings split the images into clusters")
    # Proportional weightings, (1, 1, 1, 1) and (5, 5, 5, 5), score equally but for the last bits.
    return int(np.nanargmax(search.silhouette.round(9)))


def oracle(search: WeightSearch, y_true: np.ndarray) -> int:
    """Index of the weighting whose clustering agrees best with the true labels; the first of equals.

    This is the paper's protocol ("maximizing clustering accuracy"). It uses the labels, so the score it leads
    to is an upper bound over the grid and no estimate for new images.

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
        Of the halves, in which the classes have the same shares as far as possible.

    Returns
    -------
    indices : list of two int
        The weighting that each half is given.
    predicted : ndarray of int, shape (n_images,)
        Class of every image, its cluster named by the other half: 0 or 1, or -1 in a cluster without a name.

    Raises
    ------
    ValueError
        If there are fewer than two patients or images of a class.
    """
    y_true, indices = np.asarray(y_true), []
    predicted = np.empty(len(y_true), dtype=int)
    halves = StratifiedGroupKFold(2, shuffle=True, random_state=seed).split(y_true, y_true, patients)
    for chooses, scored in halves:
        index = oracle(WeightSearch(search.labels[:, chooses], search.silhouette), y_true[chooses])
        clusters = search.labels[index]
        named = dict(zip(clusters[chooses], match_clusters(y_true[chooses], clusters[chooses]), strict=True))
        predicted[scored] = [named.get(cluster, UNMATCHED) for cluster in clusters[scored]]
        indices.append(index)
    return indices, predicted


def _silhouette(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    sample_size = PAM_LIMIT if len(features) > PAM_LIMIT else None
    return float(silhouette_score(features, labels, sample_size=sample_size, random_state=seed))
