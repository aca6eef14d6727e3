"""How a U-Net is trained, of one lesion with CombinedLoss (Section 2.1) or of several at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import nn

from ruranet_utils.networks import training
from ruranet_utils.networks.device import machine_name, prepare
from ruranet_utils.profiles import Profile
from ruranet_utils.segmentation.patches import UNKNOWN, Annotated, FullImages, JointPatches, Patches
from ruranet_utils.segmentation.unet import build

PATCHES = ("patch_size_px", "patches_per_image", "batch_size", "lesion_patches", "seed")  # of the profile


class CombinedLoss(nn.Module):
    """Dice loss plus Focal loss (Eq. 1), both from logits.

    On a batch without a positive pixel the Dice term is 0 and the Focal term alone remains.

    Parameters
    ----------
    alpha, gamma : float
        Eq. 1. The paper gives no values; 0.25 and 2 are those of Lin et al. 2017, doi:10.1109/ICCV.2017.324.
    """

    def __init__(self, alpha: float, gamma: float):
        super().__init__()
        self.dice = smp.losses.DiceLoss("binary", from_logits=True)
        self.focal = smp.losses.FocalLoss("binary", alpha=alpha, gamma=gamma)

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Loss of ``(n, 1, h, w)`` logits against ``(n, 1, h, w)`` masks of 0 and 1."""
        return self.dice(logits, masks) + self.focal(logits, masks)


