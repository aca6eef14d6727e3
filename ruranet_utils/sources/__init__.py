"""Adapters, one file per data set: what each set declares, and what reading them has in common."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ruranet_utils.store import digest_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")

# A target pixel belongs to a lesion if at least this part of it is covered. From IDRiD's 4288x2848 to 512x512 this
# loses 4 of 3497 microaneurysms, 41 of 11642 hard exudates and no hemorrhage or disc; 0.5 loses 48, 536, 1 and 0.
# The price is area: microaneurysms grow by 31 %, hard exudates by 19 %, hemorrhages by 8 %, discs by 1 %.
MASK_COVERAGE = 0.25


@dataclass(frozen=True)
class Record:
    """One photograph as its source declares it; nothing is decoded yet.

    Attributes
    ----------
    image_id : str
        Unique within the source.
    source : str
    patient_id : str
        Photographs with the same one never lie on two sides of a split.
    eye : str
        ``"L"``, ``"R"`` or ``""`` where the source does not say.
    label : int or None
        1: diabetic macular edema, 0: none, ``None``: not graded.
    label_rule : str
        What the label was taken from.
    image_path : Path
    mask_paths : dict of str to Path
        File of each annotated lesion. A lesion without a file has no annotated pixel.
    split : str or None
        ``"train"`` or ``"test"`` where the source has an official split.
    """

    image_id: str
    source: str
    patient_id: str
    eye: str
    label: int | None
    label_rule: str
    image_path: Path
    mask_paths: dict[str, Path]
    split: str | None


def expect_folder(folder: Path) -> None:
    """Raise a FileNotFoundError that says what lies in the nearest folder instead, if this one does not exist."""
    if not folder.is_dir():
        nearest = next(parent for parent in folder.parents if parent.is_dir())
        found = sorted(entry.name for entry in nearest.iterdir())[:12]
        expected = folder.relative_to(nearest)
        raise FileNotFoundError(f"expected the folder '{expected}' in {nearest}, found {found or 'nothing'}")


def list_images(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their name without suffix, sorted; hidden and other files are passed over.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If it holds no image, or two with the same name.
    """
    expect_folder(folder)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise ValueError(f"two images with the same name: {files[path.stem]} and {path}")
        files[path.stem] = path
    if not files:
        raise ValueError(f"no image in {folder}, expected files ending in {', '.join(SUFFIXES)}")
    return files


def check_unique(records: Iterable[Record]) -> None:
    """Raise a ValueError naming both files if two records have the same image id."""
    seen: dict[str, Path] = {}
    for record in records:
        if record.image_id in seen:
            raise ValueError(f"two images named {record.image_id}: {seen[record.image_id]} and {record.image_path}")
        seen[record.image_id] = record.image_path


def drop_conflicts(records: list[Record], known: Iterable[tuple[str, str, int]] = ()) -> list[Record]:
    """Leave out photographs that occur twice with different labels: neither label can be trusted.

    Parameters
    ----------
    records : list of Record
    known : iterable of (image_id, sha256, label)
        Hashes published for files of this source, whether the files are here or not. They find the pairs that a
        lossy copy has made different, and those of which only one file is here.

    Returns
    -------
    list of Record
        The others, in the same order. A warning names the ones left out.
    """
    names = defaultdict(set)
    labels = defaultdict(set)
    present = ((record.image_id, digest_file(record.image_path), record.label) for record in records)
    for image_id, digest, label in [*present, *known]:
        names[digest].add(image_id)
        labels[digest].add(label)
    conflicts = set().union(*(names[digest] for digest in names if len(labels[digest]) > 1))
    dropped = [record for record in records if record.image_id in conflicts]
    if dropped:
        listed = ", ".join(f"{record.image_id} ({record.label_rule})" for record in dropped)
        warnings.warn(f"dropped: the same photograph has different labels: {listed}", stacklevel=3)
    return [record for record in records if record.image_id not in conflicts]


def read_image(path: Path, size_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a photograph and scale it to a square.

    Parameters
    ----------
    path : Path
    size_px : int
        Side of the result.

    Returns
    -------
    image : ndarray of uint8, shape (3, size_px, size_px)
        Bicubic with antialiasing; the aspect ratio is not kept, as in the paper (section 3.1).
    shape : tuple of int
        Height and width of the file in pixels, before scaling.

    Raises
    ------
    ValueError
        If the file cannot be decoded to its end.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # JPEG decodes straight to 1/2, 1/4 or 1/8; twice the target leaves the last step to the better filter.
            image.draft("RGB", (2 * size_px, 2 * size_px))
            pixels = image.convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    return np.asarray(pixels).transpose(2, 0, 1), (height, width)


def shrink_mask(mask: np.ndarray, size_px: int) -> np.ndarray:
    """Scale a mask by area: a target pixel is set where the lesion covers ``MASK_COVERAGE`` of it or more.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    size_px : int

    Returns
    -------
    ndarray of bool, shape (size_px, size_px)
    """
    coverage = Image.fromarray(mask.astype(np.uint8) * 255).resize((size_px, size_px), Image.Resampling.BOX)
    return np.asarray(coverage) >= MASK_COVERAGE * 255
