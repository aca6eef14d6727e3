"""One classifier of Table 3: a backbone with one logit, fine-tuned on the images of a cohort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torchmetrics.functional.classification import binary_auroc

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.features.extract import resize
from ruranet_utils.networks import training
from ruranet_utils.networks.backbones import classifier, normalize
from ruranet_utils.networks.device import prepare
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import Profile


@dataclass
class ImageBatches:
    """Batches of normalized images with labels; in random order and randomly mirrored when ``seed`` is given.

    Parameters
    ----------
    images : Tensor, float32, shape (n, 3, h, w), in [0, 1]
    labels : ndarray of int, shape (n,)
    batch_size : int
    seed : int or None
        The k-th iteration depends on ``(seed, k)`` alone.
    epoch : int
        Number of the next iteration.
    """

    images: torch.Tensor
    labels: np.ndarray
    batch_size: int
    seed: int | None = None
    epoch: int = 0

    def __len__(self) -> int:
        # Batch normalization needs two images: a last batch of one is joined to the others.
        return min(len(self.labels), max(1, len(self.labels) // self.batch_size))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = np.arange(len(self.labels))
        flips = np.zeros((len(order), 2), dtype=bool)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            self.epoch += 1
            order, flips = rng.permutation(order), rng.random(flips.shape) < 0.5
        for chosen in np.array_split(order, len(self)):
            images = [self.images[i].flip([axis + 1 for axis in np.flatnonzero(flips[i])]) for i in chosen]
            yield normalize(torch.stack(images)), torch.from_numpy(self.labels[chosen]).float()


class Classification(pl.LightningModule):
    """Adam on binary cross-entropy; logs ``train_loss`` and the validation ``auc``.

    ``positive_weight`` is how often an image of class 1 counts.
    """

    def __init__(self, model: nn.Module, learning_rate: float, positive_weight: float = 1.0):
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(positive_weight))

    def training_step(self, batch, batch_index):
        images, labels = batch
        loss = training.check_finite(
            self.loss(self.model(images)[:, 0], labels), f"batch {batch_index} of epoch {self.current_epoch}"
        )
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self):
        self.seen = []

    def validation_step(self, batch, batch_index):
        images, labels = batch
        self.seen.append((self.model(images)[:, 0], labels))

    def on_validation_epoch_end(self):
        logits, labels = (torch.cat(part) for part in zip(*self.seen, strict=True))
        self.log("auc", binary_auroc(logits, labels.int()))

    def configure_optimizers(self):
        return training.adam(self.model.parameters(), self.learning_rate)


def fit(cohort: Cohort, backbone: str, profile: Profile, checkpoint: Path | None = None) -> dict[str, np.ndarray]:
    """Train on the training images, keep the epoch with the best validation AUC, predict the test images once.

    Both classes count alike in the loss, however many images each has.

    Parameters
    ----------
    cohort : Cohort
        With labels and splits.
    backbone : str
        One of ``profiles.CLASSIFIERS``.
    profile : Profile
    checkpoint : Path, optional
        As for :func:`ruranet_utils.networks.training.fit`.

    Returns
    -------
    dict of ndarray
        ``probability`` of DME, float32, shape (n_test,), in [0, 1]; ``history``, shape (n_epochs, 3): epoch, training
        loss, validation AUC.
    """
    train, validation, test = (
        (resize(part.images, profile.feature_size_px), part.labels)
        for part in map(cohort.split, ("train", "val", "test"))
    )
    model = classifier(backbone, find_weights(backbone, profile).load(), profile.seed)
    n_positive = int(train[1].sum())
    module = Classification(model, profile.classifier_learning_rate, (len(train[1]) - n_positive) / n_positive)
    history = training.fit(
        module,
        ImageBatches(*train, profile.batch_size, profile.seed),
        ImageBatches(*validation, profile.batch_size),
        profile,
        monitor="auc",
        epochs=profile.classifier_epochs,
        description=backbone,
        checkpoint=checkpoint,
    )
    device = prepare(profile)
    model.to(device).eval()
    with torch.inference_mode():
        logits = torch.cat([model(images.to(device)) for images, _ in ImageBatches(*test, 16)])
    return {
        "probability": torch.sigmoid(logits[:, 0]).float().cpu().numpy(),
        "history": history[["epoch", "train_loss", "auc"]].to_numpy(),
    }
