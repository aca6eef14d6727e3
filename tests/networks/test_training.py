"""The one training loop: it stops early, keeps the best epoch, goes on after a kill and spares the global state."""

import time
from dataclasses import replace

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from torch import nn

from ruranet_utils.networks import training
from ruranet_utils.networks.device import Plan, device_settings, plan, prepare
from ruranet_utils.networks.training import check_finite, fit
from ruranet_utils.profiles import get_profile


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
        loss = check_finite(-self.model(batch).mean() + self.loss, f"batch {batch_index}")
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


def run(module, epochs=8, patience=2, seed=0, checkpoint=None):
    profile = get_profile("synthetic", patience=patience, seed=seed)
    more = {"monitor": "score", "epochs": epochs, "description": "test", "checkpoint": checkpoint}
    return fit(module, OneBatch(), OneBatch(), profile, **more)


class Killed(Exception):
    pass


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
    scores = [history.drop(columns=["time_s", "waited_s"]) for history in histories]
    pd.testing.assert_frame_equal(scores[0], scores[1])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(loss):
    with pytest.raises(ValueError, match=f"the loss became {loss} in batch 0: lower the learning rate"):
        run(Scripted([0.0], loss))
    assert check_finite(torch.tensor(3.0), "batch 1") == 3


class Steps(Scripted):
    """A small network whose every step depends on dropout, on Adam's memory and on a schedule; may be killed."""

    def __init__(self, killed_in=None):
        super().__init__([0.1, 0.5, 0.3, 0.6, 0.4, 0.2])
        self.model = nn.Linear(3, 1)
        self.killed_in = killed_in

    def training_step(self, batch, batch_index):
        if self.current_epoch == self.killed_in:
            raise Killed
        return self.model(self.dropout(torch.arange(3.0))).square().sum()

    def configure_optimizers(self):
        optimizer = training.adam(self.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def steps(**options) -> Steps:
    torch.manual_seed(0)
    return Steps(**options)


@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(killed_in, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    undisturbed, resumed = steps(), steps()
    expected = run(undisturbed, epochs=6, patience=5)
    with pytest.raises(Killed):
        run(steps(killed_in=killed_in), epochs=6, patience=5, checkpoint=tmp_path / "x.ckpt")
    done = []
    resumed.on_train_epoch_start = lambda: done.append(resumed.current_epoch)
    history = run(resumed, epochs=6, patience=5, checkpoint=tmp_path / "x.ckpt")
    assert done == list(range(killed_in, 6))
    assert torch.equal(resumed.model.weight, undisturbed.model.weight)
    times = ["time_s", "waited_s"]
    pd.testing.assert_frame_equal(history.drop(columns=times), expected.drop(columns=times))


def test_a_resumed_training_is_as_patient_as_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    killed, undisturbed, resumed = steps(killed_in=5), steps(), steps()
    killed.scores = undisturbed.scores = resumed.scores = [0.1, 0.5, 0.3, 0.6, 0.4, 0.2, 0.9]
    with pytest.raises(Killed):
        run(killed, epochs=7, patience=2, checkpoint=tmp_path / "x.ckpt")
    assert len(run(undisturbed, epochs=7, patience=2)) == 6
    assert len(run(resumed, epochs=7, patience=2, checkpoint=tmp_path / "x.ckpt")) == 6


def test_a_damaged_checkpoint_is_said_and_the_training_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    file = tmp_path / "x.ckpt"
    file.write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"x\.ckpt is damaged, the training starts anew"):
        assert len(run(steps(), epochs=6, patience=5, checkpoint=file)) == 6


def test_quick_epochs_write_no_checkpoint(tmp_path):
    run(steps(), checkpoint=tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())


def test_the_time_waited_for_data_is_part_of_the_epoch():
    class Slow(OneBatch):
        def __iter__(self):
            time.sleep(0.3)
            yield from super().__iter__()

    more = {"monitor": "score", "epochs": 2, "description": "test"}
    history = fit(Scripted([0.1, 0.2]), Slow(), OneBatch(), get_profile("synthetic"), **more)
    assert (history["waited_s"] > 0.29).all() and (history["time_s"] > history["waited_s"]).all()


def test_tensorboard_gets_the_curves(tmp_path, monkeypatch):
    monkeypatch.setenv("RURANET_TENSORBOARD", str(tmp_path))
    run(Scripted([0.1, 0.2]), epochs=2)
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_precision_is_mixed_only_where_it_is_fast(monkeypatch):
    auto = get_profile("open", device="cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert plan(auto).precision == "bf16-mixed" and plan(replace(auto, precision="float32")).precision == "32-true"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert plan(auto).precision == "32-true" and plan(replace(auto, precision="bfloat16")).precision == "bf16-mixed"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert plan(auto).precision == "32-true"
    assert plan(get_profile("synthetic")).precision == "32-true"


def test_a_gpu_is_taken_by_one_process_in_mixed_precision_and_named_in_the_key(monkeypatch):
    auto = get_profile("open", workers=3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (plan(auto).device.type, plan(auto).name, plan(auto).workers) == ("cpu", "cpu", 3)
    on_processor = device_settings(auto, with_precision=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert plan(auto) == Plan(torch.device("cuda"), "NVIDIA H100", "bf16-mixed", 1)
    assert device_settings(auto, with_precision=True) == {
        "threads": 1,
        "device": "NVIDIA H100",
        "precision": "bf16-mixed",
    }
    assert device_settings(auto, with_precision=True) != on_processor
    assert plan(replace(auto, precision="float32")).precision == "32-true"
    assert plan(replace(auto, device="cpu")).device.type == "cpu"


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
