"""A reader's own photographs: ``images/`` and, if present, ``masks/<lesion>/`` and ``labels.csv``."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ruranet_utils.data.reading import opened
from ruranet_utils.data.refusal import Refused, printable, refuse
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
DROPPINGS = ("thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "__macosx")
OTHER_SUFFIXES = (".webp", ".jp2", ".j2k", ".jfif", ".jpe", ".avif", ".pgm", ".pnm")  # read if they hold an image
RAW = (".nef", ".nrw", ".cr2", ".cr3", ".dng", ".arw", ".orf", ".rw2", ".pef")  # which hold a readable thumbnail
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz")
HOW_TO_EXPORT = {
    ".dcm": "export DICOM as PNG",
    ".heic": "export HEIC as JPEG",
    ".pdf": "export PDF as PNG",
    ".csv": "labels belong in labels.csv beside images/",
    **dict.fromkeys(RAW, "develop raw files as JPEG"),
    **dict.fromkeys(ARCHIVES, "unpack archives"),
}
TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".ods")
RESULTS, THEIR_START = "lesions.csv", b"image,lesion,number"  # what ``ruranet segment`` writes into a folder of results
SPELLINGS = {
    "exudates": "hard_exudates",
    "haemorrhages": "hemorrhages",
    "cotton_wool_spots": "soft_exudates",
    "ex": "hard_exudates",
    "ma": "microaneurysms",
    "he": "hemorrhages",
    "se": "soft_exudates",
}
LONGEST_NAME_BYTES = 220  # results append up to 35 more, and file systems stop at 255
HOW_TO_GRADE = 'write 1 for macular edema (grade 1 or more, or "yes") and 0 for none'


@dataclass(frozen=True)
class Folder:
    """What a reader's folder holds, and everything that is wrong with it; no photograph or mask has been opened.

    Attributes
    ----------
    root : Path
    images : dict of str to Path
        By their paths below ``images/`` without suffix, sorted.
    masks : dict of str to dict of str to Path
        For each lesion, by the names of ``images``.
    labels : DataFrame
        ``label``, ``patient`` and ``rule`` by the names of ``images``; ``label`` is None if nothing is labeled.
    problems : list of Refused
        Any one of them makes the folder unusable.
    notes : list of str
        What was skipped or guessed.
    """

    root: Path
    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, dict[str, Path]] = field(default_factory=dict)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(root: Path) -> Folder:
    """List a folder laid out as ``docs/own_images.md`` describes.

    Parameters
    ----------
    root : Path
        Holds ``images/``, possibly with subfolders; ``masks/<lesion>/`` with masks named like their images, for any
        lesions of ``profiles.ANNOTATIONS``; and ``labels.csv`` with the columns ``image``, ``label`` (1: DME, 0: none)
        and, if known, ``patient``. Only ``images`` is required.

    Raises
    ------
    FileNotFoundError
        If there is no folder ``images``.
    """
    doubled: list[Refused] = []
    children = {name: _child(root, name, doubled) for name in ("images", "masks", "labels.csv")}
    images, problems, notes = find_photographs(children["images"])
    problems += doubled
    notes += _strangers(root, children.values())
    masks = _masks(children["masks"], images, problems, notes)
    labels = _labels(children["labels.csv"], images, problems, notes)
    return Folder(root, images, masks, labels, problems, notes)


def records(root: Path) -> list[Record]:
    """Declare the photographs of a folder: :func:`look`, with every note raised as a warning.

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


def find_photographs(folder: Path, out: Path | None = None) -> tuple[dict[str, Path], list[Refused], list[str]]:
    """Photographs of a folder and its subfolders, by their paths without suffix; problems; what was skipped.

    Files with an unusual suffix, or none, are included if their content is a readable image; folders of results are
    not, and nothing is said of ``out``, the one to write to.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    """
    expect_folder(folder)
    found, problems, passed_over, first = {}, [], [], {}
    for path in _walk(folder):
        if out and path.is_dir() and path.resolve() == out.resolve():
            continue
        stem = stem_of(path.name) or (stem_by_content(path) if _is_photograph(path) else None)
        if stem is None:
            passed_over.append(path)
            continue
        name = path.relative_to(folder).with_name(stem).as_posix()
        other = first.setdefault(_form(name), path)
        if other is not path:
            found_twice = f"has the same name as {other.name} but for the suffix"
            problems.append(Refused(path, found_twice, "one file of each name", "remove or rename one of them"))
        found.setdefault(name, path)
    if not found:
        listed = ", ".join((*SUFFIXES, *OTHER_SUFFIXES))
        problems.append(Refused(folder, "holds no image", "at least one", f"put files there ({listed}), or remove it"))
    return found, problems, [_say(passed_over)] if passed_over else []


