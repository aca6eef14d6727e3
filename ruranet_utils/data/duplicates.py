"""Audit of a merge: which photographs occur twice, which contradict each other, and what gives the label away."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

# Of 256 bits of the perceptual hash. `make bench` compares IDRiD's and SRahim's photographs with each other and with
# scaled, recompressed copies of themselves.
NEAR_BITS = 16
BLOCK = 512  # rows compared with all others at a time


def duplicates(facts: pd.DataFrame) -> np.ndarray:
    """Find photographs that occur more than once, by their perceptual hashes.

    Each photograph is compared with those kept so far. So of a burst, where each frame is near the next but the last is
    far from the first, several stay.

    Parameters
    ----------
    facts : DataFrame
        With ``phash``, as from :func:`ruranet_utils.data.decoding.decode`.

    Returns
    -------
    ndarray of int, shape (n,)
        For each row, the first row kept that shows the same photograph; its own number if there is none.
    """
    bits = np.unpackbits(np.array([list(bytes.fromhex(text)) for text in facts["phash"]], np.uint8), axis=1)
    signs, first = bits.astype(np.float32) * 2 - 1, np.arange(len(facts))
    for start in range(0, len(signs), BLOCK):
        differing = (signs.shape[1] - signs[start : start + BLOCK] @ signs.T) / 2
        for row, near in enumerate(differing <= NEAR_BITS, start):
            before = np.flatnonzero(near[:row])
            first[row] = next(iter(before[first[before] == before]), row)
    return first


def join_patients(patients: pd.Series, first: np.ndarray) -> pd.Series:
    """One name for patients who share a photograph, whichever of them it is filed under.

    Parameters
    ----------
    patients : Series of str
    first : ndarray of int
        From :func:`duplicates`.

    Returns
    -------
    Series of str
        For each group of patients, the name that comes first in the table.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number, names = pd.factorize(patients)
    links = coo_array((np.ones(len(first), bool), (number, number[first])), shape=(len(names),) * 2)
    _, group = connected_components(links, directed=False)
    return patients.groupby(group[number]).transform("first")


def settle(table: pd.DataFrame, first: np.ndarray) -> pd.DataFrame:
    """Decide which photograph of each group of duplicates to keep.

    Graded labels take precedence over assumed ones, and those over none; among equals the first row wins. If
    photographs of one group have different graded labels, all are dropped: none of them can be trusted. So is any
    photograph that, according to its own source, another file shows with a different label.

    Parameters
    ----------
    table : DataFrame
        With ``image_id``, ``source``, ``label`` (``Int64``), ``assumed`` (bool) and ``disputed_by`` (str).
    first : ndarray of int
        From :func:`duplicates`.

    Returns
    -------
    DataFrame
        The table with two more columns: ``duplicate_of`` (``source/image_id`` of the photograph that is kept or
        contradicts; empty for a kept photograph itself) and ``dropped`` (``""``, ``"duplicate"`` or ``"conflict"``). A
        warning names conflicts.
    """
    names = table["source"] + "/" + table["image_id"]
    disputed = table["disputed_by"] != ""
    duplicate_of = (table["source"] + "/" + table["disputed_by"]).where(disputed, "")
    dropped = pd.Series("", table.index)
    rank = table["label"].isna() * 2 + (table["label"].notna() & table["assumed"]) * 1
    groups = pd.Series(first, table.index)
    doubtful = groups[groups.duplicated(keep=False) | disputed]
    for group in doubtful.unique():
        rows = np.flatnonzero(first == group)
        graded = table["label"].iloc[rows][~table["assumed"].iloc[rows]].dropna()
        stays = rows[np.argmin(rank.iloc[rows])]
        others = rows[rows != stays]
        duplicate_of.iloc[others] = names.iloc[stays]
        if len(set(graded)) > 1 or disputed.iloc[rows].any():
            dropped.iloc[rows] = "conflict"
            listed = ", ".join(f"{names.iloc[row]} ({table['label'].iloc[row]})" for row in rows)
            warnings.warn(f"dropped: the same photograph has different labels: {listed}", stacklevel=2)
        else:
            dropped.iloc[others] = "duplicate"
    return table.assign(duplicate_of=duplicate_of, dropped=dropped)


def confounds(table: pd.DataFrame, columns: tuple[str, ...] = ("source", "camera")) -> pd.DataFrame:
    """How well the label can be guessed from things that have nothing to do with the retina.

    Parameters
    ----------
    table : DataFrame
        With ``label`` (0 or 1; rows without one do not count) and the columns.
    columns : tuple of str

    Returns
    -------
    DataFrame
        For each column ``known``: the ``n`` images; its number of ``groups``; ``accuracy`` of giving every image the
        majority label of its group; ``guessing``, that of giving every image the overall majority label;
        ``cramers_v`` in [0, 1], 0 if the column says nothing, and its ``p_value`` (chi-squared test of independence).

    References
    ----------
    Cramer (1946), Mathematical Methods of Statistics, Section 21.9.
    """
    from scipy.stats import chi2_contingency  # takes most of a second, and only needed here
    from scipy.stats.contingency import association

    rows, table = [], table[table["label"].notna()]
    for column in columns if len(table) else ():
        counts = pd.crosstab(table[column], table["label"].astype(int)).to_numpy()
        independent = min(counts.shape) < 2
        rows.append(
            {
                "known": column,
                "groups": len(counts),
                "accuracy": counts.max(axis=1).sum() / counts.sum(),
                "guessing": counts.sum(axis=0).max() / counts.sum(),
                "cramers_v": 0.0 if independent else association(counts, method="cramer"),
                "p_value": 1.0 if independent else chi2_contingency(counts, correction=False).pvalue,
                "n": int(counts.sum()),
            }
        )
    return pd.DataFrame(rows)
