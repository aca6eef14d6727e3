"""A reader's own photographs: ``images/``, and if there are any ``masks/<lesion>/`` and ``labels.csv``."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ruranet_utils.data.reading import opened
from ruranet_utils.data.refusal import Refused, refuse
from ruranet_utils.data.sources.base import SUFFIXES, Record, Source, expect_folder, stem_of
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
DROPPINGS = ("thumbs.db", "desktop.ini", "ehthumbs.db")
HOW_TO_EXPORT = {".dcm": "export DICOM as PNG", ".heic": "export HEIC as JPEG", ".pdf": "export PDF as PNG"}
SPELLINGS = {
    "exudates": "hard_exudates",
    "haemorrhages": "hemorrhages",
    "cotton_wool_spots": "soft_exudates",
    "ex": "hard_exudates",
    "ma": "microaneurysms",
    "he": "hemorrhages",
    "se": "soft_exudates",
}
HOW_TO_GRADE = "write 1 for macular edema (of grades 0, 1, 2 or more: above 0; of yes and no: yes) and 0 for none"


@dataclass(frozen=True)
class Folder:
    """What lies in a reader's folder, and everything that is wrong with it; no photograph or mask was opened.

    Attributes
    ----------
    root : Path
    images : dict of str to Path
        By their paths below ``images/`` without suffix, sorted.
    masks : dict of str to dict of str to Path
        Of each lesion, by the names of ``images``.
    labels : DataFrame
        ``label``, ``patient`` and ``rule`` by the names of ``images``; ``label`` is None where nothing is labeled.
    problems : list of Refused
        For each of which the folder cannot be used.
    notes : list of str
        What was passed over or guessed.
    """

    root: Path
    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, dict[str, Path]] = field(default_factory=dict)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(root: Path) -> Folder:
    """List a folder that is laid out as ``docs/own_images.md`` says.

    Parameters
    ----------
    root : Path
        Holds ``images/``, also with folders in it; ``masks/<lesion>/`` with masks named like their images, for some
        lesions of ``profiles.ANNOTATIONS``; and ``labels.csv`` with the columns ``image``, ``label`` (1: DME, 0: none)
        and, if known, ``patient``. Only ``images`` must be there.

    Raises
    ------
    FileNotFoundError
        If there is no folder ``images``.
    """
    images, problems, notes = find_photographs(_child(root, "images"))
    masks = _masks(_child(root, "masks"), images, problems, notes)
    labels = _labels(_child(root, "labels.csv"), images, problems, notes)
    return Folder(root, images, masks, labels, problems, notes)


def records(root: Path) -> list[Record]:
    """Declare the photographs of a folder: :func:`look`, of which every note becomes a warning.

    Raises
    ------
    FileNotFoundError
        If there is no folder ``images``.
    ValueError
        Naming every problem.
    """
    folder = look(root)
    refuse(folder.problems)
    for note in folder.notes:
        warnings.warn(note, stacklevel=2)
    return [
        Record(
            image_id=name,
            source=SOURCE.name,
            patient_id=folder.labels.loc[name, "patient"],
            eye="",
            label=folder.labels.loc[name, "label"],
            label_rule=folder.labels.loc[name, "rule"],
            image_path=path,
            mask_paths={lesion: paths[name] for lesion, paths in folder.masks.items() if name in paths},
            split=None,
        )
        for name, path in folder.images.items()
    ]


def find_photographs(folder: Path) -> tuple[dict[str, Path], list[Refused], list[str]]:
    """Photographs of a folder and the folders in it, by their paths without suffix; problems; what was passed over.

    Files with an unusual suffix, or none, are taken if their content is an image that can be read.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    """
    expect_folder(folder)
    found, problems, passed_over, first = {}, [], [], {}
    for path in _walk(folder):
        stem = stem_of(path.name) or (path.stem if _is_photograph(path) else None)
        if stem is None:
            passed_over.append(path)
            continue
        name = path.relative_to(folder).with_name(stem).as_posix()
        other = first.setdefault(_form(name), path)
        if other is not path:
            problems.append(Refused(path, f"has the name of {other.name}", "one file of each name", "rename one"))
        found.setdefault(name, path)
    if not found:
        problems.append(Refused(folder, "holds no image", "at least one", f"put files there: {', '.join(SUFFIXES)}"))
    return found, problems, [_say(passed_over)] if passed_over else []


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in the order of their names, but for hidden ones and what systems leave behind."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "@", "__")) or path.name.lower() in DROPPINGS:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _is_photograph(path: Path) -> bool:
    try:
        with opened(path):
            return True
    except ValueError:
        return False


def _say(passed_over: list[Path]) -> str:
    suffixes = {path.suffix.lower() for path in passed_over}
    how = [remedy for suffix, remedy in HOW_TO_EXPORT.items() if suffix in suffixes]
    named = _listed(path.name for path in passed_over)
    return f"{len(passed_over)} files in {passed_over[0].parent} are no photographs: {'; '.join([named, *how])}"


def _masks(root: Path, images: dict[str, Path], problems: list, notes: list[str]) -> dict[str, dict[str, Path]]:
    masks = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name.startswith((".", "@", "__")) or (folder.is_file() and stem_of(folder.name) is None):
            continue
        lesion = _lesion(folder.name)
        if lesion not in ANNOTATIONS or folder.is_file() or lesion in masks:
            found = "is no folder" if folder.is_file() else "is named after no lesion"
            found = f"means {lesion}, as another folder does" if lesion in masks else found
            problems.append(Refused(folder, found, f"folders named {', '.join(ANNOTATIONS)}", "rename or move it"))
            continue
        if lesion != folder.name:
            notes.append(f"{folder} is read as masks of {lesion}")
        masks[lesion] = _masks_of(folder, images, problems, notes)
    return masks


def _lesion(name: str) -> str:
    """A lesion as people spell it: ``3. Hard Exudates``, ``Haemorrhages``, ``EX``."""
    plain = re.sub(r"[^a-z]+", "_", name.lower()).strip("_")
    return SPELLINGS.get(plain, plain)


def _masks_of(folder: Path, images: dict[str, Path], problems: list, notes: list[str]) -> dict[str, Path]:
    """Masks of one lesion, by the names of their images."""
    files, faults, passed_over = find_photographs(folder)
    problems += faults
    notes += passed_over
    find, masks = finder(images), {}
    suffix = _common_suffix([name for name in files if find(name) is None], images)
    if suffix:
        notes.append(f"{folder}: the names of masks end in {suffix!r}, which their images' names lack")
    for name, path in files.items():
        image = find(name) or find(name.removesuffix(suffix))
        if image is None or image in masks:
            found = f"belongs to the image of {masks[image].name}, too" if image else "belongs to no image"
            expected = f"one mask for each file in {folder.parent.parent / 'images'}"
            problems.append(Refused(path, found, expected, "name it like its image"))
        else:
            masks[image] = path
    return masks


def _common_suffix(names: list[str], images: dict[str, Path]) -> str:
    """What all these names have behind the name of an image, such as ``_EX``; empty if that differs."""
    suffixes = set()
    for name in names:
        fitting = [image for image in images if name.startswith(image)]
        suffixes.add(name.removeprefix(max(fitting, key=len)) if fitting else "")
    return suffixes.pop() if len(suffixes) == 1 else ""


def finder(names: Iterable[str]) -> Callable[[str], str | None]:
    """A function that finds a photograph by what people write for it, or gives None.

    That is its path below ``images/`` or its name alone if no other has it, with or without suffix, in any Unicode
    form and, where that is not ambiguous, in any case.
    """
    known: dict[str, set[str]] = {}
    for name in names:
        for form in {_form(name), _form(name).rpartition("/")[2]}:
            for spelling in {form, form.casefold()}:
                known.setdefault(spelling, set()).add(name)

    def find(written: str) -> str | None:
        form = _form(written.replace("\\", "/")).removeprefix("./").removeprefix("images/")
        for spelling in (form, stem_of(form) or form):
            for wanted in (spelling, spelling.casefold()):
                if len(found := known.get(wanted, set())) == 1 or wanted in found:
                    return wanted if wanted in found else next(iter(found))
        return None

    return find


def _labels(file: Path, images: dict[str, Path], problems: list, notes: list[str]) -> pd.DataFrame:
    unlabeled = pd.DataFrame({"label": None, "patient": list(images), "rule": "none"}, index=list(images))
    if not file.is_file():
        others = sorted(path.name for path in file.parent.iterdir() if path.suffix.lower() in (".csv", ".xlsx", ".xls"))
        if others:
            notes.append(f"{_listed(others)} is not read: labels belong into {file}")
        return unlabeled
    try:
        table, columns = read_labels(file, finder(images))
    except Refused as problem:
        problems.append(problem)
        return unlabeled
    notes += columns
    faults = list(_faults(table, images, file))
    problems += faults
    if faults:
        return unlabeled
    patient = table["patient"].where(table["patient"] != "", table.index.to_series())  # unknown: a patient of its own
    if n_unknown := int((table["patient"] == "").sum()):
        notes.append(f"{file} names no patient of {n_unknown} photographs, each of which counts as one")
    return pd.DataFrame({"label": table["label"].astype(int).astype(object), "patient": patient, "rule": "labels.csv"})


def _faults(table: pd.DataFrame, images: dict[str, Path], file: Path) -> Iterator[Refused]:
    others = table[~table["label"].isin(("0", "1"))]
    valued = [f"{name} ({label or 'blank'})" for name, label in others["label"].items()]
    for found, names, expected, remedy in (
        ("labels a photograph twice", table.index[table.index.duplicated()].unique(), "one row for each", "remove one"),
        ("labels what is not there", table.index.difference(images), "photographs of images/", "add or remove them"),
        (
            "lacks the label of",
            [name for name in images if name not in table.index],
            "all of them",
            "label all, or none",
        ),
        ("has other labels than 0 and 1", valued, "0 or 1", HOW_TO_GRADE),
    ):
        if len(names):
            yield Refused(file, f"{found}: {_listed(names)} ({len(names)} in all)", expected, remedy)


def _child(root: Path, name: str) -> Path:
    """The file or folder of that name in any case; in lower case if there is none."""
    if root.is_dir() and not (root / name).exists():
        return next((path for path in sorted(root.iterdir()) if path.name.lower() == name), root / name)
    return root / name


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _listed(names: Iterable) -> str:
    names = list(map(str, names))
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
