"""Tables 1 and 2: the U-Nets of a cohort, each trained, scored and applied at most once per store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ruranet_utils import backbones, models, patches, paths, segmentation, training
from ruranet_utils.backbones import find_weights
from ruranet_utils.cohort import Cohort
from ruranet_utils.config import LESIONS, Profile
from ruranet_utils.metrics import pixel_counts, ratio_interval, segmentation_scores
from ruranet_utils.models import Model
from ruranet_utils.sources import SOURCES
from ruranet_utils.splits import SPLITS
from ruranet_utils.store import Arrays, Store, digest_arrays

COUNTS = ["tp", "fp", "fn", "tn"]


@dataclass(frozen=True)
class LesionSegmenter:
    """One binary U-Net per lesion and encoder.

    Parameters
    ----------
    cohort : Cohort
        With masks and the splits ``train``, ``val`` and ``test``.
    profile : Profile
    store : Store
    attention : {"scse", None}
        ``None`` for the ablation without SCSE (Table 5b).
    """

    cohort: Cohort
    profile: Profile
    store: Store
    attention: str | None = "scse"

    def train(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        """Parameters and history of one model; see :func:`ruranet_utils.segmentation.fit`."""
        return self._fetch_all("segmentation_model", [(lesion, encoder)], self._fit)[lesion, encoder]

    def study(self) -> pd.DataFrame:
        """Every encoder of the profile on every lesion (Table 1).

        Of each lesion's models only the chosen one's parameters stay in the store.

        Returns
        -------
        DataFrame
            ``lesion``, ``encoder``; ``iou``, ``accuracy``, ``precision``, ``recall``, ``dice``, pooled over the pixels
            of the test images; ``iou_low``, ``iou_high`` (95 %, bootstrap over patients); ``iou_mean`` over images;
            ``n`` test images; ``validation_iou`` and ``chosen`` by it; ``weights``; ``note``: what the masks
            show where that is not the lesion itself.
        """
        pairs = [(lesion, encoder) for lesion in self.cohort.annotated for encoder in self.profile.encoders]
        counts = self._fetch_all("segmentation_counts", pairs, self._count)
        table = pd.DataFrame([self._row(*pair, counts[pair]) for pair in pairs])
        best = table["validation_iou"].fillna(-1).groupby(table["lesion"]).idxmax()
        table["chosen"] = table.index.isin(best)
        for lesion, encoder in table.loc[~table["chosen"], ["lesion", "encoder"]].itertuples(index=False):
            self.store.discard("segmentation_model", self._settings(lesion, encoder), _CODE)
        return table

    def keep(self, study: pd.DataFrame) -> list[Path]:
        """Write the chosen models as files with cards into ``models/<profile>`` of the store; see :class:`Model`."""
        parts = self.cohort.table["split"].value_counts().reindex(SPLITS, fill_value=0)
        trained_on = sorted(set(self.cohort.table["source"]))
        shared = {
            **self.profile.settings("encoder_depth", "image_size_px", "seed"),
            "attention": self.attention,
            "trained_on": trained_on,
            "licenses": [SOURCES[name].license for name in trained_on if name in SOURCES],
            **parts.add_prefix("n_").to_dict(),
            "intended_use": "research; no diagnosis, no treatment",
        }
        files = []
        for row in study[study["chosen"]].to_dict("records"):
            scores = {name: row[name] for name in ("iou", "iou_low", "iou_high") if self.attention == "scse"}
            about = {name: row[name] for name in ("lesion", "encoder", "weights", "note")}
            trained = self.train(row["lesion"], row["encoder"])
            state = {name: value for name, value in trained.items() if name.startswith("state.")}
            model = Model(state, {**shared, **about, **scores})
            files.append(model.save(paths.models(self.profile.name)))
        return files

    def masks(self, images: np.ndarray, encoders: dict[str, str]) -> np.ndarray:
        """Predicted masks of all lesions.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, 3, h, w)
        encoders : dict of str to str
            Encoder of each lesion, from :func:`best_encoders`.

        Returns
        -------
        ndarray of bool, shape (n, len(encoders), h, w)
        """

        def compute(lesion: str, encoder: str) -> dict[str, np.ndarray]:
            return {"packed": np.packbits(self._apply(images, lesion, encoder), axis=-1)}

        pairs = list(encoders.items())
        arrays = self._fetch_all("lesion_masks", pairs, compute, images=digest_arrays(images))
        packed = np.stack([arrays[pair]["packed"] for pair in pairs], axis=1)
        return np.unpackbits(packed, axis=-1, count=images.shape[-1]).astype(bool)

    def _fetch_all(
        self, step: str, pairs: list[tuple[str, str]], compute: Callable[[str, str], Arrays], **more: str
    ) -> dict[tuple[str, str], Arrays]:
        """One job for each pair of lesion and encoder."""
        jobs = {pair: ({**self._settings(*pair), **more}, partial(compute, *pair)) for pair in pairs}
        return self.store.fetch_all(step, jobs, _CODE, self.profile.workers)

    def _settings(self, lesion: str, encoder: str) -> dict:
        return {
            **self.profile.settings(*_FIELDS),
            "data": self.cohort.digest,
            "lesion": lesion,
            "encoder": encoder,
            "attention": self.attention,
            "weights": find_weights(encoder, self.profile).digest,
        }

    def _fit(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        parts = [self.cohort.split(name) for name in ("train", "val")]
        return segmentation.fit(
            tuple(part.images for part in parts),
            tuple(part.masks[:, LESIONS.index(lesion)] for part in parts),
            encoder,
            self.attention,
            self.profile,
            description=f"{lesion} · {encoder}",
        )

    def _apply(self, images: np.ndarray, lesion: str, encoder: str) -> np.ndarray:
        return segmentation.predict(self.train(lesion, encoder), images, encoder, self.attention, self.profile)

    def _count(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        parts = {split: self.cohort.split(split) for split in ("val", "test")}
        predicted = self._apply(np.concatenate([part.images for part in parts.values()]), lesion, encoder)
        truth = np.concatenate([part.masks[:, LESIONS.index(lesion)] for part in parts.values()])
        counts = pixel_counts(predicted, truth)[COUNTS].to_numpy()
        return dict(zip(parts, np.split(counts, [len(parts["val"])]), strict=True))

    def _row(self, lesion: str, encoder: str, counts: Arrays) -> dict:
        validation, test = (pd.DataFrame(counts[split], columns=COUNTS) for split in ("val", "test"))
        union = test[["tp", "fp", "fn"]].sum(axis=1)
        low, high = ratio_interval(
            test["tp"], union, self.cohort.split("test").patients, np.random.default_rng(self.profile.seed)
        )
        return {
            "lesion": lesion,
            "encoder": encoder,
            **segmentation_scores(test, "pooled"),
            "iou_low": low,
            "iou_high": high,
            "iou_mean": segmentation_scores(test, "mean")["iou"],
            "n": len(test),
            "validation_iou": segmentation_scores(validation, "pooled")["iou"],
            "weights": find_weights(encoder, self.profile).origin,
            "note": self.cohort.lesion_notes.get(lesion, ""),
        }


def lesion_masks(
    segmentation: Cohort, images: np.ndarray, profile: Profile, store: Store, attention: str | None = "scse"
) -> np.ndarray:
    """Masks of all four lesions: by the models trained on a cohort, and for lesions it does not show by kept ones.

    The models trained here are kept, too; see :meth:`LesionSegmenter.keep`.

    Parameters
    ----------
    segmentation : Cohort
    images : ndarray of uint8, shape (n, 3, h, w)
    profile : Profile
        Its ``models`` names the profile whose kept models are taken.
    store : Store
    attention : {"scse", None}
        ``None``: without SCSE, and with the encoders that were chosen with it (Table 5b).

    Returns
    -------
    ndarray of bool, shape (n, n_lesions, h, w)
        In the order of ``config.LESIONS``.

    Raises
    ------
    FileNotFoundError
        If there is no model for a lesion; see :func:`ruranet_utils.models.load_all`.
    """
    missing = [lesion for lesion in LESIONS if lesion not in segmentation.annotated]
    kept = models.load_all(paths.models(profile.models), missing, attention)
    masks = {lesion: kept[lesion].masks(images, profile, store) for lesion in missing}
    if segmentation.annotated:
        study = LesionSegmenter(segmentation, profile, store).study()
        segmenter = LesionSegmenter(segmentation, profile, store, attention)
        encoder_of = best_encoders(study)
        masks |= dict(zip(encoder_of, segmenter.masks(images, encoder_of).swapaxes(0, 1), strict=True))
        segmenter.keep(study)
    return np.stack([masks[lesion] for lesion in LESIONS], axis=1)


def best_encoders(study: pd.DataFrame) -> dict[str, str]:
    """Encoder of each lesion with the highest validation IoU (Section 2.1, backbone selection): the rows of Table 2."""
    chosen = study[study["chosen"]]
    return dict(zip(chosen["lesion"], chosen["encoder"], strict=True))


_CODE = [backbones, training, patches, segmentation]
_FIELDS = (
    "seed",
    "threads",
    "device",
    "epochs",
    "patience",
    "patches_per_image",
    "patch_size_px",
    "lesion_patches",
    "encoder_depth",
    "batch_size",
    "learning_rate",
    "schedule",
    "focal_alpha",
    "focal_gamma",
)
