"""What the printed numbers of a table imply: can its rows be true?

Nothing here knows the paper: every function takes a table. A table of true scores is never contradicted, as long as its
number of images and its share of class 1 are among those tried.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ruranet_utils.evidence.grim import (
    AVERAGES,
    MOST_IMAGES,
    SCORES,
    TooManyMatrices,
    confusion_matrices,
    decimals_of,
    shares,
)


def audit_classification(
    table: pd.DataFrame,
    decimals: int | None = None,
    sizes: Iterable[int] = range(2, MOST_IMAGES + 1),
    positive_share: float = 0.5,
) -> pd.DataFrame:
    """Search for the confusion matrices behind every row of a table of classification scores.

    Parameters
    ----------
    table : DataFrame
        ``accuracy`` and any of ``precision``, ``recall``, ``f1``, as fractions of one. Other columns are kept, in
        front.
    decimals : int, optional
        Decimals the scores are printed to; by default as :func:`ruranet_utils.evidence.grim.decimals_of` finds.
    sizes, positive_share
        As for :func:`ruranet_utils.evidence.grim.confusion_matrices`.

    Returns
    -------
    DataFrame, one row for each of ``table``
        ``sizes``: numbers of images that give the row, with any averaging; ``averages``: the averagings that do (that
        of three classes is left out if another one does and too few decimals leave too many matrices); ``matrices``:
        how many matrices give it; ``verdict``: ``consistent``, ``only as macro of three``, ``impossible`` (for the
        sizes and the share of class 1 that were tried), or ``not checked`` if the accuracy is missing.

    Raises
    ------
    ValueError
        If a required column is missing, a score lies outside [0, 1], or the table prints more decimals than
        ``decimals``, or so few that too many matrices would have to be tried.
    """
    scores = _columns(table, "accuracy", SCORES)
    decimals, sizes = _decimals(table[scores], decimals), list(sizes)
    rows = []
    for row in shares(table[scores]).to_dict("records"):
        if np.isnan(row["accuracy"]):
            rows.append({"sizes": [], "averages": [], "matrices": 0, "verdict": "not checked"})
            continue
        found = {}
        for average in AVERAGES:
            try:
                found[average] = confusion_matrices(row, average, decimals, sizes, positive_share)
            except TooManyMatrices:
                if not any(map(len, found.values())):
                    raise
        fitting = [average for average in found if len(found[average])]
        together = pd.concat(found.values()).drop_duplicates()
        verdict = "impossible" if not fitting else "consistent"
        if fitting == ["macro of three"]:
            verdict = "only as macro of three"
        sizes_found = sorted(set(together["n"]))
        rows.append({"sizes": sizes_found, "averages": fitting, "matrices": len(together), "verdict": verdict})
    return pd.concat([table.drop(columns=scores).reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def audit_segmentation(table: pd.DataFrame, decimals: int | None = None) -> pd.DataFrame:
    """Check what holds for the pixels of every mask: IoU is at most the accuracy, and at most the precision.

    Accuracy also counts the true negatives, and precision leaves out the missed pixels. Both bounds hold for each mask,
    and for a mean over masks if all columns are averaged the same way; they do not hold between a mean IoU over several
    classes and an accuracy over all pixels.

    Parameters
    ----------
    table : DataFrame
        ``iou`` and any of ``accuracy``, ``precision`` of the same binary masks, as fractions of one; other columns are
        kept, in front.
    decimals : int, optional
        As for :func:`audit_classification`.

    Returns
    -------
    DataFrame, one row for each of ``table``
        ``verdict``: ``consistent``, ``impossible: IoU above accuracy``, ``impossible: IoU above precision``, or ``not
        checked`` if a number is missing.

    Raises
    ------
    ValueError
        As :func:`audit_classification`, and if there is nothing to compare the IoU with.
    """
    columns = _columns(table, "iou", ("accuracy", "precision"))
    if len(columns) == 1:
        raise ValueError("the table needs a column accuracy or precision to compare the IoU with")
    step, scores = 10.0 ** -_decimals(table[columns], decimals) + 1e-9, shares(table[columns])
    verdicts = pd.Series("consistent", table.index, name="verdict")
    for bound in columns[:0:-1]:
        verdicts[scores["iou"] - scores[bound] > step] = f"impossible: IoU above {bound}"
    verdicts[scores.isna().any(axis=1) & (verdicts == "consistent")] = "not checked"
    return table.drop(columns=columns).assign(verdict=verdicts).reset_index(drop=True)


def _columns(table: pd.DataFrame, needed: str, further: Iterable[str]) -> list[str]:
    """The columns to check; a score whose name differs in case would go unchecked, so it is refused."""
    known = (needed, *further)
    if misspelled := [name for name in map(str, table.columns) if name.lower() in known and name not in known]:
        raise ValueError(f"columns must be named {', '.join(known)}, got {', '.join(misspelled)}")
    if needed not in table:
        raise ValueError(f"the table needs a column {needed}, got {', '.join(map(str, table.columns))}")
    return [name for name in known if name in table]


def _decimals(table: pd.DataFrame, decimals: int | None) -> int:
    """The given decimals, or those that the table prints; giving fewer than it prints, or none, is an error."""
    needed = decimals_of(table)
    if decimals is not None and decimals < needed:
        raise ValueError(f"the table prints {needed} decimals, got decimals={decimals}")
    if not (decimals or needed):
        raise ValueError("every number is 0 or 1: say by decimals= how many decimals are printed")
    return needed if decimals is None else decimals
