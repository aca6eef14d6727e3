"""One seeded training for both kinds of model (segmentation, classification), by Lightning."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping
from tqdm.auto import tqdm

from ruranet_utils.backbones import seeded

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class BestWeights(pl.Callback):
    """Keep the weights of the epoch with the highest validation score, and one row of history per epoch.

    Parameters
    ----------
    monitor : str
        Name of the logged score.
    description : str
        Label of the progress bar.
    epochs : int
        Length of the progress bar.
    """

    def __init__(self, monitor: str, description: str, epochs: int):
        self.monitor = monitor
        self.rows: list[dict] = []
        self.state: dict | None = None
        self.bar = tqdm(total=epochs, desc=description, unit="epoch", leave=False)

    def on_train_epoch_end(self, trainer, module):
        """Runs after validation: compare, remember, show."""
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not self.rows or row[self.monitor] > max(past[self.monitor] for past in self.rows):
            self.state = copy.deepcopy(module.model.state_dict())
        self.rows.append({"epoch": trainer.current_epoch + 1, **row})
        self.bar.set_postfix({self.monitor: f"{row[self.monitor]:.3f}"})
        self.bar.update()

    def on_fit_end(self, trainer, module):
        """Put the best weights back."""
        module.model.load_state_dict(self.state)
        self.bar.close()


def fit(
    module: pl.LightningModule,
    train: Iterable,
    validation: Iterable,
    *,
    monitor: str,
    epochs: int,
    patience: int,
    device: str,
    seed: int,
    description: str,
) -> pd.DataFrame:
    """Train with early stopping and leave the best epoch's weights in ``module.model``.

    Parameters
    ----------
    module : LightningModule
        Holds the network as ``model`` and logs ``train_loss`` and ``monitor`` once per epoch.
    train, validation : iterable
        Give the batches of one epoch each time they are iterated.
    monitor : str
        Validation score, higher is better.
    epochs, patience : int
        Most epochs, and epochs without a better score before stopping.
    device : {"cpu", "cuda", "auto"}
        Where to train.
    seed : int
        Seeds dropout; torch's global state is left as it was.
    description : str
        Label of the progress bar.

    Returns
    -------
    DataFrame
        One row per epoch: ``epoch``, ``train_loss`` and what the module logs.

    Raises
    ------
    ValueError
        If the loss is not finite.
    """
    best = BestWeights(monitor, description, epochs)
    trainer = pl.Trainer(
        accelerator=device,
        devices=1,
        max_epochs=epochs,
        callbacks=[best, EarlyStopping(monitor, patience=patience, mode="max")],
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        trainer.fit(module, train, validation)
    return pd.DataFrame(best.rows)


def check_finite(loss: torch.Tensor, batch: int) -> torch.Tensor:
    """Pass a loss on, or stop with the number of the batch that broke it."""
    if not torch.isfinite(loss):
        raise ValueError(
            f"the loss became {float(loss)} in batch {batch}: lower the learning rate or look at its images"
        )
    return loss


def resolve_device(device: str) -> torch.device:
    """``"auto"`` is the GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
