"""Small copies of the published folder trees, and where the real data is."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruranet_utils.data.sources import idrid, srahim
from ruranet_utils.storage import paths

DATA = paths.from_root(os.environ.get("RURANET_DATA_ROOT", "../shared/data"))
real_data = pytest.mark.skipif(not (DATA / "idrid").is_dir(), reason="the real data is not at hand")
NO_DR, MILD_DME, SEVERE, ADED = (
    "1 - No DR",
    "3 - Mild DR with maculopathy",
    "6 - Severe DR without maculopathy",
    "10 - ADED",
)


def save_photograph(path: Path, seed: int, size=(64, 48)) -> Path:
    """Noise in the colors of a retina."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).random((size[1], size[0], 1))
    Image.fromarray((60 + noise * [190, 100, 40] - [0, 40, 50]).astype(np.uint8)).save(path)
    return path


def save_mask(path: Path, lesion: np.ndarray, mode="P") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(lesion.astype(np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0])
    else:
        zero, opaque = np.zeros_like(lesion, np.uint8), np.full(lesion.shape, 255, np.uint8)
        image = Image.fromarray(np.dstack([lesion.astype(np.uint8) * 255, zero, zero, opaque]))
    image.save(path)
    return path


def make_idrid(root: Path, n_train=3, n_test=2) -> Path:
    """A tree with the quirks of the real one: the last EX mask is RGBA, the second image has no HE mask."""
    lesion = np.zeros((48, 64), bool)
    lesion[8:16, 8:24] = True
    numbers = {"train": range(1, n_train + 1), "test": range(n_train + 1, n_train + n_test + 1)}
    for split, folder in idrid.SPLITS.items():
        for i in numbers[split]:
            save_photograph(root / "A. Segmentation" / idrid.IMAGES / folder / f"IDRiD_{i:02d}.jpg", i)
            for name, code in idrid.LESION_FOLDERS.values():
                if (i, code) == (2, "HE"):
                    continue
                mode = "RGBA" if (i, code) == (n_train + n_test, "EX") else "P"
                save_mask(
                    root / "A. Segmentation" / idrid.MASKS / folder / name / f"IDRiD_{i:02d}_{code}.tif", lesion, mode
                )
    return root


def make_srahim(root: Path, n_patients=6) -> Path:
    """Both eyes of ``n_patients`` of each label, one file with a hyphen and an image that carries no label."""
    for i in range(1, 2 * n_patients + 1):
        folder = NO_DR if i <= n_patients else MILD_DME
        for eye in "LR":
            separator = "-" if (i, eye) == (2, "R") else "_"
            path = root / srahim.CLASSES / folder / f"Patient{i:03d}{separator}{eye}.jpg"
            save_photograph(path, 1000 + 2 * i + (eye == "R"))
    save_photograph(root / srahim.CLASSES / ADED / "Patient099_L.jpg", 99)
    return root


def make_grades(root: Path, train=("0", "1", "2"), test=("0", "2")) -> Path:
    """Part B as published: both splits start at 001, the column and one name end in a blank, nine columns are empty."""
    for (split, folder), grades in zip(idrid.SPLITS.items(), (train, test), strict=True):
        lines = ["Image name,Retinopathy grade,Risk of macular edema " + "," * 9]
        images, first = root / "B. Disease Grading/1. Original Images" / folder, {"train": 50, "test": 70}[split]
        for number, grade in enumerate(grades, start=1):
            save_photograph(images / f"IDRiD_{number:03d}.jpg", first + number)
            lines.append(f"IDRiD_{number:03d},3,{grade}" + "," * 9)
        lines[-1] = lines[-1].replace(",3,", " ,3,")
        file = root / "B. Disease Grading" / idrid.GRADES[split]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    return root


def make_retinal_lesions(root: Path) -> Path:
    """Two photographs of one patient; an ignored border of 127, hard exudates on one of them alone."""
    top = root / "retinal-lesions-v20191227"
    values = np.zeros((48, 64), np.uint8)
    values[8:16, 8:16], values[16:20, 8:16] = 255, 127
    for number, name in enumerate(("10_left", "10_right")):
        save_photograph(top / "images_896x896" / f"{name}.jpg", 610 + number)
        for file in ("microaneurysm", "retinal_hemorrhage", "hard_exudate", "cotton_wool_spots")[: 4 - 2 * number]:
            path = top / "lesion_segs_896x896" / name / f"{file}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    (top / "dr_grades.csv").write_text("image id,kaggle label,our label\n10_left,2,2\n10_right,1,1\n")
    return root


def make_vessels(root: Path) -> Path:
    """The combined set: letter case varies, DRIVE's names differ between image and mask."""
    for folder, names in (
        ("Training/images", ["21_training.tif", "Image_01L.jpg"]),
        ("Test/Images", ["im0001.ppm", "01_h.JPG"]),
    ):
        for name in names:
            save_photograph(root / folder / name, len(name))
    for name in (
        "Training/masks/21_manual1.gif",
        "Training/masks/Image_01L_1stHO.png",
        "Test/Masks/im0001.png",
        "Test/Masks/01_h.tif",
    ):
        save_mask(root / name, np.eye(48, 64, dtype=bool))
    save_photograph(root / "unlabeled_test" / "x.png", 3)
    return root
