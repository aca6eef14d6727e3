"""Trained segmentation models as files to keep and share: parameters, model card and digest in one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import ndimage

from ruranet_utils.networks.device import device_settings, plan, prepare
from ruranet_utils.profiles import Profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.patches import image_batches
from ruranet_utils.storage import paths
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store, digest_arrays, write_atomically

MIRRORS = ((), (-1,), (-2,), (-1, -2))  # axes
SHAPE = ("encoder_depth", "decoder_width", "image_size_px")  # fields of the profile
CARD = {"lesions", "encoder", "attention", "crop_field", "thresholds", "sha256", *SHAPE}
JOINT = "lesions"  # file name of a network that finds several lesions
APPLIED = (
    "networks.backbones",
    "networks.googlenet_bvlc",
    "networks.device",
    "segmentation.patches",
    "segmentation.unet",
    "segmentation.model_file",
)
APPLICATION = Step("kept_model_masks", 4, APPLIED)
EIGHT_NEIGHBORS = np.ones((3, 3))


@dataclass(frozen=True, eq=False)
class Model:
    """One U-Net for one lesion or several.

    Attributes
    ----------
    state : dict of str to ndarray
        Parameters, as :func:`ruranet_utils.segmentation.training.fit` returns them.
    card : dict
        ``lesions`` with their ``thresholds``, ``encoder``, ``attention``, ``encoder_depth``, ``decoder_width``,
        ``image_size_px``, ``crop_field``; ``disc``: whether "edema" is the optic disc; ``trained_on`` (sources),
        ``licenses``, ``n_train``, ``n_val``, ``n_test`` and ``n_healthy`` images; ``seed``; ``data`` (SHA-256 of the
        cohort); ``scores`` on the test images, where it was scored, and ``notes``, by lesion; ``weights`` (origin of
        the encoder's first ones), ``machine`` (trained on), ``intended_use`` and ``sha256`` over the parameters.
    """

    state: Arrays
    card: dict
    _networks: dict = field(default_factory=dict, init=False, repr=False)  # by device, once they have been restored

    @property
    def lesions(self) -> tuple[str, ...]:
        """What the model finds, in the order of its masks."""
        return tuple(self.card["lesions"])

    @property
    def shows(self) -> tuple[str, ...]:
        """The same under names for readers: the stand-in for edema is the optic disc."""
        return tuple("optic_disc" if name == "edema" and self.card.get("disc") else name for name in self.lesions)

    @property
    def name(self) -> str:
        """File name without suffix."""
        return _name(self.lesions, self.card["attention"])

    @property
    def table(self) -> pd.DataFrame:
        """The card's entry for each lesion: ``iou`` on the test images with its interval, and where it comes from."""
        shared = {"encoder": self.card["encoder"], "trained on": ", ".join(self.card["trained_on"])}
        shared |= {"n_test": self.card["n_test"], "weights": self.card["weights"]}
        scores = pd.DataFrame(self.card["scores"], ["iou_first", "iou_low", "iou_high"]).T.reindex(self.lesions)
        scores = scores.rename(columns={"iou_first": "iou"}).reset_index(names="lesion")
        return scores.assign(**shared, note=[self.card["notes"][lesion] for lesion in self.lesions])

    def save(self, folder: Path, half: bool = False) -> Path:
        """Write ``<lesion>.safetensors``, or ``lesions.safetensors`` for several lesions, with the card in its header.

        Parameters
        ----------
        folder : Path
        half : bool
            Whether to round the parameters to 16 bits, which halves the file.
        """
        state = _rounded(self.state) if half else self.state
        card = {**self.card, "sha256": _digest(state)}
        path = folder / f"{self.name}.safetensors"
        header = {"card": json.dumps(card, sort_keys=True)}
        ordered = {name: np.asarray(value, order="C") for name, value in state.items()}  # as safetensors requires
        write_atomically(path, lambda file: save_file(ordered, file, header))
        return path

    def probabilities(self, images: np.ndarray, profile: Profile) -> Iterator[np.ndarray]:
        """Probability of each lesion in every pixel, averaged over an image and its three flips, batch by batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, 3, h, w)
            Sides divisible by ``2**encoder_depth``.
        profile : Profile
            Its device and threads.

        Yields
        ------
        ndarray of float32, shape (batch, n_lesions, h, w)
        """
        adapted, device = replace(profile, **{name: self.card[name] for name in SHAPE}), prepare(profile)
        if device not in self._networks:
            self._networks[device] = unet.restore(self.state, self.card["encoder"], self.card["attention"], adapted)
        network = self._networks[device]
        for rows in image_batches(images):
            found = []
            for axes in MIRRORS:
                mirrored = unet.probabilities(network, np.flip(images[rows], axes), adapted)
                found.append(np.flip(mirrored, axes))
            yield np.mean(found, axis=0)

    def predict(self, images: np.ndarray, profile: Profile) -> np.ndarray:
        """Masks by the card's thresholds; see :func:`decide`."""
        disc = self.shows.index("optic_disc") if "optic_disc" in self.shows else None
        found = self.probabilities(images, profile)
        return np.concatenate([decide(batch, self.card["thresholds"], disc) for batch in found])

    def masks(self, images: np.ndarray, profile: Profile, store: Store) -> np.ndarray:
        """:meth:`predict`, computed once per store."""

        settings = {**device_settings(profile, with_precision=True), "model": self.card}
        job = settings, partial(_packed, model=self, profile=profile)
        packed = store.fetch_parts(APPLICATION, {"": job}, images, workers=plan(profile).workers)[""]["packed"]
        return np.unpackbits(packed, axis=-1, count=images.shape[-1]).astype(bool)


def _packed(images: np.ndarray, model: Model, profile: Profile) -> Arrays:
    return {"packed": np.packbits(model.predict(images, profile), -1)}


def decide(probability: np.ndarray, thresholds: Sequence[float], disc: int | None = None) -> np.ndarray:
    """Masks where the probability is above the threshold.

    Parameters
    ----------
    probability : ndarray, shape (n, n_lesions, h, w)
    thresholds : sequence of float, shape (n_lesions,)
    disc : int, optional
        Channel of the optic disc; only its largest part is kept, since an eye has one disc; the rest are reflections.

    Returns
    -------
    ndarray of bool, shape (n, n_lesions, h, w)
    """
    masks = probability > np.reshape(thresholds, (-1, 1, 1)).astype(probability.dtype)
    for mask in masks if disc is not None else ():
        mask[disc] = _largest_part(mask[disc])
    return masks


def _largest_part(mask: np.ndarray) -> np.ndarray:
    numbered, n_parts = ndimage.label(mask, EIGHT_NEIGHBORS)
    return numbered == np.bincount(numbered.ravel())[1:].argmax() + 1 if n_parts else mask


def load(path: Path) -> Model:
    """Load a model and verify that its parameters are the ones that were saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a model of this kind, or was modified or damaged.
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
        raise ValueError(f"{path} is not a segmentation model with a card: {error}") from error
    if card.get("sha256") != _digest(state):
        raise ValueError(f"{path} was modified or damaged: its parameters do not match the digest in its card")
    return Model(_widened(state), card)


def load_all(folder: Path, lesions: Sequence[str], attention: str | None = "scse") -> dict[str, Model]:
    """The models for some lesions: the joint one if the folder has it, otherwise one per lesion.

    Raises
    ------
    FileNotFoundError
        Naming every lesion without a model, and how to get one.
    """
    if (file := model_path(folder, (), attention)).is_file():
        joint = load(file)
        if set(lesions) <= set(joint.lesions):
            return dict.fromkeys(lesions, joint)
    missing = [lesion for lesion in lesions if not model_path(folder, [lesion], attention).is_file()]
    if missing:
        notebook = "02" if attention else "05"  # a profile whose data show the lesion
        names = ", ".join(model_path(folder, [lesion], attention).name for lesion in missing)
        train = f"make reproduce PROFILE={folder.name} ARGS='--only {notebook}', if its data have masks of them"
        if folder == paths.models("shipped"):
            train = "make models"
        raise FileNotFoundError(
            f"no trained model for {', '.join(missing)}: expected {names} in {folder}. Train them once ({train}) or "
            "copy the files there (docs/own_images.md)"
        )
    return {lesion: load(model_path(folder, [lesion], attention)) for lesion in lesions}


def _name(lesions: Sequence[str], attention: str | None) -> str:
    name = lesions[0] if len(lesions) == 1 else JOINT
    return name if attention else f"{name}_without_scse"


def model_path(folder: Path, lesions: Sequence[str], attention: str | None = "scse") -> Path:
    """Path of the network for some lesions; without any, of the joint network."""
    return folder / f"{_name(lesions, attention)}.safetensors"


def _rounded(state: Arrays) -> Arrays:
    return {name: value.astype(np.float16) if value.dtype == np.float32 else value for name, value in state.items()}


def _widened(state: Arrays) -> Arrays:
    return {name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in state.items()}


def _digest(state: Arrays) -> str:
    return digest_arrays(*(state[name] for name in sorted(state)))


def learned(trained: Arrays) -> list[np.ndarray]:
    """The parameters of a model, without batch normalization's batch counts."""
    counted = ("running_mean", "running_var", "num_batches_tracked")
    return [value for name, value in trained.items() if name.startswith("state.") and not name.endswith(counted)]
