"""Find lesions in photographs: ``segment("photographs/").save("found/")``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from os import cpu_count, fsencode
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage.segmentation import find_boundaries

from ruranet_utils.data.decoding import GROUND, field_of_view, shows_a_retina
from ruranet_utils.data.field import Frame
from ruranet_utils.data.reading import EXPORT, check_color, read_upright
from ruranet_utils.data.refusal import Refused, refuse
from ruranet_utils.data.sources.base import stem_of
from ruranet_utils.data.sources.folder import RAW, check_name, find_photographs, stem_by_content
from ruranet_utils.data.sources.folder import RESULTS as TABLE
from ruranet_utils.profiles import DISPLAY, PROFILES, get_profile
from ruranet_utils.segmentation.model_file import EIGHT_NEIGHBORS, Model, load, model_path
from ruranet_utils.storage import paths
from ruranet_utils.storage.artefacts import digest_file, write_atomically
from ruranet_utils.storage.progress import progress

COLORS = {  # of the outlines; no retina has these colors
    "hard_exudates": (0, 255, 255),
    "microaneurysms": (120, 255, 0),
    "hemorrhages": (90, 130, 255),
    "soft_exudates": (255, 80, 255),
    "optic_disc": (255, 255, 255),
    "edema": (255, 255, 255),
}
SHOWN_PX, LEGEND_PX, COLUMN_PX = (
    1024,
    40,
    450,
)  # side of an overlay; line height and column width of its legend
MOST_THREADS = 4
LEAST_DISC = 1e-3  # share of the square; anything smaller is a reflection
DISCS = (0.006, 0.04)  # the usual range at 45 to 50 degrees
LEAST_ROUND = 0.9  # shorter by longer side of a field that is no ellipse
DARK_BELOW = 50  # of 255: median of the brightest channel; at least 68 in the photographs trained on


@dataclass(frozen=True, eq=False)
class Finding:
    """What a model finds in one photograph.

    Attributes
    ----------
    name : str
    shown : ndarray of uint8, shape (side, side, 3)
        The part of the photograph that the model saw, at the photograph's own size, but not larger than ``SHOWN_PX``
        nor smaller than the model saw it.
    masks : dict of str to ndarray of bool, shape (h, w)
        By lesion, as the model saw the photograph.
    frame : Frame
        Which part of the photograph that is.
    field : float
        Share of it that the field of view covers.
    """

    name: str
    shown: np.ndarray
    masks: dict[str, np.ndarray]
    frame: Frame
    field: float

    @property
    def table(self) -> pd.DataFrame:
        """One row per lesion.

        ``image``, ``lesion``; ``number`` of connected parts; ``area_percent`` of the field of view; ``disc_areas``, the
        area in areas of the optic disc, missing if no disc was searched for or found (specks are none).
        """
        disc = self.masks["optic_disc"].sum() if self.masks.get("optic_disc", np.zeros(1)).mean() >= LEAST_DISC else 0
        return pd.DataFrame(
            {
                "image": self.name,
                "lesion": lesion,
                "number": ndimage.label(mask, EIGHT_NEIGHBORS)[1],
                "area_percent": 100 * mask.mean() / self.field if self.field else np.nan,
                "disc_areas": mask.sum() / disc if disc else np.nan,
            }
            for lesion, mask in self.masks.items()
        )

    @property
    def overlay(self) -> Image.Image:
        """The photograph with the outline of every lesion and a legend below it."""
        drawn = self.shown.copy()
        for lesion, mask in self.masks.items():
            enlarged = np.asarray(Image.fromarray(mask).resize(drawn.shape[1::-1], Image.Resampling.NEAREST))
            drawn[find_boundaries(enlarged, mode="inner")] = COLORS[lesion]
        n_columns = 2 if drawn.shape[1] >= 2 * COLUMN_PX else 1
        n_lines = -(-len(self.masks) // n_columns)
        framed = Image.new("RGB", (drawn.shape[1], drawn.shape[0] + n_lines * LEGEND_PX))
        framed.paste(Image.fromarray(drawn))
        pen, font = ImageDraw.Draw(framed), ImageFont.load_default(LEGEND_PX // 2)
        for number, row in enumerate(self.table.itertuples()):
            x = number % n_columns * framed.width // n_columns
            y = drawn.shape[0] + number // n_columns * LEGEND_PX
            pen.rectangle((x + 10, y + 10, x + 30, y + 30), fill=COLORS[row.lesion])
            text = f"{DISPLAY[row.lesion]}: {row.number}, {row.area_percent:.2f}% of the field"
            pen.text((x + 40, y + LEGEND_PX // 2), text, fill="white", font=font, anchor="lm")
        return framed

    def files(self, folder: Path) -> list[Path]:
        """What :meth:`save` writes: a mask for each lesion, then the overlay."""
        return [*(folder / f"{self.name}_{lesion}.png" for lesion in self.masks), folder / f"{self.name}_overlay.jpg"]

    def save(self, folder: str | Path) -> None:
        """Write ``<name>_<lesion>.png``, 255 where the lesion is and as large as the photograph, and the overlay."""
        *masks, overlay = self.files(Path(folder))
        overlay.parent.mkdir(parents=True, exist_ok=True)  # a photograph's name includes its subfolder
        for path, mask in zip(masks, self.masks.values(), strict=True):
            full = Image.fromarray(self.frame.restore(mask).astype(np.uint8) * 255)
            write_atomically(path, lambda file, full=full: full.save(file, "PNG", compress_level=1))
        write_atomically(overlay, lambda file: self.overlay.save(file, "JPEG", quality=90))


@dataclass(frozen=True, eq=False)
class Found:
    """Findings of some photographs.

    Attributes
    ----------
    findings : tuple of Finding
    model : Model
    """

    findings: tuple[Finding, ...]
    model: Model

    @property
    def table(self) -> pd.DataFrame:
        """The rows of :attr:`Finding.table` of all photographs."""
        return pd.concat([finding.table for finding in self.findings], ignore_index=True)

    def save(self, folder: str | Path) -> Path:
        """Write masks, overlays (:meth:`Finding.save`) and the table ``lesions.csv``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for finding in self.findings:
            finding.save(folder)
        self.table.to_csv(folder / TABLE, index=False)
        return folder


