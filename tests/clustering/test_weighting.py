"""Eq. 2 and the search for its weights: what sees the labels, and what does not."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from ruranet_utils.clustering import weighting
from ruranet_utils.clustering.estimators import CLUSTERERS, Clustering
from ruranet_utils.clustering.weighting import (
    WEIGHT_GRID,
    WeightSearch,
    aggregate,
    best,
    by_silhouette,
    eligible,
    held_out,
    oracle,
    search_weights,
)
from ruranet_utils.statistics.metrics import matched_accuracy


def test_aggregate_is_equation_2(two_groups):
    features = two_groups[0]
    weights = [1.0, 5.0, 10.0, 2.5]
    expected = np.zeros((20, 5))
    for n in range(20):
        for i in range(4):
            expected[n] += weights[i] * features[n, i]
    np.testing.assert_allclose(aggregate(features, weights), expected / 4)
    assert aggregate(np.array([[[1.0], [2.0], [3.0], [4.0]]]), [10, 1, 1, 1]) == pytest.approx(19 / 4)


def test_weight_grid_holds_every_combination_once():
    assert WEIGHT_GRID.shape == (81, 4)
    assert len(np.unique(WEIGHT_GRID, axis=0)) == 81
    assert set(WEIGHT_GRID.ravel()) == {1.0, 5.0, 10.0}


@pytest.mark.parametrize("method", CLUSTERERS)
def test_search_clusters_each_weighting(method, two_groups):
    features, y_true = two_groups
    search = search_weights(features, method)
    assert search.labels.shape == (81, 20) and all(found.shape == (81,) for found in search.criteria.values())
    index = 7
    weighted = aggregate(features, WEIGHT_GRID[index])
    np.testing.assert_array_equal(search.labels[index], Clustering(method).fit_predict(weighted))
    expected = {"silhouette": slow_silhouette, "calinski_harabasz": slow_index, "davies_bouldin": slow_overlap}
    for name, slow in expected.items():
        assert search.criteria[name][index] == pytest.approx(slow(weighted, search.labels[index]))
    chosen, blind = oracle(search, y_true), by_silhouette(search)
    accuracies = [matched_accuracy(y_true, labels) for labels in search.labels]
    assert accuracies[chosen] == max(accuracies) >= accuracies[blind]


def slow_silhouette(points, labels):
    distances = cdist(points, points)
    scores = []
    for i, own in enumerate(labels):
        same, other = labels == own, labels != own
        if same.sum() == 1:
            scores.append(0.0)
            continue
        a, b = distances[i, same].sum() / (same.sum() - 1), distances[i, other].mean()
        scores.append((b - a) / max(a, b))
    return np.mean(scores)


def slow_index(points, labels):
    """Calinski and Harabasz: scatter between over scatter within, each by its degrees of freedom (two clusters)."""
    means = {label: points[labels == label].mean(axis=0) for label in (0, 1)}
    between = sum(np.sum((means[label] - points.mean(axis=0)) ** 2) for label in labels)
    within = sum(np.sum((point - means[label]) ** 2) for point, label in zip(points, labels, strict=True))
    return between / (within / (len(points) - 2))


def slow_overlap(points, labels):
    """Davies and Bouldin: the clusters' mean radii over the distance of their means (two clusters)."""
    means = [points[labels == label].mean(axis=0) for label in (0, 1)]
    radii = [np.linalg.norm(points[labels == label] - means[label], axis=1).mean() for label in (0, 1)]
    return sum(radii) / np.linalg.norm(means[0] - means[1])


def test_names_of_clusters_do_not_move_the_choice(two_groups):
    features, y_true = two_groups
    search = search_weights(features, "kmedoids")
    renamed = WeightSearch(labels=1 - search.labels, criteria=search.criteria)
    assert oracle(renamed, y_true) == oracle(search, y_true)
    assert oracle(search, 1 - y_true) == oracle(search, y_true)


def test_the_best_is_the_largest_value_and_the_first_of_equals():
    assert best(np.array([0.1, np.nan, 0.3, 0.3 + 1e-15])) == 2
    assert best(-np.array([300.0, np.nan, 100.0, 100.0 - 1e-11])) == 2
    with pytest.raises(ValueError, match="none of the 4 weightings"):
        best(np.full(4, np.nan))


