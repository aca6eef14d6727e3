"""Decode every photograph and mask once per store: pixels at the target size, and the facts an audit needs."""

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

from ruranet_utils.data.field import FRAME, Frame, shrink_mask
from ruranet_utils.data.masks import read_mask
from ruranet_utils.data.reading import read_image, turn_mask, without_bomb_warnings
from ruranet_utils.data.refusal import Refused, refuse
from ruranet_utils.data.sources.base import Record
from ruranet_utils.profiles import ANNOTATIONS, Profile
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store, digest_file, release

DECODING = Step("photographs", 3, ("data.field", "data.refusal", "data.reading", "data.masks", "data.decoding"))
CHOICE = Step("chosen_photographs", 1, ())
HASH_SIDE = 16
GROUND = 20  # of 255; brightest channel of the black around the field of view, at most
RIM = 0.02  # share of bright pixels in a row or column where the field begins
# Below these an image is named in a warning; both are shares of pixels, of the center and of the whole image. IDRiD and
# SRahim have at least 0.95 and 0.65 (columns of cohort_*.csv).
RETINA_SCORE, FIELD_OF_VIEW = 0.5, 0.4
AREAS = [f"{lesion}_px" for lesion in ANNOTATIONS]
LOSSES = [f"{lesion}_lost" for lesion in ANNOTATIONS]


@dataclass(frozen=True, eq=False)
class Photographs:
    """Decoded photographs, row by row.

    Attributes
    ----------
    facts : DataFrame
        ``sha256`` of the file, the :class:`Frame` that was scaled (``FRAME``), ``phash`` (perceptual hash, 256 bits in
        hexadecimal), ``retina_score`` and ``field_of_view`` in [0, 1]. If any photograph has masks, also each lesion's
        area after scaling, ``<lesion>_px``, and the share of its area lost by scaling, ``<lesion>_lost``, missing for
        photographs without masks.
    images : ndarray of uint8, shape (n, 3, h, w)
    masks : ndarray of bool, shape (n, n_lesions, h, w), or None
        Like ``images``, memory-mapped from the store, read-only.
    key : str
        Name of the artifact that holds them.
    """

    facts: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray | None
    key: str

    def choose(self, rows: np.ndarray, store: Store) -> Photographs:
        """Some of the rows, in the given order; without masks if none of them has any."""
        facts = self.facts.iloc[rows].reset_index(drop=True)
        names = ["images"] if self.masks is None or facts[AREAS[0]].isna().all() else ["images", "masks"]
        arrays = {name: getattr(self, name) for name in names}
        if len(rows) < len(self.facts):
            settings = {"key": self.key, "rows": rows.tolist(), "names": names}
            copy = partial(_rows, arrays, rows)
            arrays = store.fetch_rows(CHOICE, settings, copy, len(rows))
        return replace(self, facts=facts, images=arrays["images"], masks=arrays.get("masks"))


def decode(records: list[Record], profile: Profile, store: Store) -> Photographs:
    """Read all files of some records in parallel, once per store.

    Parameters
    ----------
    records : list of Record
    profile : Profile
        Its ``image_size_px``, ``crop_field``, ``max_mask_share`` and ``workers`` (threads, since decoding releases the
        interpreter lock).
    store : Store

    Returns
    -------
    Photographs
        In the order of the records. A warning names photographs with a score below ``RETINA_SCORE`` or a field of view
        below ``FIELD_OF_VIEW``.

    Raises
    ------
    ValueError
        If files cannot be read, or masks differ in size from their images or cover more of the field of view than
        ``max_mask_share``; the message names all of them.
    """
    contents = list(Parallel(profile.workers, prefer="threads")(delayed(_digests)(record) for record in records))
    masked = any(map(_masks_of, records))

    def rows() -> Iterator[Arrays]:
        jobs = (delayed(_read_or_say)(record, profile, masked) for record in records)
        done = Parallel(profile.workers, prefer="threads", return_as="generator")(jobs)
        problems = []
        for row in progress(done, desc="decoding", total=len(records), unit="image"):
            if isinstance(row, ValueError):
                problems.append(row)  # keep reading, to name every file that cannot be read
            elif not problems:
                yield row
        refuse(problems)

    settings = {"files": contents, **profile.settings("image_size_px", "crop_field", "max_mask_share")}
    with without_bomb_warnings():
        arrays = store.fetch_rows(DECODING, settings, rows, len(records))
    facts = pd.DataFrame(arrays["frame"], columns=list(FRAME))
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
    """Copies of some rows, holding only a few of them in memory at a time."""
    for number, row in enumerate(rows, start=1):
        yield {name: array[row] for name, array in arrays.items()}
        if number % 64 == 0:
            for array in arrays.values():
                release(array)


