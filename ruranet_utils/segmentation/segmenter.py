"""The U-Nets of a cohort, one for each lesion, encoder and seed; each is trained, scored and applied at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.networks.device import device_settings, plan
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import ANNOTATIONS, Profile
from ruranet_utils.segmentation.model_file import APPLIED, SHAPE, Model, learned
from ruranet_utils.segmentation.patches import Annotated
from ruranet_utils.segmentation.scores import COUNTS, average_precision, best_threshold, pixel_counts
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store, digest_arrays

TRAINED = (*APPLIED, "networks.training", "segmentation.training", "segmentation.scores", "segmentation.segmenter")
TRAINING = Step("segmentation_model", 2, TRAINED)
SCORING = Step("segmentation_scores", 3, TRAINED)
MASKS = Step("lesion_masks", 2, TRAINED)
FIELDS = (  # fields of the profile that the parameters depend on
    "seed",
    "epochs",
    "patience",
    "patches_per_image",
    "patch_size_px",
    "lesion_patches",
    "encoder_depth",
    "decoder_width",
    "batch_size",
    "learning_rate",
    "schedule",
    "focal_alpha",
    "focal_gamma",
)
# A lesion that few images show is trained for more epochs, at most this many times as many.
LONGEST = 3
# Which images train, choose the epoch and the threshold, and are scored. The code released with the paper uses the
# test images for all three; "released" repeats that, to show what it does to a score.
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
        """Parameters and history of one model; see :func:`ruranet_utils.segmentation.training.fit`."""
        return self._fetch_all(TRAINING, [(lesion, encoder)], self._fit)[lesion, encoder]

    def model(self, lesion: str, encoder: str, **card) -> Model:
        """The trained model with the threshold chosen for it; ``card`` adds to what its card says."""
        threshold = self.scores([(lesion, encoder)])[lesion, encoder]["threshold"][0]
        return self._model(self.train(lesion, encoder), lesion, encoder, thresholds=[float(threshold)], **card)

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
            return {"packed": np.packbits(self.model(lesion, encoder).predict(images, self.profile)[:, 0], -1)}

        pairs = list(encoders.items())
        arrays = self._fetch_all(MASKS, pairs, compute, images=digest_arrays(images))
        packed = np.stack([arrays[pair]["packed"] for pair in pairs], axis=1)
        return np.unpackbits(packed, axis=-1, count=images.shape[-1]).astype(bool)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Arrays]:
        """Scores of the models for some pairs of lesion and encoder.

        Returns
        -------
        dict of dict
            By pair: ``val`` and ``test``, pixels by ``COUNTS`` for each image; ``aupr`` of the test images, pooled and
            averaged; ``threshold`` with the best validation IoU; ``parameters``; ``speed`` and
            ``machine`` as :func:`ruranet_utils.segmentation.training.fit` returns them.
        """
        return self._fetch_all(SCORING, pairs, self._score)

    def _fetch_all(
        self,
        step: Step,
        pairs: Sequence[tuple[str, str]],
        compute: Callable[[str, str], Arrays],
        **more: str,
    ) -> dict[tuple[str, str], Arrays]:
        """One job for each pair of lesion and encoder."""
        jobs = {pair: ({**self._settings(*pair), **more}, partial(compute, *pair)) for pair in pairs}
        return self.store.fetch_all(step, jobs, plan(self.profile).workers)

    def _settings(self, lesion: str, encoder: str) -> dict:
        return {
            **self._schedule(lesion).settings(*FIELDS),
            **device_settings(self.profile, with_precision=True),
            "data": self.cohort.digest,
            "lesion": lesion,
            "encoder": encoder,
            "attention": self.attention,
            "protocol": self.protocol,
            "weights": find_weights(encoder, self.profile).digest,
        }

    @cached_property
    def _rarity(self) -> dict[str, float]:
        """Training images that show any lesion per image that shows this one, from 1 to ``LONGEST``."""
        shown = self.cohort.masks[self.cohort.table["split"] == "train"].any(axis=(2, 3))
        times = shown.any(axis=1).sum() / np.maximum(shown.sum(axis=0), 1)
        return dict(zip(ANNOTATIONS, np.clip(times, 1, LONGEST).tolist(), strict=True))

    def _schedule(self, lesion: str) -> Profile:
        """The profile with this lesion's epochs, so that each lesion is learned from equally many images with it."""
        epochs, patience = (round(n * self._rarity[lesion]) for n in (self.profile.epochs, self.profile.patience))
        return replace(self.profile, epochs=epochs, patience=patience)

    @property
    def sizes(self) -> tuple[int, int]:
        """Images that train, and images that choose the epoch and the threshold."""
        train, validation, _ = PROTOCOLS[self.protocol]
        return len(self.cohort.split(train)), len(self.cohort.split(validation))

    def with_seed(self, seed: int) -> LesionSegmenter:
        """The same with another seed."""
        return replace(self, profile=replace(self.profile, seed=seed))

    def _part(self, number: int, lesion: str) -> Annotated:
        """The images of the protocol that train (0), choose the epoch (1) or are scored (2)."""
        part = self.cohort.split(PROTOCOLS[self.protocol][number])
        return Annotated(part.images, part.masks[:, [ANNOTATIONS.index(lesion)]], part.aspect)

    def _fit(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        from ruranet_utils.segmentation import (
            training,  # Lightning takes seconds, which finished networks should not cost
        )

        train, usual = self._part(0, lesion), len(self.cohort.split("train"))
        # equally many patches per epoch in both protocols, or the one with fewer images would learn less
        per_image = max(1, round(self.profile.patches_per_image * usual / len(train.images)))
        return training.fit(
            train,
            self._part(1, lesion),
            encoder,
            self.attention,
            replace(self._schedule(lesion), patches_per_image=per_image),
            description=f"{lesion} · {encoder} · seed {self.profile.seed}",
            checkpoint=self.store.checkpoint(TRAINING, self._settings(lesion, encoder)),
        )

    def _score(self, lesion: str, encoder: str) -> dict[str, np.ndarray]:
        """The threshold with the best validation IoU, pixel counts at it, and AUPR on the test images."""
        trained = self.train(lesion, encoder)
        model = self._model(trained, lesion, encoder)
        validation, test = (self._part(number, lesion) for number in (1, 2))
        images = np.concatenate([validation.images, test.images])
        probability = np.concatenate([batch[:, 0] for batch in model.probabilities(images, self.profile)])
        found, truth = np.split(probability, [len(validation.images)]), (validation.masks[:, 0], test.masks[:, 0])
        threshold = best_threshold(found[0], truth[0])
        counts = [
            pixel_counts(probability > threshold, masks)[COUNTS].to_numpy()
            for probability, masks in zip(found, truth, strict=True)
        ]
        return {
            "val": counts[0],
            "test": counts[1],
            "aupr": np.array([average_precision(found[1], truth[1], way) for way in ("pooled", "mean")]),
            "threshold": np.array([threshold]),
            "parameters": np.array([sum(map(np.size, learned(trained)))]),
            "speed": trained["speed"],
            "machine": trained["machine"],
        }

    def _model(self, trained: Arrays, lesion: str, encoder: str, **card) -> Model:
        state = {name: value for name, value in trained.items() if name.startswith("state.")}
        about = {"lesions": [lesion], "encoder": encoder, "attention": self.attention}
        about |= self.profile.settings(*SHAPE, "crop_field", "seed")
        about["disc"] = lesion == "edema" and lesion in self.cohort.lesion_notes
        return Model(state, {**about, **card})