def check_name(path: Path) -> None:
    """Raise :class:`Refused` if results cannot be named after a photograph."""
    if printable(path) != str(path):
        raise Refused(path, "has a name that is not UTF-8", "one that is", "rename it")
    if (n_bytes := len(os.fsencode(path.stem))) > LONGEST_NAME_BYTES:
        remedy = "shorten it, since names of results are longer"
        raise Refused(path, f"has a name of {n_bytes} bytes", f"at most {LONGEST_NAME_BYTES}", remedy)


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in order of their names, except hidden ones and what operating systems leave behind.

    Links to folders, and folders of results, are listed but not entered.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in DROPPINGS:
            continue
        if path.is_dir() and not path.is_symlink() and not _holds_results(path):
            yield from _walk(path)
        else:
            yield path


def _holds_results(folder: Path) -> bool:
    table = folder / RESULTS
    if not table.is_file():
        return False
    with table.open("rb") as file:
        return file.read(len(THEIR_START)) == THEIR_START


def stem_by_content(path: Path) -> str:
    """The name of a photograph whose suffix is unusual, or which has none."""
    return path.stem if path.suffix.lower() in OTHER_SUFFIXES else path.name


def _is_photograph(path: Path) -> bool:
    if path.suffix.lower() in RAW:
        return False
    try:
        with opened(path):
            return True
    except ValueError:
        return False


def _say(passed_over: list[Path]) -> str:
    suffixes = {".dcm" if _is_dicom(path) else path.suffix.lower() for path in passed_over}
    how = list(dict.fromkeys(remedy for suffix, remedy in HOW_TO_EXPORT.items() if suffix in suffixes))
    folders = [path for path in passed_over if path.is_dir()]
    how += ["links to folders are not followed"] if any(path.is_symlink() for path in folders) else []
    how += [f"folders with {RESULTS} hold results"] if not all(path.is_symlink() for path in folders) else []
    named = _listed(path.name for path in passed_over)
    where = f"in {passed_over[0].parent} {len(passed_over)} of the files and folders are not read as photographs"
    return f"{where}: {'; '.join([named, *how])}"


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content; those on a CD have no suffix."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _strangers(root: Path, known: Iterable[Path]) -> list[str]:
    """What lies beside images/, masks/ and labels.csv and may have been meant as one of them."""
    others = [path for path in sorted(root.iterdir()) if path not in known and not path.name.startswith(".")]
    folders = [path.name for path in others if path.is_dir() and path.name.lower() not in DROPPINGS]
    tables = [path.name for path in others if path.is_file() and path.suffix.lower() in TABLES]
    notes = [f"{root}: the folders {_listed(folders)} are not read; masks belong in masks/"] if folders else []
    notes += [f"{root}: {_listed(tables)} is not read; labels belong in labels.csv"] if tables else []
    return notes + _misplaced(root, others, "photographs belong in images/")


def _misplaced(folder: Path, paths: Iterable[Path], where: str) -> list[str]:
    """A note on images and archives in a folder where no files are read."""
    suffixes = (*OTHER_SUFFIXES, *ARCHIVES)
    files = [path for path in paths if path.is_file() and (stem_of(path.name) or path.suffix.lower() in suffixes)]
    how = [where] + (["unpack archives"] if any(path.suffix.lower() in ARCHIVES for path in files) else [])
    return [f"{folder}: not read: {'; '.join([_listed(path.name for path in files), *how])}"] if files else []


def _masks(root: Path, images: dict[str, Path], problems: list, notes: list[str]) -> dict[str, dict[str, Path]]:
    masks: dict[str, dict[str, Path]] = {}
    taken: dict[str, Path] = {}
    children = sorted(root.iterdir()) if root.is_dir() else []
    others = [path for path in children if stem_of(path.name) is None and not path.name.startswith(".")]
    notes += _misplaced(root, others, "masks belong in a folder for their lesion")
    for folder in children:
        is_dropping = folder.name.startswith(".") or folder.name.lower() in DROPPINGS
        if is_dropping or (folder.is_file() and stem_of(folder.name) is None):
            continue
        lesion = _lesion(folder.name)
        if lesion not in ANNOTATIONS or folder.is_file() or lesion in masks:
            found = "is a file" if folder.is_file() else "is not named after a lesion"
            found = f"means {lesion}, as {taken[lesion].name} does" if lesion in masks else found
            expected = f"one folder for each of {', '.join(ANNOTATIONS)}"
            problems.append(Refused(folder, found, expected, "rename or move it"))
            continue
        if lesion != folder.name:
            notes.append(f"{folder} is read as masks of {lesion}")
        masks[lesion], taken[lesion] = _masks_of(folder, images, problems, notes), folder
    return masks


def _lesion(name: str) -> str:
    """A lesion from its name as people spell it: ``3. Hard Exudates``, ``Haemorrhages``, ``EX``."""
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
        notes.append(f"{folder}: the suffix {suffix!r} of the masks' names is ignored to find their images")
    for name, path in files.items():
        image = find(name) or find(name.removesuffix(suffix))
        if image is None or image in masks:
            found = f"belongs to the same image as {masks[image].name}" if image else "matches no image"
            expected = f"the name of a file in {folder.parent.parent / 'images'}"
            problems.append(Refused(path, found, expected, "rename or remove it"))
        else:
            masks[image] = path
    return masks


