"""One seeded, resumable training loop for both kinds of model (segmentation, classification), on Lightning."""

from __future__ import annotations

import copy
import logging
import os
import time
import warnings
from collections.abc import Sized
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, WeightAveraging
from tqdm import tqdm

from ruranet_utils.networks.device import plan, prepare, seeded
from ruranet_utils.profiles import Profile
from ruranet_utils.storage.artefacts import write_atomically
from ruranet_utils.storage.machine import release_memory
from ruranet_utils.storage.progress import progress

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

# A checkpoint is three times the size of the model: repeating an epoch shorter than this takes less time than writing
# it.
CHECKPOINT_EVERY_S = 30.0


class MovingAverage(WeightAveraging):
    """Exponential moving average of the parameters and batch-normalization statistics, without their initial values.

    Lightning's own starts from the first step's values, which still weigh ``decay ** n_steps`` at the end: a quarter
    after 650 steps with 0.998. Instead, as in Adam's bias correction, the steps' weights are divided by their sum.

    Parameters
    ----------
    decay : float
        In (0, 1).
    device : torch.device
        The training device; Lightning would keep the average where the model was before.

    References
    ----------
    Kingma & Ba (2015), Adam, Section 3. arXiv:1412.6980
    """

    def __init__(self, decay: float, device: torch.device):
        @torch.no_grad()
        def average(so_far: list[torch.Tensor], now: list[torch.Tensor], n_before: torch.Tensor) -> None:
            if so_far[0].is_floating_point():
                torch._foreach_lerp_(so_far, now, (1 - decay) / (1 - decay ** (float(n_before) + 1)))
            else:  # batch normalization's count of batches
                torch._foreach_copy_(so_far, now)

        super().__init__(device, multi_avg_fn=average)


class Record(Checkpoint):
    """What a training run has achieved: the best epoch's weights, a row per epoch, and the state to resume after a
    kill.

    As a ``Checkpoint`` it runs after early stopping, whose state a checkpoint must hold.

    Parameters
    ----------
    monitor : str or None
        Name of the logged score, higher is better; ``None`` keeps the last epoch.
    seed : int
        Seed of dropout; each epoch is seeded anew, so that a resumed training run draws the same numbers as an
        uninterrupted one.
    checkpoint : Path or None
        Written at the end of an epoch, at most every ``CHECKPOINT_EVERY_S`` seconds.
    bar : tqdm
        Advances by one at the end of every epoch.
    """

    def __init__(self, monitor: str | None, seed: int, checkpoint: Path | None, bar: tqdm):
        self.monitor, self.seed, self.checkpoint, self.bar = monitor, seed, checkpoint, bar
        self.rows: list[dict] = []
        self.best: dict | None = None
        self.saved_at_s = time.perf_counter()

    def state_dict(self) -> dict:
        """What a checkpoint holds of this record."""
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state: dict) -> None:
        """Restore what a checkpoint holds."""
        self.rows, self.best = state["rows"], state["best"]
        self.bar.update(len(self.rows))

    def on_train_epoch_start(self, trainer, module):
        """Seed the epoch and start its clock."""
        torch.manual_seed(1000 * self.seed + trainer.current_epoch)
        self.epoch_start_s = self.ready_s = time.perf_counter()
        self.waited_s = 0.0

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        """The batch has arrived: add up how long the step waited for it."""
        self.waited_s += time.perf_counter() - self.ready_s

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        """The step is finished."""
        self.ready_s = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        """Runs after validation: compare, remember, display, save."""
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.monitor and (not self.rows or row[self.monitor] > max(past[self.monitor] for past in self.rows)):
            self.best = copy.deepcopy(module.model.state_dict())
        time_s = time.perf_counter() - self.epoch_start_s
        self.rows.append({"epoch": trainer.current_epoch + 1, **row, "time_s": time_s, "waited_s": self.waited_s})
        shown = self.monitor or "train_loss"
        self.bar.set_postfix({shown: f"{row[shown]:.3f}"})
        self.bar.update()
        if self.checkpoint and time.perf_counter() - self.saved_at_s >= CHECKPOINT_EVERY_S:
            write_atomically(self.checkpoint, trainer.save_checkpoint)
            self.saved_at_s = time.perf_counter()

    def on_fit_end(self, trainer, module):
        """Restore the best weights."""
        if self.monitor:
            module.model.load_state_dict(self.best)


