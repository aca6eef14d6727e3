"""Retinal Lesions: 1593 photographs from the Kaggle DR Detection challenge with coarse lesion outlines.

References
----------
Wei et al. (2020), Learn to Segment Retinal Lesions and Beyond, ICPR. doi:10.48550/arXiv.1912.11619
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from ruranet_utils.data.sources.base import Record, Source, below, check_unique, expect_folder, list_images

SOURCE = Source(
    name="retinal_lesions",
    title="Retinal Lesions",
    license="on request from the authors; the mirror states none that overrules it",
    citation="Wei et al. (2020), doi:10.48550/arXiv.1912.11619",
    url="https://github.com/WeiQijie/retinal-lesions",
    kaggle="pablorocamora/retinal-lesions-dataset/versions/1",
    lesions=("hard_exudates", "microaneurysms", "hemorrhages", "soft_exudates"),
    label_rule="none: it grades retinopathy, not macular edema",
    assumed=False,
    camera="many (EyePACS)",
    patient_rule="the number before the side in <patient>_<left|right>",
)
IMAGES, MASKS = "images_896x896", "lesion_segs_896x896"
LESION_FILES = {
    "microaneurysms": "microaneurysm",
    "hemorrhages": "retinal_hemorrhage",
    "hard_exudates": "hard_exudate",
    "soft_exudates": "cotton_wool_spots",
}
UNJUDGED = 127  # value of the mask pixels that are not to be judged
NAME = re.compile(r"(\d+)_(left|right)")


def records(root: Path) -> list[Record]:
    """Declare the photographs.

    Parameters
    ----------
    root : Path
        Folder that holds ``images_896x896`` and ``lesion_segs_896x896``, or whose subfolder holds both.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If a file name does not parse. A warning names mask folders without an image, and images without one.
    """
    top = next((path.parent for path in below(root, IMAGES)), root)
    images = list_images(top / IMAGES)
    expect_folder(top / MASKS)
    folders = {path.name: path for path in (top / MASKS).iterdir() if path.is_dir()}
    for what, names in (
        ("folders of masks without an image are ignored", set(folders) - set(images)),
        ("images without a folder of masks are used as not annotated", set(images) - set(folders)),
    ):
        if names:
            warnings.warn(f"{top}: {len(names)} {what}: {', '.join(sorted(names)[:8])}", stacklevel=2)
    found = [_record(name, path, folders.get(name)) for name, path in images.items()]
    check_unique(found)
    return found


def _record(name: str, path: Path, masks: Path | None) -> Record:
    match = NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{path} has an unknown name, expected <patient>_left or <patient>_right: rename or remove it")
    patient, side = match.groups()
    files = {lesion: masks / f"{file}.png" for lesion, file in LESION_FILES.items()} if masks else {}
    return Record(
        image_id=name,
        source=SOURCE.name,
        patient_id=patient,
        eye=side[0].upper(),
        label=None,
        label_rule=SOURCE.label_rule,
        image_path=path,
        mask_paths={lesion: file for lesion, file in files.items() if file.is_file()},
        split=None,
        unjudged=UNJUDGED,
    )
