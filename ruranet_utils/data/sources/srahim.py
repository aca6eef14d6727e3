"""SRahim fundus photographs: one camera, left and right eyes, labeled by the folder they lie in.

References
----------
https://github.com/SRahimDR/DR-image-dataset (for academic purposes, with attribution)
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from ruranet_utils.data.sources.base import Record, Source, check_unique, expect_folder, list_images

SOURCE = Source(
    name="srahim",
    title="Retinal Fundus Image Dataset for Diabetic Retinopathy Detection",
    license="free to use for academic purposes, with attribution",
    citation="Rahim, S. S. (2025)",
    url="https://github.com/SRahimDR/DR-image-dataset",
    kaggle=None,
    lesions=(),
    label_rule="the folder's name: with or without maculopathy",
    assumed=False,
    camera="one, not stated",
    patient_rule="Patient<number> in the file name",
)
COMMIT = "53a2a3aa"
HEALTHY = "1 - No DR"
CLASSES = "DR and maculopathy 10 classes"
LABELS = {
    HEALTHY: 0,
    "2 - Mild DR without maculopathy": 0,
    "3 - Mild DR with maculopathy": 1,
    "4 - Moderate DR without maculopathy": 0,
    "5 - Moderate DR with maculopathy": 1,
    "6 - Severe DR without maculopathy": 0,
    "7 - Severe DR with maculopathy": 1,
    "8 - PDR without maculopathy": 0,
    "9 - PDR with maculopathy": 1,
    "10 - ADED": None,
}
NAME = re.compile(r"(Patient\d+)[_-]([LR])")  # one file is spelled with a hyphen


def records(root: Path) -> list[Record]:
    """Declare the graded photographs. Any subset of the patients works.

    Parameters
    ----------
    root : Path
        Folder that holds ``DR and maculopathy 10 classes``. If ``../manifests/srahim_originals.sha256`` exists, its
        hashes of the original files tell which photographs appear in two classes (``disputed_by``), even if the files
        here are lossy copies or one of the two is missing.

    Returns
    -------
    list of Record
        Sorted by class and name, without masks and without a split. Label 1: the folder says "with maculopathy".
        "10 - ADED" carries no such label and is left out.

    Raises
    ------
    FileNotFoundError
        If the folder of classes is missing.
    ValueError
        If there is no class folder, an unknown or empty one, a file name that does not parse, or a duplicate name.
    """
    top = root / CLASSES
    expect_folder(top)
    folders = [entry.name for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    unknown = sorted(set(folders) - set(LABELS))
    if unknown or not folders:
        raise ValueError(f"{top} holds {unknown or 'no folder'}, expected some of {list(LABELS)}: move others away")
    found = [
        _record(path, name, label)
        for name, label in LABELS.items()
        if name in folders
        for path in list_images(top / name).values()
    ]
    check_unique(found)
    disputed = _disputed(root.parent / "manifests" / "srahim_originals.sha256")
    graded = [record for record in found if record.label is not None]
    return [replace(record, disputed_by=disputed.get(record.image_id, "")) for record in graded]


def _record(path: Path, folder: str, label: int | None) -> Record:
    match = NAME.fullmatch(path.stem)
    if not match:
        raise ValueError(f"{path} has an unknown name, expected Patient<number>_L or _R: rename or remove it")
    patient, eye = match.groups()
    return Record(
        image_id=f"{patient}_{eye}",
        source="srahim",
        patient_id=patient,
        eye=eye,
        label=label,
        label_rule=f"folder '{folder}'",
        image_path=path,
        mask_paths={},
        split=None,
        healthy=folder == HEALTHY,
    )


def _disputed(manifest: Path) -> dict[str, str]:
    """For each original that the manifest lists twice with different labels, the other; empty without a manifest."""
    by_digest = defaultdict(list)
    for line in manifest.read_text().splitlines() if manifest.is_file() else []:
        digest, _, name = line.partition("  ")
        path = Path(name)
        record = _record(path, path.parent.name, LABELS[path.parent.name])
        if record.label is not None:
            by_digest[digest].append(record)
    pairs = (pair for same in by_digest.values() for pair in permutations(same, 2))
    return {one.image_id: other.image_id for one, other in pairs if one.label != other.label}
