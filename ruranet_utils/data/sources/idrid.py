"""IDRiD: part A with lesion masks, part B with grades, part C with disc and fovea centers (only its images are read).

References
----------
Porwal et al. (2018), Indian Diabetic Retinopathy Image Dataset (IDRiD), Data 3(3), 25. doi:10.3390/data3030025
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ruranet_utils.data.sources.base import Record, Source, below, check_labels, check_unique, list_images

RISK = "Risk of macular edema"
SOURCE = Source(
    name="idrid",
    title="Indian Diabetic Retinopathy Image Dataset (IDRiD)",
    license="CC BY 4.0",
    citation="Porwal et al. (2018), doi:10.3390/data3030025",
    url="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    kaggle="aaryapatel98/indian-diabetic-retinopathy-image-dataset/versions/1",
    lesions=("hard_exudates", "microaneurysms", "hemorrhages", "soft_exudates"),
    label_rule=f"{RISK} > 0 (part B)",
    assumed=False,
    camera="Kowa VX-10 alpha",
    patient_rule="not stated; every photograph counts as a patient",
)
IMAGES = "1. Original Images"
MASKS = "2. All Segmentation Groundtruths"
GRADES = {
    "train": "2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv",
}
# What each part alone holds, which identifies it wherever it lies.
PARTS = {
    "A. Segmentation": MASKS,
    "B. Disease Grading": GRADES["train"],
    "C. Localization": "2. Groundtruths/1. Optic Disc Center Location",
}
SPLITS = {"train": "a. Training Set", "test": "b. Testing Set"}
# Nobody annotates edema in fundus photographs; the code released with the paper uses the optic disc instead.
EDEMA_NOTE = "edema (optic-disc stand-in)"
LESION_FOLDERS = {
    "hard_exudates": ("3. Hard Exudates", "EX"),
    "microaneurysms": ("1. Microaneurysms", "MA"),
    "hemorrhages": ("2. Haemorrhages", "HE"),
    "edema": ("5. Optic Disc", "OD"),
    "soft_exudates": ("4. Soft Exudates", "SE"),
}


def records(root: Path, parts: str = "ABC") -> list[Record]:
    """Declare the photographs.

    Parameters
    ----------
    root : Path
        Folder that holds the parts, at any depth, with their published folder names: Kaggle's copy has
        ``A.%20Segmentation/A. Segmentation`` and so on.
    parts : str
        Any of A, B and C. Each part numbers its photographs separately; those of C are those of B.

    Returns
    -------
    list of Record
        Training images before test images of each part, each sorted by name. Parts A and C have no DME grade, so
        ``label`` is ``None``; no part names patients, so every image counts as one.

    Raises
    ------
    FileNotFoundError
        If a folder or a table of grades is missing.
    ValueError
        If a part is there twice, a folder is empty, two images have the same name, an image has no mask or grade, a
        mask or grade has no image, or a grade is not 0, 1 or 2.
    """
    read = {"A": _segmentation, "B": _grading, "C": _localization}
    found = [record for part in parts for split in SPLITS for record in read[part](root, split)]
    check_unique(found)
    return found


def _find(root: Path, part: str) -> Path:
    """Folder of a part, wherever it lies below ``root``; its published path if it is missing."""
    found = [images.parent for images in below(root, IMAGES) if (images.parent / PARTS[part]).exists()]
    if len(found) > 1:
        raise ValueError(f"{root} holds part {part!r} twice, in {found[0]} and {found[1]}: keep one of them")
    return found[0] if found else root / part


def _segmentation(root: Path, split: str) -> list[Record]:
    part = _find(root, "A. Segmentation")
    images = list_images(part / IMAGES / SPLITS[split])
    masks = _masks(part / MASKS / SPLITS[split], images)
    for name, path in images.items():
        if not masks[name]:
            raise ValueError(f"{path} has no mask: expected at least one below {part / MASKS / SPLITS[split]}")
    rule = "none: part A has no DME grade"
    return [Record(name, "idrid", name, "", None, rule, path, masks[name], split) for name, path in images.items()]


def _grading(root: Path, split: str) -> list[Record]:
    part = _find(root, "B. Disease Grading")
    images = list_images(part / IMAGES / SPLITS[split])
    file = part / GRADES[split]
    if not file.is_file():
        raise FileNotFoundError(f"expected the grades of {len(images)} images in {file}")
    table = pd.read_csv(file, dtype=str).rename(columns=str.strip)  # one name ends in a space
    missing = {"Image name", RISK} - set(table.columns)
    if missing:
        raise ValueError(f"{file} has the columns {list(table.columns)}, expected also {sorted(missing)}")
    grades = table.set_index(table["Image name"].str.strip())[RISK].str.strip()
    check_labels(grades, images, file, ("0", "1", "2"))
    return [
        Record(
            image_id=f"B_{split}_{name}",  # both splits are numbered from 001
            source="idrid",
            patient_id=f"B_{split}_{name}",
            eye="",
            label=int(grades[name] != "0"),
            label_rule=f"{RISK} = {grades[name]}",
            image_path=path,
            mask_paths={},
            split=None,
        )
        for name, path in images.items()
    ]


def _localization(root: Path, split: str) -> list[Record]:
    images = list_images(_find(root, "C. Localization") / IMAGES / SPLITS[split])
    rule = "none: part C has no DME grade"
    return [
        Record(f"C_{split}_{name}", "idrid", f"C_{split}_{name}", "", None, rule, path, {}, None)
        for name, path in images.items()
    ]


def _masks(root: Path, images: dict[str, Path]) -> dict[str, dict[str, Path]]:
    masks: dict[str, dict[str, Path]] = {name: {} for name in images}
    for lesion, (folder, code) in LESION_FOLDERS.items():
        for stem, path in list_images(root / folder).items():
            name = stem.removesuffix(f"_{code}")
            if name == stem or name not in images:
                raise ValueError(f"{path} belongs to no image: expected <image>_{code} with an image in its split")
            masks[name][lesion] = path
    return masks
