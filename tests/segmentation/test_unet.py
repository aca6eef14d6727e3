"""One U-Net: the loss of Eq. 1, its training, and what it predicts."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partialmethod
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from ruranet_utils.networks import training
from ruranet_utils.networks.backbones import normalize
from ruranet_utils.profiles import ENCODERS
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.patches import UNKNOWN, Annotated
from ruranet_utils.segmentation.training import CombinedLoss, JointLoss, Segmentation, fit, fit_joint
from ruranet_utils.segmentation.unet import build, probabilities, restore


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())


# The loss


def combined_loss(logits, masks, alpha, gamma):
    """Eq. 1 pixel by pixel, averaged, plus Dice over the batch."""
    focal, overlap, total = [], 0.0, 0.0
    for logit, mask in zip(logits, masks, strict=True):
        p = 1 / (1 + np.exp(-logit))
        p_t, alpha_t = (p, alpha) if mask else (1 - p, 1 - alpha)
        focal.append(-alpha_t * (1 - p_t) ** gamma * np.log(p_t))
        overlap, total = overlap + p * mask, total + p + mask
    return np.mean(focal) + (1 - 2 * overlap / total if any(masks) else 0)


def test_combined_loss_by_hand():
    # Probabilities 1/2, 3/4 and 1/4; the first and the last pixel are lesion.
    logits = torch.tensor([0.0, np.log(3), -np.log(3), 0.0]).view(1, 1, 2, 2)
    masks = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
    dice_loss = 1 - 2 * (1 / 2 + 1 / 2) / (1 / 2 + 3 / 4 + 1 / 4 + 1 / 2 + 2)
    lesion, wrong, right = 0.25 * 0.5**2 * np.log(2), 0.75 * 0.75**2 * np.log(4), 0.75 * 0.25**2 * np.log(4 / 3)
    expected = dice_loss + (2 * lesion + wrong + right) / 4
    assert CombinedLoss(0.25, 2)(logits, masks).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 2.0), (0.5, 0.0)])
@pytest.mark.parametrize("share", [0.3, 0.0], ids=["lesions", "no lesion"])
def test_combined_loss_agrees_with_a_loop_and_with_torchvision(alpha, gamma, share):
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(0, 3, size=(2, 1, 5, 6)), (rng.random((2, 1, 5, 6)) < share).astype(float)
    loss = CombinedLoss(alpha, gamma)(torch.tensor(logits), torch.tensor(masks)).item()
    assert loss == pytest.approx(combined_loss(logits.ravel(), masks.ravel(), alpha, gamma), rel=1e-5)
    focal = sigmoid_focal_loss(torch.tensor(logits), torch.tensor(masks), alpha, gamma, reduction="mean").item()
    if not share:
        assert loss == pytest.approx(focal, rel=1e-5)


def test_combined_loss_rewards_the_truth():
    masks = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    loss = CombinedLoss(0.25, 2)
    assert loss(40 * masks - 20, masks).item() == pytest.approx(0, abs=1e-6)
    assert loss(20 - 40 * masks, masks).item() > 1


def test_the_joint_loss_is_the_mean_dice_loss_and_five_times_the_focal_loss_of_what_is_known():
    """Three lesions of two patches; the second is not known in the first patch, the third shown by none."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(2, 3, 4, 5))
    masks = (rng.random((2, 3, 4, 5)) < 0.4).astype(float)
    masks[:, 2] = 0
    masks[0, 1] = UNKNOWN
    dice_losses, focal = [], []
    for lesion in range(3):
        overlap = total = 0.0
        for x, y in zip(logits[:, lesion].ravel(), masks[:, lesion].ravel(), strict=True):
            if y != UNKNOWN:
                p = 1 / (1 + np.exp(-x))
                p_t, alpha_t = (p, 0.75) if y else (1 - p, 0.25)
                focal.append(-alpha_t * (1 - p_t) ** 2 * np.log(p_t))
                overlap, total = overlap + p * y, total + p + y
        dice_losses.append(1 - 2 * overlap / total if (masks[:, lesion] == 1).any() else 0)
    expected = np.mean(dice_losses) + 5 * np.mean(focal)
    assert JointLoss(0.75, 2, 5)(torch.tensor(logits), torch.tensor(masks)).item() == pytest.approx(expected, rel=1e-5)


