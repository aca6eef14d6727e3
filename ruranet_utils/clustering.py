"""Weighted aggregation over lesions (Eq. 2), clustering of images, and the search for lesion weights."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.base import ClusterMixin
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_score
from sklearn_extra.cluster import KMedoids

from ruranet_utils.config import LESION_WEIGHTS, LESIONS
from ruranet_utils.metrics import matched_accuracy
from ruranet_utils.reduction import one_thread, require_finite

CLUSTERERS = ("kmedoids", "kmeans", "agglomerative")
VARIANTS = ("default", "released")
WEIGHT_GRID = np.array(list(product(LESION_WEIGHTS, repeat=len(LESIONS))))


def make_clusterer(method: str, n_clusters: int = 2, seed: int = 0, variant: str = "default") -> ClusterMixin:
    """An estimator with ``fit_predict``.

    Parameters
    ----------
    method : str
        ``"kmedoids"``, ``"kmeans"`` or ``"agglomerative"``. DMH is k-medoids on the output of its heads
        (:mod:`ruranet_utils.dmh`), so it is no method here.
    n_clusters : int
    seed : int
        Used by k-means, and by k-medoids in the released variant; the other methods draw nothing at random.
    variant : str
        ``"default"``, or ``"released"`` for the settings of the code released beside the paper: k-medoids as
        an alternating iteration from a random start, agglomerative clustering into 3 clusters whatever
        ``n_clusters`` says.

    Raises
    ------
    ValueError
        For an unknown method or variant, listing the valid ones.

    References
    ----------
    Kaufman & Rousseeuw (1990), Finding Groups in Data, chapter 2 (PAM). doi:10.1002/9780470316801
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; valid variants: {', '.join(VARIANTS)}")
    released = variant == "released"
    if method == "kmedoids":
        update, start = ("alternate", "random") if released else ("pam", "build")
        return KMedoids(n_clusters=n_clusters, method=update, init=start, random_state=seed)
    if method == "kmeans":
        return KMeans(n_clusters=n_clusters, n_init=10, random_state=seed)
    if method == "agglomerative":
        return AgglomerativeClustering(n_clusters=3 if released else n_clusters)
    raise ValueError(f"unknown clustering method {method!r}; valid methods: {', '.join(CLUSTERERS)}")


@one_thread
def cluster(method: str, features: np.ndarray, n_clusters: int = 2, seed: int = 0) -> np.ndarray:
    """Assign every image to a cluster.

    Parameters
    ----------
    method : str
        As for :func:`make_clusterer`.
    features : ndarray of float, shape (n_images, d)
    n_clusters, seed : int
        As for :func:`make_clusterer`.

    Returns
    -------
    ndarray of int64, shape (n_images,)
        In [0, n_clusters); which cluster gets which number means nothing.

    Raises
    ------
    ValueError
        If the method is unknown, ``features`` is not two-dimensional or not finite, or there are fewer images
        than clusters.
    """
    clusterer = make_clusterer(method, n_clusters, seed)
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must have shape (n_images, d), got {features.shape}")
    require_finite(features)
    if len(features) < n_clusters:
        raise ValueError(f"{len(features)} images cannot form {n_clusters} clusters")
    return clusterer.fit_predict(features).astype(np.int64)


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
        Mean silhouette of each clustering in its own aggregated features, in [-1, 1]; NaN where all images
        fell into one cluster or every image is its own.
    """

    labels: np.ndarray
    silhouette: np.ndarray


@one_thread
def search_weights(lesion_features: np.ndarray, method: str, seed: int = 0) -> WeightSearch:
    """Cluster under every weighting of ``WEIGHT_GRID``; :func:`label_free` and :func:`oracle` choose one.

    Parameters
    ----------
    lesion_features : ndarray of float, shape (n_images, 4, d)
        Reduced features, or for DMH the outputs of its heads.
    method : str
        As for :func:`make_clusterer`.
    seed : int

    Raises
    ------
    ValueError
        As for :func:`aggregate` and :func:`cluster`.
    """
    labels, scores = [], []
    for weights in WEIGHT_GRID:
        features = aggregate(lesion_features, weights)
        labels.append(cluster(method, features, seed=seed))
        scores.append(_silhouette(features, labels[-1]))
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
    return int(np.argmax([matched_accuracy(y_true, labels) for labels in search.labels]))


def _silhouette(features: np.ndarray, labels: np.ndarray) -> float:
    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(features, labels))
