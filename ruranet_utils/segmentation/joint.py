"""One U-Net for all lesions of a cohort: trained, cross-validated, scored and applied, each at most once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from sklearn.model_selection import GroupKFold
from torch import nn

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.networks.device import device_settings, plan
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import ANNOTATIONS, Profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.model_file import APPLIED, SHAPE, Model, decide, learned
from ruranet_utils.segmentation.patches import Annotated, image_batches
from ruranet_utils.segmentation.scores import COUNTS, average_precision, best_threshold, pixel_counts
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store

TRAINED = (*APPLIED, "networks.training", "segmentation.training", "segmentation.scores", "segmentation.joint")
TRAINING = Step("joint_model", 2, TRAINED)
REVISION = Step("joint_model_revised", 3, TRAINED)
PREDICTION = Step("joint_probabilities", 3, TRAINED)
FIELDS = (  # fields of the profile that the parameters depend on
    "seed",
    "epochs",
    "patches_per_image",
    "patch_size_px",
    "lesion_patches",
    "lesion_draw",
    "encoder_depth",
    "decoder_width",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_average",
    "focal_alpha",
    "focal_gamma",
    "focal_weight",
)
# Out of fold on IDRiD's 54 training images the mean IoU is .013 higher than at 0.5 (models/table_folds.csv): a network
# that was shown healthy eyes is reluctant.
THRESHOLD = 0.3
REVISED_FIELDS = ("revised_epochs", "healthy_patches")
# The second part of a training: from which probability on a pixel of a healthy eye counts as mistaken, and how much of
# the first part's learning rate is left.
MISTAKEN, LEFT = 0.3, 1 / 3
N_FOLDS = 3
ALL = -1  # instead of a fold: trained on all training images


@dataclass(frozen=True)
class JointSegmenter:
    """U-Nets with a channel for each annotated lesion: one for each fold, and one trained on all training images.

    Nothing is chosen during training, so the cohort's validation images are trained on as well. Three-fold
    cross-validation by patient takes the place of validation scores.

    Parameters
    ----------
    cohort : Cohort
        With masks. If there are ``cohort.healthy``, images without lesions, and the profile has ``revised_epochs``, a
        second part of each training shows the network what it took for lesions in them.
    profile : Profile
    store : Store
    attention : {"scse", None}
    protocol : {"held_out", "released"}
        ``"released"`` trains on the test images, and on no healthy eye, with as many patches per epoch as
        ``"held_out"``; it chooses the threshold of each lesion on the test images, too.
    validated : bool
        Whether :meth:`scores` cross-validates, which takes three more trainings.
    """

    cohort: Cohort
    profile: Profile
    store: Store
    attention: str | None = "scse"
    protocol: str = "held_out"
    validated: bool = True

    @cached_property
    def lesions(self) -> tuple[str, ...]:
        """The annotated lesions, in the order of the channels."""
        return self.cohort.annotated

    @cached_property
    def n_folds(self) -> int:
        """At most ``N_FOLDS``, and no more than there are patients."""
        return min(N_FOLDS, len(set(self.cohort.patients[self.rows])))

    @cached_property
    def cross_validates(self) -> bool:
        """Whether cross-validation is requested and possible: every fold must leave a lesion to learn from."""
        shows = self.cohort.masks[self.rows].any(axis=(1, 2, 3))
        left = [shows[self._folds[0] != fold].any() for fold in range(self.n_folds)]
        return self.validated and self.n_folds > 1 and all(left)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of the cohort used for training."""
        is_test = (self.cohort.table["split"] == "test").to_numpy()
        return np.flatnonzero(is_test if self.protocol == "released" else ~is_test)

    @property
    def sizes(self) -> tuple[int, int]:
        """Images that train, and images that choose the threshold."""
        return len(self.rows), len(self.rows) if self.protocol == "released" else 0

    def with_seed(self, seed: int) -> JointSegmenter:
        """The same with another seed, without cross-validating again."""
        profile = replace(self.profile, seed=seed)
        return replace(self, profile=profile, validated=self.validated and seed == self.profile.seed)

    def train(self, lesion: str, encoder: str, fold: int = ALL) -> Arrays:
        """Parameters and history; see :func:`ruranet_utils.segmentation.training.fit_joint`. Equal for all lesions."""
        return self.store.fetch(*self._training(encoder, fold))

    def model(self, encoder: str, fold: int = ALL, **card) -> Model:
        """The trained network; ``card`` adds to what its card says."""
        return self._model(encoder, fold, thresholds=self._thresholds(encoder), **card)

    def masks(self, images: np.ndarray, encoders: Mapping[str, str]) -> np.ndarray:
        """Predicted masks: bool, shape (n, len(encoders), h, w), by lesion and encoder as :func:`best_encoders`."""
        found = {encoder: self.probabilities(images, encoder) for encoder in set(encoders.values())}
        return self._masks(found, encoders)

    def unseen_masks(self, encoders: Mapping[str, str]) -> np.ndarray:
        """As :meth:`masks`, of the cohort's own images: a training image by the network that has not seen it."""
        found = {}
        for encoder in set(encoders.values()):
            found[encoder] = np.empty((len(self.cohort), len(self.lesions), *self.cohort.images.shape[2:]), np.float16)
            rest = np.setdiff1d(np.arange(len(self.cohort)), self.rows)
            found[encoder][self.rows] = self.out_of_fold(encoder)
            found[encoder][rest] = self.probabilities(self.cohort.images[rest], encoder)
        return self._masks(found, encoders)

    def probabilities(self, images: np.ndarray, encoder: str, fold: int = ALL) -> np.ndarray:
        """Probability of each lesion in every pixel: float16, shape (n, n_lesions, h, w)."""

        compute = partial(_probabilities, model=self._model(encoder, fold), profile=self.profile)
        job = self._settings(encoder, fold, self._revises), compute
        found = self.store.fetch_parts(PREDICTION, {"": job}, images, workers=plan(self.profile).workers)
        return found[""]["probability"]

    def out_of_fold(self, encoder: str) -> np.ndarray:
        """Training images' probabilities by the network that has not seen them: float16, (n, n_lesions, h, w)."""
        self.store.prepare([self._training(encoder, fold) for fold in range(self.n_folds)], plan(self.profile).workers)
        found = np.empty((len(self.rows), len(self.lesions), *self.cohort.images.shape[2:]), np.float16)
        for fold in range(self.n_folds):
            held_out = self._folds[0] == fold
            found[held_out] = self.probabilities(self.cohort.images[self.rows[held_out]], encoder, fold)
        return found

    def scores(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Arrays]:
        """As :meth:`ruranet_utils.segmentation.segmenter.LesionSegmenter.scores`; ``val`` is out of fold."""
        test = np.flatnonzero(self.cohort.table["split"] == "test")
        found = {}
        for encoder in dict.fromkeys(encoder for _, encoder in pairs):
            self.store.prepare(self.trainings(encoder), plan(self.profile).workers)
            trained = self.train("", encoder)
            thresholds = self._thresholds(encoder)
            shared = {
                "parameters": np.array([sum(map(np.size, learned(trained)))]),
                "speed": trained["speed"],
                "machine": trained["machine"],
            }
            of_test = self.probabilities(self.cohort.images[test], encoder)
            of_val = self.out_of_fold(encoder) if self.cross_validates else of_test[:0]
            masks_of_test, masks_of_val = (decide(found, thresholds, self._disc) for found in (of_test, of_val))
            for lesion in (lesion for lesion, name in pairs if name == encoder):
                truth = self.cohort.masks[:, ANNOTATIONS.index(lesion)]
                channel = self.lesions.index(lesion)
                counts = [
                    pixel_counts(masks[:, channel], truth[rows])[COUNTS].to_numpy()
                    if len(rows)
                    else np.zeros((0, len(COUNTS)), int)
                    for masks, rows in ((masks_of_val, self.rows[: len(of_val)]), (masks_of_test, test))
                ]
                ranked = of_test[:, channel].astype(np.float32)
                aupr = np.array([average_precision(ranked, truth[test], way) for way in ("pooled", "mean")])
                found[lesion, encoder] = {"val": counts[0], "test": counts[1], "aupr": aupr, **shared}
                found[lesion, encoder]["threshold"] = np.array([thresholds[channel]])
        return {pair: found[pair] for pair in pairs}

    @cached_property
    def _folds(self) -> tuple[np.ndarray, np.ndarray]:
        """Fold of each training row and of each healthy image; a patient is in one fold only."""
        healthy = self.cohort.healthy
        return _deal(self.cohort.patients[self.rows]), _deal(np.array([]) if healthy is None else healthy.patients)

    @property
    def _disc(self) -> int | None:
        """Channel of the optic disc, if it stands in for edema."""
        return self.lesions.index("edema") if "edema" in self.cohort.lesion_notes else None

    @property
    def _of_eye(self) -> np.ndarray:
        """Which channels are empty in a healthy eye: bool, shape (n_lesions,); all except the optic disc."""
        return np.arange(len(self.lesions)) != (-1 if self._disc is None else self._disc)

    def _masks(self, found: Mapping[str, np.ndarray], encoders: Mapping[str, str]) -> np.ndarray:
        """Of each lesion, from the probabilities by its encoder."""
        masks = {encoder: self._decide(probability, encoder) for encoder, probability in found.items()}
        channels = [masks[encoder][:, self.lesions.index(lesion)] for lesion, encoder in encoders.items()]
        return np.stack(channels, axis=1)

    def _decide(self, probability: np.ndarray, encoder: str) -> np.ndarray:
        return decide(probability, self._thresholds(encoder), self._disc)

    def _thresholds(self, encoder: str) -> list[float]:
        """Of the probability of each lesion."""
        if self.protocol == "held_out":
            return [THRESHOLD] * len(self.lesions)
        found = self.probabilities(self.cohort.images[self.rows], encoder)
        truth = self.cohort.masks[self.rows]
        return [
            best_threshold(found[:, channel], truth[:, ANNOTATIONS.index(lesion)])
            for channel, lesion in enumerate(self.lesions)
        ]

    def _model(self, encoder: str, fold: int, **card) -> Model:
        state = {name: value for name, value in self.train("", encoder, fold).items() if name.startswith("state.")}
        about = {"lesions": list(self.lesions), "encoder": encoder, "attention": self.attention}
        about |= self.profile.settings(*SHAPE, "crop_field", "seed")
        return Model(state, {**about, "disc": self._disc is not None, **card})

    def _annotated(self, fold: int) -> Annotated:
        """The training images without those of a fold."""
        rows = self.rows[self._folds[0] != fold]
        channels = [ANNOTATIONS.index(lesion) for lesion in self.lesions]
        sources = self.cohort.table["source"].to_numpy()
        shows = self.cohort.masks.any(axis=(2, 3))[:, channels]
        looked_for = {source: shows[sources == source].any(axis=0) for source in set(sources)}
        known = np.stack([looked_for[source] for source in sources[rows]])
        masks = self.cohort.masks[rows][:, channels]
        return Annotated(self.cohort.images[rows], masks, self.cohort.aspect[rows], known)

    def _with_healthy(self, fold: int) -> Annotated:
        """The same, followed by the healthy images of the same folds."""
        diseased, healthy, chosen = self._annotated(fold), self.cohort.healthy, self._folds[1] != fold
        none = np.zeros((chosen.sum(), *diseased.masks.shape[1:]), bool)
        known = np.broadcast_to(self._of_eye, none.shape[:2])
        return Annotated(
            np.concatenate([diseased.images, healthy.images[chosen]]),
            np.concatenate([diseased.masks, none]),
            np.concatenate([diseased.aspect, healthy.aspect[chosen]]),
            np.concatenate([diseased.known, known]),
        )

    def trainings(self, encoder: str) -> list[tuple[Step, dict, Callable[[], Arrays]]]:
        """What :meth:`scores` trains of an encoder, as jobs for :meth:`ruranet_utils.storage.store.Store.prepare`."""
        folds = [*(range(self.n_folds) if self.cross_validates else ()), ALL]
        return [self._training(encoder, fold) for fold in folds]

    def _training(self, encoder: str, fold: int) -> tuple[Step, dict, Callable[[], Arrays]]:
        step, compute = (REVISION, self._revise) if self._revises else (TRAINING, self._fit)
        return step, self._settings(encoder, fold, self._revises), partial(compute, encoder, fold)

    @property
    def _revises(self) -> bool:
        asked = self.profile.healthy_patches and self.profile.revised_epochs and self.protocol == "held_out"
        return bool(asked and self.cohort.healthy is not None)

    def _settings(self, encoder: str, fold: int, revised: bool = False) -> dict:
        first = {
            **self._drawing.settings(*FIELDS),
            "lesion_draw": self.profile.lesion_draw,
            **device_settings(self.profile, with_precision=True),
            "data": self.cohort.digest,
            "fold": fold,
            "encoder": encoder,
            "attention": self.attention,
            "protocol": self.protocol,
            "weights": find_weights(encoder, self.profile).digest,
        }
        if not revised:
            return first
        return {**first, **self.profile.settings(*REVISED_FIELDS), "healthy": self.cohort.healthy.digest}

    def _fit(self, encoder: str, fold: int) -> Arrays:
        from ruranet_utils.segmentation import training  # Lightning takes seconds, which finished networks should not

        return training.fit_joint(
            self._annotated(fold),
            encoder,
            self.attention,
            self._drawing,
            description=f"{_title(fold)} · {encoder} · seed {self.profile.seed}",
            checkpoint=self.store.checkpoint(TRAINING, self._settings(encoder, fold)),
        )

    def _revise(self, encoder: str, fold: int) -> Arrays:
        """The second stage of training, with what the first stage mistakes for lesions in healthy eyes."""
        from ruranet_utils.segmentation import training

        first = self.store.fetch(TRAINING, self._settings(encoder, fold), partial(self._fit, encoder, fold))
        data = self._with_healthy(fold)
        network = unet.restore(first, encoder, self.attention, self.profile)
        healthy = data.images[~data.masks.any(axis=(1, 2, 3))]
        mistaken = [self._mistaken(network, healthy[rows]) for rows in image_batches(healthy)]
        revised = replace(
            self._drawing,
            epochs=self.profile.revised_epochs,
            learning_rate=self.profile.learning_rate * LEFT,
            healthy_patches=self.profile.healthy_patches,
        )
        second = training.fit_joint(
            data,
            encoder,
            self.attention,
            revised,
            description=f"{_title(fold)}, revised · {encoder} · seed {self.profile.seed}",
            checkpoint=self.store.checkpoint(REVISION, self._settings(encoder, fold, True)),
            start=first,
            mistaken=[pixels for batch in mistaken for pixels in batch],
        )
        later = second["history"] + [len(first["history"]), 0, 0]  # epochs go on
        return {
            **second,
            "history": np.concatenate([first["history"], later]),
            "speed": first["speed"] + second["speed"],
        }

    def _mistaken(self, network: nn.Module, images: np.ndarray) -> list[np.ndarray]:
        """Pixels of some healthy images that are taken for a lesion; the disc does not count."""
        channels = np.flatnonzero(self._of_eye)
        found = unet.probabilities(network, images, self.profile)[:, channels].max(axis=1)
        return [np.argwhere(image > MISTAKEN) for image in found]

    @property
    def _drawing(self) -> Profile:
        """The profile of the first stage: it draws only the lesions that are annotated, and as many patches per epoch
        under both protocols, or the one with fewer images would learn less."""
        draw = tuple(self.profile.lesion_draw[ANNOTATIONS.index(lesion)] for lesion in self.lesions)
        usual = (self.cohort.table["split"] != "test").sum()
        per_image = max(1, round(self.profile.patches_per_image * usual / len(self.rows)))
        return replace(self.profile, lesion_draw=draw, healthy_patches=0.0, patches_per_image=per_image)


def _probabilities(images: np.ndarray, model: Model, profile: Profile) -> Arrays:
    return {"probability": np.concatenate([batch.astype(np.float16) for batch in model.probabilities(images, profile)])}


def _title(fold: int) -> str:
    return "all lesions" if fold == ALL else f"all lesions · fold {fold + 1}"


def _deal(patients: np.ndarray) -> np.ndarray:
    """Fold of each row, whatever the seed of the run."""
    fold = np.zeros(len(patients), int)
    n_folds = min(N_FOLDS, len(set(patients)))
    if n_folds > 1:
        dealt = GroupKFold(n_folds, shuffle=True, random_state=0).split(patients, groups=patients)
        for number, (_, rows) in enumerate(dealt):
            fold[rows] = number
    return fold
