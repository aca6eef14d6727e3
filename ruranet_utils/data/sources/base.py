"""What every source declares of itself and of its photographs; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".bmp", ".gif")


@dataclass(frozen=True)
class Source:
    """What is known of a data set before any file of it is read.

    Attributes
    ----------
    name : str
        Its folder below ``data/raw`` and its name in every table.
    title, license, citation, url : str
    kaggle : str or None
        Handle on Kaggle, pinned to a version.
    lesions : tuple of str
        Names of ``profiles.ANNOTATIONS`` that its masks show.
    label_rule : str
        Where the DME label comes from.
    assumed : bool
        Whether that label is an assumption rather than a grade.
    camera : str
    patient_rule : str
        How photographs of one patient are recognized.
    """

    name: str
    title: str
    license: str
    citation: str
    url: str
    kaggle: str | None
    lesions: tuple[str, ...]
    label_rule: str
    assumed: bool
    camera: str
    patient_rule: str


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
    disputed_by : str
        Image id of a file of this source that shows the same photograph with another label, where the source is known
        to have one, whether that file is here or not.
    unjudged : int
        Value of pixels of its masks that are not to be judged; 0 where there is none.
    healthy : bool
        Whether it was graded free of retinopathy: lesions were looked for, and there is none.
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
    disputed_by: str = ""
    unjudged: int = 0
    healthy: bool = False


def expect_folder(folder: Path) -> None:
    """Raise a FileNotFoundError that says what lies in the nearest folder instead, if this one does not exist."""
    if not folder.is_dir():
        nearest = next(parent for parent in folder.parents if parent.is_dir())
        found = sorted(entry.name for entry in nearest.iterdir())[:12]
        expected = folder.relative_to(nearest)
        raise FileNotFoundError(f"expected the folder '{expected}' in {nearest}, found {found or 'nothing'}")


def stem_of(name: str) -> str | None:
    """A name or path without the suffix of an image, packed by gzip or not; None if it has none of ``SUFFIXES``."""
    packed = name[:-3] if name.lower().endswith(".gz") else name
    return next((packed[: -len(suffix)] for suffix in SUFFIXES if packed.lower().endswith(suffix)), None)


def below(root: Path, pattern: str) -> list[Path]:
    """Files and folders at any depth, sorted; hidden ones and those in ``__MACOSX`` are passed over."""
    found = (path for path in root.rglob(pattern) if not path.is_symlink())
    return sorted(p for p in found if not any(x.startswith((".", "__")) for x in p.relative_to(root).parts))


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
        name = stem_of(path.name)
        if name is None or path.name.startswith("."):
            continue
        if name in files:
            raise ValueError(f"two images with the same name: {files[name]} and {path}: keep one of them")
        files[name] = path
    if not files:
        raise ValueError(f"no image in {folder}, expected files ending in {', '.join(SUFFIXES)}")
    return files


def check_unique(records: Iterable[Record]) -> None:
    """Raise a ValueError naming both files if two records have the same image id."""
    seen: dict[str, Path] = {}
    for record in records:
        if record.image_id in seen:
            raise ValueError(
                f"two images named {record.image_id}: {seen[record.image_id]} and {record.image_path}: keep one of them"
            )
        seen[record.image_id] = record.image_path


def check_labels(labels: pd.Series, images: Collection[str], file: Path, valid: Collection[str]) -> None:
    """Raise a ValueError unless every image has exactly one valid label and every label an image.

    Parameters
    ----------
    labels : Series of str
        By image name, as read from ``file``.
    images : collection of str
    file : Path
        Named in the message.
    valid : collection of str
    """
    twice = labels.index[labels.index.duplicated()].unique()
    faults = {
        "labels an image twice": list(twice),
        "labels images that are not there": [name for name in labels.index if name not in images],
        "lacks the label of": [name for name in images if name not in labels.index],
        f"has labels other than {', '.join(valid)} for": list(labels.index[~labels.isin(valid)]),
    }
    for fault, names in faults.items():
        if names:
            listed = f"{', '.join(map(str, names[:8]))} ({len(names)} in all)"
            raise ValueError(f"{file} {fault}: {listed}, expected one label for each image: download it again")
