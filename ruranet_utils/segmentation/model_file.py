"""Trained segmentation models as files that can be kept and handed on: parameters, model card and digest in one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ruranet_utils.networks.device import device_settings
from ruranet_utils.profiles import Profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.patches import image_batches
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store, digest_arrays, write_atomically

MIRRORS = ((), (-1,), (-2,), (-1, -2))  # axes
CARD = {"lesion", "encoder", "attention", "encoder_depth", "image_size_px", "crop_field", "threshold", "sha256"}
APPLIED = (
    "networks.backbones",
    "networks.device",
    "segmentation.patches",
    "segmentation.unet",
    "segmentation.model_file",
)
APPLICATION = Step("kept_model_masks", 1, APPLIED)


@dataclass(frozen=True, eq=False)
class Model:
    """One U-Net for one lesion.

    Attributes
    ----------
    state : dict of str to ndarray
        Parameters, as :func:`ruranet_utils.segmentation.training.fit` returns them.
    card : dict
        ``lesion``, ``encoder``, ``attention``, ``encoder_depth``, ``image_size_px``, ``crop_field``, ``threshold``;
        ``trained_on`` (sources), ``licenses``, ``n_train``, ``n_val`` and ``n_test`` images; ``data`` (SHA-256
        of the cohort); ``scores`` on the test images, where it was scored; ``weights`` (origin of the encoder's first
        ones), ``note``, ``intended_use`` and ``sha256`` over the parameters.
    """

    state: Arrays
    card: dict

    def save(self, folder: Path) -> Path:
        """Write ``<lesion>.safetensors``, or ``<lesion>_without_scse.safetensors``; the card is in its header."""
        card = {**self.card, "sha256": _digest(self.state)}
        path = folder / _name(card["lesion"], card["attention"])
        header = {"card": json.dumps(card, sort_keys=True)}
        state = {name: np.asarray(value, order="C") for name, value in self.state.items()}  # safetensors wants it so
        write_atomically(path, lambda file: save_file(state, file, header))
        return path

    def probabilities(self, images: np.ndarray, profile: Profile) -> Iterator[np.ndarray]:
        """Probability of the lesion in every pixel, mean over an image and its three mirror images, batch by batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, 3, h, w)
            Sides divisible by ``2**encoder_depth``.
        profile : Profile
            Its device and threads.

        Yields
        ------
        ndarray of float32, shape (batch, h, w)
        """
        adapted = replace(profile, **{name: self.card[name] for name in ("encoder_depth", "image_size_px")})
        network = unet.restore(self.state, self.card["encoder"], self.card["attention"], adapted)
        for rows in image_batches(images):
            found = []
            for axes in MIRRORS:
                mirrored = unet.probabilities(network, np.flip(images[rows], axes), adapted)
                found.append(np.flip(mirrored, axes))
            yield np.mean(found, axis=0)

    def predict(self, images: np.ndarray, profile: Profile) -> np.ndarray:
        """Masks: bool, shape (n, h, w), where the probability is above the card's ``threshold``."""
        return np.concatenate([batch > self.card["threshold"] for batch in self.probabilities(images, profile)])

    def masks(self, images: np.ndarray, profile: Profile, store: Store) -> np.ndarray:
        """:meth:`predict`, computed once per store."""

        def compute() -> Arrays:
            return {"packed": np.packbits(self.predict(images, profile), -1)}

        settings = {**device_settings(profile), "model": self.card, "images": digest_arrays(images)}
        packed = store.fetch(APPLICATION, settings, compute)["packed"]
        return np.unpackbits(packed, axis=-1, count=images.shape[-1]).astype(bool)


def load(path: Path) -> Model:
    """Read a model and check that its parameters are those that were saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no model of this kind, or was changed or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    try:
        with safe_open(path, "np") as file:
            card = json.loads(file.metadata()["card"])
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if missing := CARD.difference(card):
            raise ValueError(f"the card lacks {', '.join(sorted(missing))}")
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no segmentation model with a card: {error}") from error
    if card.get("sha256") != _digest(state):
        raise ValueError(f"{path} was changed or damaged: its parameters do not have the digest of its card")
    return Model(state, card)


def load_all(folder: Path, lesions: Sequence[str], attention: str | None = "scse") -> dict[str, Model]:
    """The models of some lesions.

    Raises
    ------
    FileNotFoundError
        Naming every lesion without a model, and how to get one.
    """
    missing = [lesion for lesion in lesions if not (folder / _name(lesion, attention)).is_file()]
    if missing:
        notebook = "02" if attention else "05"  # of a profile whose data show the lesion
        raise FileNotFoundError(
            f"no trained model for {', '.join(missing)}: expected {', '.join(_name(x, attention) for x in missing)} in "
            f"{folder}. Train them once (make reproduce PROFILE={folder.name} ARGS='--only {notebook}', if its data "
            "have masks of them) or copy the files there (docs/own_images.md)"
        )
    return {lesion: load(folder / _name(lesion, attention)) for lesion in lesions}


def _name(lesion: str, attention: str | None) -> str:
    return f"{lesion}.safetensors" if attention else f"{lesion}_without_scse.safetensors"


def _digest(state: Arrays) -> str:
    return digest_arrays(*(state[name] for name in sorted(state)))
