"""Supervised baselines: a backbone fine-tuned for DME yes or no (Section 3.3, Table 3)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import nn
from torchmetrics.functional.classification import binary_auroc

from ruranet_utils import backbones, features, training
from ruranet_utils.backbones import classifier, find_weights, normalize
from ruranet_utils.cohort import Cohort
from ruranet_utils.config import Profile
from ruranet_utils.features import resize
from ruranet_utils.metrics import classification_scores, ratio_interval
from ruranet_utils.store import Store


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
    """

    images: torch.Tensor
    labels: np.ndarray
    batch_size: int
    seed: int | None = None
    iteration: int = 0

    def __len__(self) -> int:
        # Batch normalization needs two images: a last batch of one is joined to the others.
        return min(len(self.labels), max(1, len(self.labels) // self.batch_size))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = np.arange(len(self.labels))
        flips = np.zeros((len(order), 2), dtype=bool)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.iteration])
            self.iteration += 1
            order, flips = rng.permutation(order), rng.random(flips.shape) < 0.5
        for chosen in np.array_split(order, len(self)):
            images = [self.images[i].flip([axis + 1 for axis in np.flatnonzero(flips[i])]) for i in chosen]
            yield normalize(torch.stack(images)), torch.from_numpy(self.labels[chosen]).float()


class Classification(pl.LightningModule):
    """Adam on binary cross-entropy; logs ``train_loss`` and the validation ``auc``."""

    def __init__(self, model: nn.Module, learning_rate: float):
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.loss = nn.BCEWithLogitsLoss()

    def training_step(self, batch, batch_index):
        images, labels = batch
        loss = training.check_finite(self.loss(self.model(images)[:, 0], labels), batch_index)
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


def predict_test(cohort: Cohort, profile: Profile, store: Store) -> dict[str, np.ndarray]:
    """Probability of DME of each test image, from the epoch of each classifier with the best validation AUC.

    Parameters
    ----------
    cohort : Cohort
        With labels and splits.
    profile : Profile
        Its ``classifiers``.
    store : Store

    Returns
    -------
    dict of str to ndarray of float32, shape (n_test,), in [0, 1]
        By backbone.
    """
    fields = ("seed", "threads", "device", "feature_size_px", "classifier_epochs", "patience", "batch_size")
    shared = {**profile.settings(*fields, "classifier_learning_rate"), "data": cohort.digest}
    jobs = {
        name: (
            {**shared, "backbone": name, "weights": find_weights(name, profile).digest},
            partial(_fit, cohort, name, profile),
        )
        for name in profile.classifiers
    }
    arrays = store.fetch_all("classifier", jobs, _CODE, profile.workers)
    return {name: arrays[name]["probability"] for name in profile.classifiers}


def table_3(cohort: Cohort, profile: Profile, store: Store) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Scores of every classifier of the profile on the test images, and their probabilities.

    Returns
    -------
    table : DataFrame
        ``backbone``, ``accuracy``, ``precision``, ``recall``, ``f1`` (of the positive class, at a probability of one
        half), ``auc``; ``accuracy_low``, ``accuracy_high`` (95 %, bootstrap over patients); ``n``; ``weights``.
    probabilities : dict of str to ndarray
        By backbone, shape (n_test,).
    """
    test, rows, probabilities = cohort.split("test"), [], predict_test(cohort, profile, store)
    for backbone, probability in probabilities.items():
        predicted = (probability > 0.5).astype(int)
        rng = np.random.default_rng(profile.seed)
        low, high = ratio_interval(predicted == test.labels, np.ones(len(test)), test.patients, rng)
        rows.append(
            {
                "backbone": backbone,
                **classification_scores(test.labels, predicted, probability),
                "accuracy_low": low,
                "accuracy_high": high,
                "n": len(test),
                "weights": find_weights(backbone, profile).origin,
            }
        )
    return pd.DataFrame(rows), probabilities


def _fit(cohort: Cohort, backbone: str, profile: Profile) -> dict[str, np.ndarray]:
    train, validation, test = (
        (resize(part.images, profile.feature_size_px), part.labels)
        for part in map(cohort.split, ("train", "val", "test"))
    )
    model = classifier(backbone, find_weights(backbone, profile).load(), profile.seed)
    module = Classification(model, profile.classifier_learning_rate)
    history = training.fit(
        module,
        ImageBatches(*train, profile.batch_size, profile.seed),
        ImageBatches(*validation, profile.batch_size),
        profile,
        monitor="auc",
        epochs=profile.classifier_epochs,
        description=backbone,
    )
    device = training.prepare(profile)
    model.to(device).eval()
    with torch.inference_mode():
        logits = torch.cat([model(images.to(device)) for images, _ in ImageBatches(*test, 16)])
    return {
        "probability": torch.sigmoid(logits[:, 0]).float().cpu().numpy(),
        "history": history[["epoch", "train_loss", "auc"]].to_numpy(),
    }


_CODE = [backbones, features, training, sys.modules[__name__]]
