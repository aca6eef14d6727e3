"""The paper's encoders, classifiers and feature extractors, and where their weights come from (offline first)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.error import URLError

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torchvision import models

from ruranet_utils import paths
from ruranet_utils.config import CLASSIFIERS, ENCODERS, EXTRACTORS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

State = Mapping[str, torch.Tensor]

# Parameters of torchvision's networks that this project replaces or leaves out.
_HEADS = ("fc.", "classifier.", "aux1.", "aux2.")


class WeightsNotFoundError(FileNotFoundError):
    """ImageNet weights were asked for, are not at hand, and random ones are not allowed."""


def weights_origin(backbone: str, weights: str, allow_random: bool) -> str:
    """Say what a backbone starts from: ``"ImageNet"`` or ``"random"``, as printed in every table.

    Parameters
    ----------
    backbone : str
        A name of ``config.ENCODERS`` or ``config.EXTRACTORS``.
    weights : {"imagenet", "random"}
        What the profile asks for.
    allow_random : bool
        Whether a missing file may be answered by random weights.

    Raises
    ------
    WeightsNotFoundError
        If the weights are neither in ``RURANET_WEIGHTS_DIR`` nor downloadable and ``allow_random`` is false.
    ValueError
        If the backbone is unknown.
    """
    return "random" if imagenet_state(backbone, weights, allow_random) is None else "ImageNet"


@cache
def imagenet_state(backbone: str, weights: str, allow_random: bool) -> State | None:
    """ImageNet parameters in torchvision's naming, or ``None`` for random ones. See :func:`weights_origin`.

    ``<backbone>.pth`` in ``RURANET_WEIGHTS_DIR`` is looked for first, then torchvision's cache and host.
    """
    _check(backbone, sorted({*ENCODERS, *EXTRACTORS}))
    if weights == "random":
        return None
    folder = paths.weights_dir()
    file = folder / f"{backbone}.pth" if folder else None
    if file and file.is_file():
        return torch.load(file, map_location="cpu", weights_only=True)
    try:
        return models.get_model_weights(backbone).DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        if allow_random:
            return None
        looked = f"not in RURANET_WEIGHTS_DIR ({folder})" if folder else "RURANET_WEIGHTS_DIR is not set"
        raise WeightsNotFoundError(
            f"ImageNet weights of {backbone}: {looked}, and the download failed ({error}). Put {backbone}.pth "
            "into a folder named by RURANET_WEIGHTS_DIR, or allow random weights (allow_random_weights=True)."
        ) from error


def unet(encoder: str, attention: str | None, depth: int, state: State | None, seed: int) -> nn.Module:
    """U-Net for one lesion: one logit per pixel.

    Parameters
    ----------
    encoder : str
        One of ``config.ENCODERS``.
    attention : {"scse", None}
        SCSE on the concatenated skip connections (Roy et al. 2018, doi:10.1007/978-3-030-00928-1_48), or none.
    depth : int
        Stages of encoder and decoder.
    state : mapping or None
        ImageNet parameters of the encoder; ``None`` starts at random.
    seed : int
        Seed of the random parameters.

    Returns
    -------
    Module
        ``(n, 3, h, w)`` float32, normalized by ImageNet's mean and deviation, sides divisible by ``2**depth``,
        to ``(n, 1, h, w)`` logits.
    """
    _check(encoder, ENCODERS)
    with seeded(seed):
        model = smp.Unet(
            encoder,
            encoder_weights=None,
            encoder_depth=depth,
            decoder_channels=(256, 128, 64, 32, 16)[-depth:],
            decoder_attention_type=attention,
            classes=1,
        )
    if state is not None:
        # smp's encoders drop the classifier themselves and rename DenseNet's layers, in place: hence the copy.
        model.encoder.load_state_dict(dict(state))
    return model


def classifier(backbone: str, state: State | None, seed: int) -> nn.Module:
    """Network of Table 3: the backbone with its last layer replaced by one logit for DME.

    Parameters
    ----------
    backbone : str
        One of ``config.CLASSIFIERS``.
    state, seed
        As for :func:`unet`.

    Returns
    -------
    Module
        ``(n, 3, h, w)`` normalized float32 to ``(n, 1)`` logits.
    """
    _check(backbone, CLASSIFIERS)
    return _torchvision(backbone, state, seed, last=lambda n_inputs: nn.Linear(n_inputs, 1))


def feature_extractor(backbone: str, state: State | None, seed: int) -> nn.Module:
    """Backbone "removing the original classification layer" (Section 2.2): the input of its last linear layer.

    Dimensions: AlexNet and VGG 4096, GoogLeNet 1024, MobileNet 1280, ResNet18 and 34 512, ResNet50 2048.
    GoogLeNet keeps torchvision's ``transform_input``, which undoes ImageNet's normalization, whenever its
    weights are ImageNet's.

    Parameters
    ----------
    backbone : str
        One of ``config.EXTRACTORS``.
    state, seed
        As for :func:`unet`.

    Returns
    -------
    Module
        In evaluation mode; ``(n, 3, h, w)`` normalized float32 to ``(n, dim)`` float32.
    """
    _check(backbone, EXTRACTORS)
    return _torchvision(backbone, state, seed, last=lambda n_inputs: nn.Identity()).eval()


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Subtract ImageNet's mean and divide by its deviation; ``images`` are ``(n, 3, h, w)`` in [0, 1]."""
    mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return (images - mean) / std


def _torchvision(backbone: str, state: State | None, seed: int, last: Callable[[int], nn.Module]) -> nn.Module:
    options = {"aux_logits": False, "init_weights": True} if backbone == "googlenet" else {}
    with seeded(seed):
        model = models.get_model(backbone, weights=None, **options)
        if backbone == "googlenet":
            model.transform_input = state is not None
        if state is not None:
            missing, unexpected = model.load_state_dict(state, strict=False)
            wrong = [name for name in (*missing, *unexpected) if not name.startswith(_HEADS)]
            if wrong:
                raise ValueError(f"the weights do not fit {backbone}: {wrong[:3]}")
        if hasattr(model, "fc"):
            model.fc = last(model.fc.in_features)
        else:
            model.classifier[-1] = last(model.classifier[-1].in_features)
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside a block and leave its global state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _check(name: str, known) -> None:
    if name not in known:
        raise ValueError(f"unknown backbone {name!r}; valid: {', '.join(known)}")
