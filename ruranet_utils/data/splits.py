"""Which images take part, and on which side of the split they lie: decided by patient, seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import LinearConstraint, milp

SPLITS = ("train", "val", "test")
CLASSES = (0, 1)


def assign_splits(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> pd.Series:
    """Cut a cohort by patient, each class in the same proportions as far as whole patients allow.

    Patients with the same number of images of each class are of one kind. How many patients of each kind go to each
    side is the solution of an integer program: the images of each class on each side are as near as possible to the
    fractions, rounded by the largest remainder (Hamilton), and after that so are the patients of each kind; no side
    lacks a class if that can be had. Which patients of a kind these are is drawn.

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
        ``"train"``, ``"val"`` or ``"test"`` for each row, with the index of the table. Where each patient has one
        image, the ratio of the classes on a side is that of the cohort to within one image.

    Raises
    ------
    ValueError
        If a side holds no image of a class, with the counts.
    """
    counts = pd.crosstab(table["patient_id"], table["label"].astype(int)).reindex(columns=CLASSES, fill_value=0)
    kinds, kind = np.unique(counts.to_numpy(), axis=0, return_inverse=True)
    patients = _patients_per_side(kinds, np.bincount(kind.ravel()), fractions)
    side = np.empty(len(counts), dtype=int)
    rng = np.random.default_rng(seed)
    for number, per_side in enumerate(patients.T):
        side[rng.permutation(np.flatnonzero(kind.ravel() == number))] = np.repeat(range(len(SPLITS)), per_side)
    filled = patients @ kinds
    if not filled.all():
        listed = pd.DataFrame(filled, index=SPLITS, columns=CLASSES).to_dict("index")
        missing = [f"{SPLITS[i]} holds no image of class {CLASSES[j]}" for i, j in np.argwhere(filled == 0)]
        raise ValueError(f"{'; '.join(missing)}: {listed} from {len(counts)} patients, expected both in each")
    return table["patient_id"].map(dict(zip(counts.index, np.take(SPLITS, side), strict=True)))


def _patients_per_side(kinds: np.ndarray, n_patients: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Patients of each kind on each side, shape (3, n_kinds), from the images of each class that a kind has."""
    n_kinds, n_sides = len(kinds), len(SPLITS)
    wanted = [_apportion(total, fractions) for total in (*(kinds.T @ n_patients), *n_patients)]
    wanted = np.column_stack(wanted).ravel()  # side by side: images of each class, patients of each kind
    counted = np.kron(np.eye(n_sides), np.vstack([kinds.T, np.eye(n_kinds)]))
    cost = np.tile(np.concatenate([np.ones(len(CLASSES)), np.full(n_kinds, 1e-3)]), n_sides)
    n, off = counted.shape[1], np.eye(len(wanted))  # unknowns: patients, and how far each count is off
    everybody = np.kron(np.ones((1, n_sides)), np.eye(n_kinds))
    is_image = cost == 1
    for fewest in (1, 0):
        solved = milp(
            np.concatenate([np.zeros(n), cost]),
            integrality=np.arange(n + len(wanted)) < n,
            constraints=[
                LinearConstraint(np.hstack([everybody, np.zeros((n_kinds, len(wanted)))]), n_patients, n_patients),
                LinearConstraint(np.hstack([counted, -off]), ub=wanted),
                LinearConstraint(np.hstack([counted, off]), lb=wanted),
                LinearConstraint(np.hstack([counted, 0 * off])[is_image], lb=fewest),
            ],
            # Enough but for many patients who all differ; a limit of time would not repeat.
            options={"node_limit": 1000},
        )
        if solved.x is not None:
            break
    return solved.x[:n].round().astype(int).reshape(n_sides, n_kinds)


def _apportion(total: int, fractions: Sequence[float]) -> np.ndarray:
    """Whole numbers that add up to ``total``, by the largest remainder; no side stays empty if there are enough."""
    exact = total * np.asarray(fractions)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    while total >= len(shares) and not shares.all():
        shares[shares.argmin()] += 1
        shares[shares.argmax()] -= 1
    return shares


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

    Three patients without an official split are enough for all sides.

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
    patients = np.random.default_rng(seed).permutation(np.unique(free["patient_id"]))
    side = np.repeat(SPLITS, _apportion(len(patients), fractions))
    split[free.index] = free["patient_id"].map(dict(zip(patients, side, strict=True)))
    return split
