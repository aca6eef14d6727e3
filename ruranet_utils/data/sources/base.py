"""What every source declares about itself and its photographs; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".bmp", ".gif")


@dataclass(frozen=True)
class Source:
    """What is known about a data set before any of its files is read.

    Attributes
    ----------
    name : str
        Its folder below ``data/raw`` and its name in every table.
    title, license, citation, url : str
    kaggle : str or None
        Handle on Kaggle, pinned to a version.
    lesions : tuple of str
        The names in ``profiles.ANNOTATIONS`` that its masks show.
    label_rule : str
        Where the DME label comes from.
    assumed : bool
        Whether that label is an assumption rather than a grade.
    camera : str
    patient_rule : str
        How photographs of the same patient are recognized.
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
        Photographs that share it never land on different sides of a split.
    eye : str
        ``"L"``, ``"R"`` or ``""`` where the source does not say.
    label : int or None
        1: diabetic macular edema, 0: none, ``None``: not graded.
    label_rule : str
        What the label was derived from.
    mask_paths : dict of str to Path
        File of each annotated lesion. A lesion without a file has no annotated pixel.
    split : str or None
        ``"train"`` or ``"test"`` where the source has an official split.
    disputed_by : str
        Image id of another file in this source that shows the same photograph with a different label, if the source is
        known to have one, whether or not that file is here.
    unjudged : int
        Value of the pixels in its masks that are not to be judged; 0 if there is none.
    healthy : bool
        Whether it was graded free of retinopathy: lesions were looked for, and there are none.
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
    """If this folder does not exist, raise a FileNotFoundError that says what the nearest existing one holds."""
    if not folder.is_dir():
        nearest = next(parent for parent in folder.parents if parent.is_dir())
        found = sorted(entry.name for entry in nearest.iterdir())[:12]
        expected = folder.relative_to(nearest)
        raise FileNotFoundError(f"expected the folder '{expected}' in {nearest}, found {found or 'nothing'}")


def stem_of(name: str) -> str | None:
    """A name or path without its image suffix, gzipped or not; None if it has none of ``SUFFIXES``."""
    packed = name[:-3] if name.lower().endswith(".gz") else name
    return next((packed[: -len(suffix)] for suffix in SUFFIXES if packed.lower().endswith(suffix)), None)


def below(root: Path, pattern: str) -> list[Path]:
    """Files and folders at any depth, sorted. Links are skipped, as is what is hidden or named like ``__MACOSX``."""
    found = (path for path in root.rglob(pattern) if not path.is_symlink())
    return sorted(p for p in found if not any(x.startswith((".", "__")) for x in p.relative_to(root).parts))


def list_images(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their names without suffix, sorted; hidden and other files are skipped.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If it holds no images, or two with the same name.
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
    """Raise a ValueError unless every image has exactly one valid label and every label has an image.

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
