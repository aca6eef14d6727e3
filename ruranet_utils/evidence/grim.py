"""Which whole numbers give the printed shares: possible numbers of images (GRIM) and confusion matrices.

A printed score stands for every value that rounds to it; ties may round either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

SCORES = ("precision", "recall", "f1")
# Classes over which precision, recall and F1 are averaged. "macro of three": two classes were clustered into three
# clusters and scored as if there were a third class, which has no images: its scores are 0 and enter the mean.
AVERAGES = ("positive", "weighted", "macro", "macro of three")
MOST_IMAGES = 400
MOST_DECIMALS = 7
MOST_MATRICES = 30_000_000  # to try for one row: a few seconds
AT_ONCE = 1_000_000  # matrices in memory


class TooManyMatrices(ValueError):
    """The row has so few decimals that more than ``MOST_MATRICES`` would have to be tried."""


def decimals_of(table: pd.DataFrame | pd.Series) -> int:
    """Decimals that a table prints: the most that any of its numbers needs, since trailing zeros are lost.

    Raises
    ------
    ValueError
        If there are no numbers, or one is outside [0, 1], as percentages are.
    """
    values = shares(pd.DataFrame(table)).to_numpy()
    values = values[~np.isnan(values)]
    if values.size == 0:
        raise ValueError("no number to check: every cell is missing")
    return max(len(np.format_float_positional(value, trim="-").partition(".")[2]) for value in values)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """The table as floats, missing cells NaN; raises an error if a cell is not a share, which would give a false
    verdict.

    Digits beyond ``MOST_DECIMALS`` are traces of binary numbers (72.13 / 100 is not 0.7213), not printed ones.
    """
    if table.columns.duplicated().any():
        raise ValueError(f"columns occur twice: {', '.join(map(str, table.columns[table.columns.duplicated()]))}")
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(float)
    words = table.to_numpy(dtype=object)[numbers.isna() & table.notna()]
    if words.size:
        raise ValueError(f"expected numbers, got {', '.join(map(repr, words[:5]))}")
    values = numbers.to_numpy().ravel()
    outside = values[(values < 0) | (values > 1)]
    if outside.size:
        hint = "; percentages must be divided by 100" if (outside > 1).all() and (outside <= 100).all() else ""
        raise ValueError(f"scores must lie in [0, 1], got {', '.join(f'{value:g}' for value in outside[:5])}{hint}")
    return numbers.round(MOST_DECIMALS)


def rounds_to(exact: np.ndarray, printed: float, decimals: int) -> np.ndarray:
    """Whether exact values may be printed as ``printed``; ties may round either way."""
    return np.abs(np.asarray(exact) - printed) <= 0.5 * 10.0**-decimals + 1e-9


def possible_sizes(
    values: Iterable[float], decimals: int, sizes: Iterable[int] = range(1, MOST_IMAGES + 1)
) -> list[int]:
    """Numbers of images for which every value can be a share (GRIM).

    Parameters
    ----------
    values : iterable of float
        Shares of the same images, such as accuracies, in [0, 1]. Missing ones are left out.
    decimals : int
        Decimals they are printed to. With few decimals, every size beyond ``10**decimals`` is possible.
    sizes : iterable of int
        Numbers to try.

    Returns
    -------
    list of int
        Empty if there is no such number.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1].

    References
    ----------
    Brown & Heathers (2017), The GRIM test, Social Psychological and Personality Science 8, 363-369.
    doi:10.1177/1948550616673876
    """
    values, sizes = shares(pd.DataFrame({"value": list(values)}))["value"].dropna(), np.array(list(sizes), dtype=int)
    fits = np.ones(len(sizes), bool)
    for value in values:
        fits &= rounds_to(np.rint(value * sizes) / sizes, value, decimals)
    return sizes[fits].tolist()


def confusion_matrices(
    row: Mapping[str, float],
    average: str,
    decimals: int,
    sizes: Iterable[int] = range(1, MOST_IMAGES + 1),
    positive_share: float = 0.5,
) -> pd.DataFrame:
    """Every confusion matrix that gives a printed row.

    Parameters
    ----------
    row : mapping of str to float
        ``accuracy`` and any of ``precision``, ``recall`` and ``f1``, in [0, 1]; NaN or absent: not printed.
    average : str
        One of ``AVERAGES``.
    decimals : int
        Decimals the row is printed to.
    sizes : iterable of int
        Numbers of images to try.
    positive_share : float
        Share of class 1 among the images, in (0, 1). Sizes that do not give a whole number of class 1 images are
        skipped.

    Returns
    -------
    DataFrame of int
        ``n``, ``n_positive``, ``tp``, ``tn``, ``fp``, ``fn``; empty if there is none. If they add up to less than
        ``n``, the remaining images are in a third cluster.

    Raises
    ------
    ValueError
        If the accuracy is missing, a score lies outside [0, 1], ``positive_share`` lies outside (0, 1) or fits none of
        the sizes, or the average is unknown; lists the valid ones.
    """
    if average not in AVERAGES:
        raise ValueError(f"unknown average {average!r}; valid averages: {', '.join(AVERAGES)}")
    if not 0 < positive_share < 1:
        raise ValueError(f"positive_share must lie between 0 and 1, got {positive_share!r}")
    sizes = np.array([n for n in sizes if n >= 1])
    sizes = sizes[np.isclose(np.rint(sizes * positive_share), sizes * positive_share)]
    if not len(sizes):
        raise ValueError(f"of no size that was given {positive_share:g} is a whole number of images")
    row = shares(pd.DataFrame([{name: row.get(name) for name in ("accuracy", *SCORES)}])).iloc[0]
    if np.isnan(row["accuracy"]):
        raise ValueError("without an accuracy the number of right answers is unknown, and so are the matrices")
    found = _right_answers(row["accuracy"], decimals, sizes, positive_share)
    found = _keep(found, {"recall": _recall}, row, average, decimals)
    third = average == "macro of three"
    fp, fn = _most_wrong(found)
    to_try = ((fp + 1) * (fn + 1) if third else fp * 0 + 1).cumsum()
    if third and to_try.max() > MOST_MATRICES:
        raise TooManyMatrices("too many matrices with a third cluster to try: give fewer sizes or more decimals")
    parts = [part for _, part in found.groupby(to_try // AT_ONCE)] or [found]
    further = {"precision": _precision, "f1": _f1}
    kept = [_keep(_wrong_answers(part, third), further, row, average, decimals) for part in parts]
    return pd.concat(kept, ignore_index=True)


def _right_answers(accuracy: float, decimals: int, sizes: Iterable[int], positive_share: float) -> pd.DataFrame:
    """Every ``n``, ``n_positive``, ``tp`` and ``tn`` that gives this accuracy."""
    parts = [np.empty((0, 4), int)]
    for n in possible_sizes([accuracy], decimals, sizes):
        n_positive, right = round(n * positive_share), np.arange(n + 1)
        tp, right = np.meshgrid(np.arange(n_positive + 1), right[rounds_to(right / n, accuracy, decimals)])
        possible = (right >= tp) & (right - tp <= n - n_positive)
        tp, tn = tp[possible], (right - tp)[possible]
        parts.append(np.column_stack(np.broadcast_arrays(n, n_positive, tp, tn)))
    return pd.DataFrame(np.concatenate(parts), columns=["n", "n_positive", "tp", "tn"])


def _most_wrong(found: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """``fp`` and ``fn`` without a third cluster."""
    return found["n"] - found["n_positive"] - found["tn"], found["n_positive"] - found["tp"]


def _wrong_answers(found: pd.DataFrame, third_cluster: bool) -> pd.DataFrame:
    """Add ``fp`` and ``fn``: the rest of each class, or any part of it if there is a third cluster."""
    fp, fn = _most_wrong(found)
    if not third_cluster:
        return found.assign(fp=fp, fn=fn)
    parts = [np.indices(most + 1).reshape(2, -1) for most in np.column_stack([fp, fn])]
    repeated = found.loc[np.repeat(found.index, [part.shape[1] for part in parts])]
    fp, fn = np.concatenate([np.empty((2, 0), int), *parts], axis=1)
    return repeated.assign(fp=fp, fn=fn)


def _keep(
    found: pd.DataFrame, formulas: Mapping[str, Callable], row: Mapping[str, float], average: str, decimals: int
) -> pd.DataFrame:
    """The matrices whose scores are the printed ones; a score whose denominator is 0 is 0, as in scikit-learn."""
    mirrored = {"tp": "tn", "tn": "tp", "fp": "fn", "fn": "fp"}
    negative = found.rename(columns=mirrored).assign(n_positive=found["n"] - found["n_positive"])
    for name, formula in formulas.items():
        if np.isnan(row.get(name, np.nan)):
            continue
        mine, other = (top / bottom.clip(lower=1) for top, bottom in map(formula, (found, negative)))
        share = found["n_positive"] / found["n"]
        score = {
            "positive": mine,
            "weighted": share * mine + (1 - share) * other,
            "macro": (mine + other) / 2,
            "macro of three": (mine + other) / 3,
        }[average]
        fits = rounds_to(score, row[name], decimals)
        found, negative = found[fits], negative[fits]
    return found


def _recall(counts: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return counts["tp"], counts["n_positive"]


def _precision(counts: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return counts["tp"], counts["tp"] + counts["fp"]


def _f1(counts: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return 2 * counts["tp"], counts["tp"] + counts["fp"] + counts["n_positive"]
