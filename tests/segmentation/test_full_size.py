"""Scores at the photographs' own size: against scikit-learn, and against masks that are scaled by hand."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve

from ruranet_utils import published
from ruranet_utils.data.field import Frame
from ruranet_utils.data.sources.base import Record
from ruranet_utils.profiles import ANNOTATIONS
from ruranet_utils.segmentation import full_size


@pytest.fixture
def graded():
    """Probabilities in steps of 1/1000 and a truth that they rank well."""
    rng = np.random.default_rng(0)
    truth = rng.random((40, 50)) < 0.2
    probability = np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1)
    return np.floor(probability * full_size.BINS).astype(np.float32) / full_size.BINS + np.float32(2e-4), truth


def test_the_curve_is_that_of_scikit_learn(graded):
    probability, truth = graded
    counted = full_size._histogram(probability, truth)
    assert counted.sum() == truth.size and counted[1].sum() == truth.sum()
    expected = average_precision_score(truth.ravel(), probability.ravel())
    assert full_size.average_precision_of(counted) == pytest.approx(expected, abs=1e-9)
    precision, recall, level = precision_recall_curve(truth.ravel(), probability.ravel())
    ours = full_size.precision_recall(counted)
    for p, r, t in zip(precision, recall, level, strict=False):
        assert (ours[0][int(t * full_size.BINS)], ours[1][int(t * full_size.BINS)]) == pytest.approx((p, r))


def test_the_threshold_of_one_half(graded):
    probability, truth = graded
    found = probability >= 0.5
    counted = full_size._histogram(probability, truth)
    assert full_size.iou_at(counted) == pytest.approx((found & truth).sum() / (found | truth).sum())


def test_eleven_thresholds_and_a_trapezoid(graded):
    probability, truth = graded
    points = []
    for threshold in np.arange(11) / 10:
        found = (probability >= threshold) & (threshold < 1)
        precision = truth[found].mean() if found.any() else 1.0
        points.append((truth[found].sum() / truth.sum(), precision))
    recall, precision = np.array(points[::-1]).T
    expected = sum((recall[i + 1] - recall[i]) * (precision[i + 1] + precision[i]) / 2 for i in range(10))
    assert full_size.coarse_aupr(full_size._histogram(probability, truth)) == pytest.approx(expected)


def test_a_perfect_prediction_has_the_whole_area():
    """Probabilities of exactly 1, as half precision rounds them to, are above the threshold of 1 for nobody."""
    truth = np.arange(100).reshape(10, 10) < 20
    assert full_size.coarse_aupr(full_size._histogram(truth.astype(np.float32), truth)) == pytest.approx(1)


def test_masks_are_read_as_large_as_they_are_and_probabilities_scaled_up(tmp_path):
    """A photograph of 60 x 40 pixels whose square 40 x 40 in the middle a network has seen at 8 x 8."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (60, 40), "brown").save(tmp_path / "eye.png")
    record = Record("eye", "idrid", "eye", "", None, "", tmp_path / "eye.png", {"edema": tmp_path / "mask.png"}, "test")
    probability = np.zeros((2, 8, 8), np.float16)
    probability[:, :4, :4] = 1
    counted = full_size._own(probability, record, ("edema", "hemorrhages"), Frame(40, 60, 10, 0, 50, 40))
    assert counted.sum(axis=(1, 2)).tolist() == [2400, 2400]
    assert counted[:, 1].sum(axis=1).tolist() == [400, 0], "a lesion without a file is not there"
    assert full_size.iou_at(counted[0]) == pytest.approx(1, abs=0.02)


def test_ours_stands_beside_the_published_rows():
    rng = np.random.default_rng(1)
    lesions = ANNOTATIONS
    counted = [
        {name: rng.integers(1, 9, size=(6, 5, 2, full_size.BINS + 1)) for name in ("network", "own")} for _ in range(3)
    ]
    assert len(full_size.field_table(counted, lesions)) == 2 + len(published.field())
    table = full_size.field_table(counted, lesions, 0.3)
    ours = table.iloc[:4]
    assert ours["threshold"].tolist() == [0.5, 0.5, 0.3, 0.3]
    assert table["model"].tolist()[4:] == published.field()["model"].tolist()
    assert (ours["low"] < ours["mean iou"]).all() and (ours["mean iou"] < ours["high"]).all()
    assert set(ours["n_seeds"]) == {3} and (ours["sd"] > 0).all()
    pooled = [one["own"].sum(axis=0) for one in counted]
    for row, threshold in ((1, 0.5), (3, 0.3)):
        of_seeds = np.mean([full_size.iou_at(one, threshold) for one in pooled], axis=0)
        each = dict(zip(lesions, of_seeds, strict=True))
        assert ours["iou soft_exudates"].iloc[row] == pytest.approx(each["soft_exudates"])
        assert ours["mean iou"].iloc[row] == pytest.approx(np.mean([each[name] for name in published.FIELD_LESIONS]))