def _common_suffix(names: list[str], images: dict[str, Path]) -> str:
    """What all these names have after the name of an image, such as ``_EX``; empty if it differs."""
    suffixes = set()
    for name in names:
        fitting = [image for image in images if name.startswith(image)]
        suffixes.add(name.removeprefix(max(fitting, key=len)) if fitting else "")
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    names_a_kind = not suffix[:1].isalnum() and any(map(str.isalpha, suffix))
    return suffix if names_a_kind else ""  # neither IMG_31 nor IMG_3_1 is a mask of IMG_3


def finder(names: Iterable[str]) -> Callable[[str], str | None]:
    """A function that finds a photograph by what people write for it, or returns None.

    That is its path below ``images/``, or just its name if no other has it, with or without suffix, in any Unicode form
    and, unless ambiguous, in any letter case.
    """
    known: dict[str, set[str]] = {}
    for name in names:
        for form in {_form(name), _form(name).rpartition("/")[2]}:
            for spelling in {form, form.casefold()}:
                known.setdefault(spelling, set()).add(name)

    def find(written: str) -> str | None:
        form = _form(written).removeprefix("./").removeprefix("images/")
        for spelling in (form, _form(stem_of(form) or _without_other_suffix(form))):
            for wanted in (spelling, spelling.casefold()):
                if len(found := known.get(wanted, set())) == 1 or wanted in found:
                    return wanted if wanted in found else next(iter(found))
        return None

    return find


def _without_other_suffix(name: str) -> str:
    return name.rpartition(".")[0] if name.lower().endswith(OTHER_SUFFIXES) else name


def _labels(file: Path, images: dict[str, Path], problems: list, notes: list[str]) -> pd.DataFrame:
    unlabeled = pd.DataFrame({"label": None, "patient": list(images), "rule": "none"}, index=list(images))
    if file.is_dir():
        problems.append(Refused(file, "is a folder", "a file", "rename it"))
    if not file.is_file():
        return unlabeled
    try:
        table, columns = read_labels(file, finder(images))
    except Refused as problem:
        problems.append(problem)
        return unlabeled
    notes += columns
    labeled = bool((table["label"] != "").any())
    faults = list(_faults(table, images, file, labeled))
    problems += faults
    if faults:
        return unlabeled
    notes += _patient_notes(table["patient"], file)
    patient = table["patient"].where(table["patient"] != "", table.index.to_series())  # unknown: a patient of its own
    if not labeled:
        return unlabeled.assign(patient=patient.reindex(unlabeled.index).fillna(unlabeled["patient"]))
    return pd.DataFrame({"label": table["label"].astype(int).astype(object), "patient": patient, "rule": "labels.csv"})


def _patient_notes(patients: pd.Series, file: Path) -> Iterator[str]:
    if n_unknown := int((patients == "").sum()):
        yield f"{file} gives no patient for {n_unknown} photographs; each counts as a separate patient"
    spellings: dict[str, list[str]] = {}
    for name in sorted(set(patients)):
        spellings.setdefault(name.casefold(), []).append(name)
    if alike := [" and ".join(names) for names in spellings.values() if len(names) > 1]:
        yield f"{file}: patients whose names differ only in case count as different ones: {_listed(alike)}"


def _faults(table: pd.DataFrame, images: dict[str, Path], file: Path, labeled: bool) -> Iterator[Refused]:
    others = table[~table["label"].isin(("0", "1"))] if labeled else table[:0]
    valued = [f"{name} ({label or 'blank'})" for name, label in others["label"].items()]
    twice, strangers = table.index[table.index.duplicated()].unique(), table.index.difference(images)
    missing = [name for name in images if name not in table.index] if labeled else []
    as_there = f"names as in images/ (such as {next(iter(images), 'eye 1')!r}), with the folder where several share one"
    for found, names, expected, remedy in (
        ("names a photograph twice", twice, "one row for each", "remove one of them"),
        ("names photographs that are not in images/", strangers, as_there, "correct or remove these rows"),
        ("lacks the label of", missing, "a label for each photograph", "label all, or none"),
        ("has labels other than 0 and 1", valued, "0 or 1", HOW_TO_GRADE),
    ):
        if len(names):
            yield Refused(file, f"{found}: {_listed(names)} ({len(names)} in all)", expected, remedy)


def _child(root: Path, name: str, problems: list) -> Path:
    """The file or folder of that name in any letter case; the lower-case path if there is none."""
    found = [path for path in sorted(root.iterdir()) if path.name.lower() == name] if root.is_dir() else []
    if len(found) > 1:
        problems.append(Refused(found[1], f"lies beside {found[0].name}", f"one {name}", "put both together"))
    return (root / name if root / name in found else found[0]) if found else root / name


def _form(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).replace("\\", "/").split())


def _listed(names: Iterable) -> str:
    names = list(map(str, names))
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
