"""From lesion features to Tables 4 and 5: four ways to choose the weights, and which of them may see labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    silhouette_score,
)

from ruranet_utils.clustering import dmh
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.study import (
    SELECTIONS,
    diagnose,
    diagnose_images,
    project,
    project_all,
    score,
    weight_search_all,
)
from ruranet_utils.clustering.weighting import held_out
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import LESIONS, METHODS
from ruranet_utils.statistics.intervals import accuracy_interval
from ruranet_utils.statistics.metrics import matched_accuracy

N = 24


def make_cohort(labels: np.ndarray) -> Cohort:
    """Labels of both eyes of patients; nothing else is looked at here."""
    patients = [f"p{i // 2}" for i in range(len(labels))]
    table = pd.DataFrame({"label": pd.array(labels, "Int64"), "patient_id": patients})
    return Cohort(table, np.zeros((len(labels), 3, 1, 1), np.uint8), None)


@pytest.fixture
def cohort():
    return make_cohort(np.random.default_rng(0).permutation(np.arange(N) % 2))


@pytest.fixture
def embedded(cohort):
    """The third lesion knows the label; the first splits the images otherwise, farther apart."""
    rng = np.random.default_rng(1)
    embedded = rng.normal(size=(N, len(LESIONS), 5))
    embedded[:, 2, 0] += 3 * cohort.labels
    embedded[:, 0, 1] += 6 * (np.arange(N) < N // 3)
    return embedded


@pytest.mark.parametrize("method", METHODS)
def test_each_selection_is_one_scored_weighting_and_the_oracle_is_the_best(method, embedded, cohort, tiny, store):
    rows = diagnose(embedded, method, cohort, tiny, store)
    assert [row["selection"] for row in rows] == list(SELECTIONS)
    algorithm = "kmedoids" if method == "dmh" else method
    halves = rows.pop(SELECTIONS.index("held_out"))
    for row in rows:
        weights = [float(weight) for weight in row["lesion_weights"].split()]
        features = np.mean([weight * embedded[:, i] for i, weight in enumerate(weights)], axis=0)
        clusters = Clustering(algorithm, random_state=tiny.seed).fit_predict(features)
        assert row["accuracy"] == pytest.approx(matched_accuracy(cohort.labels, clusters))
        assert row["silhouette"] == pytest.approx(silhouette_score(features, clusters))
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["method"] == method and row["n"] == N
        assert row["predicted"].shape == (1, N) and np.mean(row["predicted"] == cohort.labels) == row["accuracy"]
        assert row["n_seeds"] == 1 and np.isnan(row["accuracy_sd"])
    equal, by_silhouette, oracle = rows
    assert equal["lesion_weights"] == "1 1 1 1"
    assert oracle["accuracy"] > max(equal["accuracy"], by_silhouette["accuracy"])
    assert by_silhouette["silhouette"] >= max(equal["silhouette"], oracle["silhouette"])
    search = weight_search_all({("", method, 0): embedded}, tiny, store)["", method, 0]
    _, predicted = held_out(search, cohort.labels, cohort.patients, tiny.seed)
    np.testing.assert_array_equal(halves["predicted"], [predicted])
    assert halves["accuracy"] == np.mean(predicted == cohort.labels)
    assert halves["lesion_weights"].count("|") == 1 and "silhouette" not in halves


def test_the_choice_by_silhouette_does_not_see_the_labels(embedded, cohort, tiny, store, journal):
    other = make_cohort(np.roll(cohort.labels, 1))
    chosen = [
        {row["selection"]: row["lesion_weights"] for row in diagnose(embedded, "kmeans", c, tiny, store)}
        for c in (cohort, other)
    ]
    assert [event["found"] for event in journal()] == [False, True]
    assert chosen[0]["silhouette"] == chosen[1]["silhouette"]
    assert chosen[0]["oracle"] != chosen[1]["oracle"]


def test_the_search_is_kept_by_algorithm_and_embedding(embedded, cohort, tiny, store, journal):
    for method in ("kmedoids", "dmh", "agglomerative"):
        diagnose(embedded, method, cohort, tiny, store)
    diagnose(2 * embedded, "kmedoids", cohort, tiny, store)
    assert [event["found"] for event in journal()] == [False, True, False, False]


def test_scores_by_hand():
    """Six images of three patients; cluster 7 holds both negatives that were found and one positive."""
    cohort = make_cohort(np.array([0, 0, 0, 1, 1, 1]))
    clusters, features = np.array([7, 7, 3, 3, 3, 7]), np.array([[0.0], [1], [10], [11], [12], [2]])
    row = score(features, clusters, cohort)
    assert row["n"] == 6
    assert row["accuracy"] == pytest.approx(4 / 6)
    assert row["precision_positive"] == row["recall_positive"] == row["f1_positive"] == pytest.approx(2 / 3)
    assert row["ari"] == pytest.approx(adjusted_rand_score(cohort.labels, clusters))
    assert row["nmi"] == pytest.approx(normalized_mutual_info_score(cohort.labels, clusters))
    assert row["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(features, clusters))
    assert row["calinski_harabasz"] == pytest.approx(150 / (4 / 4))  # between 6 * 25, within 2 + 2 on 4 degrees
    assert row["davies_bouldin"] == pytest.approx(davies_bouldin_score(features, clusters))
    assert row["davies_bouldin"] == pytest.approx((2 / 3 + 2 / 3) / 10)
    assert accuracy_interval(np.array([1, 1, 0, 1, 1, 0]), cohort.patients).items() <= row.items()


def test_separated_images_are_diagnosed_without_error(cohort, tiny):
    blobs = np.random.default_rng(0).normal(size=(N, 8)) + 20 * cohort.labels[:, None]
    row = diagnose_images(blobs, cohort, tiny)
    assert row["accuracy"] == row["ari"] == row["nmi"] == row["accuracy_high"] == 1
    assert (row["method"], row["selection"], row["lesion_weights"]) == ("kmedoids", "none", "")


@pytest.mark.parametrize("method", METHODS)
def test_separated_lesions_are_diagnosed_without_error_by_every_method(method, cohort, tiny, store):
    blobs = np.random.default_rng(0).normal(size=(N, len(LESIONS), 5)) + 20 * cohort.labels[:, None, None]
    if method == "dmh":
        blobs = project(blobs, tiny, store).embedding
    assert [row["accuracy"] for row in diagnose(blobs, method, cohort, tiny, store)] == [1, 1, 1, 1]


def test_heads_are_those_of_the_profile_and_trained_once(embedded, tiny, store, journal):
    profile = replace(tiny, dmh_epochs=3, dmh_lambda=0.7, seed=5)
    first, second = (project(embedded, profile, store) for _ in range(2))
    expected = dmh.train_heads(embedded, epochs=3, lam=0.7, seed=5)
    for result in (first, second):
        np.testing.assert_array_equal(result.embedding, expected.embedding)
        pd.testing.assert_frame_equal(result.history, expected.history)
    for other in (replace(profile, dmh_lambda=0.3), replace(profile, dmh_epochs=4), replace(profile, epochs=9)):
        project(embedded, other, store)
    project(embedded[::-1], profile, store)
    assert [event["found"] for event in journal()] == [False, True, False, False, True, False]


def test_several_trainings_are_scored_each_and_together(embedded, cohort, tiny, store):
    """Mean and spread over the seeds; the interval is over patients and seeds."""
    profile = replace(tiny, dmh_epochs=2)
    heads = project_all({"a": embedded}, profile, store, 3)["a"]
    for seed, one in enumerate(heads):
        expected = dmh.train_heads(embedded, epochs=2, lam=tiny.dmh_lambda, seed=seed).embedding
        np.testing.assert_array_equal(one.embedding, expected)
    together = diagnose([one.embedding for one in heads], "dmh", cohort, profile, store)
    alone = [diagnose(one.embedding, "dmh", cohort, profile, store) for one in heads]
    for place, row in enumerate(together):
        each = [rows[place] for rows in alone]
        accuracies = [one["accuracy"] for one in each]
        assert row["accuracy"] == pytest.approx(np.mean(accuracies)) and row["n_seeds"] == 3
        assert row["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
        np.testing.assert_array_equal(row["predicted"], np.concatenate([one["predicted"] for one in each]))
        expected = accuracy_interval(row["predicted"] == cohort.labels, cohort.patients)
        assert expected.items() <= row.items()
        assert row["lesion_weights"].removesuffix(" of 3)").split(" (")[0] in {one["lesion_weights"] for one in each}
    assert together[0]["lesion_weights"] == "1 1 1 1 (3 of 3)"


def test_a_seed_that_fails_is_named(embedded, tiny, store, monkeypatch):
    heads = dmh.ProjectionHeads.forward

    def broken(self, features):
        return heads(self, features) * (float("nan") if self.hidden_weight[0, 0, 0] == first else 1)

    generator = dmh.torch.Generator().manual_seed(2)
    first = dmh.ProjectionHeads(*embedded.shape[1:], 64, 32, generator).hidden_weight[0, 0, 0].item()
    monkeypatch.setattr(dmh.ProjectionHeads, "forward", broken)
    monkeypatch.setattr(dmh, "estimate_medoids", lambda outputs: outputs[:2].transpose(0, 1).detach())
    with pytest.raises(ValueError, match="projection heads of seed 2: the loss of epoch 1 is nan"):
        project_all({"": embedded}, replace(tiny, dmh_epochs=2), store, 4)
