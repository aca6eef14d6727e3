"""Scores of masks against hand computation, other libraries, slow loops and what must not change them."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_jaccard_index, binary_precision

from ruranet_utils.segmentation.scores import average_precision, pixel_counts, segmentation_scores


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def hand_masks():
    truth, predicted = np.zeros((3, 2, 3), bool), np.zeros((3, 2, 3), bool)
    truth[0] = [[1, 1, 0], [0, 0, 0]]
    predicted[0] = [[1, 0, 1], [1, 0, 0]]  # tp 1, fp 2, fn 1, tn 2
    predicted[1, 0, 0] = True  # no truth: tp 0, fp 1, fn 0, tn 5
    return predicted, truth  # the third image has neither


def test_pixel_counts_by_hand():
    counts = pixel_counts(*hand_masks())
    assert counts.to_dict("list") == {"tp": [1, 0, 0], "fp": [2, 1, 0], "fn": [1, 0, 0], "tn": [2, 5, 6]}


def test_pooled_segmentation_scores_by_hand():
    scores = segmentation_scores(pixel_counts(*hand_masks()))
    expected = {"iou": 1 / 5, "accuracy": 14 / 18, "precision": 1 / 4, "recall": 1 / 2, "dice": 2 / 6}
    assert scores == pytest.approx(expected)


def test_mean_segmentation_scores_leave_out_undefined_images():
    scores = segmentation_scores(pixel_counts(*hand_masks()), reduction="mean")
    expected = {
        "iou": (1 / 4 + 0) / 2,
        "accuracy": (3 / 6 + 5 / 6 + 1) / 3,
        "precision": (1 / 3 + 0) / 2,
        "recall": 1 / 2,
        "dice": (2 / 5 + 0) / 2,
    }
    assert scores == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["pooled", "mean"])
def test_segmentation_without_truth_or_prediction_is_undefined(reduction):
    empty = np.zeros((2, 4, 4), bool)
    scores = segmentation_scores(pixel_counts(empty, empty), reduction)
    assert scores.pop("accuracy") == 1
    assert np.isnan(list(scores.values())).all()


def test_segmentation_scores_agree_with_torchmetrics(rng):
    predicted, truth = rng.random((2, 5, 8, 9)) < 0.4
    tensors = torch.from_numpy(predicted).int(), torch.from_numpy(truth).int()
    pooled = segmentation_scores(pixel_counts(predicted, truth))
    mean = segmentation_scores(pixel_counts(predicted, truth), "mean")
    assert pooled["iou"] == pytest.approx(binary_jaccard_index(*tensors).item(), abs=1e-6)
    each = [binary_precision(p, t).item() for p, t in zip(*tensors, strict=True)]
    assert mean["precision"] == pytest.approx(np.mean(each), abs=1e-6)
    assert pooled["dice"] == pytest.approx(sk.f1_score(truth.ravel(), predicted.ravel()))


@pytest.mark.parametrize("reduction", ["pooled", "mean"])
def test_segmentation_scores_ignore_the_order_of_images(rng, reduction):
    counts = pixel_counts(*(rng.random((2, 6, 5, 5)) < 0.3))
    shuffled = counts.sample(frac=1, random_state=1)
    assert segmentation_scores(counts, reduction) == pytest.approx(segmentation_scores(shuffled, reduction))


def test_average_precision_by_hand():
    # ranked: lesion, background, lesion, background; precision is 1 at half and 2/3 at full recall
    probability, truth = np.array([[[0.9, 0.8], [0.7, 0.1]]]), np.array([[[True, False], [True, False]]])
    assert average_precision(probability, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize("digits", [1, 8], ids=["ties", "no ties"])
def test_average_precision_agrees_with_scikit_learn(rng, digits):
    truth = rng.random((4, 20, 30)) < 0.1
    truth[2] = False
    probability = np.round(0.5 * truth + 0.7 * rng.random(truth.shape), digits) / 2
    pooled = sk.average_precision_score(truth.ravel(), probability.ravel())
    each = [sk.average_precision_score(truth[i].ravel(), probability[i].ravel()) for i in (0, 1, 3)]
    assert average_precision(probability, truth) == pytest.approx(pooled, abs=1e-6)
    assert average_precision(probability, truth, "mean") == pytest.approx(np.mean(each), abs=1e-6)


def test_average_precision_depends_on_the_ranks_alone_and_on_some_lesion(rng):
    truth, probability = rng.random((2, 8, 8)) < 0.3, rng.random((2, 8, 8))
    assert average_precision(probability**3, truth) == pytest.approx(average_precision(probability, truth))
    assert average_precision(np.where(truth, 0.9, 0.1), truth) == 1
    for reduction in ("pooled", "mean"):
        assert np.isnan(average_precision(probability, np.zeros_like(truth), reduction))


def test_segmentation_errors():
    masks = np.zeros((2, 4, 4), bool)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\), truth \(2, 4, 5\)"):
        pixel_counts(masks, np.zeros((2, 4, 5), bool))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        pixel_counts(masks[0], masks[0])
    with pytest.raises(ValueError, match=r"\(0, 4, 4\)"):
        pixel_counts(masks[:0], masks[:0])
    with pytest.raises(ValueError, match="float64"):
        pixel_counts(masks.astype(float), masks)
    with pytest.raises(ValueError, match="empty"):
        segmentation_scores(pixel_counts(masks, masks).iloc[:0])
    with pytest.raises(ValueError, match="'sum'"):
        segmentation_scores(pixel_counts(masks, masks), "sum")