def segment(
    images: str | Path | np.ndarray, lesions: Sequence[str] | str | None = None, model: str | Path | Model = "shipped"
) -> Found:
    """Find lesions in photographs.

    Parameters
    ----------
    images : path or ndarray
        A file, a folder of files, or an array of uint8 of shape (n, 3, h, w).
    lesions : sequence of str, optional
        Some of those that the model finds; all by default.
    model : str, Path or Model
        As for :func:`load_model`.

    Returns
    -------
    Found

    Raises
    ------
    FileNotFoundError
        If there are no such images or no such model.
    Refused
        If a photograph cannot be read.
    ValueError
        If the model does not find one of the lesions, or for an array of another shape or type.
    """
    finder = Finder.of(model, lesions)
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected uint8 images of shape (n, 3, h, w), got {images.dtype} {images.shape}")
        digits = len(str(len(images)))
        findings = [finder.find(f"image_{row:0{digits}d}", image) for row, image in enumerate(images, start=1)]
    else:
        files = photographs(images)
        bar = progress(files.items(), desc="segmenting", unit="photograph")
        findings = [finder.read(name, file) for name, file in bar]
    return Found(tuple(findings), finder.model)


def load_model(name: str | Path = "shipped") -> Model:
    """The network that comes with this project, one that a run has trained, or one from a file.

    Parameters
    ----------
    name : str or Path
        ``"shipped"``; a profile, whose joint network is loaded; or a ``.safetensors`` file.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If the name is unknown, or the file is not a model or was modified or damaged.
    """
    if Path(name).suffix == ".safetensors":
        return load(Path(name))
    if name not in (*PROFILES, "shipped"):
        raise ValueError(
            f"unknown model {str(name)!r}: expected a .safetensors file, 'shipped' or one of {', '.join(PROFILES)}"
        )
    file = model_path(paths.models(str(name)), ())
    if not file.is_file():
        remedy = "restore it, or train it (make models)"
        if name != "shipped":
            remedy = (
                f"train it (make reproduce PROFILE={name} ARGS='--only 02'), or name the .safetensors file of a lesion"
            )
        raise FileNotFoundError(f"there is no network for all lesions, {file}: {remedy}")
    return load(file)