# One network


def data_rows(data, rows):
    return Annotated(data.images[rows], data.masks[rows], data.aspect[rows])


@pytest.fixture(scope="module")
def squares():
    """Dim noise with one bright square, which is the lesion: training and validation."""
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 90, size=(12, 3, 64, 64), dtype=np.uint8), np.zeros((12, 64, 64), bool)
    for mask, (row, column), side in zip(masks, rng.integers(0, 40, (12, 2)), rng.integers(12, 24, 12), strict=True):
        mask[row : row + side, column : column + side] = True
    images = np.where(masks[:, None], images + 150, images).astype(np.uint8)
    data = Annotated(images, masks[:, None], np.ones(12))
    return data_rows(data, slice(8)), data_rows(data, slice(8, None))


@pytest.fixture(scope="module")
def easy(tiny):
    return replace(tiny, epochs=5, patches_per_image=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def trained(squares, easy):
    return fit(*squares, "mobilenet_v2", "scse", easy)


def test_fit_learns_a_bright_square_and_keeps_its_best_epoch(trained, squares, easy):
    predicted = probabilities(restore(trained, "mobilenet_v2", "scse", easy), squares[1].images, easy) > 0.5
    epochs, losses, scores = trained["history"].T
    assert epochs.tolist() == list(range(1, len(epochs) + 1))
    assert dice(predicted, squares[1].masks) == pytest.approx(scores.max(), abs=1e-6)
    assert scores.max() > 0.8 and losses[-1] < losses[0]


def test_probabilities_are_those_of_the_trained_network(trained, squares, easy):
    images = squares[1].images
    restored = restore(trained, "mobilenet_v2", "scse", easy)
    found = probabilities(restored, images, easy)
    assert found.shape == (4, 1, 64, 64) and found.dtype == np.float32
    model = build("mobilenet_v2", "scse", easy).eval()
    state = {name: torch.from_numpy(trained[f"state.{name}"]) for name in model.state_dict()}
    model.load_state_dict(state)
    with torch.no_grad():
        for row, image in enumerate(images):
            probability = model(normalize(torch.from_numpy(image[None] / np.float32(255)))).sigmoid()
            np.testing.assert_allclose(found[row], probability[0], atol=1e-5)
    np.testing.assert_allclose(probabilities(restored, images[::-1], easy)[::-1], found, atol=1e-5)


def test_fit_repeats_to_the_byte_and_leaves_the_global_state_alone(squares, easy):
    short = replace(easy, epochs=1)
    before = torch.random.get_rng_state()
    first, again = (fit(*squares, "resnet18", None, short) for _ in range(2))
    assert first.keys() == again.keys()
    assert all(first[name].tobytes() == again[name].tobytes() for name in first if name != "speed")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fit_needs_a_lesion_and_a_finite_loss(squares, easy):
    nothing = replace(squares[0], masks=np.zeros_like(squares[0].masks))
    with pytest.raises(ValueError, match="edema: none of the 8 training images has a lesion pixel to learn from"):
        fit(nothing, squares[1], "mobilenet_v2", "scse", easy, description="edema")
    with pytest.raises(ValueError, match=r"the loss became nan in batch \d+ of epoch 0: lower the learning rate"):
        fit(*squares, "mobilenet_v2", "scse", replace(easy, learning_rate=1e30))


@pytest.fixture(scope="module")
def two_kinds(squares):
    """The bright squares, and the darkest quarter of the image as a second lesion, known in the first six alone."""
    data = squares[0]
    corner = np.zeros_like(data.masks)
    corner[:, :, :16, :16] = True
    images = np.where(corner, 0, data.images).astype(np.uint8)
    masks = np.concatenate([data.masks, corner], axis=1)
    known = np.ones((8, 2), bool)
    known[6:, 1] = False
    return Annotated(images, masks & known[..., None, None], np.ones(8), known)


@pytest.mark.parametrize("weight_average", [0.0, 0.7])
def test_one_network_learns_two_lesions(two_kinds, easy, weight_average):
    joint = replace(
        easy, masks="joint", epochs=8, lesion_draw=(0.5, 0.5), weight_average=weight_average, decoder_width=64
    )
    trained = fit_joint(two_kinds, "mobilenet_v2", "scse", joint)
    found = probabilities(restore(trained, "mobilenet_v2", "scse", joint), two_kinds.images[:6], joint) > 0.5
    assert found.shape == (6, 2, 64, 64)
    assert min(dice(found[:, lesion], two_kinds.masks[:6, lesion]) for lesion in (0, 1)) > 0.6
    assert trained["history"].shape == (8, 3) and np.isnan(trained["history"][:, 2]).all()
    nothing = replace(two_kinds, masks=np.zeros_like(two_kinds.masks))
    with pytest.raises(ValueError, match="none of the 8 training images has a lesion pixel"):
        fit_joint(nothing, "mobilenet_v2", "scse", joint)


def test_weights_are_averaged_over_the_steps_and_forget_where_they_started(two_kinds, easy, monkeypatch):
    """Parameters and batch normalization's statistics are averages of those after each step, weighed by its age."""
    seen, names = [], ("segmentation_head.0.bias", "encoder.features.0.1.running_var")
    update = training.MovingAverage.on_train_batch_end

    def remember(callback, trainer, module, *more):
        state = module.model.state_dict()
        seen.append([state[name].numpy().copy() for name in names])
        update(callback, trainer, module, *more)

    monkeypatch.setattr(training.MovingAverage, "on_train_batch_end", remember)
    joint = replace(easy, masks="joint", epochs=2, lesion_draw=(0.5, 0.5), weight_average=0.9)
    trained = fit_joint(two_kinds, "mobilenet_v2", "scse", joint)
    assert len(seen) == 8
    weights = 0.9 ** np.arange(8)[::-1]
    for place, name in enumerate(names):
        expected = np.average([values[place] for values in seen], axis=0, weights=weights)
        np.testing.assert_allclose(trained[f"state.{name}"], expected, rtol=1e-4, atol=1e-6)


def fit_with_checkpoints(train, validation, encoder, attention, profile, checkpoint):
    training.CHECKPOINT_EVERY_S = 0
    fit(train, validation, encoder, attention, profile, checkpoint=checkpoint)


def test_a_killed_fit_ends_with_the_bytes_of_an_undisturbed_one(squares, easy, trained, tmp_path):
    """The process is killed for good (SIGKILL) after its first checkpoint, with Adam and the one-cycle under way."""
    checkpoint = tmp_path / "unet.ckpt"
    process = multiprocessing.get_context("spawn").Process(
        target=fit_with_checkpoints, args=(*squares, "mobilenet_v2", "scse", easy, checkpoint)
    )
    process.start()
    while not checkpoint.exists() and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL and checkpoint.exists()
    assert 0 < torch.load(checkpoint, weights_only=True)["epoch"] + 1 < easy.epochs
    resumed = fit(*squares, "mobilenet_v2", "scse", easy, checkpoint=checkpoint)
    assert resumed.keys() == trained.keys()
    assert all(resumed[name].tobytes() == trained[name].tobytes() for name in trained if name != "speed")


def test_too_large_a_batch_is_halved_once(squares, easy, monkeypatch, tmp_path):
    sizes, short = [], replace(easy, epochs=1, batch_size=8)
    step = Segmentation.training_step

    def full(module, batch, batch_index, limit=4):
        sizes.append(len(batch[0]))
        if len(batch[0]) > limit:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return step(module, batch, batch_index)

    monkeypatch.setattr(Segmentation, "training_step", full)
    with pytest.warns(UserWarning, match="edema: out of memory with batches of 8, now of 4"):
        found = fit(*squares, "mobilenet_v2", "scse", short, description="edema", checkpoint=tmp_path / "x.ckpt")
    assert sizes == [8, 4, 4, 4, 4] and found["history"].shape == (1, 3)
    monkeypatch.setattr(Segmentation, "training_step", partialmethod(full, limit=1))
    with pytest.warns(UserWarning, match="now of 4"), pytest.raises(RuntimeError, match="can't allocate"):
        fit(*squares, "mobilenet_v2", "scse", short)


def test_mixed_precision_learns_the_same(squares, easy, trained):
    mixed = fit(*squares, "mobilenet_v2", "scse", replace(easy, precision="bfloat16"))
    assert not np.array_equal(mixed["history"], trained["history"])
    assert mixed["history"][:, 2].max() > 0.8
    assert all(mixed[name].dtype == trained[name].dtype for name in trained)


def test_large_images_are_predicted_in_overlapping_tiles(trained, squares, easy):
    tile, parts = squares[1].images, [np.concatenate(tuple(rows), axis=-1) for rows in (squares[1].images[:2],)]
    large = np.concatenate([parts[0], parts[0]], axis=-2)[None]
    model = restore(trained, "mobilenet_v2", "scse", easy)
    found = probabilities(model, large, easy)
    assert found.shape == (1, 1, 128, 128)
    truth = np.tile(np.concatenate(tuple(squares[1].masks[:2, 0]), axis=-1), (2, 1))
    assert dice(found[0, 0] > 0.5, truth) > 0.7
    whole = probabilities(model, large, replace(easy, image_size_px=128))
    assert not np.allclose(whole, found)
    single = probabilities(model, tile[:1], easy)
    np.testing.assert_allclose(found[..., :8, :8], single[..., :8, :8], atol=0.05)


@pytest.mark.parametrize("side_px", [(64, 50), (33, 64)])
def test_sides_must_be_divisible_by_two_to_the_depth(trained, easy, side_px):
    with pytest.raises(ValueError, match=rf"divisible by 8, got {side_px[0]} x {side_px[1]}"):
        probabilities(restore(trained, "mobilenet_v2", "scse", easy), np.zeros((1, 3, *side_px), np.uint8), easy)


def test_parameters_of_another_architecture_are_refused(trained, easy):
    with pytest.raises(ValueError, match="not the parameters of a U-Net with resnet18"):
        restore(trained, "resnet18", "scse", easy)
    with pytest.raises(ValueError, match="not the parameters of a U-Net with mobilenet_v2"):
        restore(trained, "mobilenet_v2", None, easy)


def test_an_unknown_encoder_is_answered_with_the_ten(squares, easy):
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet19'; valid: resnet18, .*densenet201") as error:
        fit(*squares, "resnet19", "scse", easy)
    assert all(encoder in str(error.value) for encoder in ENCODERS)


def test_every_pixel_starts_with_the_probability_of_a_rare_lesion(tiny):
    model = build("resnet18", "scse", tiny)
    assert model.segmentation_head[0].bias.sigmoid().item() == pytest.approx(unet.LESION_PRIOR)


def test_one_cycle_rises_for_a_fifth_of_the_steps_and_never_exceeds_the_rate(tiny):
    module = Segmentation(torch.nn.Conv2d(3, 1, 1), replace(tiny, schedule="one_cycle", learning_rate=0.01))
    module._trainer = SimpleNamespace(estimated_stepping_batches=20.0)
    configured = module.configure_optimizers()
    optimizer, schedule, rates = configured["optimizer"], configured["lr_scheduler"]["scheduler"], []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert configured["lr_scheduler"]["interval"] == "step"
    assert np.argmax(rates) == 3 and max(rates) == pytest.approx(0.01) and rates[-1] < 1e-4
