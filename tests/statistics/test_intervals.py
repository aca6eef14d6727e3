"""Intervals against slow loops, scipy and scikit-learn, and what must not change them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, t
from sklearn.metrics import roc_auc_score

from ruranet_utils.statistics.intervals import accuracy_interval, auc_interval, ratio_interval, spread


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


def test_of_several_trainings_it_is_the_mean_ratio_with_trainings_drawn(rng):
    """Against a loop that draws patients and trainings; trainings that differ widen the interval."""
    totals, groups = rng.random((3, 40)) + np.array([[0], [1], [2]]), rng.integers(0, 20, 40)
    ones, means = np.ones((3, 40)), []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.choice(np.unique(groups), 20)])
        means.append(np.mean([totals[k, rows].mean() for k in rng.integers(3, size=3)]))
    interval = ratio_interval(totals, ones, groups, rng, n_resamples=4000)
    assert interval == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.1 * np.ptp(interval))
    alike = ratio_interval(totals[[1, 1, 1]], ones, groups, rng)
    assert np.ptp(alike) < 0.3 * np.ptp(interval)
    seeded = [np.random.default_rng(0) for _ in range(2)]
    assert ratio_interval(totals[0], ones[0], groups, seeded[0]) == ratio_interval(
        totals[:1], ones[:1], groups, seeded[1]
    )


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


def test_accuracy_interval_solves_its_equation(rng):
    """Its ends are the accuracies a with (accuracy - a)^2 = t^2 a (1 - a) / n, n from the variance between patients."""
    correct, patients = rng.random(40) < 0.7, rng.integers(0, 15, 40)
    found = accuracy_interval(correct, patients)
    n_patients, accuracy = len(np.unique(patients)), correct.mean()
    sums = [np.sum(correct[patients == patient] - accuracy) for patient in np.unique(patients)]
    variance = n_patients / (n_patients - 1) * np.dot(sums, sums) / 40**2
    worth, quantile = accuracy * (1 - accuracy) / variance, t.ppf(0.975, n_patients - 1)
    for end in (found["accuracy_low"], found["accuracy_high"]):
        assert (accuracy - end) ** 2 == pytest.approx(quantile**2 * end * (1 - end) / worth)
    assert found["accuracy_low"] < accuracy < found["accuracy_high"] and found["n"] == 40


@pytest.mark.parametrize("n_patients", [32, 87])
@pytest.mark.parametrize("accuracy", [0.5, 0.75, 0.9])
def test_accuracy_intervals_hold_their_level_on_cohorts_of_two_eyes_each(n_patients, accuracy):
    """2,000 cohorts of 64 and 174 images, both eyes of a patient alike (intraclass correlation 0.3)."""
    rng, patients, hits = np.random.default_rng(0), np.repeat(np.arange(n_patients), 2), 0
    a, b = np.array([accuracy, 1 - accuracy]) * 0.7 / 0.3
    for _ in range(2000):
        correct = rng.random((n_patients, 2)) < rng.beta(a, b, (n_patients, 1))
        found = accuracy_interval(correct.ravel(), patients)
        hits += found["accuracy_low"] <= accuracy <= found["accuracy_high"]
    assert 0.93 <= hits / 2000 <= 0.97


def test_accuracy_intervals_at_the_ends_stay_within(rng):
    patients = np.arange(20) // 2
    for correct in (np.ones(20, bool), np.zeros(20, bool)):
        found = accuracy_interval(correct, patients)
        assert -1e-12 <= found["accuracy_low"] <= correct.mean() <= found["accuracy_high"] <= 1 + 1e-12
    assert np.isnan(accuracy_interval(np.ones(4, bool), np.zeros(4))["accuracy_low"])


def test_spread_over_trainings_is_that_of_a_loop(rng):
    """Against components of variance computed cell by cell (Gallas 2006), for patients of one image each."""
    runs = rng.random((4, 30)) + rng.normal(0, 0.3, (4, 1))
    variance, df = spread(runs.mean(axis=0), np.arange(30), [runs])
    of_patients = np.var(runs.mean(axis=0), ddof=1) / 30
    residual = [runs[k, i] - runs[k].mean() - runs[:, i].mean() + runs.mean() for k in range(4) for i in range(30)]
    of_trainings = np.var(runs.mean(axis=1), ddof=1) / 4 - np.dot(residual, residual) / (3 * 29) / (4 * 30)
    assert variance == pytest.approx(of_patients + of_trainings)
    assert df == pytest.approx(variance**2 / (of_patients**2 / 29 + of_trainings**2 / 3))
    alone, df_alone = spread(runs[0], np.arange(30), [runs[:1]])
    assert (alone, df_alone) == pytest.approx((np.var(runs[0], ddof=1) / 30, 29))


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
    # resamples without one of the classes are left out; the others agree, which is no evidence of precision
    auc, low, high = auc_interval([1, 0], [0.3, 0.2], ["a", "b"], rng)
    assert auc == 1 and np.isnan([low, high]).all()


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