def photographs(path: str | Path, out: Path | None = None) -> dict[str, Path]:
    """The photographs that a path stands for, by name: a file, or those in a folder.

    Parameters
    ----------
    path : str or Path
    out : Path, optional
        Folder of results: what lies in it is no photograph.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    Unusable
        If the folder holds no photographs, or several with the same name.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix.lower() in RAW:
        found = "is a raw file, of which only a thumbnail can be read"
        raise Refused(path, found, "a photograph", "develop it as JPEG")
    if path.is_file():
        return {stem_of(path.name) or stem_by_content(path): path}
    files, problems, notes = find_photographs(path, out)
    if out:
        found, place = files, out.resolve()
        files = {name: file for name, file in found.items() if not file.resolve().is_relative_to(place)}
        if found and not files:
            problems = [Refused(path, f"holds nothing but results in {out}", "photographs", "name another --out")]
    for note in notes:
        warnings.warn(note, stacklevel=3)
    refuse(problems)
    return files


@dataclass(frozen=True, eq=False)
class Finder:
    """A model and the lesions to find, loaded once for any number of photographs.

    Attributes
    ----------
    model : Model
    lesions : tuple of str
        Under their names for readers: ``optic_disc`` for the stand-in for edema.
    """

    model: Model
    lesions: tuple[str, ...]

    @classmethod
    def of(cls, model: str | Path | Model, lesions: Sequence[str] | str | None = None) -> Finder:
        """See :func:`segment`."""
        model = model if isinstance(model, Model) else load_model(model)
        lesions = (lesions,) if isinstance(lesions, str) else lesions
        if unknown := sorted(set(lesions or ()) - set(model.shows)):
            raise ValueError(f"the model does not find {', '.join(unknown)}; it finds {', '.join(model.shows)}")
        return cls(model, tuple(name for name in model.shows if not lesions or name in lesions))

    def read(self, name: str, file: Path) -> Finding:
        """Find the lesions in a photograph, reading it once; raises :class:`Refused`."""
        size_px = self.model.card["image_size_px"]
        upright, frame = read_upright(file, max(size_px, SHOWN_PX // 2), self.model.card["crop_field"])
        pixels = np.asarray(frame.cut(upright, size_px, Image.Resampling.BICUBIC))
        check_color(pixels, file)
        room = (frame.right - frame.left) * upright.width // frame.width_px
        shown = np.asarray(frame.cut(upright, max(size_px, min(SHOWN_PX, room)), Image.Resampling.BICUBIC))
        finding = self.find(name, pixels.transpose(2, 0, 1), shown, frame)
        for doubt in _doubts(pixels, frame, finding.masks.get("optic_disc")):
            warnings.warn(f"{file} {doubt}", stacklevel=2)
        return finding

    def find(
        self, name: str, image: np.ndarray, shown: np.ndarray | None = None, frame: Frame | None = None
    ) -> Finding:
        """Find the lesions in an image prepared for the model: uint8, shape (3, h, w)."""
        profile = replace(get_profile("open"), threads=min(MOST_THREADS, cpu_count() or 1))
        masks = dict(zip(self.model.shows, self.model.predict(image[None], profile)[0], strict=True))
        return Finding(
            name,
            image.transpose(1, 2, 0) if shown is None else shown,
            {lesion: masks[lesion] for lesion in self.lesions},
            frame or Frame.whole(*image.shape[1:]),
            field_of_view(image),
        )


def _doubts(pixels: np.ndarray, frame: Frame, disc: np.ndarray | None) -> Iterator[str]:
    """What makes findings in a photograph doubtful, seen in its square, uint8 of shape (side, side, 3)."""
    if not shows_a_retina(pixels.transpose(2, 0, 1)):
        yield "may not show a retina"
        return
    brightest = pixels.max(axis=2)
    field = brightest > GROUND
    if np.median(brightest[field]) < DARK_BELOW:
        yield "is dark: lesions may be missed"
    if _is_ellipse(field, frame):
        yield "shows an ellipse: was it squeezed to a square? Use the original"
    if disc is not None and disc.mean() >= LEAST_DISC and not DISCS[0] <= disc.mean() <= DISCS[1]:
        yield f"has an optic disc of {disc.mean():.1%} of the square: a field far from 45 to 50 degrees, or no disc"


def _is_ellipse(field: np.ndarray, frame: Frame) -> bool:
    """Whether the field of view is narrower one way than the other although no edge of the photograph cuts it there."""
    lengths = frame.right - frame.left, frame.bottom - frame.top  # of the columns, and of the rows
    ends = [np.flatnonzero(field.any(axis=axis))[[0, -1]] for axis in (0, 1)]
    extents = [np.ptp(end) * length for end, length in zip(ends, lengths, strict=True)]
    narrow = int(np.argmin(extents))
    (first, last), (start, stop) = ends[narrow], frame.inside(len(field))[narrow]
    return extents[narrow] < LEAST_ROUND * max(extents) and first > start + 1 and last < stop - 2


def segment_into(folder: Path, files: Mapping[str, Path], finder: Finder) -> Iterator[Refused | None]:
    """Find lesions in any number of photographs, one at a time, and write the results; resumes where it was stopped.

    Parameters
    ----------
    folder : Path
        For masks and overlays, and ``lesions.csv`` with a row for each photograph and lesion.
    files : mapping of str to Path
    finder : Finder

    Yields
    ------
    Refused or None
        Why a photograph was left out.
    """
    table, model = folder / TABLE, finder.model.card["sha256"][:12]
    known = _tidy(table).groupby("image")
    for name, file in files.items():
        try:
            about = {"photograph": _digest(file), "model": model}
            before = known.get_group(name) if name in known.groups else None
            if before is None or not _is_done(before, about, finder, folder):
                about["folder"] = _place(name, file)
                _check_owner(before, about, file)
                finding = _with_earlier(finder, before, about).read(name, file)
                finding.save(folder)
                rows = finding.table.assign(**about)
                rows.to_csv(table, mode="a", header=not _has_rows(table), index=False)
        except Refused as error:
            yield error
            continue
        yield None
    _tidy(table)


def _digest(file: Path) -> str:
    check_name(file)
    try:
        return digest_file(file)[:12]
    except OSError as error:
        raise Refused(file, f"cannot be opened ({error.strerror})", "a readable file", EXPORT) from error


def _place(name: str, file: Path) -> str:
    """Stands for the folder that a photograph's name starts from, wherever the photograph itself is linked to."""
    return sha256(fsencode(file.absolute().parents[name.count("/")].resolve())).hexdigest()[:12]