def test_a_cluster_of_one_is_not_chosen_unless_there_is_nothing_else(two_groups):
    """Image 0 is far away in the second lesion: the best silhouette is of weights that leave it alone."""
    features = np.concatenate([two_groups[0], two_groups[0] + 0.01])
    features[0, 1] += 40
    search = search_weights(features, "kmeans")
    share = np.array([min(np.mean(labels == 0), np.mean(labels == 1)) for labels in search.labels])
    np.testing.assert_array_equal(eligible(search.labels), share >= 0.05)
    alone = share[best(search.criteria["silhouette"])]
    assert alone == 1 / 40 < 0.05 <= share[by_silhouette(search)]
    assert eligible(search.labels[share < 0.05]).all()


def test_oracle_takes_the_best_accuracy_and_the_first_of_equals():
    labels = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    assert oracle(WeightSearch(labels, {}), [0, 0, 1, 1]) == 1


def test_one_image_for_each_cluster_has_no_silhouette():
    search = search_weights(np.arange(24.0).reshape(2, 4, 3), "kmedoids")
    assert all(np.isnan(found).all() for found in search.criteria.values())


@pytest.mark.parametrize(
    ("shape", "weights", "message"),
    [
        ((5, 4, 2), [1, 1, 0.5, 1], r"\[1, 10\], got 0.5"),
        ((5, 4, 2), [1, 1, 1, 11], r"\[1, 10\], got 11"),
        ((5, 4, 2), [1, 1, 1, np.nan], "got nan"),
        ((5, 4, 2), [1, 1, 1], r"shape \(4,\), one per lesion, got \(3,\)"),
        ((5, 4), [1, 1, 1, 1], r"shape \(n_images, n_lesions, d\), got \(5, 4\)"),
    ],
)
def test_aggregate_refuses(shape, weights, message):
    with pytest.raises(ValueError, match=message):
        aggregate(np.ones(shape), weights)


def test_held_out_is_the_oracle_of_the_other_half():
    """Weighting 0 is right in the first half and wrong by one in the second; weighting 1 the other way round."""
    y_true = np.tile([0, 1], 8)
    patients = np.repeat(np.arange(8), 2)
    labels = np.stack([y_true, 1 - y_true])
    halves = StratifiedGroupKFold(2, shuffle=True, random_state=0).split(y_true, y_true, patients)
    first = np.isin(np.arange(16), next(halves)[0])
    labels[0, np.flatnonzero(~first)[0]] ^= 1
    labels[1, np.flatnonzero(first)[0]] ^= 1
    search = WeightSearch(labels, np.zeros(2))
    indices, predicted = held_out(search, y_true, patients, seed=0)
    assert sorted(indices) == [0, 1]
    # each half is given the weighting that errs there, named by the half in which it does not
    assert accuracy_score(y_true, predicted) == 14 / 16
    assert oracle(search, y_true) == 0 and matched_accuracy(y_true, labels[0]) == 15 / 16


def test_held_out_gains_nothing_from_noise():
    """On features without a signal the oracle is above chance, the held-out choice is not."""
    rng = np.random.default_rng(0)
    y_true, gains, blind = np.arange(40) % 2, [], []
    for repeat in range(30):
        search = search_weights(rng.normal(size=(40, 4, 3)), "agglomerative")
        _, predicted = held_out(search, y_true, np.arange(40) // 2, seed=repeat)
        gains.append(matched_accuracy(y_true, search.labels[oracle(search, y_true)]))
        blind.append(accuracy_score(y_true, predicted))
    assert np.mean(gains) > 0.62 and abs(np.mean(blind) - 0.5) < 0.06


def test_both_eyes_of_a_patient_are_in_one_half(monkeypatch):
    y_true, patients = np.arange(24) % 2, np.arange(24) // 2
    seen = []
    monkeypatch.setattr(weighting, "oracle", lambda search, labels: seen.append(search.labels[0]) or 0)
    held_out(WeightSearch(patients[None], np.zeros(1)), y_true, patients, seed=3)
    halves = [set(part) for part in seen]
    assert not halves[0] & halves[1] and halves[0] | halves[1] == set(range(12))


def test_of_many_images_a_sample_has_a_silhouette(two_groups, monkeypatch):
    monkeypatch.setattr(weighting, "PAM_LIMIT", 15)
    features = two_groups[0]
    sampled, again = (search_weights(features, "kmeans", seed=1).criteria["silhouette"] for _ in range(2))
    np.testing.assert_array_equal(sampled, again)
    monkeypatch.setattr(weighting, "PAM_LIMIT", 100)
    whole = search_weights(features, "kmeans", seed=1).criteria["silhouette"]
    assert not np.array_equal(sampled, whole) and np.abs(sampled - whole).max() < 0.2
