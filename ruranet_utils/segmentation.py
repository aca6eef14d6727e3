"""One binary SCSE-U-Net with CombinedLoss: how it is trained and applied (Section 2.1)."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from ruranet_utils import training
from ruranet_utils.backbones import as_float, find_weights, memory_format, normalize, unet
from ruranet_utils.config import Profile
from ruranet_utils.patches import FullImages, Patches, image_batches

# Probability of a lesion that every pixel starts with (Lin et al. 2017, Section 3.3). Without it the first epochs
# are spent on learning that most pixels are background, and microaneurysms are not found at all.
LESION_PRIOR = 0.01


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


class Segmentation(pl.LightningModule):
    """Adam (beta 0.9 and 0.999) on CombinedLoss; logs ``train_loss`` and the pooled validation ``dice``."""

    def __init__(self, model: nn.Module, profile: Profile):
        super().__init__()
        self.model = model
        self.loss = CombinedLoss(profile.focal_alpha, profile.focal_gamma)
        self.learning_rate, self.schedule = profile.learning_rate, profile.schedule

    def training_step(self, batch, batch_index):
        images, masks = batch
        loss = training.check_finite(self.loss(self.model(images), masks), batch_index)
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
        optimizer = training.adam(self.model.parameters(), self.learning_rate)
        if self.schedule == "constant":
            return optimizer
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, n_steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build(encoder: str, attention: str | None, profile: Profile) -> nn.Module:
    """The U-Net of a profile, before training."""
    model = unet(encoder, attention, profile.encoder_depth, find_weights(encoder, profile).load(), profile.seed)
    nn.init.constant_(model.segmentation_head[0].bias, math.log(LESION_PRIOR / (1 - LESION_PRIOR)))
    return model


def fit(
    images: tuple[np.ndarray, np.ndarray],
    masks: tuple[np.ndarray, np.ndarray],
    encoder: str,
    attention: str | None,
    profile: Profile,
    description: str = "U-Net",
) -> dict[str, np.ndarray]:
    """Train one model for one lesion.

    Parameters
    ----------
    images : two ndarrays of uint8, shape (n, 3, h, w)
        Of the training and of the validation split.
    masks : two ndarrays of bool, shape (n, h, w)
    encoder : str
        One of ``config.ENCODERS``.
    attention : {"scse", None}
    profile : Profile
    description : str
        Label of the progress bar.

    Returns
    -------
    dict of str to ndarray
        ``state.*``: parameters of the epoch with the best validation Dice; ``history``: one row per epoch with
        epoch, training loss and validation Dice.

    Raises
    ------
    ValueError
        If no training image has a pixel of the lesion, or the loss is not finite.
    """
    if not masks[0].any():
        raise ValueError(f"{description}: none of the {len(masks[0])} training images has a lesion pixel to learn from")
    patches = Patches(
        images[0],
        masks[0],
        size_px=profile.patch_size_px,
        per_image=profile.patches_per_image,
        batch_size=profile.batch_size,
        lesion_share=profile.lesion_patches,
        seed=profile.seed,
    )
    module = Segmentation(build(encoder, attention, profile), profile)
    history = training.fit(
        module,
        patches,
        FullImages(images[1], masks[1]),
        profile,
        monitor="dice",
        epochs=profile.epochs,
        description=description,
    )
    state = {f"state.{name}": value.cpu().numpy() for name, value in module.model.state_dict().items()}
    return {**state, "history": history[["epoch", "train_loss", "dice"]].to_numpy()}


def predict(
    trained: dict[str, np.ndarray], images: np.ndarray, encoder: str, attention: str | None, profile: Profile
) -> np.ndarray:
    """Apply a model of :func:`fit` to whole images.

    Parameters
    ----------
    trained : dict
        What :func:`fit` returned.
    images : ndarray of uint8, shape (n, 3, h, w)
        Sides divisible by 32.

    Returns
    -------
    ndarray of bool, shape (n, h, w)
        Pixels of a probability above one half.
    """
    with torch.device("meta"):  # no memory and no random numbers for parameters that are replaced at once
        model = unet(encoder, attention, profile.encoder_depth, None, profile.seed)
    names = [name for name in trained if name.startswith("state.")]
    state = {name.removeprefix("state."): torch.from_numpy(trained[name]) for name in names}
    model.load_state_dict(state, assign=True)
    device = training.prepare(profile)
    model.to(device, memory_format=memory_format(encoder)).eval()
    masks = np.zeros((len(images), *images.shape[2:]), dtype=bool)
    with torch.inference_mode():
        for rows in image_batches(images):
            logits = model(normalize(torch.from_numpy(as_float(images[rows]))).to(device))
            masks[rows] = (logits[:, 0] > 0).cpu().numpy()
    return masks
