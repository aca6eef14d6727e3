"""Scores of classifications and clusterings."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    accuracy_score,
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    precision_recall_fscore_support,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix

CLASSES = (0, 1)
UNMATCHED = -1


def classification_scores(y_true: np.ndarray, y_pred: np.ndarray, average: str = "binary") -> dict[str, float]:
    """Accuracy, precision, recall and F1 of a two-class prediction, 0 where a denominator is 0.

    Parameters
    ----------
    y_true : ndarray of int, shape (n_images,)
        0 or 1.
    y_pred : ndarray of int, shape (n_images,)
        0, 1, or -1 for "no class", which is always an error.
    average : {"binary", "weighted"}
        ``"binary"``: the scores of class 1; ``"weighted"``: both classes, weighted by their images.

    Returns
    -------
    dict of float
        ``accuracy``, ``precision``, ``recall``, ``f1``, in [0, 1].

    Raises
    ------
    ValueError
        If an input is empty, not one-dimensional, of another length or holds other values, or the average is
        unknown.
    """
    y_true, y_pred = vector("y_true", y_true, CLASSES), vector("y_pred", y_pred, (UNMATCHED, *CLASSES))
    same_length(y_true=y_true, y_pred=y_pred)
    if average not in ("binary", "weighted"):
        raise ValueError(f"average must be 'binary' or 'weighted', got {average!r}")
    # "macro" over class 1 alone is its own score, and unlike "binary" takes predictions of -1
    labels, average = ([1], "macro") if average == "binary" else (CLASSES, "weighted")
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, y_pred, labels=list(labels), average=average, zero_division=0
    )
    scores = {"accuracy": accuracy_score(y_true, y_pred), "precision": precision, "recall": recall, "f1": f1}
    return {name: float(score) for name, score in scores.items()}


def both_averages(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """:func:`classification_scores` in the two ways that the paper's Tables 4 and 5 mix.

    Returns
    -------
    dict of float
        ``accuracy``; ``precision``, ``recall``, ``f1``, weighted over the classes; ``precision_positive``,
        ``recall_positive``, ``f1_positive`` of class 1 alone; all in [0, 1].
    """
    positive = classification_scores(y_true, y_pred)
    positive.pop("accuracy")
    weighted = classification_scores(y_true, y_pred, average="weighted")
    return weighted | {f"{name}_positive": score for name, score in positive.items()}


def match_clusters(y_true: np.ndarray, y_cluster: np.ndarray) -> np.ndarray:
    """Rename each cluster to a class, no two to the same, so that most images agree.

    Among equally good matches the choice depends on how many images of each class a cluster holds, never on
    its name or on the order of the images.

    Parameters
    ----------
    y_true : ndarray of int, shape (n_images,)
        0 or 1.
    y_cluster : ndarray of int, shape (n_images,)
        Any integers; may hold more or fewer clusters than there are classes.

    Returns
    -------
    ndarray of int, shape (n_images,)
        0 or 1; -1 for images of a cluster that no class is left for.

    Raises
    ------
    ValueError
        If the inputs are empty, not one-dimensional, or differ in length, or ``y_true`` holds other values.

    References
    ----------
    Kuhn (1955), Naval Research Logistics Quarterly 2, 83-97. doi:10.1002/nav.3800020109
    """
    y_true, y_cluster = vector("y_true", y_true, CLASSES), vector("y_cluster", y_cluster)
    same_length(y_true=y_true, y_cluster=y_cluster)
    classes, clusters = np.unique(y_true), np.unique(y_cluster)
    table = contingency_matrix(y_true, y_cluster)
    order = np.lexsort(table)
    rows, columns = linear_sum_assignment(table[:, order], maximize=True)
    names = np.full(len(clusters), UNMATCHED)
    names[order[columns]] = classes[rows]
    return names[np.searchsorted(clusters, y_cluster)]


def matched_accuracy(y_true: np.ndarray, y_cluster: np.ndarray) -> float:
    """Fraction of images whose cluster, optimally renamed by :func:`match_clusters`, is their class.

    In [0, 1]. Images of unmatched clusters count as errors. Parameters and errors are those of
    :func:`match_clusters`.
    """
    return float(np.mean(match_clusters(y_true, y_cluster) == np.asarray(y_true)))


def clustering_scores(features: np.ndarray, y_true: np.ndarray, y_cluster: np.ndarray) -> dict[str, float]:
    """Scores of a clustering: against the classes, and by the features alone.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, n_features)
        What was clustered.
    y_true, y_cluster : ndarray of int, shape (n_images,)
        As for :func:`match_clusters`.

    Returns
    -------
    dict of float
        :func:`both_averages` of the matched clusters; ``ari`` in [-0.5, 1]; ``nmi`` in [0, 1];
        ``calinski_harabasz`` and ``davies_bouldin`` >= 0 and ``silhouette`` in [-1, 1], these three NaN unless there
        are 2 to n_images - 1 clusters.

    Raises
    ------
    ValueError
        As :func:`match_clusters`, and if ``features`` is no finite matrix with one row for each image.
    """
    y_pred, features = match_clusters(y_true, y_cluster), np.asarray(features)
    if features.ndim != 2 or len(features) != len(y_pred):
        raise ValueError(f"features must have shape ({len(y_pred)}, n_features), got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(f"features must be finite, got {np.sum(~np.isfinite(features))} NaN or infinite values")
    scores = both_averages(y_true, y_pred)
    scores["ari"] = adjusted_rand_score(y_true, y_cluster)
    scores["nmi"] = normalized_mutual_info_score(y_true, y_cluster)
    defined = 2 <= len(np.unique(y_cluster)) < len(features)
    for name, score in (
        ("calinski_harabasz", calinski_harabasz_score),
        ("davies_bouldin", davies_bouldin_score),
        ("silhouette", silhouette_score),
    ):
        scores[name] = score(features, y_cluster) if defined else np.nan
    return {name: float(score) for name, score in scores.items()}


def vector(name: str, values: np.ndarray, valid: tuple[int, ...] | None = None) -> np.ndarray:
    """The values as an array, or a ValueError that names them: empty, not one-dimensional, missing or not ``valid``."""
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {values.shape}")
    if pd.isna(values).any():
        raise ValueError(f"{name} must hold no missing values, got {pd.isna(values).sum()} NaN")
    if valid is not None and not np.isin(values, valid).all():
        raise ValueError(f"{name} must hold only {valid}, got {np.setdiff1d(values, valid)[:5].tolist()}")
    return values if valid is None else values.astype(int)


def same_length(**vectors: np.ndarray) -> None:
    """Raise a ValueError with all lengths, by name, if they differ."""
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise ValueError("lengths differ: " + ", ".join(f"{name} {v.shape}" for name, v in vectors.items()))
