"""Where the ImageNet weights of a backbone come from: a folder first, then torchvision's cache and host."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from ruranet_utils.networks.backbones import State, check_name
from ruranet_utils.profiles import CLASSIFIERS, ENCODERS, EXTRACTORS, Profile
from ruranet_utils.storage import paths
from ruranet_utils.storage.artefacts import digest_file
from ruranet_utils.storage.store import note

BVLC = "_bvlc"  # file name suffix: Berkeley Vision and Learning Center, trained with Caffe


class WeightsNotFoundError(FileNotFoundError):
    """ImageNet weights were requested but are not available, and random ones are not allowed."""


@dataclass(frozen=True)
class Weights:
    """What a backbone starts from: ImageNet parameters in a file, or random ones (``file`` is ``None``)."""

    file: Path | None

    @property
    def origin(self) -> str:
        """``"ImageNet"``, ``"ImageNet (BVLC)"`` or ``"random"``, as printed in every table."""
        if self.file is None:
            return "random"
        return "ImageNet (BVLC)" if self.file.stem.endswith(BVLC) else "ImageNet"

    @property
    def digest(self) -> str:
        """SHA-256 of the file, or ``"random"``: what a stored result depends on."""
        return _digest(self.file, self.file.stat().st_mtime_ns) if self.file else "random"

    def load(self) -> State | None:
        """Parameters in torchvision's naming, or ``None`` for random ones."""
        return torch.load(self.file, map_location="cpu", weights_only=True) if self.file else None


def find_weights(backbone: str, profile: Profile) -> Weights:
    """Look for a backbone's ImageNet weights if the profile asks for them.

    The search order is ``<backbone>.pth`` in ``RURANET_WEIGHTS_DIR``, there for GoogLeNet also ``googlenet_bvlc.pth``
    (the network of 2015, :mod:`ruranet_utils.networks.googlenet_bvlc`), then torchvision's cache, then its host.

    Parameters
    ----------
    backbone : str
        A name from ``profiles.ENCODERS``, ``profiles.CLASSIFIERS`` or ``profiles.EXTRACTORS``.
    profile : Profile
        Its ``weights`` and ``allow_random_weights``.

    Raises
    ------
    WeightsNotFoundError
        If the weights are neither in ``RURANET_WEIGHTS_DIR`` nor downloadable and random ones are not allowed.
    ValueError
        If the backbone is unknown.
    """
    found = _find(backbone, profile)
    note(weights={backbone: {"origin": found.origin, "sha256": found.digest}})
    return found


def _find(backbone: str, profile: Profile) -> Weights:
    check_name(backbone, sorted({*ENCODERS, *CLASSIFIERS, *EXTRACTORS}))
    if profile.weights == "random":
        return Weights(None)
    folder = paths.weights_dir()
    for name in (f"{backbone}.pth", f"{backbone}{BVLC}.pth"):
        if folder and (folder / name).is_file():
            return Weights(folder / name)
    found = _download(backbone)
    if isinstance(found, Path):
        return Weights(found)
    if profile.allow_random_weights:
        warnings.warn(f"{backbone} starts from random weights: no ImageNet weights at hand ({found})", stacklevel=3)
        return Weights(None)
    looked = f"not in RURANET_WEIGHTS_DIR ({folder})" if folder else "RURANET_WEIGHTS_DIR is not set"
    raise WeightsNotFoundError(
        f"ImageNet weights of {backbone}: {looked}, and the download failed ({found}). Put {backbone}.pth "
        "into a folder named by RURANET_WEIGHTS_DIR, or allow random weights (allow_random_weights=True)."
    ) from found


def reference_backbone(profile: Profile) -> str:
    """The paper's feature extractor, GoogLeNet, or if it lacks ImageNet weights, the profile's first one that has
    them."""
    return min(profile.extractors, key=lambda name: (find_weights(name, profile).file is None, name != "googlenet"))


def pretrained(names: Sequence[str], profile: Profile) -> list[str]:
    """Backbones worth fine-tuning: those with ImageNet weights; all of them if none has any, or none is asked for.

    A few hundred photographs do not train a network from scratch, and trying takes as long as fine-tuning one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the others would start from random weights: they do not start
        return [name for name in names if _find(name, profile).file] or list(names)


@cache
def _download(backbone: str) -> Path | OSError:
    """File with torchvision's weights, downloaded at most once, or the error that prevented it."""
    from torchvision import models  # takes as long to load as torch itself

    weights = models.get_model_weights(backbone).DEFAULT
    try:
        with redirect_stdout(sys.stderr):  # where it prints its progress
            weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        return error
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name


@cache
def _digest(file: Path, modified_ns: int) -> str:
    return digest_file(file)
