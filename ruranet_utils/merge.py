"""The audit of a merge: what each photograph is, which occur twice, and which contradict each other."""

from __future__ import annotations

import json
import sys
import warnings

import imagehash
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association

from ruranet_utils.config import Profile
from ruranet_utils.progress import progress
from ruranet_utils.sources import files
from ruranet_utils.sources.base import Record
from ruranet_utils.sources.files import read_image
from ruranet_utils.store import Store, digest_file

# Perceptual hashes of 16 x 16 bits. Copies of IDRiD's and SRahim's photographs, scaled to between 200 and 900 px and
# compressed again (JPEG quality 50 to 95), differ by at most 8 bits, different photographs by at least 30.
HASH_SIDE, NEAR_BITS = 16, 16
# Share of the center with the colors of a retina; every photograph of IDRiD and SRahim has 0.95 or more.
RETINA_SCORE = 0.5
FACTS = ("sha256", "width_px", "height_px", "phash", "retina_score")


def inspect(records: list[Record], profile: Profile, store: Store) -> pd.DataFrame:
    """Look at every photograph once per store.

    Returns
    -------
    DataFrame
        In the order of the records: ``sha256`` of the file, ``width_px``, ``height_px``, ``phash`` (perceptual hash,
        256 bits in hexadecimal) and ``retina_score`` in [0, 1]. A warning names photographs with a score below
        ``RETINA_SCORE``.

    Raises
    ------
    ValueError
        If a file cannot be read; the message names it.
    """
    digests = [digest_file(record.image_path) for record in records]

    def compute() -> dict[str, np.ndarray]:
        jobs = (delayed(_look)(record, profile.image_size_px) for record in records)
        done = Parallel(n_jobs=profile.workers, prefer="threads", return_as="generator")(jobs)
        facts = list(progress(done, desc="looking for duplicates", total=len(records), unit="image"))
        return {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)}

    settings = {"files": digests, "image_size_px": profile.image_size_px}
    stored = store.fetch("facts", settings, compute, [files, sys.modules[__name__]])["facts"]
    table = pd.DataFrame(json.loads(stored.tobytes()), columns=FACTS[1:])
    table.insert(0, "sha256", digests)
    doubtful = table.index[table["retina_score"] < RETINA_SCORE]
    if len(doubtful):
        listed = [f"{records[row].image_path} (score {table['retina_score'][row]:.2f})" for row in doubtful]
        warnings.warn(f"{len(listed)} images may not show a retina: {', '.join(listed[:8])}", stacklevel=2)
    return table


def _look(record: Record, size_px: int) -> tuple[int, int, str, float]:
    image, (height_px, width_px) = read_image(record.image_path, size_px)
    phash = imagehash.phash(Image.fromarray(image.transpose(1, 2, 0)), hash_size=HASH_SIDE)
    return width_px, height_px, str(phash), retina_score(image)


def retina_score(image: np.ndarray) -> float:
    """Share of the central pixels with the colors of a retina: red above green, green not below blue, not black.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)
    """
    height, width = image.shape[1:]
    center = image[:, 3 * height // 10 : 7 * height // 10, 3 * width // 10 : 7 * width // 10].astype(int)
    red, green, blue = center
    return float(((red > green) & (green >= blue - 10) & (red > 40)).mean())


def duplicates(facts: pd.DataFrame) -> np.ndarray:
    """Find photographs that occur twice, byte by byte or by their perceptual hashes.

    Parameters
    ----------
    facts : DataFrame
        With ``sha256`` and ``phash``, as from :func:`inspect`.

    Returns
    -------
    ndarray of int, shape (n,)
        For each row the first row that shows the same photograph; its own number where there is none before it.
    """
    groups = DisjointSet(range(len(facts)))
    for rows in facts.groupby("sha256").indices.values():
        for row in rows[1:]:
            groups.merge(rows[0], row)
    bits = np.unpackbits(np.array([list(bytes.fromhex(text)) for text in facts["phash"]], np.uint8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    for row in range(1, len(signs)):
        differing = (signs.shape[1] - signs[:row] @ signs[row]) / 2
        for other in np.flatnonzero(differing <= NEAR_BITS):
            groups.merge(row, int(other))
    first = {root: min(group) for group in groups.subsets() for root in group}
    return np.array([first[row] for row in range(len(facts))])


def settle(table: pd.DataFrame, first: np.ndarray) -> pd.DataFrame:
    """Decide which photograph of each group of duplicates stays.

    Graded labels count before assumed ones, and those before none; among equals the first row. Photographs of one
    group with different graded labels are all dropped: none of them can be trusted.

    Parameters
    ----------
    table : DataFrame
        With ``image_id``, ``source``, ``label`` (``Int64``) and ``assumed`` (bool).
    first : ndarray of int
        From :func:`duplicates`.

    Returns
    -------
    DataFrame
        The table with two more columns: ``duplicate_of`` (``source/image_id`` of the photograph that stays, empty
        for that one itself) and ``dropped`` (``""``, ``"duplicate"`` or ``"conflict"``). A warning names conflicts.
    """
    names = table["source"] + "/" + table["image_id"]
    duplicate_of, dropped = pd.Series("", table.index), pd.Series("", table.index)
    rank = table["label"].isna() * 2 + (table["label"].notna() & table["assumed"]) * 1
    for rows in pd.Series(first).groupby(first).indices.values():
        graded = table["label"].iloc[rows][~table["assumed"].iloc[rows]].dropna()
        stays = rows[np.argmin(rank.iloc[rows])]
        others = rows[rows != stays]
        if len(set(graded)) > 1:
            dropped.iloc[rows] = "conflict"
            listed = ", ".join(f"{names.iloc[row]} ({table['label'].iloc[row]})" for row in rows)
            warnings.warn(f"dropped: the same photograph has different labels: {listed}", stacklevel=2)
        else:
            dropped.iloc[others] = "duplicate"
        duplicate_of.iloc[others] = names.iloc[stays]
    return table.assign(duplicate_of=duplicate_of, dropped=dropped)


def confounds(table: pd.DataFrame, columns: tuple[str, ...] = ("source", "camera")) -> pd.DataFrame:
    """How well the label is told by what has nothing to do with the retina.

    Parameters
    ----------
    table : DataFrame
        With ``label`` (0 or 1, none missing) and the columns.
    columns : tuple of str

    Returns
    -------
    DataFrame
        For each column ``known``: its number of ``groups``; ``accuracy`` of saying of every image what most images of
        its group are; ``guessing``, that of saying of all images what most of them are; ``cramers_v`` in [0, 1], 0
        where the column says nothing, and its ``p_value`` (chi-squared test of independence).

    References
    ----------
    Cramer (1946), Mathematical Methods of Statistics, Section 21.9.
    """
    rows = []
    for column in columns:
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
