"""The SCSE-U-Net of one lesion or several: how it is built, restored and applied (Section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ruranet_utils.networks.backbones import as_float, check_name, memory_format, normalize, unet
from ruranet_utils.networks.device import plan
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import ENCODERS, Profile

# Probability of a lesion that every pixel starts with (Lin et al. 2017, Section 3.3). Without it the first epochs
# are spent on learning that most pixels are background, and microaneurysms are not found at all.
LESION_PRIOR = 0.01


def build(encoder: str, attention: str | None, profile: Profile, n_lesions: int = 1) -> nn.Module:
    """The U-Net of a profile, before training."""
    check_name(encoder, ENCODERS)
    state = find_weights(encoder, profile).load()
    model = unet(encoder, attention, profile.encoder_depth, state, profile.seed, n_lesions, profile.decoder_width)
    nn.init.constant_(model.segmentation_head[0].bias, math.log(LESION_PRIOR / (1 - LESION_PRIOR)))
    return model


def restore(trained: Mapping[str, np.ndarray], encoder: str, attention: str | None, profile: Profile) -> nn.Module:
    """The network of :func:`ruranet_utils.segmentation.training.fit`, on the profile's device and ready to predict.

    Raises
    ------
    ValueError
        If the parameters belong to another architecture.
    """
    names = [name for name in trained if name.startswith("state.")]
    state = {name.removeprefix("state."): torch.tensor(trained[name]) for name in names}
    n_lesions = len(state.get("segmentation_head.0.bias", [0]))
    with torch.device("meta"):  # no memory and no random numbers for parameters that are replaced at once
        depth, width = profile.encoder_depth, profile.decoder_width
        model = unet(encoder, attention, depth, None, profile.seed, n_lesions, width)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"these are not the parameters of a U-Net with {encoder}: {str(error)[:300]}") from error
    return model.to(plan(profile).device, memory_format=memory_format(encoder)).eval()


@torch.inference_mode()
def probabilities(model: nn.Module, images: np.ndarray, profile: Profile) -> np.ndarray:
    """Probability of each lesion in every pixel of a batch of whole images.

    Images larger than those of the training (``profile.image_size_px``) are predicted in tiles of that size, which
    overlap by half and are weighted by a Gaussian.

    Parameters
    ----------
    model : Module
        From :func:`restore`.
    images : ndarray of uint8, shape (n, 3, h, w)
        Sides divisible by ``2**encoder_depth``.
    profile : Profile
        Its device and precision.

    Returns
    -------
    ndarray of float32, shape (n, n_lesions, h, w)

    Raises
    ------
    ValueError
        If a side is not divisible by that.
    """
    step = 2**profile.encoder_depth
    if images.shape[2] % step or images.shape[3] % step:
        sides = f"{images.shape[2]} x {images.shape[3]}"
        raise ValueError(f"the sides of the images must be divisible by {step}, got {sides}")
    planned = plan(profile)
    batch = normalize(torch.from_numpy(as_float(images)).to(planned.device))
    with torch.autocast(planned.device.type, torch.bfloat16, enabled=planned.precision == "bf16-mixed"):
        logits = model(batch) if max(images.shape[2:]) <= profile.image_size_px else _tiled(model, batch, profile)
    return torch.sigmoid(logits.float()).cpu().numpy()


def _tiled(model: nn.Module, batch: torch.Tensor, profile: Profile) -> torch.Tensor:
    from monai.inferers import sliding_window_inference  # seconds, and rarely needed

    return sliding_window_inference(batch, (profile.image_size_px,) * 2, 1, model, overlap=0.5, mode="gaussian")
