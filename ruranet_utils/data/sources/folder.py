"""A reader's own photographs: ``images/``, and if there are any ``masks/<lesion>/`` and ``labels.csv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ruranet_utils.data.sources.base import Record, Source, check_labels, expect_folder, list_images
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
        if folder.name.startswith("."):
            continue
        if folder.name not in ANNOTATIONS:
            raise ValueError(f"{folder} is named after no lesion, expected some of {', '.join(ANNOTATIONS)}")
        expect_folder(folder)
        for name, path in list_images(folder).items():
            if name not in images:
                raise ValueError(f"{path} belongs to no image: expected {root.parent / 'images' / name}.*")
            masks[name][folder.name] = path
    return masks


def _labels(file: Path, images: dict[str, Path]) -> pd.DataFrame:
    """``label``, ``patient`` and ``rule`` by image name."""
    if not file.is_file():
        return pd.DataFrame({"label": None, "patient": list(images), "rule": "none"}, index=list(images))
    try:
        table = pd.read_csv(file, dtype=str, skipinitialspace=True).rename(columns=str.strip)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a table in UTF-8: {error}") from error
    if not {"image", "label"} <= set(table.columns):
        raise ValueError(f"{file} has the columns {list(table.columns)}, expected image, label and, if known, patient")
    files = {path.name: name for name, path in images.items()}
    table = table.set_index(table["image"].str.strip().replace(files))
    check_labels(table["label"], images, file, ("0", "1"))
    own = table.index.to_series()  # a photograph of nobody known counts as a patient
    patient = table["patient"].str.strip().replace("", None).fillna(own) if "patient" in table else own
    return pd.DataFrame({"label": table["label"].astype(int).astype(object), "patient": patient, "rule": "labels.csv"})
