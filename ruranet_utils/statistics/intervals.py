"""Intervals over patients: images of one patient resemble each other, so whole patients are counted and drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from ruranet_utils.statistics.metrics import CLASSES, same_length, vector


def accuracy_interval(correct: np.ndarray, patients: np.ndarray) -> dict[str, float]:
    """Interval of an accuracy, over patients, and over trainings where there are several.

    Wilson's interval for as many independent images as the variance by :func:`spread` is worth, with a quantile of
    Student's t. It holds its level on small cohorts and near 0 and 1, where an interval of the mean plus and minus
    its standard error does not.

    Parameters
    ----------
    correct : ndarray of bool, shape (n_images,) or (n_trainings, n_images)
    patients : ndarray, shape (n_images,)
        Of each image: integers or strings.

    Returns
    -------
    dict of float
        ``accuracy_low`` and ``accuracy_high`` (95 %), NaN for one patient; ``n`` images.

    Raises
    ------
    ValueError
        If ``correct`` is empty, of another length or holds NaN.

    References
    ----------
    Wilson (1927), J. Am. Stat. Assoc. 22, 209-212. doi:10.1080/01621459.1927.10502953
    Franco et al. (2019), J. Surv. Stat. Methodol. 7, 334-364. doi:10.1093/jssam/smy019
    """
    correct = as_trainings("correct", correct, patients)
    patients, accuracy = np.asarray(patients), correct.mean()
    n_patients = len(np.unique(patients))
    if n_patients == 1:
        return {"accuracy_low": np.nan, "accuracy_high": np.nan, "n": correct.shape[1]}
    variance, df = spread(correct.mean(axis=0), patients, [correct])
    n = accuracy * (1 - accuracy) / variance if variance > 0 else n_patients
    t2 = stdtrit(df, 0.975) ** 2 / n
    center = (accuracy + t2 / 2) / (1 + t2)
    half = np.sqrt(t2 * (accuracy * (1 - accuracy) + t2 / 4)) / (1 + t2)
    low, high = min(center - half, accuracy), max(center + half, accuracy)  # rounding may leave 0 or 1 outside
    return {"accuracy_low": float(low), "accuracy_high": float(high), "n": correct.shape[1]}


def spread(values: np.ndarray, patients: np.ndarray, trainings: Sequence[np.ndarray]) -> tuple[float, float]:
    """Variance of the mean of ``values`` over images and its degrees of freedom.

    Patients and trainings are crossed: every training sees all patients. The variance is that between patients, of
    whom each counts with all images together, plus that between the trainings beyond what their patients explain. The
    degrees of freedom are Satterthwaite's.

    Parameters
    ----------
    values : ndarray of float, shape (n_images,)
        Means over the trainings, or differences of such means.
    patients : ndarray, shape (n_images,)
        Of at least two patients.
    trainings : sequence of ndarray, shape (n_trainings, n_images)
        What each method that takes part gave in each of its trainings; a single one adds nothing.

    References
    ----------
    Gallas (2006), Acad. Radiol. 13, 353-362. doi:10.1016/j.acra.2005.11.030
    Satterthwaite (1946), Biometrics Bull. 2, 110-114. doi:10.2307/3002019
    """
    _, index = np.unique(patients, return_inverse=True)
    n_images, n_patients = len(index), index.max() + 1
    among = n_patients / (n_patients - 1) / n_images**2
    parts = [(among * np.sum(np.bincount(index, values - values.mean()) ** 2), n_patients - 1)]
    for runs in trainings:
        if len(runs) > 1:
            means = runs.mean(axis=1, keepdims=True)
            left = runs - means - runs.mean(axis=0) + runs.mean()
            by_patient = np.stack([np.bincount(index, row) for row in left])
            explained = among * np.sum(by_patient**2) / (len(runs) * (len(runs) - 1))
            parts.append((max(means.var(ddof=1) / len(runs) - explained, 0.0), len(runs) - 1))
    variance = sum(part for part, _ in parts)
    return float(variance), variance**2 / sum(part**2 / df for part, df in parts) if variance else float(n_patients - 1)


def as_trainings(name: str, correct: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """As floats of shape (n_trainings, n_images), of which each row was checked."""
    correct = np.atleast_2d(np.asarray(correct, dtype=np.float64))
    rows = [vector(name, row) for row in correct]
    for row in rows:
        same_length(**{name: row, "patients": np.asarray(patients)})
    return np.stack(rows)


def ratio_interval(
    numerator: np.ndarray,
    denominator: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of sum(numerator) / sum(denominator), drawing whole groups.

    Pooled IoU is the ratio of (tp, tp + fp + fn), a mean that of (values, 1). Accuracies have
    :func:`accuracy_interval`. Of several trainings, it is the interval of their mean ratio; trainings are drawn, too.
    Draws from K trainings have only (K - 1) / K of their variance.

    Parameters
    ----------
    numerator, denominator : ndarray of float, shape (n_images,) or (n_trainings, n_images)
    groups : ndarray, shape (n_images,)
        The patient of each image: integers or strings.
    rng : numpy.random.Generator
    level : float
        Confidence level in (0, 1).
    n_resamples : int

    Returns
    -------
    low, high : float
        Both NaN if there is one group only or every denominator is 0. Resamples that sum to 0, in any of the trainings
        drawn, are left out.

    Raises
    ------
    ValueError
        If an input is empty, not one-dimensional, of another length or holds NaN.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13. doi:10.1201/9780429246593
    Owen (2007), The pigeonhole bootstrap, Ann. Appl. Stat. 1, 386-411. doi:10.1214/07-AOAS122
    """
    numerator, denominator = (
        as_trainings(name, values, groups) for name, values in (("numerator", numerator), ("denominator", denominator))
    )
    groups = vector("groups", groups)
    patients, index = np.unique(groups, return_inverse=True)
    if len(patients) == 1 or not denominator.any():
        return np.nan, np.nan
    # scipy.stats.bootstrap does the same, but cannot leave out the undefined resamples
    drawn, n_trainings = rng.integers(len(patients), size=(n_resamples, len(patients))), len(numerator)
    totals, counts = (
        np.stack([np.bincount(index, row)[drawn].sum(axis=1) for row in values], axis=1)
        for values in (numerator, denominator)
    )
    if n_trainings > 1:
        trained = rng.integers(n_trainings, size=(n_resamples, n_trainings))
        totals, counts = (np.take_along_axis(values, trained, axis=1) for values in (totals, counts))
    defined = counts.all(axis=1)
    return _percentiles(np.mean(totals[defined] / counts[defined], axis=1), level)


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
        In [0, 1]; NaN if no fold has images of both classes. ``low`` and ``high`` are NaN also if there is one group
        only, or if all resamples agree, as with an AUC of 1: their spread then says nothing.

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
    low, high = _percentiles(won[counted > 0] / counted[counted > 0], level)
    return float(auc), *((low, high) if low < high else (np.nan, np.nan))


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """Ends of the central ``level`` of the resampled values."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
