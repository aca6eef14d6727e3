"""Every photograph and mask is decoded once per store: pixels at the target size, and what an audit must know."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from ruranet_utils.data.masks import read_mask, shrink_mask
from ruranet_utils.data.reading import read_image, turn_mask
from ruranet_utils.data.sources.base import Record
from ruranet_utils.profiles import ANNOTATIONS, DISPLAY, Profile
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store, digest_file, release

DECODING = Step("photographs", 2, ("data.reading", "data.masks", "data.decoding"))
CHOICE = Step("chosen_photographs", 1, ())
HASH_SIDE = 16
# Below these an image is named in a warning; both are shares of pixels, of the center and of the whole image. IDRiD and
# SRahim have at least 0.95 and 0.65 (columns of cohort_*.csv).
RETINA_SCORE, FIELD_OF_VIEW = 0.5, 0.4
MOST_LESION = 0.5  # share of the field of view beyond which a mask is taken for an inverted one
AREAS = [f"{lesion}_px" for lesion in ANNOTATIONS]
LOSSES = [f"{lesion}_lost" for lesion in ANNOTATIONS]


@dataclass(frozen=True, eq=False)
class Photographs:
    """Decoded photographs, row by row.

    Attributes
    ----------
    facts : DataFrame
        ``sha256`` of the file, ``width_px``, ``height_px``, ``phash`` (perceptual hash, 256 bits in hexadecimal),
        ``retina_score`` and ``field_of_view`` in [0, 1]. If any photograph has masks also each lesion's area after
        scaling, ``<lesion>_px``, and the share of its area lost by that, ``<lesion>_lost``, missing for photographs
        without masks.
    images : ndarray of uint8, shape (n, 3, h, w)
    masks : ndarray of bool, shape (n, n_lesions, h, w), or None
        Both are mapped from the store, read-only.
    key : str
        Name of the artefact that holds them.
    """

    facts: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray | None
    key: str

    def choose(self, rows: np.ndarray, store: Store) -> Photographs:
        """Some of the rows, in the order given; without masks if none of them has any."""
        facts = self.facts.iloc[rows].reset_index(drop=True)
        names = ["images"] if self.masks is None or facts[AREAS[0]].isna().all() else ["images", "masks"]
        arrays = {name: getattr(self, name) for name in names}
        if len(rows) < len(self.facts):
            settings = {"key": self.key, "rows": rows.tolist(), "names": names}
            copy = partial(_rows, arrays, rows)
            arrays = store.fetch_rows(CHOICE, settings, copy, len(rows))
        return replace(self, facts=facts, images=arrays["images"], masks=arrays.get("masks"))


def decode(records: list[Record], profile: Profile, store: Store) -> Photographs:
    """Read all files of some records, side by side, once per store.

    Parameters
    ----------
    records : list of Record
    profile : Profile
        Its ``image_size_px`` and ``workers`` (threads, since decoding leaves the interpreter free).
    store : Store

    Returns
    -------
    Photographs
        In the order of the records. A warning names photographs with a score below ``RETINA_SCORE`` or a field of view
        below ``FIELD_OF_VIEW``.

    Raises
    ------
    ValueError
        If a file cannot be read or a mask has another size than its image; the message names the file.
    """
    contents = list(Parallel(profile.workers, prefer="threads")(delayed(_digests)(record) for record in records))
    masked = any(map(_masks_of, records))

    def rows() -> Iterator[Arrays]:
        jobs = (delayed(_read)(record, profile.image_size_px, masked) for record in records)
        done = Parallel(profile.workers, prefer="threads", return_as="generator")(jobs)
        return iter(progress(done, desc="decoding", total=len(records), unit="image"))

    settings = {"files": contents, "image_size_px": profile.image_size_px}
    arrays = store.fetch_rows(DECODING, settings, rows, len(records))
    facts = pd.DataFrame(arrays["size_px"], columns=["width_px", "height_px"])
    facts.insert(0, "sha256", [image for image, _ in contents])
    facts["phash"] = [bits.tobytes().hex() for bits in arrays["phash"]]
    facts[list(SHARES)] = arrays["shares"]
    if masked:
        has_masks = np.array([bool(_masks_of(record)) for record in records])
        for column, values in zip([*AREAS, *LOSSES], [*arrays["area_px"].T, *arrays["lost"].T], strict=True):
            facts[column] = pd.Series(values).where(has_masks).convert_dtypes()
    _warn_of_others(records, facts)
    return Photographs(facts, arrays["images"], arrays.get("masks"), store.path(DECODING, settings).stem)


def _rows(arrays: Arrays, rows: np.ndarray) -> Iterator[Arrays]:
    """Copies of some rows, without holding more than a few of them in memory."""
    for number, row in enumerate(rows, start=1):
        yield {name: array[row] for name, array in arrays.items()}
        if number % 64 == 0:
            for array in arrays.values():
                release(array)


def _masks_of(record: Record) -> dict[str, Path]:
    return {lesion: path for lesion, path in record.mask_paths.items() if lesion in ANNOTATIONS}


def _digests(record: Record) -> tuple[str, dict[str, str]]:
    return digest_file(record.image_path), {lesion: digest_file(path) for lesion, path in _masks_of(record).items()}


def _read(record: Record, size_px: int, masked: bool) -> Arrays:
    image, (height_px, width_px) = read_image(record.image_path, size_px)
    row = {
        "images": image,
        "size_px": np.array([width_px, height_px]),
        "phash": np.packbits(perceptual_hash(image)),
        "shares": np.array([share(image) for share in SHARES.values()]),
    }
    if masked:
        row["masks"], row["lost"] = np.zeros((len(ANNOTATIONS), size_px, size_px), bool), np.zeros(len(ANNOTATIONS))
        for lesion, path in _masks_of(record).items():
            i = ANNOTATIONS.index(lesion)
            row["masks"][i], row["lost"][i] = _read_mask(path, record, (height_px, width_px), size_px)
            covered = row["masks"][i].sum() / max(1, field_of_view(image) * size_px**2)
            if covered > MOST_LESION:
                raise ValueError(
                    f"{path} marks {min(1, covered):.0%} of the field of view as {DISPLAY[lesion]}, expected at most "
                    f"{MOST_LESION:.0%}: is it inverted? The lesion must be bright and the ground black"
                )
        row["area_px"] = row["masks"].sum(axis=(1, 2))
    return row


def _read_mask(path: Path, record: Record, shape: tuple[int, int], size_px: int) -> tuple[np.ndarray, float]:
    mask = turn_mask(read_mask(path), record.image_path, shape)
    if mask.shape != shape:
        raise ValueError(
            f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image {record.image_path.name} "
            f"{shape[1]}x{shape[0]}: expected the same size"
        )
    return shrink_mask(mask, size_px)


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """DCT hash of the gray image: bool, shape (256,).

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)

    References
    ----------
    Zauner (2010), Implementation and benchmarking of perceptual image hash functions, Section 3.2.1.
    """
    import imagehash  # nearly a second, and needed here alone

    return imagehash.phash(Image.fromarray(image.transpose(1, 2, 0)), hash_size=HASH_SIDE).hash.ravel()


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


def field_of_view(image: np.ndarray) -> float:
    """Share of the pixels that are not black (brightest channel above 20): what the camera's aperture lets through.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)
    """
    return float((image.max(axis=0) > 20).mean())


SHARES = {"retina_score": retina_score, "field_of_view": field_of_view}


def _warn_of_others(records: list[Record], facts: pd.DataFrame) -> None:
    doubtful = facts[(facts["retina_score"] < RETINA_SCORE) | (facts["field_of_view"] < FIELD_OF_VIEW)]
    if len(doubtful):
        listed = ", ".join(
            f"{records[row.Index].image_path} (score {row.retina_score:.2f}, field of view {row.field_of_view:.2f})"
            for row in doubtful.head(8).itertuples()
        )
        warnings.warn(f"{len(doubtful)} images may not show a retina: {listed}", stacklevel=3)
