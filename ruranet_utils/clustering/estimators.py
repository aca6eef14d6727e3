"""The three clusterings of Table 4 that need no projection heads, behind scikit-learn's interface."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data
from sklearn_extra.cluster import CLARA, KMedoids

from ruranet_utils.features.reduction import one_thread

# For loops over arrays that are already checked: in such small clusterings, scikit-learn's checks take half the time.
unchecked = config_context(assume_finite=True, skip_parameter_validation=True)
CLUSTERERS = ("kmedoids", "kmeans", "agglomerative")
VARIANTS = ("default", "released")
# Time and memory of PAM grow with the square of the number of images; above this number it sees samples (CLARA).
PAM_LIMIT = 1000
CLARA_SAMPLE, CLARA_DRAWS = 500, 5


@contextmanager
def without_limit_warnings() -> Iterator[None]:
    """Ignore that k-medoids hits its limit: if many images are equally far apart, rounding lets it swap equally good
    medoids until then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Maximum number of iteration", ConvergenceWarning)
        yield


class Clustering(ClusterMixin, BaseEstimator):
    """Cluster images by one feature vector each.

    DMH is k-medoids on the outputs of its heads: :class:`ruranet_utils.clustering.dmh.DMH`.

    Parameters
    ----------
    method : {"kmedoids", "kmeans", "agglomerative"}
        K-medoids is PAM from its own start (``build``); above ``PAM_LIMIT`` images it is CLARA: PAM on samples, keeping
        the best medoids.
    n_clusters : int
    variant : {"default", "released"}
        ``"released"``: settings of the code released with the paper: k-medoids alternates from a random start, and
        agglomerative clustering makes 3 clusters whatever ``n_clusters`` is.
    random_state : int
        Used by k-means, CLARA, and k-medoids in the released variant; the others involve no randomness.

    Attributes
    ----------
    labels_ : ndarray of int64, shape (n_images,)
        In [0, n_clusters), or [0, 3) for the released agglomerative clustering; the numbering of the clusters is
        arbitrary.
    cluster_centers_ : ndarray of float64, shape (n_clusters, n_features)
        Medoids or means; agglomerative clustering has none.
    n_features_in_ : int

    References
    ----------
    Kaufman & Rousseeuw (1990), Finding Groups in Data, chapters 2 (PAM) and 3 (CLARA). doi:10.1002/9780470316801
    """

    def __init__(
        self, method: str = "kmedoids", n_clusters: int = 2, variant: str = "default", random_state: int = 0
    ) -> None:
        self.method = method
        self.n_clusters = n_clusters
        self.variant = variant
        self.random_state = random_state

    @one_thread
    def fit(self, X: np.ndarray, y: None = None) -> Clustering:
        """Find the clusters.

        Parameters
        ----------
        X : array_like of float, shape (n_images, n_features)
        y : ignored

        Raises
        ------
        ValueError
            If the method or variant is unknown, ``X`` is not a finite matrix or does not vary, or there are fewer
            images than clusters.
        """
        X = validate_data(self, X, dtype=np.float64)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} images cannot form {self.n_clusters} clusters")
        if len(X) > 1 and not np.ptp(X, axis=0).any():
            raise ValueError(f"the features are constant over {len(X)} images: nothing to cluster")
        with without_limit_warnings():
            engine = self.engine(len(X)).fit(X)
        self.labels_ = engine.labels_.astype(np.int64)
        if hasattr(engine, "cluster_centers_"):
            self.cluster_centers_ = engine.cluster_centers_
        return self

    def engine(self, n_images: int) -> ClusterMixin:
        """The scikit-learn or scikit-learn-extra estimator that does the work for this many images."""
        if self.variant not in VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}; valid variants: {', '.join(VARIANTS)}")
        if not isinstance(self.n_clusters, Integral) or self.n_clusters < 1:
            raise ValueError(f"n_clusters must be an integer >= 1, got {self.n_clusters!r}")
        released, seed = self.variant == "released", self.random_state
        if self.method == "kmeans":
            return KMeans(self.n_clusters, n_init=10, random_state=seed)
        if self.method == "agglomerative":
            return AgglomerativeClustering(3 if released else self.n_clusters)
        if self.method != "kmedoids":
            raise ValueError(f"unknown clustering method {self.method!r}; valid methods: {', '.join(CLUSTERERS)}")
        if released:
            return KMedoids(self.n_clusters, method="alternate", init="random", random_state=seed)
        if n_images > PAM_LIMIT:
            return CLARA(self.n_clusters, n_sampling=CLARA_SAMPLE, n_sampling_iter=CLARA_DRAWS, random_state=seed)
        return KMedoids(self.n_clusters, method="pam", init="build", random_state=seed)
