"""Which images take part, and on which side of the split they lie: decided by patient, seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SPLITS = ("train", "val", "test")
CLASSES = (0, 1)


def assign_splits(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> pd.Series:
    """Cut a cohort by patient, each class in the same proportions as far as patients allow.

    Patients are visited in random order, those with both classes and those with more images first, and each goes
    to the side that is emptiest for its classes, relative to the fraction wanted there (Adams's divisor method). An
    empty side therefore comes first, and the largest may end up to two patients short of its fraction.

    Parameters
    ----------
    table : DataFrame
        With the columns ``patient_id`` and ``label`` (0 or 1); the order of the rows does not matter.
    fractions : sequence of float, shape (3,)
        Of training, validation and test images; they add up to 1.
    seed : int

    Returns
    -------
    Series of str
        ``"train"``, ``"val"`` or ``"test"`` for each row, with the index of the table.

    Raises
    ------
    ValueError
        If a side holds no image of a class, with the counts.
    """
    counts = pd.crosstab(table["patient_id"], table["label"].astype(int)).reindex(columns=CLASSES, fill_value=0)
    order = np.random.default_rng(seed).permutation(len(counts))
    images = counts.to_numpy()[order]
    first = np.lexsort((-images.sum(axis=1), -(images > 0).sum(axis=1)))
    filled = np.zeros((len(SPLITS), len(CLASSES)))
    side = np.empty(len(counts), dtype=int)
    for patient in order[first]:
        side[patient] = np.argmin(filled / np.reshape(fractions, (-1, 1)) @ counts.iloc[patient])
        filled[side[patient]] += counts.iloc[patient]
    if not filled.all():
        listed = pd.DataFrame(filled.astype(int), index=SPLITS, columns=CLASSES).to_dict("index")
        missing = [f"{SPLITS[i]} holds no image of class {CLASSES[j]}" for i, j in np.argwhere(filled == 0)]
        raise ValueError(f"{'; '.join(missing)}: {listed} from {len(counts)} patients, expected both in each")
    return table["patient_id"].map(dict(zip(counts.index, np.take(SPLITS, side), strict=True)))


def balance(table: pd.DataFrame, n_images: int | None, seed: int) -> pd.DataFrame:
    """Draw equally many images of each class, patients whole but for the last one.

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
        If a class is missing or too small for ``n_images``, with the counts.
    """
    counts = {label: int((table["label"] == label).sum()) for label in CLASSES}
    per_class = min(counts.values()) if n_images is None else n_images // 2
    if not min(counts.values()):
        raise ValueError(f"expected images of both classes, got {counts} (label: images)")
    if per_class > min(counts.values()):
        raise ValueError(f"expected at least {per_class} images of each class, got {counts} (label: images)")
    patients = np.unique(table["patient_id"])
    turn = dict(zip(np.random.default_rng(seed).permutation(patients), range(len(patients)), strict=True))
    shuffled = table.assign(turn=table["patient_id"].map(turn)).sort_values(["turn", "image_id"])
    return shuffled.groupby("label").head(per_class).drop(columns="turn").sort_values("image_id")


def deal_patients(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> pd.Series:
    """Cut a cohort without labels by patient; an official split is kept and its training side gives the validation set.

    Parameters
    ----------
    table : DataFrame
        With the columns ``image_id``, ``patient_id`` and ``split``: ``"train"``, ``"test"`` or missing.
    fractions : sequence of float, shape (3,)
        Of training, validation and test images.
    seed : int

    Returns
    -------
    Series of str
        With the index of the table.
    """
    split = table["split"].copy()
    training = np.sort(table.loc[split == "train", "image_id"])
    if len(training):
        n_val = max(1, round(len(training) * fractions[1] / (fractions[0] + fractions[1])))
        chosen = np.random.default_rng(seed).choice(training, n_val, replace=False)
        split[table["image_id"].isin(chosen) & (split == "train")] = "val"
    free = table[split.isna()]
    sizes = free["patient_id"].value_counts()
    patients = np.random.default_rng(seed).permutation(np.sort(sizes.index))
    filled = np.cumsum(sizes[patients]) / max(1, len(free))
    side = np.digitize(filled - sizes[patients] / max(1, len(free)) / 2, np.cumsum(fractions)[:2])
    dealt = dict(zip(patients, np.take(SPLITS, side), strict=True))
    split[free.index] = free["patient_id"].map(dealt)
    return split
