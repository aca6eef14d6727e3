"""Tables 1 and 2: the U-Nets of a cohort, each trained, scored and applied at most once per store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ruranet_utils import backbones, models, patches, paths, segmentation, training
from ruranet_utils.backbones import find_weights
from ruranet_utils.cohort import Cohort
from ruranet_utils.config import ANNOTATIONS, LESIONS, Profile
from ruranet_utils.metrics import average_precision, pixel_counts, ratio_interval, segmentation_scores
from ruranet_utils.models import Model
from ruranet_utils.patches import Annotated
from ruranet_utils.sources import SOURCES
from ruranet_utils.splits import SPLITS
from ruranet_utils.store import Arrays, Store, digest_arrays

COUNTS = ["tp", "fp", "fn", "tn"]
# Which images train, choose the epoch and are scored. The code released beside the paper takes the testing images for
# all three; "released" repeats that, to show what it does to a score.
PROTOCOLS = {"held_out": ("train", "val", "test"), "released": ("test", "test", "test")}


@dataclass(frozen=True)
class LesionSegmenter:
    """Binary U-Nets, one for each lesion, encoder and seed.

    Parameters
    ----------
    cohort : Cohort
        With masks and the splits ``train``, ``val`` and ``test``.
    profile : Profile
    store : Store
    attention : {"scse", None}
        ``None`` for the ablation without SCSE (Table 5b).
    protocol : {"held_out", "released"}
        See ``PROTOCOLS``.
    """

    cohort: Cohort
    profile: Profile
    store: Store
    attention: str | None = "scse"
    protocol: str = "held_out"

    def train(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        """Parameters and history of one model; see :func:`ruranet_utils.segmentation.fit`."""
        return self._fetch_all("segmentation_model", [(lesion, encoder)], self._fit)[lesion, encoder]

    def study(self, pairs: Sequence[tuple[str, str]] | None = None) -> pd.DataFrame:
        """Every encoder of the profile on every lesion (Table 1), or some pairs of both, with all seeds.

        Of each lesion's models only the chosen encoder's first one stays in the store.

        Returns
        -------
        DataFrame
            ``lesion``, ``encoder``; ``iou``, ``accuracy``, ``precision``, ``recall``, ``dice``, ``aupr``, pooled over
            the pixels of the test images, mean over the seeds; ``iou_sd`` over ``n_seeds`` seeds; ``iou_first`` of the
            first seed with ``iou_low``, ``iou_high`` (95 %, bootstrap over patients); ``iou_mean`` and ``aupr_mean``
            over images; ``n`` test images, ``n_with`` of them with the lesion; ``validation_iou`` (first seed) and
            ``chosen`` by it; ``parameters``; ``weights``; ``note``: what the masks show where that is not the lesion
            itself; ``patches``, ``time_s`` and ``waited_s`` (for data) of the first seed's training.
        """
        pairs = pairs or list(product(self.cohort.annotated, self.profile.encoders))
        seeds = range(self.profile.seed, self.profile.seed + self.profile.n_seeds)
        scores = [self._seed(seed)._fetch_all("segmentation_scores", pairs, self._seed(seed)._score) for seed in seeds]
        table = pd.DataFrame([self._row(*pair, [of_seed[pair] for of_seed in scores]) for pair in pairs])
        best = table["validation_iou"].fillna(-1).groupby(table["lesion"]).idxmax()
        table["chosen"] = table.index.isin(best)
        for seed in seeds:
            dropped = table[~table["chosen"] | (seed != self.profile.seed)]
            for pair in dropped[["lesion", "encoder"]].itertuples(index=False):
                self.store.discard("segmentation_model", self._seed(seed)._settings(*pair), _CODE)
        return table

    def keep(self, study: pd.DataFrame) -> list[Path]:
        """Write the chosen models as files with cards into ``models/<profile>`` of the store; see :class:`Model`."""
        parts = self.cohort.table["split"].value_counts().reindex(SPLITS, fill_value=0)
        trained_on = sorted(set(self.cohort.table["source"]))
        shared = {
            **self.profile.settings("encoder_depth", "image_size_px", "seed"),
            "attention": self.attention,
            "data": self.cohort.digest,
            "trained_on": trained_on,
            "licenses": [SOURCES[name].license for name in trained_on if name in SOURCES],
            **parts.add_prefix("n_").to_dict(),
            "intended_use": "research; no diagnosis, no treatment",
        }
        files = []
        for row in study[study["chosen"]].to_dict("records"):
            scores = {name: row[name] for name in ("iou_first", "iou_low", "iou_high") if self.attention == "scse"}
            about = {name: row[name] for name in ("lesion", "encoder", "weights", "note")}
            trained = self.train(row["lesion"], row["encoder"])
            state = {name: value for name, value in trained.items() if name.startswith("state.")}
            model = Model(state, {**shared, **about, "scores": scores})
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
            trained = self.train(lesion, encoder)
            masks = segmentation.predict(trained, images, encoder, self.attention, self.profile)
            return {"packed": np.packbits(masks, axis=-1)}

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
            "protocol": self.protocol,
            "weights": find_weights(encoder, self.profile).digest,
        }

    def _seed(self, seed: int) -> LesionSegmenter:
        return replace(self, profile=replace(self.profile, seed=seed))

    def _part(self, number: int, lesion: str) -> Annotated:
        """The images of the protocol that train (0), choose the epoch (1) or are scored (2)."""
        part = self.cohort.split(PROTOCOLS[self.protocol][number])
        aspect = (part.table["width_px"] / part.table["height_px"]).to_numpy(dtype=float)
        return Annotated(part.images, part.masks[:, ANNOTATIONS.index(lesion)], aspect)

    def _fit(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        train, usual = self._part(0, lesion), len(self.cohort.split("train"))
        # as many patches in an epoch whatever the protocol, or the one with fewer images would learn less
        per_image = max(1, round(self.profile.patches_per_image * usual / len(train.images)))
        return segmentation.fit(
            train,
            self._part(1, lesion),
            encoder,
            self.attention,
            replace(self.profile, patches_per_image=per_image),
            description=f"{lesion} · {encoder} · seed {self.profile.seed}",
            checkpoint=self.store.checkpoint("segmentation_model", self._settings(lesion, encoder), _CODE),
        )

    def _score(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        """Counts of pixels of the validation and the test images, and areas under their precision-recall curves."""
        trained = self.train(lesion, encoder)
        model = segmentation.restore(trained, encoder, self.attention, self.profile)
        counts, aupr = [], []
        for part in (self._part(1, lesion), self._part(2, lesion)):
            probability = np.concatenate(list(segmentation.probabilities(model, part.images, self.profile)))
            counts.append(pixel_counts(probability > 0.5, part.masks)[COUNTS].to_numpy())
            aupr.append([average_precision(probability, part.masks, way) for way in ("pooled", "mean")])
        return {
            "val": counts[0],
            "test": counts[1],
            "aupr": np.array(aupr[1]),
            "parameters": np.array([sum(parameter.numel() for parameter in model.parameters())]),
            "speed": trained["speed"],
        }

    def _row(self, lesion: str, encoder: str, of_seeds: list[Arrays]) -> dict:
        first = of_seeds[0]
        validation, test = (pd.DataFrame(first[part], columns=COUNTS) for part in ("val", "test"))
        pooled = pd.DataFrame([segmentation_scores(pd.DataFrame(x["test"], columns=COUNTS)) for x in of_seeds])
        pooled["aupr"] = [x["aupr"][0] for x in of_seeds]
        each = [segmentation_scores(pd.DataFrame(x["test"], columns=COUNTS), "mean")["iou"] for x in of_seeds]
        patients = self.cohort.split(PROTOCOLS[self.protocol][2]).patients
        low, high = ratio_interval(
            test["tp"], test[["tp", "fp", "fn"]].sum(axis=1), patients, np.random.default_rng(self.profile.seed)
        )
        return {
            "lesion": lesion,
            "encoder": encoder,
            **pooled.mean().to_dict(),
            "iou_first": pooled["iou"].iloc[0],
            "iou_sd": pooled["iou"].std(),
            "n_seeds": len(of_seeds),
            "iou_low": low,
            "iou_high": high,
            "iou_mean": np.mean(each),
            "aupr_mean": np.mean([x["aupr"][1] for x in of_seeds]),
            "n": len(test),
            "n_with": int((test["tp"] + test["fn"] > 0).sum()),
            "validation_iou": segmentation_scores(validation)["iou"],
            "parameters": int(first["parameters"][0]),
            "weights": find_weights(encoder, self.profile).origin,
            "note": self.cohort.lesion_notes.get(lesion, ""),
            **dict(zip(("patches", "time_s", "waited_s"), first["speed"], strict=True)),
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
        encoder_of = {lesion: encoder for lesion, encoder in best_encoders(study).items() if lesion in LESIONS}
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
    "precision",
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
