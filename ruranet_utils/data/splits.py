"""Which images take part, and which side of the split they go to: decided by patient, seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

SPLITS = ("train", "val", "test")
CLASSES = (0, 1)
MOST_FOLDS = 20
# With few patients, stratified folds may leave a side without one class where random ones do not.
ATTEMPTS = 50


def assign_splits(
    table: pd.DataFrame, fractions: Sequence[float], seed: int, sides: Mapping[str, str] | None = None
) -> pd.Series:
    """Split a cohort by patient, each class in the same proportions as far as whole patients allow.

    Each side is made of folds from scikit-learn's ``StratifiedGroupKFold``, at most as many in all as the smaller class
    has patients: with three of them, all sides have the same size.

    Parameters
    ----------
    table : DataFrame
        With the columns ``image_id``, ``patient_id`` and ``label`` (0 or 1); the order of the rows does not matter.
    fractions : sequence of float, shape (3,)
        Of training, validation and test images; they sum to 1.
    seed : int
    sides : mapping of str to str, optional
        Of patients whose side is fixed; the others are assigned.

    Returns
    -------
    Series of str
        ``"train"``, ``"val"`` or ``"test"`` for each row, with the index of the table.

    Raises
    ------
    ValueError
        If a side has no image of a class; gives the counts.
    """
    given = table["patient_id"].map(sides or {})
    split, rows = given.fillna("train"), table[given.isna()].sort_values("image_id")
    labels, all_labels = rows["label"].astype(int), table["label"].astype(int)
    counts = _count(split, all_labels)
    if rows.empty and counts.to_numpy().all():
        return split
    for attempt, n_folds in product(range(ATTEMPTS), _numbers_of_folds(rows, fractions)):
        kind = GroupKFold if attempt else StratifiedGroupKFold
        folds = kind(n_folds.sum(), shuffle=True, random_state=seed + attempt)
        for side, (_, chosen) in zip(_in_turn(n_folds), folds.split(rows, labels, rows["patient_id"]), strict=True):
            split[rows.index[chosen]] = side
        counts = _count(split, all_labels)
        if counts.to_numpy().all():
            return split
    missing = [f"{SPLITS[i]} holds no image of class {CLASSES[j]}" for i, j in np.argwhere(counts.to_numpy() == 0)]
    listed, n_patients = counts.to_dict("index"), table["patient_id"].nunique()
    raise ValueError(f"{'; '.join(missing)}: {listed} from {n_patients} patients, expected both in each")


def _count(split: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """Images of each class on each side."""
    return pd.crosstab(split, labels).reindex(index=SPLITS, columns=CLASSES, fill_value=0)


def _numbers_of_folds(table: pd.DataFrame, fractions: Sequence[float]) -> list[np.ndarray]:
    """Folds for each side: closest to the fractions first, and among those the fewest folds first."""
    patients = table.groupby("label")["patient_id"].nunique().reindex(CLASSES, fill_value=0)
    found = [_apportion(n, fractions) for n in range(len(SPLITS), min(MOST_FOLDS, *patients) + 1)]
    return sorted(found, key=lambda n: round(len(table) * np.abs(n / n.sum() - fractions).max()))


def _in_turn(n_folds: np.ndarray) -> list[str]:
    """The side of each fold. The sides alternate, since the first folds are larger."""
    turns = [((turn + 0.5) / n, side) for side, n in zip(SPLITS, n_folds, strict=True) for turn in range(n)]
    return [side for _, side in sorted(turns)]


def _apportion(total: int, fractions: Sequence[float]) -> np.ndarray:
    """Integers that add up to ``total``, by the largest remainder; no side stays empty if there are enough."""
    exact = total * np.asarray(fractions)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    while total >= len(shares) and not shares.all():
        shares[shares.argmin()] += 1
        shares[shares.argmax()] -= 1
    return shares


def balance(table: pd.DataFrame, n_images: int | None, seed: int) -> pd.DataFrame:
    """Draw the same number of images from each class, keeping patients whole except the last one.

    Parameters
    ----------
    table : DataFrame
        With the columns ``image_id``, ``patient_id`` and ``label``; the order of the rows does not matter.
    n_images : int or None
        Images in all, an even number; ``None``: as many as the smaller class allows.
    seed : int

    Returns
    -------
    DataFrame
        The rows drawn, with their index, sorted by ``image_id``.

    Raises
    ------
    ValueError
        If a class is missing or too small for ``n_images``; gives the counts.
    """
    counts = {label: int((table["label"] == label).sum()) for label in CLASSES}
    per_class = min(counts.values()) if n_images is None else n_images // 2
    if not min(counts.values()):
        listed = " and ".join(f"{n} images labeled {label}" for label, n in counts.items())
        raise ValueError(f"there are {listed}, expected both")
    if per_class > min(counts.values()):
        listed = " and ".join(f"{n} images labeled {label}" for label, n in counts.items())
        raise ValueError(f"there are {listed}, expected at least {per_class} of each")
    patients = np.unique(table["patient_id"])
    turn = dict(zip(np.random.default_rng(seed).permutation(patients), range(len(patients)), strict=True))
    shuffled = table.assign(turn=table["patient_id"].map(turn)).sort_values(["turn", "image_id"])
    return shuffled.groupby("label").head(per_class).drop(columns="turn").sort_values("image_id")


def deal_patients(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> pd.Series:
    """Split a cohort without labels by patient, keeping sides that are already set.

    If no validation side is set, its patients are drawn from the training side, which keeps at least one. Three
    patients without a side are enough to fill all sides.

    Parameters
    ----------
    table : DataFrame
        With the columns ``image_id``, ``patient_id`` and ``split``: one of ``SPLITS`` or missing.
    fractions : sequence of float, shape (3,)
        Of training, validation and test images.
    seed : int

    Returns
    -------
    Series of str
        With the index of the table.
    """
    split = table["split"].copy()
    training = np.unique(table.loc[split == "train", "patient_id"])
    if len(training) > 1 and "val" not in set(split):
        n_val = max(1, round(len(training) * fractions[1] / (fractions[0] + fractions[1])))
        chosen = np.random.default_rng(seed).choice(training, n_val, replace=False)
        split[table["patient_id"].isin(chosen) & (split == "train")] = "val"
    free = table[split.isna()]
    patients = np.random.default_rng(seed).permutation(np.unique(free["patient_id"]))
    side = np.repeat(SPLITS, _apportion(len(patients), fractions))
    split[free.index] = free["patient_id"].map(dict(zip(patients, side, strict=True)))
    return split
