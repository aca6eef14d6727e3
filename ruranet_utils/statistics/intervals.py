"""Bootstrap intervals over patients: images of one patient resemble each other, so whole patients are drawn."""

from __future__ import annotations

import numpy as np

from ruranet_utils.statistics.metrics import CLASSES, same_length, vector


def accuracy_interval(correct: np.ndarray, patients: np.ndarray, seed: int) -> dict[str, float]:
    """``accuracy_low`` and ``accuracy_high`` (95 %) of a classification, and its ``n``.

    Parameters
    ----------
    correct : ndarray of bool, shape (n_images,)
    patients : ndarray, shape (n_images,)
    seed : int
    """
    low, high = ratio_interval(correct, np.ones(len(correct)), patients, np.random.default_rng(seed))
    return {"accuracy_low": low, "accuracy_high": high, "n": len(correct)}


def ratio_interval(
    numerator: np.ndarray,
    denominator: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of sum(numerator) / sum(denominator), drawing whole groups.

    Accuracy is the ratio of (correct, 1), pooled IoU that of (tp, tp + fp + fn). Patients are drawn, not
    images, because images of one patient resemble each other.

    Parameters
    ----------
    numerator, denominator : ndarray of float, shape (n_images,)
    groups : ndarray, shape (n_images,)
        The patient of each image: integers or strings.
    rng : numpy.random.Generator
    level : float
        Confidence level in (0, 1).
    n_resamples : int

    Returns
    -------
    low, high : float
        Both NaN if there is one group only or every denominator is 0. Resamples that sum to 0 are left out.

    Raises
    ------
    ValueError
        If an input is empty, not one-dimensional, of another length or holds NaN.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13. doi:10.1201/9780429246593
    """
    numerator, denominator = vector("numerator", numerator), vector("denominator", denominator)
    groups = vector("groups", groups)
    same_length(numerator=numerator, denominator=denominator, groups=groups)
    patients, index = np.unique(groups, return_inverse=True)
    if len(patients) == 1 or not denominator.any():
        return np.nan, np.nan
    # scipy.stats.bootstrap does the same, but cannot leave out the undefined resamples
    drawn = rng.integers(len(patients), size=(n_resamples, len(patients)))
    totals, counts = (np.bincount(index, values)[drawn].sum(axis=1) for values in (numerator, denominator))
    return _percentiles(totals, counts, level)


def auc_interval(
    y_true: np.ndarray,
    y_score: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    folds: np.ndarray | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> tuple[float, float, float]:
    """Area under the ROC curve with its percentile bootstrap interval, drawing whole groups.

    The share of pairs of a positive and a negative image in which the positive one scores higher, a tie counting one
    half. Only images of the same fold are paired, because models of different folds score on different scales.

    Parameters
    ----------
    y_true : ndarray of int, shape (n_images,)
        0 or 1.
    y_score : ndarray of float, shape (n_images,)
    groups : ndarray, shape (n_images,)
        The patient of each image.
    rng : numpy.random.Generator
    folds : ndarray of int, shape (n_images,), optional
        By default one fold.
    level, n_resamples
        As for :func:`ratio_interval`.

    Returns
    -------
    auc, low, high : float
        In [0, 1]; NaN if no fold has images of both classes, ``low`` and ``high`` also if there is one group only.

    Raises
    ------
    ValueError
        As for :func:`ratio_interval`, and if ``y_true`` holds other values.

    References
    ----------
    Forman & Scholz (2010), SIGKDD Explorations 12, 49-57. doi:10.1145/1882471.1882479
    """
    y_true, y_score, groups = vector("y_true", y_true, CLASSES), vector("y_score", y_score), vector("groups", groups)
    folds = np.zeros(len(y_true), dtype=int) if folds is None else vector("folds", folds)
    same_length(y_true=y_true, y_score=y_score, groups=groups, folds=folds)
    positive, negative = np.flatnonzero(y_true == 1), np.flatnonzero(y_true == 0)
    pairs = (folds[positive, None] == folds[negative]).astype(float)
    wins = pairs * (1 + np.sign(y_score[positive, None] - y_score[negative])) / 2
    if not pairs.any():
        return np.nan, np.nan, np.nan
    auc = wins.sum() / pairs.sum()
    patients, index = np.unique(groups, return_inverse=True)
    if len(patients) == 1:
        return float(auc), np.nan, np.nan
    drawn = rng.integers(len(patients), size=(n_resamples, len(patients)))
    times = np.stack([np.bincount(row, minlength=len(patients)) for row in drawn])[:, index]
    won, counted = (((times[:, positive] @ m) * times[:, negative]).sum(axis=1) for m in (wins, pairs))
    return float(auc), *_percentiles(won, counted, level)


def _percentiles(totals: np.ndarray, counts: np.ndarray, level: float) -> tuple[float, float]:
    """The central ``level`` of totals / counts, without the resamples whose count is 0."""
    defined, tail = counts != 0, (1 - level) / 2
    low, high = np.quantile(totals[defined] / counts[defined], (tail, 1 - tail))
    return float(low), float(high)
