"""Differences between methods on the same images, and whether clusterings repeat."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from ruranet_utils.statistics.comparisons import compare, compare_seeds, mean_pairwise_ari


def test_exchanging_methods_by_hand():
    """Four patients; all ways of exchanging the methods within patients, counted in a loop."""
    patients = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    correct = np.array([1, 1, 1, 1, 1, 0, 0, 1], bool)
    other = np.array([0, 0, 1, 0, 0, 1, 0, 1], bool)
    found = compare(correct, other, patients, seed=0)
    assert found["difference"] == pytest.approx(3 / 8)
    gains = np.array([2, 1, 0, 0])
    totals = [np.dot(signs, gains) for signs in product([-1, 1], repeat=4)]
    assert found["p"] == pytest.approx(np.mean(np.abs(totals) >= 3))
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]


def test_of_single_images_it_is_the_sign_test():
    """One image per patient: the exact test of McNemar, up to the number of permutations."""
    rng = np.random.default_rng(1)
    correct, other = rng.random(300) < 0.7, rng.random(300) < 0.6
    wins, losses = int((correct & ~other).sum()), int((other & ~correct).sum())
    expected = binomtest(wins, wins + losses).pvalue
    assert compare(correct, other, np.arange(300), seed=0)["p"] == pytest.approx(expected, abs=0.015)


def test_equal_methods_do_not_differ():
    correct = np.arange(20) % 3 > 0
    found = compare(correct, correct, np.arange(20) // 2, seed=0)
    assert (found["difference"], found["difference_low"], found["difference_high"], found["p"]) == (0, 0, 0, 1)


def test_swapping_turns_the_sign():
    rng = np.random.default_rng(2)
    correct, other, patients = rng.random(60) < 0.8, rng.random(60) < 0.5, np.arange(60) // 2
    one, two = compare(correct, other, patients, seed=0), compare(other, correct, patients, seed=0)
    assert one["difference"] == -two["difference"] > 0 and one["p"] == pytest.approx(two["p"], abs=0.01)
    assert one["difference_low"] == pytest.approx(-two["difference_high"], abs=1e-9)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="lengths differ"):
        compare(np.ones(4, bool), np.ones(4, bool), np.arange(5), seed=0)
    with pytest.raises(ValueError, match="images of one patient alone"):
        compare(np.ones(4, bool), np.zeros(4, bool), np.zeros(4), seed=0)


def test_agreement_of_clusterings():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert mean_pairwise_ari([a, 1 - a, a]) == 1
    assert mean_pairwise_ari([a, a, b]) == pytest.approx((1 - 0.5 - 0.5) / 3)
    with pytest.raises(ValueError, match="a pair needs two clusterings, got 1"):
        mean_pairwise_ari([a])


def test_several_trainings_are_compared_over_patients_and_seeds():
    """The second method is better by a tenth; its trainings differ by as much, and so the interval is wider."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), 2)
    one = rng.random((4, 200)) < 0.8
    other = rng.random((4, 200)) < 0.7
    steady = compare_seeds(one, other, patients, seed=0)
    assert steady["difference"] == pytest.approx(one.mean() - other.mean())
    assert steady["difference_low"] < steady["difference"] < steady["difference_high"]
    moved = np.array([0.5, 0.6, 0.8, 0.9])[:, None] > rng.random((4, 200))
    wider = compare_seeds(one, moved, patients, seed=0)
    width = [found["difference_high"] - found["difference_low"] for found in (steady, wider)]
    assert width[1] > 1.3 * width[0]
    same = compare_seeds(one[:1], one[:1], patients, seed=0)
    assert same["difference"] == same["difference_low"] == same["difference_high"] == 0


def test_one_training_each_is_the_paired_bootstrap():
    rng = np.random.default_rng(1)
    one, other = rng.random((2, 1, 120)) < 0.6
    patients = np.repeat(np.arange(40), 3)
    found = compare_seeds(one, other, patients, seed=0, n_resamples=4000)
    paired = compare(one[0], other[0], patients, seed=0)
    for name in ("difference", "difference_low", "difference_high"):
        assert found[name] == pytest.approx(paired[name], abs=0.02)