def _check_owner(before: pd.DataFrame | None, about: Mapping[str, str], file: Path) -> None:
    """Refuse to replace the results of a photograph of the same name from another folder."""
    if before is None or (before["photograph"] == about["photograph"]).all():
        return
    if not before["folder"].isin(["", about["folder"]]).all():
        found = "has the name of a photograph of another folder whose results are there"
        raise Refused(file, found, "results of one folder", "name another --out")


def _with_earlier(finder: Finder, before: pd.DataFrame | None, about: Mapping[str, str]) -> Finder:
    """Also find what this model found in this photograph before, so that its overlay shows all in the table."""
    if before is None or not (before[["photograph", "model"]] == [about["photograph"], about["model"]]).all().all():
        return finder
    wanted = {*finder.lesions, *before["lesion"]}
    return replace(finder, lesions=tuple(name for name in finder.model.shows if name in wanted))


def read_rows(folder: Path, images: Sequence[str], lesions: Sequence[str]) -> pd.DataFrame:
    """The rows of ``lesions.csv`` for these photographs, in their order, and lesions (see :attr:`Finding.table`)."""
    rows = _read(folder / TABLE)
    rows = rows[rows["lesion"].isin(lesions)].set_index("image").loc[list(images)].reset_index()
    return rows.drop(columns=["photograph", "model", "folder"])


def _tidy(table: Path) -> pd.DataFrame:
    """Remove from ``lesions.csv`` rows that were found again later and a line cut off by an interruption."""
    if not _has_rows(table):
        return pd.DataFrame(columns=["image"])
    rows = _read(table)
    whole = (rows["model"] != "") & rows["folder"].str.len().isin([0, 12])
    rows = rows[whole].drop_duplicates(["image", "lesion"], keep="last")
    write_atomically(table, lambda path: rows.to_csv(path, index=False))
    return rows


def _has_rows(table: Path) -> bool:
    return table.is_file() and table.stat().st_size > 0  # a full disk leaves an empty file


def _read(table: Path) -> pd.DataFrame:
    names = dict.fromkeys(("image", "photograph", "model", "folder"), str)  # also 001 and NA are names
    rows = pd.read_csv(table, converters=names, on_bad_lines="skip", float_precision="round_trip")
    return rows.reindex(columns=list(dict.fromkeys([*rows, *names])), fill_value="")


def _is_done(rows: pd.DataFrame, about: Mapping[str, str], finder: Finder, folder: Path) -> bool:
    """Whether a photograph was already segmented with this model and its files still exist."""
    name, rows = rows["image"].iloc[0], rows[rows["lesion"].isin(finder.lesions)]
    same = (rows[list(about)] == pd.Series(about)).all().all()
    files = [folder / f"{name}_overlay.jpg", *(folder / f"{name}_{lesion}.png" for lesion in finder.lesions)]
    return same and set(finder.lesions) <= set(rows["lesion"]) and all(file.is_file() for file in files)
