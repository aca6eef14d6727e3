"""Does a network leave healthy eyes empty? How often it finds each lesion in eyes with and without disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ruranet_utils.statistics.intervals import auc_interval, ratio_interval

LEAST_PX = 20  # of 512 x 512; a lesion of at least this area counts as found in a photograph
SIDE_PX = 512


def found_table(
    masks: np.ndarray, lesions: Sequence[str], groups: Mapping[str, np.ndarray], patients: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Share of the photographs of each group in which each lesion is found.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, n_lesions, h, w)
    lesions : sequence of str
        Of the masks.
    groups : mapping of str to ndarray of bool, shape (n,)
        The first group are the healthy eyes, the last the diseased ones.
    patients : ndarray of str, shape (n,)
    seed : int
        Of the bootstrap over patients.

    Returns
    -------
    DataFrame
        One row per lesion: for each group ``<group>``, ``<group> low``, ``<group> high`` (95 %) and ``<group> n``;
        ``auc`` of the lesion's area, healthy against diseased, with ``auc low`` and ``auc high``; it depends on no
        threshold.
    """
    area = masks.sum(axis=(2, 3)) * (SIDE_PX**2 / (masks.shape[2] * masks.shape[3]))
    healthy, diseased = (list(groups)[place] for place in (0, -1))
    compared = groups[healthy] | groups[diseased]
    rows = []
    for channel, lesion in enumerate(lesions):
        row, found = {"lesion": lesion}, area[:, channel] >= LEAST_PX
        for name, chosen in groups.items():
            rng = np.random.default_rng(seed)
            low, high = ratio_interval(found[chosen], np.ones(chosen.sum()), patients[chosen], rng)
            row |= {name: found[chosen].mean(), f"{name} low": low, f"{name} high": high, f"{name} n": chosen.sum()}
        rng = np.random.default_rng(seed)
        is_diseased = groups[diseased][compared].astype(int)
        auc = auc_interval(is_diseased, area[compared, channel], patients[compared], rng)
        rows.append(row | dict(zip(("auc", "auc low", "auc high"), auc, strict=True)))
    return pd.DataFrame(rows)
