"""Intervals against slow loops, scipy and scikit-learn, and what must not change them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from ruranet_utils.statistics.intervals import accuracy_interval, auc_interval, ratio_interval


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_interval_of_two_patients_by_hand(rng):
    """Of four equally likely draws two are mixed: the ratio is 0, 1/2, 1/2 or 1."""
    low, high = ratio_interval([0, 0, 1, 1], [1, 1, 1, 1], ["a", "a", "b", "b"], rng)
    assert (low, high) == (0.0, 1.0)
    assert ratio_interval([0, 0, 1, 1], [1, 1, 1, 1], ["a", "a", "b", "b"], rng, level=0.2) == (0.5, 0.5)


def test_interval_agrees_with_a_loop_and_with_scipy(rng):
    numerator, denominator, groups = rng.random(90), rng.random(90), rng.integers(0, 30, 90)
    ratios = []
    for _ in range(4000):
        drawn = [np.flatnonzero(groups == g) for g in rng.choice(np.unique(groups), len(np.unique(groups)))]
        rows = np.concatenate(drawn)
        ratios.append(numerator[rows].sum() / denominator[rows].sum())
    interval = ratio_interval(numerator, denominator, groups, rng, level=0.9, n_resamples=4000)
    assert interval == pytest.approx(np.quantile(ratios, (0.05, 0.95)), abs=0.1 * np.ptp(interval))
    theirs = bootstrap(
        [pd.Series(values).groupby(groups).sum().to_numpy() for values in (numerator, denominator)],
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        confidence_level=0.9,
        n_resamples=4000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert interval == pytest.approx(tuple(theirs), abs=0.1 * np.ptp(interval))


def test_interval_repeats_with_a_seed_and_ignores_the_order_of_images(rng):
    correct, groups, order = rng.random(50) < 0.7, rng.integers(0, 20, 50).astype(str), rng.permutation(50)
    ones = np.ones(50)
    first = ratio_interval(correct, ones, groups, np.random.default_rng(0))
    assert first == ratio_interval(correct[order], ones, groups[order], np.random.default_rng(0))
    assert first != ratio_interval(correct, ones, groups, np.random.default_rng(1))
    assert first[0] < correct.mean() < first[1]


def test_interval_covers_the_truth_although_images_of_a_patient_agree(rng):
    groups, ones = np.repeat(np.arange(60), 4), np.ones(240)
    hits = 0
    for _ in range(60):
        correct = np.repeat(rng.random(60) < 0.7, 4)  # all images of a patient right or wrong together
        low, high = ratio_interval(correct, ones, groups, rng, n_resamples=300)
        hits += low <= 0.7 <= high
    assert hits >= 50  # nominally 57; drawing images instead of patients covers about 37


def test_degenerate_intervals_are_nan(rng):
    assert np.isnan(ratio_interval([1, 0], [1, 1], ["a", "a"], rng)).all()
    assert np.isnan(ratio_interval([0, 0], [0, 0], ["a", "b"], rng)).all()


@pytest.mark.filterwarnings("error")
def test_draws_without_any_pixel_are_left_out(rng):
    low, high = ratio_interval([3, 0], [6, 0], pd.Series(["a", "b"]), rng)
    assert (low, high) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), r"numerator .* shape \(0,\)"),
        (([1, 2], [1], [0, 1]), r"denominator \(1,\)"),
        (([1, np.nan], [1, 1], [0, 1]), "numerator .* 1 NaN"),
        (([1, 1], [1, 1], ["a", None]), "groups .* 1 NaN"),
    ],
)
def test_interval_errors(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        ratio_interval(*arguments, rng)


def test_accuracy_is_the_ratio_of_right_answers_to_images(rng):
    correct, patients = rng.random(40) < 0.7, rng.integers(0, 15, 40)
    low, high = ratio_interval(correct, np.ones(40), patients, np.random.default_rng(3))
    assert accuracy_interval(correct, patients, 3) == {"accuracy_low": low, "accuracy_high": high, "n": 40}


# --- area under the ROC curve ------------------------------------------------------------------------------------


@pytest.fixture
def graded(rng):
    """Labels, tied scores, patients and three folds of whole patients."""
    patients = rng.integers(0, 25, 90)
    y_true = rng.integers(0, 2, 90)
    return y_true, np.round(y_true + rng.normal(0, 1.2, 90), 1), patients, patients % 3


def test_auc_of_one_fold_is_that_of_scikit_learn(graded, rng):
    y_true, y_score, patients, _ = graded
    auc, low, high = auc_interval(y_true, y_score, patients, rng)
    assert auc == pytest.approx(roc_auc_score(y_true, y_score))
    assert 0 < low < auc < high < 1


def test_auc_counts_the_pairs_of_each_fold(graded, rng):
    y_true, y_score, patients, folds = graded
    wins = pairs = 0
    for i in np.flatnonzero(y_true == 1):
        for j in np.flatnonzero(y_true == 0):
            if folds[i] == folds[j]:
                pairs += 1
                wins += 1 if y_score[i] > y_score[j] else 0.5 if y_score[i] == y_score[j] else 0
    assert auc_interval(y_true, y_score, patients, rng, folds)[0] == pytest.approx(wins / pairs)


def test_scales_of_the_folds_do_not_matter(graded):
    y_true, y_score, patients, folds = graded
    first = auc_interval(y_true, y_score, patients, np.random.default_rng(0), folds)
    assert first == auc_interval(y_true, y_score * 3 + 10 * folds, patients, np.random.default_rng(0), folds)
    assert first != auc_interval(y_true, y_score * 3 + 10 * folds, patients, np.random.default_rng(0))


def test_auc_interval_agrees_with_a_loop_over_drawn_patients(graded, rng):
    y_true, y_score, patients, _ = graded
    names, aucs = np.unique(patients), []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(patients == name) for name in rng.choice(names, len(names))])
        aucs.append(roc_auc_score(y_true[rows], y_score[rows]))
    _, low, high = auc_interval(y_true, y_score, patients, rng, level=0.9, n_resamples=2000)
    assert (low, high) == pytest.approx(np.quantile(aucs, (0.05, 0.95)), abs=0.1 * (high - low))


@pytest.mark.filterwarnings("error")
def test_degenerate_areas(rng):
    assert np.isnan(auc_interval([1, 1], [0.1, 0.2], ["a", "b"], rng)).all()
    assert np.isnan(auc_interval([1, 0], [0.1, 0.2], ["a", "b"], rng, [0, 1])).all()
    auc, low, high = auc_interval([1, 0], [0.3, 0.2], ["a", "a"], rng)
    assert auc == 1 and np.isnan([low, high]).all()
    # resamples without one of the classes are left out
    assert auc_interval([1, 0], [0.3, 0.2], ["a", "b"], rng) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 2], [0.1, 0.2], [0, 1]), "y_true must hold only"),
        (([0, 1], [0.1, np.nan], [0, 1]), "y_score .* 1 NaN"),
        (([0, 1], [0.1], [0, 1]), r"lengths differ: .*y_score \(1,\)"),
        (([], [], []), r"y_true .* shape \(0,\)"),
    ],
)
def test_auc_errors(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        auc_interval(*arguments, rng)
