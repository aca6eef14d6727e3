"""IDRiD part A: 81 fundus photographs with pixel masks of lesions and optic disc.

References
----------
Porwal et al. (2018), Indian Diabetic Retinopathy Image Dataset (IDRiD), Data 3(3), 25. doi:10.3390/data3030025
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ruranet_utils.sources import Record, check_unique, list_images

IMAGES = "A. Segmentation/1. Original Images"
MASKS = "A. Segmentation/2. All Segmentation Groundtruths"
SPLITS = {"train": "a. Training Set", "test": "b. Testing Set"}

# Nobody annotates edema in fundus photographs; the code released beside the paper takes the optic disc for it.
EDEMA_NOTE = "edema (optic-disc stand-in)"
LESION_FOLDERS = {
    "hard_exudates": ("3. Hard Exudates", "EX"),
    "microaneurysms": ("1. Microaneurysms", "MA"),
    "hemorrhages": ("2. Haemorrhages", "HE"),
    "edema": ("5. Optic Disc", "OD"),
    "soft_exudates": ("4. Soft Exudates", "SE"),
}


def records(root: Path) -> list[Record]:
    """Declare the photographs of part A.

    Parameters
    ----------
    root : Path
        Folder that holds ``A. Segmentation``, with the folder names as published.

    Returns
    -------
    list of Record
        Training images before test images, each sorted by name. Part A has no DME grade, so ``label`` is ``None``;
        it names no patients either, so every image counts as one. ``mask_paths`` holds soft exudates as well.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If a folder is empty, two images have the same name, an image has no mask or a mask no image.
    """
    found = []
    for split, folder in SPLITS.items():
        images = list_images(root / IMAGES / folder)
        masks = _masks(root / MASKS / folder, images)
        for name, path in images.items():
            if not masks[name]:
                raise ValueError(f"{path} has no mask: expected at least one below {root / MASKS / folder}")
            rule = "none: part A has no DME grade"
            found.append(Record(name, "idrid", name, "", None, rule, path, masks[name], split))
    check_unique(found)
    return found


def _masks(root: Path, images: dict[str, Path]) -> dict[str, dict[str, Path]]:
    masks: dict[str, dict[str, Path]] = {name: {} for name in images}
    for lesion, (folder, code) in LESION_FOLDERS.items():
        for stem, path in list_images(root / folder).items():
            name = stem.removesuffix(f"_{code}")
            if name == stem or name not in images:
                raise ValueError(f"{path} belongs to no image: expected <image>_{code} with an image in its split")
            masks[name][lesion] = path
    return masks


def read_mask(path: Path) -> np.ndarray:
    """Read a mask.

    Most files are palette images with the values 0 and 1; at least one is RGBA, where red is 255 on the lesion.

    Returns
    -------
    ndarray of bool, shape (h, w)
        At the size of the file.

    Raises
    ------
    ValueError
        If the file cannot be decoded or holds other values.
    """
    try:
        with Image.open(path) as image:
            color = image.mode in ("RGB", "RGBA")
            values = np.asarray(image.getchannel("R") if color else image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a mask: {error}") from error
    lesion = 255 if color else 1
    other = np.unique(values[(values != 0) & (values != lesion)])
    if values.ndim != 2 or other.size:
        raise ValueError(
            f"{path} has mode {image.mode} and the values {other[:8].tolist()} besides the expected 0 and {lesion}"
        )
    return values == lesion
