"""What the printed numbers of a table imply: possible numbers of images, confusion matrices, contradictions.

Nothing here knows the paper: every function takes a table. A printed score stands for every value that rounds to it,
ties to either side, so a table of true scores is never contradicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

SCORES = ("precision", "recall", "f1")
# Over which classes precision, recall and F1 are taken. "macro of three": two classes were laid into three clusters and
# scored as if there were a third class, of which no image is: its scores are 0 and go into the mean.
AVERAGES = ("positive", "weighted", "macro", "macro of three")
MOST_IMAGES = 400


def decimals_of(table: pd.DataFrame | pd.Series) -> int:
    """Decimals that a table prints: the most that one of its numbers needs, since zeros at the end are lost.

    Raises
    ------
    ValueError
        If no number is there, or one is outside [0, 1], which percentages are.
    """
    values = _shares(table)
    if values.size == 0:
        raise ValueError("no number to check: every cell is missing")
    return max(len(np.format_float_positional(value, trim="-").partition(".")[2]) for value in values)


def _shares(values: Iterable[float]) -> np.ndarray:
    """The values that are there, or an error if one is no share: a verdict on percentages would be a false one."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    outside = values[(values < 0) | (values > 1)]
    if outside.size:
        hint = "; percentages must be divided by 100" if (outside > 1).all() and (outside <= 100).all() else ""
        raise ValueError(f"scores must lie in [0, 1], got {', '.join(f'{value:g}' for value in outside[:5])}{hint}")
    return values


def _decimals(table: pd.DataFrame, decimals: int | None) -> int:
    """The decimals given, or those that the table prints; fewer than it prints are refused."""
    needed = decimals_of(table)
    if decimals is not None and decimals < needed:
        raise ValueError(f"the table prints {needed} decimals, got decimals={decimals}")
    return needed if decimals is None else decimals


def rounds_to(exact: np.ndarray, printed: float, decimals: int) -> np.ndarray:
    """Whether exact values may be printed as ``printed``; ties count to both sides."""
    return np.abs(np.asarray(exact) - printed) <= 0.5 * 10.0**-decimals + 1e-9


def possible_sizes(
    values: Iterable[float], decimals: int, sizes: Iterable[int] = range(1, MOST_IMAGES + 1)
) -> list[int]:
    """Numbers of images of which every value can be a share (GRIM).

    Parameters
    ----------
    values : iterable of float
        Shares of the same images, such as accuracies, in [0, 1]. Missing ones are left out.
    decimals : int
        To which they are printed. With few decimals every size beyond ``10**decimals`` is possible.
    sizes : iterable of int
        To try.

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
    values, sizes = _shares(list(values)), np.array(list(sizes))
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
        To which the row is printed.
    sizes : iterable of int
        Numbers of images to try.
    positive_share : float
        Share of class 1 among the images, in (0, 1). Sizes of which it is no whole number are left out.

    Returns
    -------
    DataFrame of int
        ``n``, ``n_positive``, ``tp``, ``tn``, ``fp``, ``fn``; empty if there is none. What is missing to ``n`` lies
        in a third cluster.

    Raises
    ------
    ValueError
        If the accuracy is missing, a score lies outside [0, 1], or for an unknown average, listing the valid ones.
    """
    if average not in AVERAGES:
        raise ValueError(f"unknown average {average!r}; valid averages: {', '.join(AVERAGES)}")
    if np.isnan(row.get("accuracy", np.nan)):
        raise ValueError("without an accuracy the number of right answers is unknown, and so are the matrices")
    _shares([row.get(name, np.nan) for name in SCORES])
    found = _right_answers(row["accuracy"], decimals, sizes, positive_share)
    found = _keep(found, {"recall": _recall}, row, average, decimals)
    found = _wrong_answers(found, third_cluster=average == "macro of three")
    return _keep(found, {"precision": _precision, "f1": _f1}, row, average, decimals).reset_index(drop=True)


def _right_answers(accuracy: float, decimals: int, sizes: Iterable[int], positive_share: float) -> pd.DataFrame:
    """Every ``n``, ``n_positive``, ``tp`` and ``tn`` with an accuracy."""
    parts = [np.empty((0, 4), int)]
    for n in possible_sizes([accuracy], decimals, sizes):
        n_positive, right = round(n * positive_share), np.arange(n + 1)
        if np.isclose(n_positive, n * positive_share):
            tp, right = np.meshgrid(np.arange(n_positive + 1), right[rounds_to(right / n, accuracy, decimals)])
            possible = (right >= tp) & (right - tp <= n - n_positive)
            tp, tn = tp[possible], (right - tp)[possible]
            parts.append(np.column_stack(np.broadcast_arrays(n, n_positive, tp, tn)))
    return pd.DataFrame(np.concatenate(parts), columns=["n", "n_positive", "tp", "tn"])


