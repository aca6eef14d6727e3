"""Differences between methods on the same images, and whether clusterings repeat."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, ttest_1samp

from ruranet_utils.statistics.comparisons import adjust, compare, mean_pairwise_ari


def test_of_eyes_in_pairs_it_is_the_t_test_of_the_patients():
    rng = np.random.default_rng(1)
    correct, other = rng.random(300) < 0.7, rng.random(300) < 0.6
    by_patient = (correct.astype(int) - other).reshape(150, 2).mean(axis=1)
    test = ttest_1samp(by_patient, 0)
    found = compare(correct, other, np.repeat(np.arange(150), 2))
    assert found["p"] == pytest.approx(test.pvalue)
    interval = test.confidence_interval()
    assert (found["difference_low"], found["difference_high"]) == pytest.approx((interval.low, interval.high))


def test_p_is_below_a_twentieth_exactly_where_the_interval_leaves_out_zero():
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(400):
        patients, n_trainings = rng.integers(0, 30, 60), rng.integers(1, 4)
        found = compare(rng.random((n_trainings, 60)) < 0.75, rng.random(60) < 0.6, patients)
        significant = found["p"] < 0.05
        assert significant == (found["difference_low"] > 0 or found["difference_high"] < 0)
        outcomes.add(significant)
    assert outcomes == {True, False}


@pytest.mark.parametrize("n_patients", [32, 87])
@pytest.mark.parametrize(("accuracy", "others"), [(0.8, 0.8), (0.8, 0.7), (0.9, 0.6)])
def test_intervals_hold_their_level_on_cohorts_of_two_eyes_each(n_patients, accuracy, others):
    """2,000 cohorts of 64 and 174 images; what is hard is hard for both methods and for both eyes."""
    rng = np.random.default_rng(3)
    patients, hits, shape = np.repeat(np.arange(n_patients), 2), 0, (n_patients, 2)
    for _ in range(2000):
        shared = 0.6 * rng.normal(size=shape) + 0.5 * rng.normal(size=(n_patients, 1))
        one, two = (
            (shared + np.sqrt(0.39) * rng.normal(size=shape) < norm.ppf(share)).ravel() for share in (accuracy, others)
        )
        found = compare(one, two, patients)
        hits += found["difference_low"] <= accuracy - others <= found["difference_high"]
    assert 0.93 <= hits / 2000 <= 0.97


def test_intervals_over_patients_and_trainings_hold_their_level():
    """Five trainings of each method, whose accuracies differ; for one training alone the interval is too short."""
    rng = np.random.default_rng(4)
    patients, hits, hits_of_one = np.repeat(np.arange(60), 2), 0, 0
    for _ in range(1000):
        one, two = (
            rng.random((5, 120)) < (share + rng.normal(0, 0.06, (5, 1)) + np.repeat(rng.normal(0, 0.1, 60), 2))
            for share in (0.75, 0.65)
        )
        found, of_one = compare(one, two, patients), compare(one[0], two[0], patients)
        hits += found["difference_low"] <= 0.1 <= found["difference_high"]
        hits_of_one += of_one["difference_low"] <= 0.1 <= of_one["difference_high"]
    assert 0.93 <= hits / 1000 <= 0.98
    assert hits_of_one < 900


def test_equal_methods_do_not_differ():
    correct = np.arange(20) % 3 > 0
    found = compare(correct, correct, np.arange(20) // 2)
    assert (found["difference"], found["difference_low"], found["difference_high"], found["p"]) == (0, 0, 0, 1)


def test_where_every_patient_differs_alike_nothing_is_claimed():
    found = compare(np.ones(8, bool), np.zeros(8, bool), np.arange(8) // 2)
    assert found.pop("difference") == 1 and np.isnan(list(found.values())).all()


def test_swapping_turns_the_sign():
    rng = np.random.default_rng(2)
    correct, other, patients = rng.random((3, 60)) < 0.8, rng.random(60) < 0.5, np.arange(60) // 2
    one, two = compare(correct, other, patients), compare(other, correct, patients)
    assert one["difference"] == pytest.approx(-two["difference"]) and one["p"] == pytest.approx(two["p"])
    assert one["difference_low"] == pytest.approx(-two["difference_high"])


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="lengths differ"):
        compare(np.ones(4, bool), np.ones(4, bool), np.arange(5))
    with pytest.raises(ValueError, match="images of one patient alone"):
        compare(np.ones(4, bool), np.zeros(4, bool), np.zeros(4))


def test_the_verdict_follows_the_adjusted_p():
    """Of ten p-values the largest i with p(i) <= 0.05 i / 10 decides (Benjamini & Hochberg)."""
    p = np.array([0.001, 0.004, 0.02, 0.03, 0.049, 0.2, 0.3, np.nan, 0.5, 0.9, 0.95])
    table = pd.DataFrame({"p": p, "difference": [0.1, -0.1] * 5 + [0.1], "part": ["a"] * 11})
    found = adjust(table)
    ordered = p[~np.isnan(p)]
    n_shown = max(i + 1 for i in range(10) if ordered[i] <= 0.05 * (i + 1) / 10)
    assert found["verdict"].tolist()[:n_shown] == ["higher", "lower"][:n_shown] and n_shown == 2
    assert (found["verdict"][n_shown:].dropna() == "no difference shown").all()
    assert found.loc[7, ["p adjusted", "verdict"]].isna().all() and found["verdict"].isna().sum() == 1
    assert adjust(table.iloc[:3], "part")["p adjusted"].tolist() == pytest.approx([0.003, 0.006, 0.02])
    apart = adjust(table.iloc[:2].assign(part=["a", "b"]), "part")
    assert apart["p adjusted"].tolist() == [0.001, 0.004], "each family for itself"
    blind = adjust(table.iloc[:3], chosen=[False, True, False])
    assert blind["p adjusted"].tolist() == pytest.approx([0.002, np.nan, 0.02], nan_ok=True)
    assert blind.loc[1, ["p", "verdict"]].isna().all() and blind.loc[1, "difference"] == -0.1


def test_agreement_of_clusterings():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert mean_pairwise_ari([a, 1 - a, a]) == 1
    assert mean_pairwise_ari([a, a, b]) == pytest.approx((1 - 0.5 - 0.5) / 3)
    with pytest.raises(ValueError, match="a pair needs two clusterings, got 1"):
        mean_pairwise_ari([a])
