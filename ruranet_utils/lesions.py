"""Tables 1 and 2: the U-Nets of a cohort, each trained, scored and applied at most once per store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ruranet_utils import backbones, patches, segmentation, training
from ruranet_utils.backbones import weights_origin
from ruranet_utils.cohort import Cohort
from ruranet_utils.config import LESIONS, Profile
from ruranet_utils.metrics import pixel_counts, ratio_interval, segmentation_scores
from ruranet_utils.store import Store, digest_arrays

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
        return self._fetch("segmentation_model", lesion, encoder, lambda: self._fit(lesion, encoder))

    def evaluate(self, lesion: str, encoder: str) -> dict[str, pd.DataFrame]:
        """Pixel counts (``tp``, ``fp``, ``fn``, ``tn``) of each ``val`` and each ``test`` image."""
        arrays = self._fetch("segmentation_counts", lesion, encoder, lambda: self._count(lesion, encoder))
        return {split: pd.DataFrame(counts, columns=COUNTS) for split, counts in arrays.items()}

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
        tables = []
        with tqdm(total=len(LESIONS) * len(self.profile.encoders), unit="model", desc="U-Nets", leave=False) as bar:
            for lesion in LESIONS:
                rows = []
                for encoder in self.profile.encoders:
                    rows.append(self._row(lesion, encoder))
                    bar.update()
                table = pd.DataFrame(rows)
                table["chosen"] = table.index == table["validation_iou"].fillna(-1).idxmax()
                for encoder in table.loc[~table["chosen"], "encoder"]:
                    self.store.discard("segmentation_model", self._settings(lesion, encoder), _CODE)
                tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def masks(self, images: np.ndarray, encoders: dict[str, str]) -> np.ndarray:
        """Predicted masks of all lesions.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, 3, h, w)
        encoders : dict of str to str
            Encoder of each lesion, from :func:`best_encoders`.

        Returns
        -------
        ndarray of bool, shape (n, n_lesions, h, w)
        """
        digest = digest_arrays(images)
        predicted = []
        for lesion in tqdm(LESIONS, unit="lesion", desc="lesion masks", leave=False):
            encoder = encoders[lesion]
            arrays = self._fetch(
                "lesion_masks",
                lesion,
                encoder,
                lambda lesion=lesion, encoder=encoder: {
                    "packed": np.packbits(self._apply(images, lesion, encoder), axis=-1)
                },
                images=digest,
            )
            predicted.append(np.unpackbits(arrays["packed"], axis=-1, count=images.shape[-1]).astype(bool))
        return np.stack(predicted, axis=1)

    def _fetch(self, step: str, lesion: str, encoder: str, compute, **more: str) -> dict[str, np.ndarray]:
        return self.store.fetch(step, {**self._settings(lesion, encoder), **more}, compute, _CODE)

    def _settings(self, lesion: str, encoder: str) -> dict:
        return {
            **self.profile.settings(*_FIELDS),
            "data": self.cohort.digest,
            "lesion": lesion,
            "encoder": encoder,
            "attention": self.attention,
            "weights": self._origin(encoder),
        }

    def _origin(self, encoder: str) -> str:
        return weights_origin(encoder, self.profile.weights, self.profile.allow_random_weights)

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

    def _row(self, lesion: str, encoder: str) -> dict:
        counts = self.evaluate(lesion, encoder)
        test = counts["test"]
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
            "validation_iou": segmentation_scores(counts["val"], "pooled")["iou"],
            "weights": self._origin(encoder),
            "note": self.cohort.lesion_notes.get(lesion, ""),
        }


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
