"""Cohort: the images, masks, labels, patients and splits of a run, whichever source they come from."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from ruranet_utils import merge, paths, phantom_rendering, phantom_vessels, sources, synthetic
from ruranet_utils.config import LESIONS, Profile
from ruranet_utils.progress import progress
from ruranet_utils.sources import files, idrid, srahim
from ruranet_utils.sources.base import Record
from ruranet_utils.sources.files import read_image, read_mask, shrink_mask
from ruranet_utils.splits import CLASSES, SPLITS, assign_splits, balance, deal_patients
from ruranet_utils.store import Store, digest_arrays, digest_file

COLUMNS = ("image_id", "source", "camera", "patient_id", "eye", "label", "label_rule", "split", "sha256")
AUDIT = ("assumed", "width_px", "height_px", "retina_score", "duplicate_of", "dropped")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Photographs with everything that is known about them, row by row.

    Attributes
    ----------
    table : DataFrame
        One row per image with the columns ``COLUMNS``, and of photographs ``AUDIT``. ``label`` is ``Int64``, missing
        where not graded; ``sha256`` is that of the file (photographs) or of the pixels (synthetic images). ``camera``
        of a photograph is its source.
    images : ndarray of uint8, shape (n, 3, h, w)
    masks : ndarray of bool, shape (n, n_lesions, h, w), or None
        In the order of ``config.LESIONS``; ``None`` where nothing is annotated.
    lesion_notes : dict of str to str
        What a lesion's masks show where that is not the lesion itself.
    audit : DataFrame or None
        One row per photograph that was looked at, whether it entered or not, with the same columns: ``dropped`` is
        ``"duplicate"``, ``"conflict"`` or empty, ``duplicate_of`` the photograph that stays.
    """

    table: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray | None
    lesion_notes: dict[str, str] = field(default_factory=dict)
    audit: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """Labels, shape (n,), int64. Raises a ValueError if an image is not graded."""
        if self.table["label"].isna().any():
            raise ValueError(f"{self.table['label'].isna().sum()} of {len(self)} images have no label")
        return self.table["label"].to_numpy(dtype=np.int64)

    @property
    def patients(self) -> np.ndarray:
        """Patient ids, shape (n,), str."""
        return self.table["patient_id"].to_numpy(dtype=str)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the columns ``COLUMNS`` and the arrays: what a result depends on."""
        csv = self.table.filter(COLUMNS).to_csv(index=False, lineterminator="\n").encode()
        return digest_arrays(np.frombuffer(csv, dtype=np.uint8), self.images, self.masks)

    def subset(self, index: np.ndarray) -> Cohort:
        """The rows named by positions or by a boolean array of shape (n,)."""
        table = self.table.iloc[index].reset_index(drop=True)
        masks = None if self.masks is None else self.masks[index]
        return replace(self, table=table, images=self.images[index], masks=masks)

    def split(self, name: str) -> Cohort:
        """The images of ``"train"``, ``"val"`` or ``"test"``."""
        if name not in SPLITS:
            raise ValueError(f"unknown split {name!r}; valid splits: {', '.join(SPLITS)}")
        return self.subset(np.flatnonzero(self.table["split"] == name))

    def manifest(self) -> pd.DataFrame:
        """The table with one more column per lesion: its annotated area in ``<lesion>_px``, missing without masks.

        With masks the table also says which share of that area scaling has lost, ``<lesion>_lost``.
        """
        if self.masks is None:
            return self.table.assign(**{f"{lesion}_px": pd.NA for lesion in LESIONS})
        area_px = self.masks.sum(axis=(2, 3))
        return self.table.assign(**{f"{lesion}_px": area_px[:, i] for i, lesion in enumerate(LESIONS)})


def load_cohorts(profile: Profile, store: Store) -> tuple[Cohort, Cohort]:
    """Load the two cohorts of a profile.

    Parameters
    ----------
    profile : Profile
    store : Store
        Keeps the decoded or generated arrays.

    Returns
    -------
    segmentation, diagnosis : Cohort
        Images with masks, and images with labels, half of them of each class; both have ``split`` filled. On the
        synthetic profile they are the same object.

    Raises
    ------
    FileNotFoundError
        If a data set is missing.
    ValueError
        If a data set is damaged or too small; the message names the file.
    """
    if profile.name == "synthetic":
        cohort = _synthetic(profile, store)
        return cohort, cohort
    if profile.name == "open":
        return _idrid(profile, store), _srahim(profile, store)
    return _paper(profile, store)


def _synthetic(profile: Profile, store: Store) -> Cohort:
    def compute() -> dict[str, np.ndarray]:
        room = dict.fromkeys(CLASSES, profile.n_images // 2)
        phantoms = []
        for index in itertools.count(1):
            for phantom in synthetic.make_patient(index, profile.image_size_px, profile.seed):
                if room[phantom.label]:
                    room[phantom.label] -= 1
                    phantoms.append(phantom)
            if not any(room.values()):
                break
        rows = [_phantom_row(phantom) for phantom in phantoms]
        return {
            "images": np.stack([phantom.image.transpose(2, 0, 1) for phantom in phantoms]),
            "masks": np.stack([phantom.masks for phantom in phantoms]),
            "table": np.frombuffer(json.dumps(rows).encode(), dtype=np.uint8),
        }

    settings = profile.settings("seed", "n_images", "image_size_px")
    code = [phantom_vessels, phantom_rendering, synthetic, sys.modules[__name__]]
    arrays = store.fetch("cohort", settings, compute, code)
    table = _table(json.loads(arrays["table"].tobytes()))
    table["split"] = assign_splits(table, profile.split, profile.seed)
    table["width_px"] = table["height_px"] = profile.image_size_px
    table[[f"{lesion}_lost" for lesion in LESIONS]] = 0.0
    return Cohort(table, arrays["images"], arrays["masks"])


def _phantom_row(phantom: synthetic.Phantom) -> dict:
    return {
        "image_id": f"{phantom.patient_id}_{phantom.eye}",
        "source": "synthetic",
        "camera": phantom.camera,
        "patient_id": phantom.patient_id,
        "eye": phantom.eye,
        "label": phantom.label,
        "label_rule": "made with the image",
        "sha256": digest_arrays(phantom.image),
    }


def _idrid(profile: Profile, store: Store) -> Cohort:
    records = idrid.records(paths.data_root() / "idrid", parts="A")
    return _with_masks(records, _audit(records, profile, store), profile, store)


def _srahim(profile: Profile, store: Store) -> Cohort:
    records = srahim.records(paths.data_root() / "srahim")
    return _with_labels(records, _audit(records, profile, store), profile, store)


def _paper(profile: Profile, store: Store) -> tuple[Cohort, Cohort]:
    names = [source.name for source in sources.PAPER]
    sources.require(names, paths.raw())
    records = [record for name in names for record in sources.READERS[name](paths.raw() / name)]
    audit = _audit(records, profile, store)
    return _with_masks(records, audit, profile, store), _with_labels(records, audit, profile, store)


def _audit(records: list[Record], profile: Profile, store: Store) -> pd.DataFrame:
    """One row per photograph, dropped ones included."""
    facts = merge.inspect(records, profile, store)
    shared = ("image_id", "source", "patient_id", "eye", "label", "label_rule", "split")
    rows = [{name: getattr(record, name) for name in shared} for record in records]
    table = _table(rows).assign(camera=[record.source for record in records], **facts.drop(columns="phash"))
    table["assumed"] = [sources.SOURCES[record.source].assumed for record in records]
    if len(set(table["source"])) > 1:
        table["patient_id"] = table["source"] + "/" + table["patient_id"]
    return merge.settle(table, merge.duplicates(facts))[[*COLUMNS, *AUDIT]]


def _with_masks(records: list[Record], audit: pd.DataFrame, profile: Profile, store: Store) -> Cohort:
    """The segmentation cohort: every photograph with masks, official splits kept, a validation set out of the rest."""
    masked = np.array([bool(record.mask_paths) for record in records])
    table = audit[masked & (audit["dropped"] == "").to_numpy()]
    table["split"] = deal_patients(table, profile.split, profile.seed)
    notes = {"edema": idrid.EDEMA_NOTE}
    return _cohort(records, table, audit, profile, store, notes)


def _with_labels(records: list[Record], audit: pd.DataFrame, profile: Profile, store: Store) -> Cohort:
    """The diagnosis cohort: labeled photographs, equally many of each class."""
    usable = audit[audit["label"].notna() & (audit["dropped"] == "")]
    table = balance(usable, profile.n_images, profile.seed)
    table["split"] = assign_splits(table, profile.split, profile.seed)
    return _cohort(records, table, audit, profile, store, {})


def _cohort(records, table: pd.DataFrame, audit: pd.DataFrame, profile: Profile, store: Store, notes: dict) -> Cohort:
    chosen = [records[row] for row in table.index]
    table = table.reset_index(drop=True)
    arrays = _decode(chosen, table, profile, store)
    if "lost" in arrays:
        table = table.assign(**{f"{lesion}_lost": arrays["lost"][:, i] for i, lesion in enumerate(LESIONS)})
    return Cohort(table, arrays["images"], arrays.get("masks"), notes, audit)


def _table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"label": "Int64"})


def _decode(records: list[Record], table: pd.DataFrame, profile: Profile, store: Store) -> dict[str, np.ndarray]:
    """Images, and masks if any record has some, at the size of the profile."""
    size_px = profile.image_size_px
    masked = any(record.mask_paths for record in records)

    def compute() -> dict[str, np.ndarray]:
        arrays = {"images": np.empty((len(records), 3, size_px, size_px), dtype=np.uint8)}
        if masked:
            arrays["masks"] = np.zeros((len(records), len(LESIONS), size_px, size_px), dtype=bool)
            arrays["lost"] = np.zeros((len(records), len(LESIONS)))
        jobs = (delayed(_read)(record, size_px) for record in records)
        done = Parallel(n_jobs=profile.workers, prefer="threads", return_as="generator")(jobs)
        for i, (image, masks) in enumerate(progress(done, desc="decoding", total=len(records), unit="image")):
            arrays["images"][i] = image
            for lesion, (mask, lost) in masks.items():
                arrays["masks"][i, LESIONS.index(lesion)] = mask
                arrays["lost"][i, LESIONS.index(lesion)] = lost
        return arrays

    hashes = [
        {lesion: digest_file(path) for lesion, path in record.mask_paths.items() if lesion in LESIONS}
        for record in records
    ]
    pairs = [[image, masks] for image, masks in zip(table["sha256"], hashes, strict=True)]
    settings = {"image_size_px": size_px, "files": pairs}
    return store.fetch("photographs", settings, compute, [files, sys.modules[__name__]])


def _read(record: Record, size_px: int) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, float]]]:
    image, shape = read_image(record.image_path, size_px)
    masks = {}
    for lesion, path in record.mask_paths.items():
        if lesion in LESIONS:
            mask = read_mask(path)
            if mask.shape != shape:
                raise ValueError(
                    f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image {record.image_path.name} "
                    f"{shape[1]}x{shape[0]}: expected the same size"
                )
            masks[lesion] = shrink_mask(mask, size_px)
    return image, masks
