"""Tables 1 and 2: the loss of Eq. 1, the patches, one U-Net, and the choice among U-Nets."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from ruranet_utils import segmentation
from ruranet_utils.backbones import IMAGENET_MEAN, IMAGENET_STD, normalize
from ruranet_utils.cohort import Cohort
from ruranet_utils.config import LESIONS
from ruranet_utils.lesions import LesionSegmenter, best_encoders
from ruranet_utils.metrics import pixel_counts, segmentation_scores
from ruranet_utils.patches import FullImages, Patches, image_batches
from ruranet_utils.photographs import AREAS
from ruranet_utils.segmentation import CombinedLoss, Segmentation, build, fit, predict
from ruranet_utils.store import Store


def denormalize(images: torch.Tensor) -> np.ndarray:
    """Images in [0, 1] again, channels last."""
    return images.permute(0, 2, 3, 1).numpy() * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)


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


# What the networks are fed


@pytest.fixture
def noise():
    """Five masks of noise of different density, and images that show them in red and their inverse in blue."""
    rng = np.random.default_rng(0)
    masks = rng.random((5, 64, 96)) < np.linspace(0.1, 0.5, 5)[:, None, None]
    return np.stack([masks * 255, masks * 0, ~masks * 255], axis=1).astype(np.uint8), masks


def draw(noise, iteration=0, **options):
    options = {"size_px": 32, "per_image": 3, "batch_size": 4, "lesion_share": 0.5, "seed": 0} | options
    return Patches(*noise, **options, iteration=iteration)


def test_patches_have_the_announced_shapes_and_number(noise):
    patches = draw(noise)
    batches = list(patches)
    assert len(batches) == len(patches) == 3
    assert sum(len(images) for images, _ in batches) == 15 and {len(images) for images, _ in batches} == {5}
    for images, masks in batches:
        assert images.shape == (len(images), 3, 32, 32) and masks.shape == (len(images), 1, 32, 32)
        assert images.dtype == masks.dtype == torch.float32
        assert set(masks.unique().tolist()) <= {0.0, 1.0}


def test_masks_stay_on_their_images_however_a_patch_is_turned(noise):
    for images, masks in draw(noise, per_image=8):
        colors = denormalize(images)
        np.testing.assert_array_equal(colors[..., 0] > 0.5, masks[:, 0] == 1)
        np.testing.assert_array_equal(colors[..., 2] > 0.5, masks[:, 0] == 0)


def test_brightness_varies_by_channel_within_fifteen_percent_and_stays_in_range():
    images = np.full((40, 3, 32, 32), 200, dtype=np.uint8)
    ((drawn, _),) = Patches(images, np.zeros((40, 32, 32), bool), 32, 1, 40, 0.5, seed=0)
    gain = denormalize(drawn)[:, 0, 0] * 255 / 200
    assert gain.min() > 0.849 and gain.max() < 1.151 and (gain.std(axis=0) > 0.05).all()
    ((drawn, _),) = Patches(images + 55, np.zeros((40, 32, 32), bool), 32, 1, 40, 0.5, seed=0)
    assert denormalize(drawn).max() == pytest.approx(1, abs=1e-5)


def test_patches_depend_on_seed_and_iteration_alone(noise):
    patches = draw(noise)
    rounds = [[torch.cat(part) for part in zip(*patches, strict=True)] for _ in range(3)]
    second = [torch.cat(part) for part in zip(*draw(noise, iteration=1), strict=True)]
    other = [torch.cat(part) for part in zip(*draw(noise, seed=1), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(rounds[1], second, strict=True))
    assert not torch.equal(rounds[0][1], rounds[1][1])
    assert not torch.equal(rounds[1][1], rounds[2][1])
    assert not torch.equal(rounds[0][1], other[1])


def test_every_image_gives_its_patches_in_all_eight_positions():
    """Patches as large as the image are the image itself, turned or mirrored."""
    masks = np.random.default_rng(0).random((3, 32, 32)) < 0.5
    positions = {}
    for image, mask in enumerate(masks):
        for turns in range(4):
            turned = np.rot90(mask, turns)
            positions[turned.tobytes()] = image, f"turned {turns}"
            positions[turned[:, ::-1].tobytes()] = image, f"turned {turns} and mirrored"
    patches = Patches(np.zeros((3, 3, 32, 32), np.uint8), masks, 32, 40, 16, 0.5, seed=0)
    drawn = [positions[mask.numpy().astype(bool).tobytes()] for _, batch in patches for mask in batch]
    drawn = pd.DataFrame(drawn, columns=["image", "position"])
    assert drawn["image"].value_counts().to_dict() == {0: 40, 1: 40, 2: 40}
    assert drawn["position"].nunique() == 8


@pytest.mark.parametrize("site", [(0, 0), (0, 63), (40, 20), (63, 63)])
def test_lesion_share_decides_how_many_patches_show_a_lesion(site):
    masks = np.zeros((1, 64, 64), bool)
    masks[0][site] = True
    images = np.zeros((1, 3, 64, 64), np.uint8)

    def shown(share):
        patches = Patches(images, masks, 32, per_image=60, batch_size=60, lesion_share=share, seed=0)
        return next(iter(patches))[1].sum(dim=(1, 2, 3)).mean().item()

    assert shown(1.0) == 1
    assert shown(0.0) < shown(0.6) < 1


def test_images_without_a_lesion_give_patches_too():
    patches = Patches(np.zeros((2, 3, 64, 64), np.uint8), np.zeros((2, 64, 64), bool), 32, 1, 4, 1.0, seed=0)
    ((images, masks),) = patches
    assert images.shape == (2, 3, 32, 32) and not masks.any()


def test_full_images_come_whole_one_by_one_and_in_order(noise):
    batches = FullImages(*noise)
    ((images, masks),) = batches
    assert len(batches) == 1 and images.shape == (5, 3, 64, 96) and masks.shape == (5, 1, 64, 96)
    np.testing.assert_allclose(denormalize(images) * 255, noise[0].transpose(0, 2, 3, 1), atol=1e-3)
    np.testing.assert_array_equal(masks[:, 0], noise[1])


@pytest.mark.parametrize(
    ("n", "side_px", "sizes"), [(5, 512, [1] * 5), (3, 1024, [1] * 3), (9, 256, [4, 4, 1]), (0, 64, [])]
)
def test_as_many_images_go_together_as_fit_into_512_by_512_pixels(n, side_px, sizes):
    images = np.broadcast_to(np.uint8(0), (n, 3, side_px, side_px))
    assert [len(images[rows]) for rows in image_batches(images)] == sizes


# One network


@pytest.fixture(scope="module")
def squares():
    """Dim noise with one bright square, which is the lesion: images and masks of training and validation."""
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 90, size=(12, 3, 64, 64), dtype=np.uint8), np.zeros((12, 64, 64), bool)
    for mask, (row, column), side in zip(masks, rng.integers(0, 40, (12, 2)), rng.integers(12, 24, 12), strict=True):
        mask[row : row + side, column : column + side] = True
    images = np.where(masks[:, None], images + 150, images).astype(np.uint8)
    return (images[:8], images[8:]), (masks[:8], masks[8:])


@pytest.fixture(scope="module")
def easy(tiny):
    return replace(tiny, epochs=5, patches_per_image=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def trained(squares, easy):
    return fit(*squares, "mobilenet_v2", "scse", easy)


def test_fit_learns_a_bright_square_and_keeps_its_best_epoch(trained, squares, easy):
    (_, images), (_, masks) = squares
    predicted = predict(trained, images, "mobilenet_v2", "scse", easy)
    epochs, losses, scores = trained["history"].T
    assert epochs.tolist() == list(range(1, len(epochs) + 1))
    assert dice(predicted, masks) == pytest.approx(scores.max(), abs=1e-6)
    assert scores.max() > 0.8 and losses[-1] < losses[0]


def test_predict_is_the_trained_network_at_a_probability_of_one_half(trained, squares, easy):
    images = squares[0][1]
    predicted = predict(trained, images, "mobilenet_v2", "scse", easy)
    assert predicted.shape == (4, 64, 64) and predicted.dtype == bool
    model = build("mobilenet_v2", "scse", easy).eval()
    state = {name: torch.from_numpy(trained[f"state.{name}"]) for name in model.state_dict()}
    model.load_state_dict(state)
    with torch.no_grad():
        for row, image in enumerate(images):
            probability = model(normalize(torch.from_numpy(image[None] / np.float32(255)))).sigmoid()
            np.testing.assert_array_equal(predicted[row], probability[0, 0] > 0.5)
    np.testing.assert_array_equal(predict(trained, images[::-1], "mobilenet_v2", "scse", easy)[::-1], predicted)


def test_fit_repeats_to_the_byte_and_leaves_the_global_state_alone(squares, easy):
    short = replace(easy, epochs=1)
    before = torch.random.get_rng_state()
    first, again = (fit(*squares, "resnet18", None, short) for _ in range(2))
    assert first.keys() == again.keys()
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fit_needs_a_lesion_and_a_finite_loss(squares, easy):
    nothing = tuple(np.zeros_like(part) for part in squares[1])
    with pytest.raises(ValueError, match="edema: none of the 8 training images has a lesion pixel to learn from"):
        fit(squares[0], nothing, "mobilenet_v2", "scse", easy, description="edema")
    with pytest.raises(ValueError, match=r"the loss became nan in batch \d+: lower the learning rate"):
        fit(*squares, "mobilenet_v2", "scse", replace(easy, learning_rate=1e30))


def test_every_pixel_starts_with_the_probability_of_a_rare_lesion(tiny):
    model = build("resnet18", "scse", tiny)
    assert model.segmentation_head[0].bias.sigmoid().item() == pytest.approx(segmentation.LESION_PRIOR)


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


# The choice among networks

GOOD, BAD = "mobilenet_v2", "resnet18"


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": list("aabcddef"), "split": ["train"] * 2 + ["val"] * 2 + ["test"] * 4})
    table["label"] = pd.array([0, 1] * 4, "Int64")
    images = rng.integers(0, 256, size=(8, 3, 32, 32), dtype=np.uint8)
    masks = rng.random((8, len(LESIONS), 32, 32)) < 0.3
    table[AREAS] = masks.sum(axis=(2, 3))
    return Cohort(table, images, masks)


@pytest.fixture
def oracle(cohort, monkeypatch):
    """Networks of known quality: GOOD knows the truth of the validation images, BAD that of the test images.

    Elsewhere they err by one column. For the last lesion it is the other way round.
    """
    known = {image.tobytes(): row for row, image in enumerate(cohort.images)}
    train = cohort.split("train")

    def fake_fit(images, masks, encoder, attention, profile, description):
        np.testing.assert_array_equal(images[0], train.images)
        lesion = next(i for i in range(len(LESIONS)) if np.array_equal(masks[0], train.masks[:, i]))
        return {"lesion": np.array([lesion]), "good": np.array([(encoder == GOOD) != (lesion == len(LESIONS) - 1)])}

    def fake_predict(trained, images, encoder, attention, profile):
        rows, (lesion,), (good,) = [known[image.tobytes()] for image in images], trained["lesion"], trained["good"]
        right = (cohort.table["split"].iloc[rows] == ("val" if good else "test")).to_numpy()
        truth = cohort.masks[rows, lesion]
        return np.where(right[:, None, None], truth, np.roll(truth, 1, axis=-1))

    monkeypatch.setattr(segmentation, "fit", fake_fit)
    monkeypatch.setattr(segmentation, "predict", fake_predict)
    return fake_predict


@pytest.fixture
def segmenter(cohort, tiny, store, oracle):
    return LesionSegmenter(cohort, replace(tiny, encoders=(GOOD, BAD)), store)


def steps(events: list[dict], found: bool) -> dict[str, int]:
    return pd.Series([event["step"] for event in events if event["found"] == found], dtype=str).value_counts().to_dict()


def test_the_encoder_is_chosen_on_the_validation_images_not_on_the_test_images(segmenter):
    study = segmenter.study()
    assert study["lesion"].tolist() == list(np.repeat(LESIONS, 2)) and study["encoder"].tolist() == [GOOD, BAD] * 4
    assert best_encoders(study) == {**dict.fromkeys(LESIONS, GOOD), LESIONS[-1]: BAD}
    chosen = study[study["chosen"]]
    assert (chosen["validation_iou"] == 1).all() and (chosen["iou"] < 0.5).all()
    assert (study.loc[~study["chosen"], "iou"] == 1).all()


def test_the_study_scores_the_test_images(segmenter, cohort):
    study = segmenter.study().set_index(["lesion", "encoder"])
    truth = cohort.masks[cohort.table["split"] == "test", 1]
    predicted = np.roll(truth, 1, axis=-1)
    tp, fp = (truth & predicted).sum(), (~truth & predicted).sum()
    row = study.loc[(LESIONS[1], GOOD)]
    assert row["iou"] == pytest.approx(tp / (truth | predicted).sum())
    assert row["accuracy"] == pytest.approx((truth == predicted).mean())
    assert row["precision"] == pytest.approx(tp / (tp + fp)) and row["recall"] == pytest.approx(tp / truth.sum())
    assert row["dice"] == pytest.approx(dice(predicted, truth))
    each = [(t & p).sum() / (t | p).sum() for t, p in zip(truth, predicted, strict=True)]
    assert row["iou_mean"] == pytest.approx(np.mean(each))
    assert min(each) <= row["iou_low"] < row["iou"] < row["iou_high"] <= max(each)
    assert row["n"] == 4 and row["weights"] == "random"


def test_only_the_chosen_parameters_are_kept_and_nothing_is_done_twice(segmenter, cohort, store, journal):
    first = segmenter.study()
    assert steps(journal(), found=False) == {"segmentation_model": 8, "segmentation_counts": 8}
    assert len(list((store.root / "segmentation_model").glob("*.safetensors"))) == len(LESIONS)
    pd.testing.assert_frame_equal(segmenter.study(), first)
    masks = [segmenter.masks(cohort.images, best_encoders(first)) for _ in range(2)]
    np.testing.assert_array_equal(*masks)
    assert steps(journal(), found=False) == {"lesion_masks": 4}


def test_masks_are_the_predictions_in_the_order_of_the_lesions(segmenter, cohort, oracle):
    encoders = {**dict.fromkeys(LESIONS, GOOD), LESIONS[2]: BAD}
    masks = segmenter.masks(cohort.images[2:], encoders)
    assert masks.shape == (6, len(LESIONS), 32, 32) and masks.dtype == bool
    for lesion, good in enumerate([True, True, False, False]):  # the third is BAD's, the last turned round
        trained = {"lesion": [lesion], "good": [good]}
        expected = oracle(trained, cohort.images[2:], None, None, None)
        np.testing.assert_array_equal(masks[:, lesion], expected)
    flipped = segmenter.masks(cohort.images[:1:-1], encoders)
    np.testing.assert_array_equal(flipped[::-1], masks)


def test_another_setting_or_cohort_is_another_network(segmenter, cohort, journal):
    segmenter.train("edema", GOOD)
    masks = cohort.masks.copy()
    masks[0, 0, 0, 0] ^= True
    others = [
        replace(segmenter, attention=None),
        replace(segmenter, profile=replace(segmenter.profile, focal_alpha=0.5)),
        replace(segmenter, profile=replace(segmenter.profile, seed=1)),
        replace(segmenter, cohort=Cohort(cohort.table, cohort.images, masks)),
    ]
    journal()
    for other in others:
        other.train("edema", GOOD)
    assert steps(journal(), found=False) == {"segmentation_model": len(others)}
    same = replace(segmenter, profile=replace(segmenter.profile, dmh_epochs=3, classifiers=("alexnet",)))
    same.train("edema", GOOD)
    assert steps(journal(), found=True) == {"segmentation_model": 1}


def test_one_encoder_is_chosen_even_where_no_validation_image_decides(segmenter, cohort, monkeypatch):
    monkeypatch.setattr(segmentation, "predict", lambda trained, images, *rest: np.zeros(images[:, 0].shape, bool))
    cohort.masks[cohort.table["split"] == "val"] = False
    study = segmenter.study()
    assert study["validation_iou"].isna().all()
    assert best_encoders(study) == dict.fromkeys(LESIONS, GOOD)


def test_evaluation_counts_the_pixels_of_a_real_network(phantoms, tiny, store):
    segmenter = LesionSegmenter(phantoms, replace(tiny, learning_rate=1e-2), store)
    study = segmenter.study().set_index("lesion")
    for lesion in ("hard_exudates", "edema"):
        trained = segmenter.train(lesion, "mobilenet_v2")
        for split, column in (("val", "validation_iou"), ("test", "iou")):
            part = phantoms.split(split)
            predicted = predict(trained, part.images, "mobilenet_v2", "scse", segmenter.profile)
            counts = pixel_counts(predicted, part.masks[:, LESIONS.index(lesion)])
            assert study.loc[lesion, column] == pytest.approx(segmentation_scores(counts)["iou"], nan_ok=True)


def test_worker_processes_change_nothing(phantoms, tiny, tmp_path):
    studies, masks = [], []
    for workers in (1, 2):
        profile = replace(tiny, workers=workers, encoders=("mobilenet_v2", "resnet18"), learning_rate=1e-2)
        segmenter = LesionSegmenter(phantoms, profile, Store(tmp_path / str(workers)))
        studies.append(segmenter.study())
        masks.append(segmenter.masks(phantoms.images, best_encoders(studies[-1])))
    pd.testing.assert_frame_equal(*studies, check_exact=True)
    np.testing.assert_array_equal(*masks)
    names = [sorted(path.name for path in (tmp_path / str(workers)).rglob("*")) for workers in (1, 2)]
    assert names[0] == names[1] and len(names[0]) > 20