def _masks_of(record: Record) -> dict[str, Path]:
    return {lesion: path for lesion, path in record.mask_paths.items() if lesion in ANNOTATIONS}


def _digests(record: Record) -> tuple[str, dict[str, str]]:
    return digest_file(record.image_path), {lesion: digest_file(path) for lesion, path in _masks_of(record).items()}


def _read_or_say(record: Record, profile: Profile, masked: bool) -> Arrays | ValueError:
    try:
        return _read(record, profile, masked)
    except ValueError as error:
        return error


def _read(record: Record, profile: Profile, masked: bool) -> Arrays:
    size_px = profile.image_size_px
    image, frame = read_image(record.image_path, size_px, profile.crop_field)
    row = {
        "images": image,
        "frame": frame.as_array(),
        "phash": np.packbits(perceptual_hash(image)),
        "shares": np.array([share(image) for share in SHARES.values()]),
    }
    if masked:
        row["masks"], row["lost"] = np.zeros((len(ANNOTATIONS), size_px, size_px), bool), np.zeros(len(ANNOTATIONS))
        for lesion, path in _masks_of(record).items():
            mask = read_mask_of(record.image_path, (frame.height_px, frame.width_px), path, record.unjudged)
            check_mask(mask, image, frame, path, profile.max_mask_share)
            small, lost = shrink_mask(mask, frame, size_px)
            row["masks"][ANNOTATIONS.index(lesion)], row["lost"][ANNOTATIONS.index(lesion)] = small, lost
        row["area_px"] = row["masks"].sum(axis=(1, 2))
    return row


def read_mask_of(photograph: Path, shape: tuple[int, int], path: Path, unjudged: int = 0) -> np.ndarray:
    """A mask as its upright photograph shows the lesion: bool, of the photograph's ``shape``; else :class:`Refused`."""
    mask = turn_mask(read_mask(path, unjudged), photograph, shape)
    if mask.shape != shape:
        found, expected = (f"{width}x{height} pixels" for height, width in (mask.shape, shape))
        remedy = "export it at the size of the photograph"
        raise Refused(path, f"has {found}", f"{expected} as its photograph {photograph.name}", remedy)
    return mask


def check_mask(mask: np.ndarray, image: np.ndarray, frame: Frame, path: Path, largest: float) -> None:
    """Raise :class:`Refused` if a mask lies outside the field of view, or covers more of it than a lesion can.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
        At the photograph's size.
    image : ndarray of uint8, shape (3, side, side)
        Of the frame.
    frame : Frame
    path : Path
        Of the mask.
    largest : float
        Share of the field of view, ``Profile.max_mask_share``.
    """
    inside = mask[max(0, frame.top) : frame.bottom, max(0, frame.left) : frame.right].sum()
    if inside < mask.sum() / 2:
        found = f"lies {1 - inside / mask.sum():.0%} outside the field of view"
        raise Refused(path, found, "lesions within it", "is it the mask of another photograph, or shifted?")
    area = (frame.right - frame.left) * (frame.bottom - frame.top) * field_of_view(image)
    share = min(1, inside / max(1, area))
    if share > largest:
        remedy = "invert it if its lesion is black; if the lesion really is this large, set max_mask_share to 1"
        raise Refused(path, f"marks {share:.0%} of the field of view", f"at most {largest:.0%}", remedy)


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """DCT hash of the gray image without the black around it: bool, shape (256,).

    So a cropped or squeezed copy has the hash of its original.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)

    References
    ----------
    Zauner (2010), Implementation and benchmarking of perceptual image hash functions, Section 3.2.1.
    """
    import imagehash  # takes nearly a second, and only needed here

    bright = image.max(axis=0) > GROUND
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > RIM) for axis in (1, 0))
    if len(rows) and len(columns):
        image = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
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
    """Share of pixels that are not black, i.e., whose brightest channel is above ``GROUND``: what the aperture lets
    through.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)
    """
    return float((image.max(axis=0) > GROUND).mean())


def shows_a_retina(image: np.ndarray) -> bool:
    """Whether an image, uint8 of shape (3, h, w), has the colors and the field of view of a fundus photograph."""
    return retina_score(image) >= RETINA_SCORE and field_of_view(image) >= FIELD_OF_VIEW


SHARES = {"retina_score": retina_score, "field_of_view": field_of_view}


def _warn_of_others(records: list[Record], facts: pd.DataFrame) -> None:
    doubtful = facts[(facts["retina_score"] < RETINA_SCORE) | (facts["field_of_view"] < FIELD_OF_VIEW)]
    if len(doubtful):
        listed = ", ".join(
            f"{records[row.Index].image_path} (score {row.retina_score:.2f}, field of view {row.field_of_view:.2f})"
            for row in doubtful.head(8).itertuples()
        )
        warnings.warn(f"{len(doubtful)} images may not show a retina: {listed}", stacklevel=3)
