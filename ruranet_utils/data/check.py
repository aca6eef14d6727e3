"""Everything that is wrong with a reader's folder, at once and before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed

from ruranet_utils.data.decoding import check_share, read_mask_of
from ruranet_utils.data.field import shrink_mask
from ruranet_utils.data.reading import check_header, opened, orientation, read_image
from ruranet_utils.data.refusal import Refused
from ruranet_utils.data.sources.folder import Folder, look
from ruranet_utils.data.splits import SPLITS, assign_splits, balance
from ruranet_utils.profiles import Profile
from ruranet_utils.storage.progress import progress

LONGEST_NAME_BYTES = 220  # results append as many as 35 to it, and file systems end at 255
END_OF_IMAGE = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 4096  # what cameras append after the end of an image is shorter
SUSPICIOUS = 0.2  # share of the photograph from which a mask is compared with the field of view
GLANCE_PX = 128
MOST_ROWS = 40  # of the table that is printed


@dataclass(frozen=True)
class Checked:
    """What a folder holds and what is wrong with it.

    Attributes
    ----------
    root : Path
    problems : list of Refused
        Nothing is computed while there is one.
    notes : list of str
        What was passed over or guessed, and what follows from it.
    reads : dict
        What will be read: ``photographs``, ``patients``, ``labels`` (photographs by label, or None) and ``masks``: of
        each lesion the number of ``masks``, of those that are ``empty``, and the mean ``share`` that they cover of
        their photographs, in [0, 1].
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
        """``folder``, ``usable``, ``problems``, ``notes`` and ``reads``, as JSON takes them."""
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
            lines.append(f"{facts['masks']} masks of {lesion}{empty}, {facts['share']:.2%} of their photographs")
        n_problems = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines.append(f"{self.root} is " + ("usable" if self.usable else f"not usable: {n_problems}"))
        return "\n".join(lines)


def check(root: Path, profile: Profile) -> Checked:
    """Check a folder that is laid out as ``docs/own_images.md`` says.

    Of photographs only the headers and the ends are read, of masks everything.

    Parameters
    ----------
    root : Path
    profile : Profile
        Its ``workers``, ``split``, ``seed`` and ``max_mask_share``.
    """
    try:
        folder = look(root)
    except FileNotFoundError as error:
        return Checked(root, [Refused(root, f"lacks images/ ({error})", "photographs in images/", "move them there")])
    headers = check_photographs(folder.images, profile)
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
    notes = [*folder.notes, *(["all masks are empty: no network is trained on them"] if empty else [])]
    return Checked(root, problems, notes, reads)


@dataclass(frozen=True)
class Headers:
    """Of each photograph whose header could be read the upright size in pixels, height first; and the problems."""

    shapes: dict[str, tuple[int, int]]
    problems: list[Refused]


def check_photographs(images: Mapping[str, Path], profile: Profile) -> Headers:
    """Read the headers and the ends of photographs; one that seems cut off is decoded to be sure.

    Parameters
    ----------
    images : mapping of str to Path
    profile : Profile
        Its ``workers``.
    """
    jobs = (delayed(_shape_or_problem)(path) for path in images.values())
    done = Parallel(profile.workers, prefer="threads", return_as="generator", batch_size=64)(jobs)
    found = list(progress(done, desc="checking", total=len(images), unit="photograph"))
    shapes = {name: shape for name, shape in zip(images, found, strict=True) if isinstance(shape, tuple)}
    return Headers(shapes, [problem for problem in found if isinstance(problem, Refused)])


def _shape_or_problem(path: Path) -> tuple[int, int] | Refused:
    try:
        if len(path.stem.encode()) > LONGEST_NAME_BYTES:
            found = f"has a name of {len(path.stem.encode())} bytes"
            raise Refused(path, found, f"at most {LONGEST_NAME_BYTES}", "shorten it: results append to it")
        with opened(path) as image:
            check_header(image, path)
            width, height = image.size
            if image.format in END_OF_IMAGE and END_OF_IMAGE[image.format] not in _tail(path):
                image.load()
            return (height, width) if orientation(image) < 5 else (width, height)
    except Refused as problem:
        return problem


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


@dataclass(frozen=True)
class Masks:
    """Of each lesion what :attr:`Checked.reads` says of it; the patients of masks that show it; and the problems."""

    reads: dict[str, dict]
    problems: list[Refused]


def _read_masks(folder: Folder, headers: Headers, profile: Profile) -> Masks:
    jobs = [
        (lesion, name, path)
        for lesion, paths in folder.masks.items()
        for name, path in paths.items()
        if name in headers.shapes
    ]
    read = partial(_share_or_problem, largest=profile.max_mask_share)
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


def _share_or_problem(photograph: Path, shape: tuple[int, int], path: Path, largest: float) -> float | Refused:
    try:
        mask = read_mask_of(photograph, shape, path)
        if mask.mean() > SUSPICIOUS:
            image, frame = read_image(photograph, GLANCE_PX)
            check_share(shrink_mask(mask, frame, GLANCE_PX)[0], image, path, largest)
        return float(mask.mean())
    except Refused as problem:
        return problem


def _patients(n: int) -> str:
    return "one patient" if n == 1 else f"{n} patients"


def _too_few(folder: Folder, masks: dict[str, dict], profile: Profile) -> Iterator[Refused]:
    """What :func:`ruranet_utils.data.cohort.load_cohorts` would refuse after decoding everything."""
    patients = folder.labels["patient"]
    if patients.nunique() < len(SPLITS):
        found, remedy = f"holds photographs of {_patients(patients.nunique())}", "add photographs of others"
        yield Refused(folder.root, found, f"at least {len(SPLITS)}, one for each part of the split", remedy)
        return
    masked = {patients[name] for paths in folder.masks.values() for name in paths}
    if any(facts["masks"] > facts["empty"] for facts in masks.values()) and len(masked) < len(SPLITS):
        remedy = "add masks of others, or remove masks/ to use the networks that are there"
        found = f"holds masks of {_patients(len(masked))}"
        yield Refused(folder.root, found, f"at least {len(SPLITS)}, one for each part of the split", remedy)
    if not folder.labels["label"].isna().all():
        table = folder.labels.rename(columns={"patient": "patient_id"}).rename_axis("image_id").reset_index()
        try:
            assign_splits(balance(table, profile.n_images, profile.seed), profile.split, profile.seed)
        except ValueError as error:
            remedy = "label more patients, or remove labels.csv to cluster without labels"
            yield Refused(folder.root / "labels.csv", f"cannot be split: {error}", "both classes in each part", remedy)
