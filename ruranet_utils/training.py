"""One seeded training for both kinds of model (segmentation, classification), by Lightning."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Collection

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping
from tqdm import tqdm

from ruranet_utils import release_memory
from ruranet_utils.backbones import seeded
from ruranet_utils.config import Profile
from ruranet_utils.progress import progress

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class BestWeights(pl.Callback):
    """Keep the weights of the epoch with the highest validation score, and one row of history per epoch.

    Parameters
    ----------
    monitor : str
        Name of the logged score.
    bar : tqdm
        Advanced by one at the end of every epoch.
    """

    def __init__(self, monitor: str, bar: tqdm):
        self.monitor, self.bar = monitor, bar
        self.rows: list[dict] = []
        self.state: dict | None = None

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


def fit(
    module: pl.LightningModule,
    train: Collection,
    validation: Collection,
    profile: Profile,
    *,
    monitor: str,
    epochs: int,
    description: str,
) -> pd.DataFrame:
    """Train with early stopping and leave the best epoch's weights in ``module.model``.

    Parameters
    ----------
    module : LightningModule
        Holds the network as ``model`` and logs ``train_loss`` and ``monitor`` once per epoch.
    train, validation : collection
        Give the batches of one epoch each time they are iterated.
    profile : Profile
        Its ``device``, ``threads``, ``patience`` and ``seed`` (of dropout); torch's global state is left as it was.
    monitor : str
        Validation score, higher is better.
    epochs : int
        Most epochs; early stopping may end before.
    description : str
        Label of the progress bar.

    Returns
    -------
    DataFrame
        One row per epoch: ``epoch``, ``train_loss`` and what the module logs.

    Raises
    ------
    ValueError
        If there is no validation image, or the loss is not finite.
    """
    if not len(validation):
        raise ValueError(
            f"{description}: no validation image to choose the epoch by; take more images or another split"
        )
    prepare(profile)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with (
        progress(total=epochs, desc=description, unit="epoch") as bar,
        seeded(profile.seed),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        best = BestWeights(monitor, bar)
        trainer = pl.Trainer(
            accelerator=profile.device,
            devices=1,
            max_epochs=epochs,
            callbacks=[best, EarlyStopping(monitor, patience=profile.patience, mode="max")],
            deterministic="warn",  # a few layers have no deterministic gradient on a GPU
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, train, validation)
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
    del trainer
    release_memory()  # the optimizer's states, before the model is applied
    return pd.DataFrame(best.rows)


def adam(parameters, learning_rate: float) -> torch.optim.Adam:
    """Adam as in the paper (Section 3.1): beta of 0.9 and 0.999."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.999), fused=True)


def check_finite(loss: torch.Tensor, batch: int) -> torch.Tensor:
    """Pass a loss on, or stop with the number of the batch that broke it."""
    if not torch.isfinite(loss):
        raise ValueError(
            f"the loss became {loss.item()} in batch {batch}: lower the learning rate or look at its images"
        )
    return loss


def prepare(profile: Profile) -> torch.device:
    """Set torch's threads to those of the profile and return its device; ``"auto"`` is the GPU where there is one."""
    torch.set_num_threads(profile.threads)
    if profile.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(profile.device)