def fit(
    module: pl.LightningModule,
    train: Sized,
    validation: Sized | None,
    profile: Profile,
    *,
    monitor: str | None,
    epochs: int,
    description: str,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Train with early stopping and leave the best epoch's weights in ``module.model``.

    Without validation, training runs for all epochs and keeps the last weights or, if the profile averages weights,
    their moving average.

    Parameters
    ----------
    module : LightningModule
        Holds the network as ``model`` and logs ``train_loss`` and ``monitor`` once per epoch.
    train, validation : iterable with a length
        Yield the batches of one epoch each time they are iterated. ``train.epoch`` counts the iterations.
        ``validation`` may be ``None``.
    profile : Profile
        Its ``device``, ``threads``, ``precision``, ``patience``, ``weight_average`` and ``seed``; torch's global state
        is left unchanged.
    monitor : str or None
        Validation score, higher is better; ``None`` if there is no validation.
    epochs : int
        Maximum number of epochs; early stopping may end training before.
    description : str
        Label of the progress bar.
    checkpoint : Path, optional
        File from which a killed training run resumes at its last epoch, with the same final weights. It is left in
        place.

    Returns
    -------
    DataFrame
        One row per epoch: ``epoch``, what the module logs, and the seconds ``time_s`` and ``waited_s`` (for data).

    Raises
    ------
    ValueError
        If there is no validation image, or the loss is not finite.
    """
    if validation is not None and not len(validation):
        raise ValueError(
            f"{description}: no validation image to choose the epoch by; take more images or another split"
        )
    prepare(profile)
    train.epoch = _epochs_done(checkpoint)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    filled, torch.utils.deterministic.fill_uninitialized_memory = (
        torch.utils.deterministic.fill_uninitialized_memory,
        False,  # every value is written before it is read, and filling costs a fifth of a step on a GPU
    )
    with (
        progress(total=epochs, desc=description, unit="epoch") as bar,
        seeded(profile.seed),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        record = Record(monitor, profile.seed, checkpoint, bar)
        trainer = pl.Trainer(
            accelerator=profile.device,
            devices=1,
            precision=plan(profile).precision,
            max_epochs=epochs,
            callbacks=[*_endings(monitor, profile), record],
            deterministic="warn",  # a few layers have no deterministic gradient on a GPU
            logger=_logger(description),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, train, validation, ckpt_path=checkpoint if train.epoch else None, weights_only=True)
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = filled
    del trainer
    release_memory()  # free the optimizer's states before the model is applied
    return pd.DataFrame(record.rows)


def _endings(monitor: str | None, profile: Profile) -> list[pl.Callback]:
    """What decides which weights are kept: the best epoch, or the moving average over all steps."""
    if monitor:
        return [EarlyStopping(monitor, patience=profile.patience, mode="max")]
    return [MovingAverage(profile.weight_average, prepare(profile))] if profile.weight_average else []


def _epochs_done(checkpoint: Path | None) -> int:
    """Epochs completed in a checkpoint; a damaged one is removed, and training starts over."""
    if not checkpoint or not checkpoint.exists():
        return 0
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] + 1
    except Exception as error:  # torch documents no exception class for broken files
        warnings.warn(f"{checkpoint.name} is damaged, the training starts anew: {error}", stacklevel=3)
        checkpoint.unlink()
        return 0


def _logger(description: str):
    """TensorBoard's logger, if ``RURANET_TENSORBOARD`` names a folder."""
    folder = os.environ.get("RURANET_TENSORBOARD")
    return pl.loggers.TensorBoardLogger(folder, name=description.replace(" · ", "_")) if folder else False


def adam(parameters, learning_rate: float) -> torch.optim.Adam:
    """Adam as in the paper (Section 2.1): beta 0.9 and 0.999."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.999), fused=True)


def check_finite(loss: torch.Tensor, batch: str) -> torch.Tensor:
    """Pass a loss through, or stop and name the batch that broke it."""
    if not torch.isfinite(loss):
        raise ValueError(f"the loss became {loss.item()} in {batch}: lower the learning rate or look at its images")
    return loss
