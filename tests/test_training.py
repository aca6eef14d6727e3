"""The one training loop: it stops early, keeps the best epoch and draws nothing from the global state."""

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from torch import nn

from ruranet_utils.config import get_profile
from ruranet_utils.training import check_finite, fit, prepare


class Scripted(pl.LightningModule):
    """Counts its training steps in its only weight and is given a score for each epoch."""

    def __init__(self, scores, loss=0.0):
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.scores, self.loss, self.drawn = scores, loss, []
        nn.init.zeros_(self.model.weight)

    def training_step(self, batch, batch_index):
        self.drawn.append(self.dropout(torch.ones(64)))
        loss = check_finite(-self.model(batch).mean() + self.loss, batch_index)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=1)
        return loss

    def validation_step(self, batch, batch_index):
        self.log("score", self.scores[self.current_epoch], batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class OneBatch:
    def __len__(self):
        return 1

    def __iter__(self):
        yield torch.ones(1, 1)


def run(module, epochs=8, patience=2, seed=0):
    profile = get_profile("synthetic", patience=patience, seed=seed)
    return fit(module, OneBatch(), OneBatch(), profile, monitor="score", epochs=epochs, description="test")


@pytest.mark.parametrize(
    ("scores", "best", "n_epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4], 4, 4),
        ([0.1, 0.5, 0.4, 0.5, 0.9], 2, 4),
        ([0.0, 0.0, 0.0, 0.9], 1, 3),
        ([0.3, 0.2, 0.4, 0.3, 0.35, 0.9], 3, 5),
    ],
    ids=["rising", "first of equals", "never better than the start", "stops after two without a better one"],
)
def test_training_stops_early_and_leaves_the_best_epoch(scores, best, n_epochs):
    module = Scripted(scores)
    history = run(module, epochs=len(scores))
    assert history["epoch"].tolist() == list(range(1, n_epochs + 1))
    assert history["score"].tolist() == pytest.approx(scores[:n_epochs])
    assert module.model.weight.item() == best  # one step of size 1 in each epoch
    assert history["train_loss"].tolist() == [-float(epoch) for epoch in range(n_epochs)]


def test_the_seed_decides_dropout_and_the_global_state_is_left_alone():
    modules, before = [Scripted([0.0]) for _ in range(3)], torch.random.get_rng_state()
    histories = [run(module, epochs=1, seed=seed) for module, seed in zip(modules, (1, 1, 2), strict=True)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    first, again, other = (module.drawn[0] for module in modules)
    assert torch.equal(first, again) and not torch.equal(first, other)
    pd.testing.assert_frame_equal(histories[0], histories[1])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(loss):
    with pytest.raises(ValueError, match=f"the loss became {loss} in batch 0: lower the learning rate"):
        run(Scripted([0.0], loss))
    assert check_finite(torch.tensor(3.0), 1) == 3


def test_without_a_validation_image_no_epoch_can_be_chosen():
    with pytest.raises(ValueError, match="edema: no validation image to choose the epoch by"):
        fit(Scripted([0.0]), OneBatch(), [], get_profile(), monitor="score", epochs=1, description="edema")


def test_a_profile_sets_the_threads():
    prepare(get_profile(threads=2))
    assert torch.get_num_threads() == 2
    prepare(get_profile(threads=1))
    assert torch.get_num_threads() == 1


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    auto, cpu = get_profile(device="auto"), get_profile(device="cpu")
    assert prepare(auto) == torch.device("cuda") and prepare(cpu) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert prepare(auto) == torch.device("cpu")
