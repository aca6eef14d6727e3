"""Cohort: the images, masks, labels, patients and splits of a run, whatever source they come from."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from PIL import Image

from ruranet_utils.data import duplicates, sources
from ruranet_utils.data.decoding import AREAS, LOSSES, Photographs, decode
from ruranet_utils.data.field import FRAME, Frame, frame_of, shrink_mask
from ruranet_utils.data.phantoms import eye
from ruranet_utils.data.sources import folder, idrid, srahim
from ruranet_utils.data.sources.base import Record
from ruranet_utils.data.splits import CLASSES, SPLITS, assign_splits, balance, deal_patients
from ruranet_utils.profiles import ANNOTATIONS, LESIONS, Profile
from ruranet_utils.storage import paths
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store, digest_arrays

PHANTOMS = Step(
    "phantoms",
    3,
    (
        "data.field",
        "data.phantoms.vessels",
        "data.phantoms.painting",
        "data.phantoms.eye",
        "data.duplicates",
        "data.cohort",
    ),
)
COLUMNS = ("image_id", "source", "camera", "patient_id", "eye", "label", "label_rule", "split", "sha256")
LANDMARKS = ("disc_row", "disc_column", "fovea_row", "fovea_column", "disc_diameter_px")  # known only for phantoms
AUDIT = ("assumed", "healthy", *FRAME, "retina_score", "field_of_view", "duplicate_of", "dropped")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Photographs with everything known about them, row by row.

    Attributes
    ----------
    table : DataFrame
        One row per image with the columns ``COLUMNS`` and the :class:`Frame` of the photograph that its image shows
        (``FRAME``); for photographs also ``AUDIT``, for phantoms ``LANDMARKS``, in pixels of the image. ``label`` is
        ``Int64``, missing where not graded; ``sha256`` is that of the file (photographs) or of the pixels (synthetic
        images). The ``camera`` of a photograph is its source.
    images : ndarray of uint8, shape (n, 3, h, w)
        Read-only and memory-mapped from the store until a part is taken, so a cohort may be larger than memory.
    masks : ndarray of bool, shape (n, n_lesions, h, w), or None
        As ``images``; in the order of ``profiles.ANNOTATIONS``; ``None`` where nothing is annotated.
    lesion_notes : dict of str to str
        What a lesion's masks show if that is not the lesion itself.
    audit : DataFrame or None
        One row per photograph examined, whether or not it was kept, with the same columns: ``dropped`` is
        ``"duplicate"``, ``"conflict"`` or empty, ``duplicate_of`` the photograph that stays.
    healthy : Cohort or None
        Photographs graded free of retinopathy, of patients in neither cohort, from which a network may learn what an
        eye without lesions looks like.
    """

    table: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray | None
    lesion_notes: dict[str, str] = field(default_factory=dict)
    audit: pd.DataFrame | None = None
    healthy: Cohort | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labeled(self) -> bool:
        """Whether every image has a label."""
        return bool(self.table["label"].notna().all())

    @property
    def annotated(self) -> tuple[str, ...]:
        """The lesions for which at least one mask has a pixel set."""
        return tuple(name for name, area in zip(ANNOTATIONS, AREAS, strict=True) if self.manifest()[area].sum() > 0)

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

    @property
    def aspect(self) -> np.ndarray:
        """Width divided by height of what each image shows, before it was squeezed to a square: float, shape (n,)."""
        left, top, right, bottom = self.table[list(FRAME[2:])].to_numpy(dtype=float).T
        return (right - left) / (bottom - top)

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
        """The table with the annotated area of each lesion in ``<lesion>_px``, missing where nothing is annotated.

        With masks it also gives the share of that area lost to scaling, ``<lesion>_lost``.
        """
        unknown = pd.array([pd.NA] * len(self), "Int64")
        return self.table.assign(**{name: unknown for name in AREAS if name not in self.table})


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
        Images with masks, and images with labels, half of them of each class; both have ``split`` filled in. On the
        synthetic profile they are the same object. For the reader's own folder, the first is the second if there are no
        masks, and the second holds all images if there are no labels.

    Raises
    ------
    FileNotFoundError
        If a data set is missing.
    ValueError
        If a data set is damaged or too small; the message names the file.
    """
    if profile.name == "synthetic":
        cohort = synthetic_cohort(profile, store)
        return cohort, cohort
    if profile.name == "open":
        return _open(profile, store)
    if profile.name == "folder":
        return _folder(profile, store)
    return _paper(profile, store)


def all_labeled(profile: Profile, store: Store) -> Cohort:
    """Every labeled photograph for the profile's diagnosis, regardless of class balance, without a split.

    For profiles other than ``open``, this is the cohort of :func:`load_cohorts`.
    """
    if profile.name != "open":
        return load_cohorts(profile, store)[1]
    audit, photographs = _merge(srahim.records(paths.data_root() / "srahim"), profile, store)
    table = audit[audit["label"].notna() & (audit["dropped"] == "")].sort_values("image_id")
    return _cohort(table, audit, photographs, store)


def synthetic_cohort(profile: Profile, store: Store, camera: str | None = None, lesions: bool = True) -> Cohort:
    """Phantoms, half of them of each class, ordered by patient: the same eyes for every camera.

    Parameters
    ----------
    profile : Profile
        Its ``seed``, ``n_images``, ``image_size_px``, ``crop_field`` and ``split``.
    store : Store
    camera, lesions
        As for :func:`ruranet_utils.data.phantoms.eye.make_patient`.
    """

    def rows() -> Iterator[dict[str, np.ndarray]]:
        room = dict.fromkeys(CLASSES, profile.n_images // 2)
        with progress(total=profile.n_images, desc="painting", unit="image") as bar:
            for index in itertools.count(1):
                for phantom in eye.make_patient(index, profile.image_size_px, profile.seed, camera, lesions):
                    if room[phantom.label]:
                        room[phantom.label] -= 1
                        bar.update()
                        yield _phantom_arrays(phantom, profile)
                if not any(room.values()):
                    return

    needed = profile.settings("seed", "n_images", "image_size_px", "crop_field")
    settings = {**needed, "camera": camera, "lesions": lesions}
    arrays = store.fetch_rows(PHANTOMS, settings, rows, profile.n_images)
    table = _table([json.loads(text) for text in arrays["about"]])
    table["split"] = assign_splits(table, profile.split, profile.seed)
    table[list(FRAME)] = arrays["frame"]
    table[list(LANDMARKS)] = arrays["landmarks"]
    table[AREAS] = arrays["area_px"]
    table[LOSSES] = arrays["lost"]
    return Cohort(table, arrays["images"], arrays["masks"])


def _phantom_arrays(phantom: eye.Phantom, profile: Profile) -> dict[str, np.ndarray]:
    photograph = Image.fromarray(phantom.image)
    frame = frame_of(photograph, phantom.image.shape[:2], profile.crop_field)
    image = np.asarray(frame.cut(photograph, profile.image_size_px, Image.Resampling.BICUBIC))
    shrunken = [shrink_mask(mask, frame, profile.image_size_px) for mask in phantom.masks]
    unannotated = np.zeros((len(ANNOTATIONS) - len(LESIONS), *image.shape[:2]), bool)
    masks = np.stack([*(mask for mask, _ in shrunken), *unannotated])
    about = {
        "image_id": f"{phantom.patient_id}_{phantom.eye}",
        "source": "synthetic",
        "camera": phantom.camera,
        "patient_id": phantom.patient_id,
        "eye": phantom.eye,
        "label": phantom.label,
        "label_rule": "made with the image",
        "sha256": digest_arrays(phantom.image),
    }
    return {
        "about": np.array(json.dumps(about).encode(), dtype="S512"),
        "images": image.transpose(2, 0, 1),
        "frame": frame.as_array(),
        "landmarks": _landmarks(phantom, frame, profile.image_size_px),
        "masks": masks,
        "area_px": masks.sum(axis=(1, 2)),
        "lost": np.array([*(lost for _, lost in shrunken), *[0.0] * len(unannotated)]),
    }


def _landmarks(phantom: eye.Phantom, frame: Frame, size_px: int) -> np.ndarray:
    """``LANDMARKS`` of a phantom in pixels of the square that its frame is scaled to."""
    scale, corner = size_px / (frame.bottom - frame.top), np.array([frame.top, frame.left])
    places = [(np.add(place, 0.5) - corner) * scale - 0.5 for place in (phantom.disc_px, phantom.fovea_px)]
    return np.array([*places[0], *places[1], phantom.disc_diameter_px * scale])


def _open(profile: Profile, store: Store) -> tuple[Cohort, Cohort]:
    sources.require(["idrid", "srahim"], paths.data_root())
    with_masks = idrid.records(paths.data_root() / "idrid", parts="A")
    with_labels = srahim.records(paths.data_root() / "srahim")
    segmentation = _with_masks(*_merge(with_masks, profile, store), profile, store)
    audit, photographs = _merge(with_labels, profile, store)
    diagnosis = _with_labels(audit, photographs, profile, store)
    return replace(segmentation, healthy=_healthy(audit, photographs, store, segmentation, diagnosis)), diagnosis


def _paper(profile: Profile, store: Store) -> tuple[Cohort, Cohort]:
    names = [source.name for source in sources.PAPER]
    sources.require(names, paths.data_root())
    records = [record for name in names for record in sources.READERS[name](paths.data_root() / name)]
    audit, photographs = _merge(records, profile, store)
    graded = audit["label"].where((profile.negatives == "assumed") | ~audit["assumed"])
    diagnosis = _with_labels(audit.assign(label=graded), photographs, profile, store)
    diagnosis = replace(diagnosis, audit=audit)
    segmentation = _with_masks(audit, photographs, profile, store, diagnosis)
    return replace(segmentation, healthy=_healthy(audit, photographs, store, segmentation, diagnosis)), diagnosis


def _folder(profile: Profile, store: Store) -> tuple[Cohort, Cohort]:
    audit, photographs = _merge(folder.records(paths.from_root(profile.data_dir)), profile, store)
    if len(twice := audit[audit["dropped"] == "duplicate"]):
        like = twice["duplicate_of"].str.removeprefix(f"{folder.SOURCE.name}/")
        listed = ", ".join(f"{name} (like {other})" for name, other in zip(twice["image_id"], like, strict=True))
        warnings.warn(f"photographs that look like others are left out, {len(twice)} in all: {listed}", stacklevel=3)
    if (n_left := int((audit["dropped"] == "").sum())) < len(SPLITS):
        raise ValueError(
            f"{profile.data_dir} holds {n_left} different photographs ({len(audit)} with duplicates), expected at "
            f"least {len(SPLITS)}: add others"
        )
    diagnosis = (_with_labels if audit["label"].notna().any() else _without_labels)(audit, photographs, profile, store)
    if AREAS[0] not in audit or not audit[AREAS].fillna(0).to_numpy().any():
        return diagnosis, diagnosis
    return _with_masks(audit, photographs, profile, store, diagnosis), diagnosis


def _merge(records: list[Record], profile: Profile, store: Store) -> tuple[pd.DataFrame, Photographs]:
    """Every photograph, decoded, with what the audit says of it; none is dropped yet."""
    photographs = decode(records, profile, store)
    shared = ("image_id", "source", "patient_id", "eye", "label", "label_rule", "split", "disputed_by", "healthy")
    table = pd.DataFrame([{name: getattr(record, name) for name in shared} for record in records])
    table = table.astype({"label": "Int64"}).assign(camera=table["source"], **photographs.facts)
    table["assumed"] = [sources.SOURCES[record.source].assumed for record in records]
    if len(set(table["source"])) > 1:
        table["patient_id"] = table["source"] + "/" + table["patient_id"]
    first = duplicates.duplicates(table)
    table["patient_id"] = duplicates.join_patients(table["patient_id"], first)
    table = duplicates.settle(table, first)
    return table[[*COLUMNS, *AUDIT, *table.columns.intersection([*AREAS, *LOSSES])]], photographs


def _with_masks(
    audit: pd.DataFrame, photographs: Photographs, profile: Profile, store: Store, diagnosis: Cohort | None = None
) -> Cohort:
    """The segmentation cohort: every photograph with masks; official splits are kept, validation comes out of the rest.

    A photograph with masks takes part even if the diagnosis cohort prefers a labeled copy of it. Patients of the
    diagnosis cohort stay on the same side of the split.
    """
    masked = audit[audit[AREAS[0]].notna() & (audit["dropped"] != "conflict")]
    photograph = masked["duplicate_of"].where(masked["duplicate_of"] != "", masked["source"] + "/" + masked["image_id"])
    table = masked[~photograph.duplicated()].assign(dropped="")
    if diagnosis is not None:
        sides = diagnosis.table.drop_duplicates("patient_id").set_index("patient_id")["split"]
        table["split"] = table["patient_id"].map(sides).fillna(table["split"])
    table["split"] = deal_patients(table, profile.split, profile.seed)
    if lacking := [side for side in SPLITS if side not in set(table["split"])]:
        raise ValueError(
            f"no photograph with masks falls to {' or '.join(lacking)} ({table['patient_id'].nunique()} patients have "
            "masks): add masks of other patients, or choose another seed"
        )
    return _cohort(table, audit, photographs, store, {"edema": idrid.EDEMA_NOTE} if profile.name != "folder" else {})


def _with_labels(audit: pd.DataFrame, photographs: Photographs, profile: Profile, store: Store) -> Cohort:
    """The diagnosis cohort: labeled photographs, the same number of each class."""
    table = balance(audit[audit["label"].notna() & (audit["dropped"] == "")], profile.n_images, profile.seed)
    official = audit[audit["split"].notna()].drop_duplicates("patient_id").set_index("patient_id")["split"]
    table["split"] = assign_splits(table, profile.split, profile.seed, official.to_dict())
    return _cohort(table, audit, photographs, store)


def _healthy(audit: pd.DataFrame, photographs: Photographs, store: Store, *cohorts: Cohort) -> Cohort | None:
    """The photographs without retinopathy whose patients are in no cohort."""
    patients = {patient for cohort in cohorts for patient in cohort.table["patient_id"]}
    table = audit[audit["healthy"] & (audit["dropped"] == "") & ~audit["patient_id"].isin(patients)]
    return _cohort(table, audit, photographs, store) if len(table) else None


def _without_labels(audit: pd.DataFrame, photographs: Photographs, profile: Profile, store: Store) -> Cohort:
    """All photographs except duplicates."""
    table = audit[audit["dropped"] == ""]
    table["split"] = deal_patients(table, profile.split, profile.seed)
    return _cohort(table, audit, photographs, store)


def _cohort(table: pd.DataFrame, audit: pd.DataFrame, photographs: Photographs, store: Store, notes=None) -> Cohort:
    """The rows of the audit kept in a table."""
    chosen = photographs.choose(table.index.to_numpy(), store)
    return Cohort(table.reset_index(drop=True), chosen.images, chosen.masks, notes or {}, audit)


def _table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"label": "Int64"})
