"""Everything that is wrong with a reader's folder, all at once and before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from ruranet_utils.data.decoding import check_mask, read_mask_of, shows_a_retina
from ruranet_utils.data.reading import (
    EXPORT,
    check_header,
    opened,
    read_image,
    upright_shape,
    without_bomb_warnings,
)
from ruranet_utils.data.refusal import Refused, printable
from ruranet_utils.data.sources.folder import Folder, check_name, look
from ruranet_utils.data.splits import SPLITS, assign_splits, balance, deal_patients
from ruranet_utils.profiles import Profile
from ruranet_utils.storage.progress import progress

END_OF_IMAGE = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 4096  # cameras append less than this after the end of an image
START_OF_SCAN = b"\xff\xda"
SMALL_PX = 100  # photographs with a shorter side are named
GLANCE_PX = 128
MOST_GLANCES = 500  # photographs read as reduced copies, about 20 milliseconds each
EACH_PART = f"at least {len(SPLITS)}: training, validation and test need one each"
MOST_ROWS = 40  # of the printed table


@dataclass(frozen=True)
class Checked:
    """What a folder holds and what is wrong with it.

    Attributes
    ----------
    root : Path
    problems : list of Refused
        Nothing is computed if there are any.
    notes : list of str
        What was skipped or guessed, and what follows from it.
    reads : dict
        What will be read: ``photographs``, ``patients``, ``labels`` (photographs by label, or None) and ``masks``: for
        each lesion the number of ``masks``, how many are ``empty``, and the mean ``share`` of their photographs that
        they cover, in [0, 1].
    """

    root: Path
    problems: list[Refused]
    notes: list[str] = field(default_factory=list)
    reads: dict = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def table(self) -> pd.DataFrame:
        """The problems: ``file`` (below the folder), ``found``, ``expected``, ``remedy``."""
        rows = [(os.path.relpath(one.file, self.root), one.found, one.expected, one.remedy) for one in self.problems]
        return pd.DataFrame(rows, columns=["file", "found", "expected", "remedy"])

    def as_dict(self) -> dict:
        """``folder``, ``usable``, ``problems``, ``notes`` and ``reads``, ready for JSON."""
        problems, about = self.table.to_dict("records"), {"folder": str(self.root), "usable": self.usable}
        return {**about, "problems": problems, "notes": self.notes, "reads": self.reads}

    def __str__(self) -> str:
        """The problems as a table, the notes, and what will be read."""
        lines = []
        if self.problems:
            shown = self.table.head(MOST_ROWS)
            lines.append(shown.to_markdown(index=False, tablefmt="simple", maxcolwidths=[40, 40, 30, 40]))
            if len(self.table) > len(shown):
                lines.append(f"… and {len(self.table) - len(shown)} more (--json lists all)")
        lines += [f"note: {note}" for note in self.notes]
        if self.reads:
            labels = self.reads["labels"]
            graded = ", ".join(f"{n} labeled {label}" for label, n in labels.items()) if labels else "no labels"
            lines.append(f"{self.reads['photographs']} photographs of {self.reads['patients']} patients, {graded}")
        for lesion, facts in self.reads.get("masks", {}).items():
            empty = f", {facts['empty']} of them empty" if facts["empty"] else ""
            share = f"covering {facts['share']:.2%} of their photographs on average"
            lines.append(f"{facts['masks']} masks of {lesion}{empty}, {share}")
        n_problems = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines.append(f"{self.root} is " + ("usable" if self.usable else f"not usable: {n_problems}"))
        return printable("\n".join(lines))


def check(root: Path, profile: Profile) -> Checked:
    """Check a folder laid out as ``docs/own_images.md`` describes.

    If there are more than ``MOST_GLANCES`` photographs, only their headers and ends are read, plus a reduced copy of
    those with masks; otherwise a reduced copy of every one. Masks are read whole.

    Parameters
    ----------
    root : Path
    profile : Profile
        Its ``workers``, ``split``, ``seed``, ``n_images``, ``crop_field`` and ``max_mask_share``.
    """
    try:
        folder = look(root)
    except FileNotFoundError:
        held = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        found = f"has no folder images (it holds {held})"
        return Checked(root, [Refused(root, found, "images/ with photographs in it", "create it and move them there")])
    except PermissionError as error:
        path = Path(error.filename or root)
        return Checked(root, [Refused(path, "may not be read", "read access", "change its permissions (chmod +r)")])
    glanced = folder.images if len(folder.images) <= MOST_GLANCES else _masked(folder)
    headers = check_photographs(folder.images, profile, glanced)
    masks = _read_masks(folder, headers, profile)
    problems = [*folder.problems, *headers.problems, *masks.problems]
    reads = {
        "photographs": len(folder.images),
        "patients": int(folder.labels["patient"].nunique()),
        "labels": None
        if folder.labels["label"].isna().all()
        else {str(label): int(n) for label, n in folder.labels["label"].value_counts().sort_index().items()},
        "masks": masks.reads,
    }
    if not problems:
        problems += _too_few(folder, masks.reads, profile)
    empty = masks.reads and not any(facts["masks"] - facts["empty"] for facts in masks.reads.values())
    small = [name for name, shape in headers.shapes.items() if min(shape) < SMALL_PX]
    others = headers.doubtful
    notes = [
        *folder.notes,
        *(["all masks are empty, so no network is trained: check how they were exported"] if empty else []),
        *([f"{len(small)} photographs are smaller than {SMALL_PX} pixels, such as {small[0]}"] if small else []),
        *([f"{len(others)} of the photographs may not show a retina, such as {others[0]}"] if others else []),
    ]
    return Checked(root, problems, notes, reads)


def _masked(folder: Folder) -> set[str]:
    return {name for paths in folder.masks.values() for name in paths}


@dataclass(frozen=True)
class Headers:
    """The upright size in pixels of each photograph that could be read, height first; which may not show a retina; and
    the problems."""

    shapes: dict[str, tuple[int, int]]
    doubtful: list[str]
    problems: list[Refused]


def check_photographs(images: Mapping[str, Path], profile: Profile, glanced: Container[str] = ()) -> Headers:
    """Read the headers and ends of photographs; one that looks cut off is decoded to be sure.

    Parameters
    ----------
    images : mapping of str to Path
    profile : Profile
        Its ``workers`` and ``crop_field``.
    glanced : container of str
        Photographs to read a reduced copy of, too.
    """
    crop_field = profile.crop_field
    jobs = (delayed(_shape_or_problem)(path, name in glanced, crop_field) for name, path in images.items())
    with without_bomb_warnings():
        done = Parallel(profile.workers, prefer="threads", return_as="generator", batch_size=64)(jobs)
        found = list(progress(done, desc="checking", total=len(images), unit="photograph"))
    read = {name: one for name, one in zip(images, found, strict=True) if not isinstance(one, Refused)}
    shapes = {name: shape for name, (shape, _) in read.items()}
    doubtful = [name for name, (_, other) in read.items() if other]
    return Headers(shapes, doubtful, [one for one in found if isinstance(one, Refused)])


def _shape_or_problem(path: Path, glance: bool, crop_field: bool) -> tuple[tuple[int, int], bool] | Refused:
    """The shape, and whether a glance shows something other than a retina."""
    try:
        check_name(path)
        with opened(path) as image:
            check_header(image, path)
            shape = upright_shape(image)
            if not _is_whole(path, image.format):
                _decode(image, path)
        return shape, glance and not shows_a_retina(read_image(path, GLANCE_PX, crop_field)[0])
    except Refused as problem:
        return problem


def _decode(image: Image.Image, path: Path) -> None:
    try:
        image.load()
    except OSError as error:
        if image.format in ("JPEG", "MPO"):
            raise Refused(path, "is cut off", "a whole file", EXPORT) from error
        raise


def _is_whole(path: Path, kind: str | None) -> bool:
    """Whether a file holds the mark at the end of its image; if not, or if the format has none, it must be decoded."""
    if path.suffix.lower() == ".gz":
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        if kind in END_OF_IMAGE and END_OF_IMAGE[kind] in file.read():
            return True
    if kind not in ("JPEG", "MPO"):
        return False
    data = path.read_bytes()  # what cameras append after the end may be long, and hold any bytes
    return data.rfind(END_OF_IMAGE[kind]) > data.rfind(START_OF_SCAN)


@dataclass(frozen=True)
class Masks:
    """For each lesion, what :attr:`Checked.reads` says of it; and the problems."""

    reads: dict[str, dict]
    problems: list[Refused]


def _read_masks(folder: Folder, headers: Headers, profile: Profile) -> Masks:
    jobs = [
        (lesion, name, path)
        for lesion, paths in folder.masks.items()
        for name, path in paths.items()
        if name in headers.shapes
    ]
    read = partial(_share_or_problem, profile=profile)
    work = (delayed(read)(folder.images[name], headers.shapes[name], path) for _, name, path in jobs)
    done = Parallel(profile.workers, prefer="threads", return_as="generator")(work)
    found = list(progress(done, desc="reading masks", total=len(jobs), unit="mask"))
    shares = pd.DataFrame(jobs, columns=["lesion", "name", "path"]).assign(share=found)
    bad = shares["share"].map(lambda share: isinstance(share, Refused)).astype(bool)
    good = shares[~bad].astype({"share": float}).groupby("lesion", sort=False)["share"]
    reads = {
        lesion: {"masks": len(values), "empty": int((values == 0).sum()), "share": float(values.mean())}
        for lesion, values in good
    }
    return Masks(reads, list(shares.loc[bad, "share"]))


def _share_or_problem(photograph: Path, shape: tuple[int, int], path: Path, profile: Profile) -> float | Refused:
    try:
        mask = read_mask_of(photograph, shape, path)
        if mask.any():
            image, frame = read_image(photograph, GLANCE_PX, profile.crop_field)
            check_mask(mask, image, frame, path, profile.max_mask_share)
        return float(mask.mean())
    except Refused as problem:
        return problem


def _patients(n: int) -> str:
    return "one patient" if n == 1 else f"{n} patients"


def _too_few(folder: Folder, masks: dict[str, dict], profile: Profile) -> Iterator[Refused]:
    """What :func:`ruranet_utils.data.cohort.load_cohorts` would refuse after decoding everything."""
    patients = folder.labels["patient"]
    if patients.nunique() < len(SPLITS):
        found = f"holds photographs of {_patients(patients.nunique())}"
        remedy = "add photographs of other patients; the column patient of labels.csv says who the patients are"
        yield Refused(folder.root, found, EACH_PART, remedy)
        return
    masked = {name for paths in folder.masks.values() for name in paths}
    masked = masked if any(facts["masks"] > facts["empty"] for facts in masks.values()) else set()
    n_masked = patients[list(masked)].nunique()
    if masked and n_masked < len(SPLITS):
        remedy = "add masks of other patients, or move masks/ away to use the trained networks"
        yield Refused(folder.root, f"holds masks of {_patients(n_masked)}", EACH_PART, remedy)
    if folder.labels["label"].isna().all():
        return
    table = folder.labels.rename(columns={"patient": "patient_id"}).rename_axis("image_id").reset_index()
    try:
        drawn = balance(table, profile.n_images, profile.seed)
        drawn = drawn.assign(split=assign_splits(drawn, profile.split, profile.seed))
    except ValueError as error:
        remedy = "label more patients, or remove labels.csv to cluster without labels"
        expected = "both labels in training, validation and test"
        yield Refused(folder.root / "labels.csv", f"cannot be split ({error})", expected, remedy)
        return
    sides = table["patient_id"].map(drawn.drop_duplicates("patient_id").set_index("patient_id")["split"])
    dealt = deal_patients(table.assign(split=sides)[table["image_id"].isin(masked)], profile.split, profile.seed)
    if n_masked >= len(SPLITS) and (lacking := [side for side in SPLITS if side not in set(dealt)]):
        remedy = "add masks of other patients, or choose another seed"
        yield Refused(folder.root, f"holds masks of no patient drawn for {' or '.join(lacking)}", EACH_PART, remedy)