def _wrong_answers(found: pd.DataFrame, third_cluster: bool) -> pd.DataFrame:
    """Add ``fp`` and ``fn``: the rest of each class, or with a third cluster any part of the rest."""
    fp, fn = found["n"] - found["n_positive"] - found["tn"], found["n_positive"] - found["tp"]
    if not third_cluster:
        return found.assign(fp=fp, fn=fn)
    parts = [np.indices(most + 1).reshape(2, -1) for most in np.column_stack([fp, fn])]
    repeated = found.loc[np.repeat(found.index, [part.shape[1] for part in parts])]
    fp, fn = np.concatenate([np.empty((2, 0), int), *parts], axis=1)
    return repeated.assign(fp=fp, fn=fn)


def _keep(
    found: pd.DataFrame, formulas: Mapping[str, Callable], row: Mapping[str, float], average: str, decimals: int
) -> pd.DataFrame:
    """The matrices of which the scores are those printed; a score whose denominator is 0 is 0, as in scikit-learn."""
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


def audit_classification(
    table: pd.DataFrame,
    decimals: int | None = None,
    sizes: Iterable[int] = range(2, MOST_IMAGES + 1),
    positive_share: float = 0.5,
) -> pd.DataFrame:
    """Look for the confusion matrices behind every row of a table of classification scores.

    Parameters
    ----------
    table : DataFrame
        ``accuracy`` and any of ``precision``, ``recall``, ``f1``, as fractions of one. Other columns are kept in front.
    decimals : int, optional
        To which the scores are printed; by default as :func:`decimals_of` finds.
    sizes, positive_share
        As for :func:`confusion_matrices`.

    Returns
    -------
    DataFrame, one row for each of ``table``
        ``sizes``: numbers of images that give the row, by any averaging; ``averages``: the averagings that do;
        ``matrices``: how many matrices that is; ``verdict``: ``consistent``, ``only as macro of three``,
        ``impossible``, or ``not checked`` where the accuracy is missing.

    Raises
    ------
    ValueError
        If a needed column is missing, a score lies outside [0, 1] or the table prints more decimals than are given.
    """
    scores = [name for name in ("accuracy", *SCORES) if name in table]
    if "accuracy" not in scores:
        raise ValueError(f"the table needs a column accuracy, got {', '.join(map(str, table.columns))}")
    decimals, sizes = _decimals(table[scores], decimals), list(sizes)
    rows = []
    for row in table[scores].to_dict("records"):
        if np.isnan(row["accuracy"]):
            rows.append({"sizes": [], "averages": [], "matrices": 0, "verdict": "not checked"})
            continue
        found = {average: confusion_matrices(row, average, decimals, sizes, positive_share) for average in AVERAGES}
        fitting = [average for average in AVERAGES if len(found[average])]
        together = pd.concat(found.values()).drop_duplicates()
        verdict = "impossible" if not fitting else "consistent"
        if fitting == ["macro of three"]:
            verdict = "only as macro of three"
        sizes_found = sorted(set(together["n"]))
        rows.append({"sizes": sizes_found, "averages": fitting, "matrices": len(together), "verdict": verdict})
    return pd.concat([table.drop(columns=scores).reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def audit_segmentation(table: pd.DataFrame, decimals: int | None = None) -> pd.DataFrame:
    """Check what holds for the pixels of every mask: IoU is at most the accuracy, and at most the precision.

    The true negatives are in the accuracy alone, and the missed pixels are not in the precision. Both hold for each
    image, hence for a mean over images or classes too.

    Parameters
    ----------
    table : DataFrame
        ``iou`` and any of ``accuracy``, ``precision``, as fractions of one; other columns are kept in front.
    decimals : int, optional
        As for :func:`audit_classification`.

    Returns
    -------
    DataFrame, one row for each of ``table``
        ``verdict``: ``consistent``, ``impossible: IoU above accuracy``, ``impossible: IoU above precision``, or ``not
        checked`` where a number is missing.
    """
    if "iou" not in table:
        raise ValueError(f"the table needs a column iou, got {', '.join(map(str, table.columns))}")
    bounds = [name for name in ("accuracy", "precision") if name in table]
    step = 10.0 ** -_decimals(table[["iou", *bounds]], decimals) + 1e-9
    verdicts = pd.Series("consistent", table.index, name="verdict")
    for bound in bounds[::-1]:
        verdicts[table["iou"] - table[bound] > step] = f"impossible: IoU above {bound}"
    verdicts[table[["iou", *bounds]].isna().any(axis=1) & (verdicts == "consistent")] = "not checked"
    return table.drop(columns=["iou", *bounds]).assign(verdict=verdicts).reset_index(drop=True)