class JointLoss(nn.Module):
    """Eq. 1 for several lesions: the mean of their Dice losses plus a multiple of the mean Focal loss, from logits.

    Each Dice loss is that of all patches of the batch; it is 0 for a lesion that none of them shows. Pixels marked
    ``UNKNOWN`` take no part.

    Parameters
    ----------
    alpha, gamma, weight : float
        Of the Focal loss, and how much it counts.
    """

    def __init__(self, alpha: float, gamma: float, weight: float):
        super().__init__()
        self.dice = smp.losses.DiceLoss("multilabel", from_logits=True, ignore_index=UNKNOWN)
        self.focal = smp.losses.FocalLoss("binary", alpha=alpha, gamma=gamma, ignore_index=UNKNOWN)
        self.weight = weight

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Loss of ``(n, n_lesions, h, w)`` logits against masks of the same shape, of 0, 1 and ``UNKNOWN``."""
        return self.dice(logits, masks) + self.weight * self.focal(logits, masks)


class Segmentation(pl.LightningModule):
    """A U-Net with its loss and optimizer; logs ``train_loss`` and the pooled validation ``dice``.

    Adam (beta 0.9 and 0.999) on CombinedLoss for one lesion, AdamW on JointLoss for several.
    """

    def __init__(self, model: nn.Module, profile: Profile):
        super().__init__()
        self.model, self.joint = model, profile.masks == "joint"
        focal = profile.focal_alpha, profile.focal_gamma
        self.loss = JointLoss(*focal, profile.focal_weight) if self.joint else CombinedLoss(*focal)
        self.learning_rate, self.schedule = profile.learning_rate, profile.schedule

    def training_step(self, batch, batch_index):
        images, masks = batch
        # the loss sums over all pixels: too long a sum for bfloat16
        loss = self.loss(self.model(images).float(), masks)
        training.check_finite(loss, f"batch {batch_index} of epoch {self.current_epoch}")
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self):
        self.counts = []

    def validation_step(self, batch, batch_index):
        images, masks = batch
        self.counts.append(torch.stack(smp.metrics.get_stats(self.model(images) > 0, masks.long(), mode="binary")))

    def on_validation_epoch_end(self):
        tp, fp, fn, _ = torch.cat(self.counts, dim=1).sum(dim=(1, 2)).float()
        self.log("dice", 2 * tp / (2 * tp + fp + fn).clamp(min=1))

    def configure_optimizers(self):
        if self.joint:
            optimizer = torch.optim.AdamW(self.model.parameters(), self.learning_rate, fused=True)
        else:
            optimizer = training.adam(self.model.parameters(), self.learning_rate)
        if self.schedule == "constant":
            return optimizer
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, n_steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    train: Annotated,
    validation: Annotated,
    encoder: str,
    attention: str | None,
    profile: Profile,
    description: str = "U-Net",
    checkpoint: Path | None = None,
) -> dict[str, np.ndarray]:
    """Train one model for one lesion.

    Parameters
    ----------
    train, validation : Annotated
    encoder : str
        One of ``profiles.ENCODERS``.
    attention : {"scse", None}
    profile : Profile
        If its ``batch_size`` does not fit into memory, half of it is tried, with a warning.
    description : str
        Label of the progress bar.
    checkpoint : Path, optional
        From which a killed training goes on; see :func:`ruranet_utils.networks.training.fit`.

    Returns
    -------
    dict of str to ndarray
        ``state.*``: parameters of the epoch with the best validation Dice; ``history``: one row per epoch with
        epoch, training loss and validation Dice; ``speed``: patches, seconds of all epochs, seconds waited for data;
        ``machine``: name of the GPU or processor, in UTF-8.

    Raises
    ------
    ValueError
        If no training image has a pixel of the lesion, or the loss is not finite.
    """
    if not train.masks.any():
        raise ValueError(
            f"{description}: none of the {len(train.masks)} training images has a lesion pixel to learn from"
        )
    try:
        return _fit(train, validation, encoder, attention, profile, description, checkpoint)
    except RuntimeError as error:
        half = profile.batch_size // 2
        if not is_oom_error(error) or not half:
            raise
    warnings.warn(f"{description}: out of memory with batches of {profile.batch_size}, now of {half}", stacklevel=2)
    garbage_collection_cuda()
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return _fit(train, validation, encoder, attention, replace(profile, batch_size=half), description, checkpoint)


def _fit(
    train: Annotated,
    validation: Annotated,
    encoder: str,
    attention: str | None,
    profile: Profile,
    description: str,
    checkpoint: Path | None,
) -> dict[str, np.ndarray]:
    device = prepare(profile)
    settings = profile.settings(*PATCHES)
    module = Segmentation(build(encoder, attention, profile), profile)
    history = training.fit(
        module,
        Patches(train, **settings, device=device),
        FullImages(validation),
        profile,
        monitor="dice",
        epochs=profile.epochs,
        description=description,
        checkpoint=checkpoint,
    )
    return _arrays(module, history, len(train.images) * profile.patches_per_image, profile)


def _arrays(
    module: Segmentation, history: pd.DataFrame, patches_per_epoch: int, profile: Profile
) -> dict[str, np.ndarray]:
    state = {f"state.{name}": value.cpu().numpy() for name, value in module.model.state_dict().items()}
    speed = np.array([len(history) * patches_per_epoch, history["time_s"].sum(), history["waited_s"].sum()])
    logged = history.reindex(columns=["epoch", "train_loss", "dice"])
    machine = np.frombuffer(machine_name(profile).encode(), np.uint8)
    return {**state, "history": logged.to_numpy(), "speed": speed, "machine": machine}


def fit_joint(
    train: Annotated,
    encoder: str,
    attention: str | None,
    profile: Profile,
    description: str = "U-Net",
    checkpoint: Path | None = None,
    start: Mapping[str, np.ndarray] | None = None,
    mistaken: Sequence[np.ndarray] = (),
) -> dict[str, np.ndarray]:
    """Train one model for all lesions that the masks show, for all epochs of the profile.

    Parameters
    ----------
    train : Annotated
    encoder, attention, profile, description, checkpoint
        As for :func:`fit`.
    start : mapping of str to ndarray, optional
        What an earlier training returned, whose parameters are trained on.
    mistaken : sequence of ndarray
        As for :class:`ruranet_utils.segmentation.patches.JointPatches`.

    Returns
    -------
    dict of str to ndarray
        As for :func:`fit`, without a validation Dice; the parameters are their moving average if the profile has a
        ``weight_average``. The batch is not made smaller if memory runs out.

    Raises
    ------
    ValueError
        If no training image has a pixel of any lesion, or the loss is not finite.
    """
    if not train.masks.any():
        raise ValueError(
            f"{description}: none of the {len(train.masks)} training images has a lesion pixel to learn from"
        )
    settings = profile.settings(*PATCHES, "lesion_draw", "healthy_patches")
    patches = JointPatches(train, **settings, mistaken=mistaken, device=prepare(profile))
    model = build(encoder, attention, profile, train.masks.shape[1])
    if start:
        model.load_state_dict({name: torch.from_numpy(start[f"state.{name}"]) for name in model.state_dict()})
    module = Segmentation(model, profile)
    history = training.fit(
        module,
        patches,
        None,
        profile,
        monitor=None,
        epochs=profile.epochs,
        description=description,
        checkpoint=checkpoint,
    )
    return _arrays(module, history, len(patches) * profile.batch_size, profile)
