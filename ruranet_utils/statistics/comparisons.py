"""Is one method better than another, on the same images? And does a clustering repeat?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit
from scipy.stats import false_discovery_control
from sklearn.metrics import adjusted_rand_score

from ruranet_utils.statistics.intervals import as_trainings, spread


def compare(correct: np.ndarray, other: np.ndarray, patients: np.ndarray) -> dict[str, float]:
    """Difference of two accuracies on the same images, over patients, and over trainings where there are several.

    Interval and test are one: p is below 0.05 exactly where the interval leaves out 0.

    Parameters
    ----------
    correct, other : ndarray of bool or float, shape (n_images,) or (n_trainings, n_images)
        Whether each image was classified correctly by the one and by the other method, or what it adds to a score that
        is a mean over images. The number of trainings may
        differ between them; with a single one the result holds for this training.
    patients : ndarray, shape (n_images,)

    Returns
    -------
    dict of float
        ``difference`` of the accuracies, in [-1, 1]; ``difference_low``, ``difference_high`` (95 %) and ``p``
        (two-sided) by Student's t with the variance of :func:`ruranet_utils.statistics.intervals.spread`. All but the
        difference are NaN where every patient differs alike, so that there is nothing to judge it by.

    Raises
    ------
    ValueError
        If the lengths differ, the inputs are empty or there is one patient only.
    """
    correct, other = as_trainings("correct", correct, patients), as_trainings("other", other, patients)
    if len(np.unique(patients)) == 1:
        raise ValueError(f"{correct.shape[1]} images of one patient alone cannot be compared")
    values = correct.mean(axis=0) - other.mean(axis=0)
    difference = float(values.mean())
    variance, df = spread(values, patients, [correct, other])
    if difference and not variance:
        half = p = np.nan
    else:
        error = np.sqrt(variance)
        half = stdtrit(df, 0.975) * error
        p = 2 * stdtr(df, -abs(difference) / error) if variance else 1.0
    return {
        "difference": difference,
        "difference_low": float(difference - half),
        "difference_high": float(difference + half),
        "p": float(p),
    }


def adjust(differences: pd.DataFrame, by: str | None = None, chosen: Sequence[bool] | None = None) -> pd.DataFrame:
    """The differences with what their number leaves of them.

    Parameters
    ----------
    differences : DataFrame
        With the columns that :func:`compare` returns.
    by : str, optional
        Column of the families of comparisons; by default all rows are one.
    chosen : sequence of bool, optional
        For each row, whether the labels that score it also chose something, such as lesion weights. The test does not
        hold there: ``p`` is removed.

    Returns
    -------
    DataFrame
        With ``p adjusted``, controlling the false discovery rate, NaN where ``p`` is, and ``verdict``: ``"higher"`` or
        ``"lower"`` where that is below 0.05, else ``"no difference shown"``; missing where there is no ``p``.

    References
    ----------
    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57, 289-300. doi:10.1111/j.2517-6161.1995.tb02031.x
    """
    if chosen is not None:
        differences = differences.assign(p=differences["p"].mask(np.asarray(chosen)))
    family = pd.Series(0, differences.index) if by is None else differences[by]
    known = differences["p"].dropna()
    adjusted = known.groupby(family[known.index]).transform(false_discovery_control)
    table = differences.assign(**{"p adjusted": adjusted})
    verdict = pd.Series(np.where(table["difference"] > 0, "higher", "lower"), table.index)
    verdict = verdict.where(table["p adjusted"] < 0.05, "no difference shown")
    return table.assign(verdict=verdict.where(table["p"].notna()))


def mean_pairwise_ari(clusterings: Sequence[np.ndarray]) -> float:
    """Mean adjusted Rand index over all pairs of clusterings of the same images: 1 if all are equal, 0 by chance.

    Raises
    ------
    ValueError
        If there are fewer than two.

    References
    ----------
    Hubert & Arabie (1985), Journal of Classification 2, 193-218. doi:10.1007/BF01908075
    """
    if len(clusterings) < 2:
        raise ValueError(f"a pair needs two clusterings, got {len(clusterings)}")
    return float(np.mean([adjusted_rand_score(*pair) for pair in combinations(clusterings, 2)]))
