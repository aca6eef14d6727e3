"""The paper's encoders, classifiers and feature extractors, built from published definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from ruranet_utils.networks.device import seeded
from ruranet_utils.profiles import CLASSIFIERS, ENCODERS, EXTRACTORS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

WIDTH, NARROWEST = 256, 16  # channels of the decoder's deepest stage in the paper's networks, and of its last

State = Mapping[str, torch.Tensor]

# Parameters in torchvision's networks that this project replaces or leaves out.
_HEADS = ("fc.", "classifier.", "aux1.", "aux2.")


def unet(
    encoder: str,
    attention: str | None,
    depth: int,
    state: State | None,
    seed: int,
    n_lesions: int = 1,
    width: int = WIDTH,
) -> nn.Module:
    """U-Net for one lesion or several: a logit per pixel and lesion.

    Parameters
    ----------
    encoder : str
        One of ``profiles.ENCODERS``.
    attention : {"scse", None}
        SCSE on the concatenated skip connections (Roy et al. 2018, doi:10.1007/978-3-030-00928-1_48), or none.
    depth : int
        Stages of encoder and decoder.
    state : mapping or None
        ImageNet parameters of the encoder; ``None`` starts at random.
    seed : int
        Seed of the random parameters.
    n_lesions : int
    width : int
        Channels of the deepest of five decoder stages; each following one has half as many, but at least ``NARROWEST``.

    Returns
    -------
    Module
        ``(n, 3, h, w)`` float32, normalized by ImageNet's mean and deviation, sides divisible by ``2**depth``,
        to ``(n, n_lesions, h, w)`` logits.
    """
    import segmentation_models_pytorch as smp  # takes a second, which finished steps should not cost

    check_name(encoder, ENCODERS)
    with seeded(seed):
        model = smp.Unet(
            encoder,
            encoder_weights=None,
            encoder_depth=depth,
            decoder_channels=[max(NARROWEST, width // 2**stage) for stage in range(5)][-depth:],
            decoder_attention_type=attention,
            classes=n_lesions,
        )
    if state is not None:
        # smp's encoders drop the classifier themselves and rename DenseNet's layers in place: hence the copy.
        model.encoder.load_state_dict(dict(state))
    if depth < 5:
        _drop_unreached(model.encoder)
    return model.to(memory_format=memory_format(encoder))


def _drop_unreached(encoder: nn.Module) -> None:
    """Remove the parameters of stages beyond an encoder's depth; they are built but never used."""
    reached: set[nn.Module] = set()
    leaves = [(name, module) for name, module in encoder.named_modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(lambda module, *_: reached.add(module)) for _, leaf in leaves]
    example = next(encoder.parameters()).new_zeros(1, 3, 64, 64)
    with torch.no_grad():
        encoder.eval()(example)
    encoder.train()
    for hook in hooks:
        hook.remove()
    for name, leaf in leaves:
        if leaf not in reached:
            parent, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(parent), last, nn.Identity())


def classifier(backbone: str, state: State | None, seed: int) -> nn.Module:
    """Network of Table 3: the backbone with its last layer replaced by one logit for DME.

    Parameters
    ----------
    backbone : str
        One of ``profiles.CLASSIFIERS``.
    state, seed
        As for :func:`unet`.

    Returns
    -------
    Module
        ``(n, 3, h, w)`` normalized float32 to ``(n, 1)`` logits.
    """
    check_name(backbone, CLASSIFIERS)
    return _torchvision(backbone, state, seed, last=lambda n_inputs: nn.Linear(n_inputs, 1))


def feature_extractor(backbone: str, state: State | None, seed: int) -> nn.Module:
    """Backbone "removing the original classification layer" (Section 2.2): outputs the input of its last linear layer.

    Dimensions: AlexNet and VGG 4096, GoogLeNet 1024, MobileNet 1280, ResNet18 and 34 512, ResNet50 2048. GoogLeNet
    keeps torchvision's ``transform_input``, which undoes ImageNet's normalization, whenever its weights are ImageNet's.
    With BVLC's parameters it is :class:`OriginalGoogLeNet`, the network of 2015.

    Parameters
    ----------
    backbone : str
        One of ``profiles.EXTRACTORS``.
    state, seed
        As for :func:`unet`.

    Returns
    -------
    Module
        In evaluation mode; ``(n, 3, h, w)`` normalized float32 to ``(n, dim)`` float32.
    """
    check_name(backbone, EXTRACTORS)
    return _torchvision(backbone, state, seed, last=lambda n_inputs: nn.Identity()).eval()


def as_float(images: np.ndarray) -> np.ndarray:
    """Images as float32 in [0, 1] from uint8 in [0, 255]; the shape is kept."""
    return images.astype(np.float32) / np.float32(255)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Subtract ImageNet's mean and divide by its deviation; ``images`` are ``(n, 3, h, w)`` in [0, 1]."""
    mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return (images - mean) / std


def _torchvision(backbone: str, state: State | None, seed: int, last: Callable[[int], nn.Module]) -> nn.Module:
    from torchvision import models  # takes as long to load as torch itself

    with seeded(seed):
        if backbone == "googlenet" and state is not None and "conv1.conv.bias" in state:
            from ruranet_utils.networks.googlenet_bvlc import OriginalGoogLeNet

            model = OriginalGoogLeNet(IMAGENET_MEAN, IMAGENET_STD)
        elif backbone == "googlenet":
            model = models.googlenet(weights=None, aux_logits=False, init_weights=True)
            model.transform_input = state is not None
        else:
            model = models.get_model(backbone, weights=None)
        if state is not None:
            missing, unexpected = model.load_state_dict(state, strict=False)
            wrong = [name for name in (*missing, *unexpected) if not name.startswith(_HEADS)]
            if wrong:
                raise ValueError(f"the weights do not fit {backbone}: {wrong[:3]}")
        if hasattr(model, "fc"):
            model.fc = last(model.fc.in_features)
        else:
            model.classifier[-1] = last(model.classifier[-1].in_features)
    return model.to(memory_format=memory_format(backbone))


def memory_format(backbone: str) -> torch.memory_format:
    """Order of pixels in memory: channels last is faster, except for the wide layers of VGG on a CPU."""
    return torch.contiguous_format if backbone.startswith("vgg") else torch.channels_last


def check_name(name: str, known) -> None:
    """Refuse an unknown backbone, listing the known ones."""
    if name not in known:
        raise ValueError(f"unknown backbone {name!r}; valid: {', '.join(known)}")
