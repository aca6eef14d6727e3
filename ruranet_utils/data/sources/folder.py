"""A reader's own photographs: ``images/``, and if there are any ``masks/<lesion>/`` and ``labels.csv``."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from ruranet_utils.data.sources.base import SUFFIXES, Record, Source, check_labels, expect_folder, list_images
from ruranet_utils.data.sources.labels import read_labels
from ruranet_utils.profiles import ANNOTATIONS

SOURCE = Source(
    name="folder",
    title="the reader's own photographs",
    license="the reader's",
    citation="",
    url="",
    kaggle=None,
    lesions=ANNOTATIONS,
    label_rule="labels.csv",
    assumed=False,
    camera="not stated",
    patient_rule="the column patient of labels.csv; else every photograph counts as a patient",
)


def records(root: Path) -> list[Record]:
    """Declare the photographs of a folder.

    Parameters
    ----------
    root : Path
        Holds ``images/``; ``masks/<lesion>/`` with masks named like their images, for some lesions of
        ``profiles.ANNOTATIONS``; and ``labels.csv`` with the columns ``image`` (name with or without suffix), ``label``
        (1: DME, 0: none) and, if known, ``patient``. Only ``images`` must be there.

    Raises
    ------
    FileNotFoundError
        If there is no folder ``images``.
    ValueError
        If it is empty, two images have the same name, a mask has no image or an unknown lesion, or ``labels.csv``
        does not name every image once with 0 or 1.
    """
    images = list_images(root / "images")
    masks = _masks(root / "masks", images)
    labels = _labels(root / "labels.csv", images)
    return [
        Record(
            image_id=name,
            source=SOURCE.name,
            patient_id=labels.loc[name, "patient"],
            eye="",
            label=labels.loc[name, "label"],
            label_rule=labels.loc[name, "rule"],
            image_path=path,
            mask_paths=masks[name],
            split=None,
        )
        for name, path in images.items()
    ]


def _masks(root: Path, images: dict[str, Path]) -> dict[str, dict[str, Path]]:
    masks: dict[str, dict[str, Path]] = {name: {} for name in images}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name.startswith((".", "@", "__")) or (folder.is_file() and folder.suffix.lower() not in SUFFIXES):
            continue  # what Windows, macOS and network drives leave behind
        if folder.name not in ANNOTATIONS:
            raise ValueError(f"{folder} is named after no lesion, expected some of {', '.join(ANNOTATIONS)}")
        expect_folder(folder)
        files = list_images(folder)
        suffix = _common_suffix(list(files), images)
        for name, path in files.items():
            name = name.removesuffix(suffix)
            if name not in images:
                raise ValueError(f"{path} belongs to no image: expected {root.parent / 'images' / name}.*")
            masks[name][folder.name] = path
    return masks


def _common_suffix(names: list[str], images: dict[str, Path]) -> str:
    """What every mask of a folder has behind the name of its image, such as ``_EX``; empty if that differs."""
    suffixes = set()
    for name in names:
        fitting = [image for image in images if name.startswith(image)]
        suffixes.add(name.removeprefix(max(fitting, key=len)) if fitting else None)
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    if suffix:
        warnings.warn(f"the names of masks end in {suffix!r}, which their images' names lack", stacklevel=4)
    return suffix or ""


def _labels(file: Path, images: dict[str, Path]) -> pd.DataFrame:
    """``label``, ``patient`` and ``rule`` by image name."""
    if not file.is_file():
        return pd.DataFrame({"label": None, "patient": list(images), "rule": "none"}, index=list(images))
    table = read_labels(file, images)
    check_labels(table["label"], images, file, ("0", "1"))
    own = table.index.to_series()  # a photograph of nobody known counts as a patient
    patient = table["patient"].where(table["patient"] != "", own)
    return pd.DataFrame({"label": table["label"].astype(int).astype(object), "patient": patient, "rule": "labels.csv"})
