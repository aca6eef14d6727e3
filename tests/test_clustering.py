from itertools import combinations, product

import kmedoids
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ruranet_utils.clustering import (
    CLUSTERERS,
    WEIGHT_GRID,
    WeightSearch,
    aggregate,
    cluster,
    label_free,
    make_clusterer,
    oracle,
    search_weights,
)
from ruranet_utils.metrics import matched_accuracy

# Distances between five points, made for k = 2: the groups are {0, 1, 2} and {3, 4}. With medoid 1 the first
# costs 1 + 2 = 3 (medoid 0: 1 + 4, medoid 2: 4 + 2); the second costs 1 with either medoid. Objective: 4.
FIVE = np.array(
    [
        [0, 1, 4, 9, 9],
        [1, 0, 2, 8, 9],
        [4, 2, 0, 7, 8],
        [9, 8, 7, 0, 1],
        [9, 9, 8, 1, 0],
    ],
    dtype=float,
)


@pytest.fixture
def two_groups():
    """Twenty images, four lesions: the second lesion alone separates the even images from the odd ones."""
    rng = np.random.default_rng(0)
    y_true = np.arange(20) % 2
    features = rng.normal(size=(20, 4, 5))
    features[:, 1] += 2.0 * y_true[:, None]
    return features, y_true


def brute_force_objective(distances, k=2):
    n = len(distances)
    return min(distances[:, list(chosen)].min(axis=1).sum() for chosen in combinations(range(n), k))


def test_kmedoids_on_five_points_by_hand():
    fitted = make_clusterer("kmedoids").set_params(metric="precomputed").fit(FIVE)
    assert FIVE[:, fitted.medoid_indices_].min(axis=1).sum() == 4
    assert 1 in fitted.medoid_indices_
    assert matched_accuracy([0, 0, 0, 1, 1], fitted.labels_) == 1


@pytest.mark.parametrize("seed", range(10))
def test_kmedoids_finds_the_best_two_of_twelve(seed):
    points = np.random.default_rng(seed).normal(size=(12, 3))
    points[:5] += 2
    assert make_clusterer("kmedoids").fit(points).inertia_ == pytest.approx(
        brute_force_objective(cdist(points, points))
    )


@pytest.mark.parametrize("seed", range(10))
def test_no_single_swap_improves_kmedoids(seed):
    # All that PAM promises: on these points without groups, seed 9 ends 1 % above the best two.
    points = np.random.default_rng(seed).normal(size=(12, 3))
    fitted = make_clusterer("kmedoids").fit(points)
    distances = cdist(points, points)
    pairs = product(fitted.medoid_indices_, range(12))
    swaps = [distances[:, list(pair)].min(axis=1).sum() for pair in pairs]
    assert fitted.inertia_ == pytest.approx(min(swaps))


@pytest.mark.parametrize("n_clusters", [2, 3])
@pytest.mark.parametrize("reference", [kmedoids.pam, kmedoids.fasterpam])
def test_kmedoids_agrees_with_another_implementation(reference, n_clusters):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(80, 6)) + 3 * rng.integers(3, size=(80, 1))
    other = reference(cdist(points, points), n_clusters, init="build")
    assert make_clusterer("kmedoids", n_clusters).fit(points).inertia_ == pytest.approx(other.loss)


@pytest.mark.parametrize("method", CLUSTERERS)
def test_separate_groups_are_found_whatever_the_order(method, two_groups):
    features, y_true = two_groups
    features = features[:, 1] + 10 * y_true[:, None]
    order = np.random.default_rng(2).permutation(20)
    labels = cluster(method, features)
    assert labels.shape == (20,) and labels.dtype == np.int64
    assert matched_accuracy(y_true, labels) == 1
    assert matched_accuracy(labels[order], cluster(method, features[order])) == 1


@pytest.mark.parametrize("method", CLUSTERERS)
def test_same_seed_same_clusters(method, two_groups):
    features = two_groups[0][:, 0]
    np.testing.assert_array_equal(cluster(method, features, seed=3), cluster(method, features, seed=3))


def test_released_variant():
    assert make_clusterer("agglomerative", 2, variant="released").n_clusters == 3
    alternating = make_clusterer("kmedoids", seed=5, variant="released")
    assert (alternating.method, alternating.init, alternating.random_state) == ("alternate", "random", 5)
    default = make_clusterer("kmedoids")
    assert (default.method, default.init) == ("pam", "build")


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
    assert search.labels.shape == (81, 20) and search.silhouette.shape == (81,)
    index = 7
    weighted = aggregate(features, WEIGHT_GRID[index])
    np.testing.assert_array_equal(search.labels[index], cluster(method, weighted))
    assert search.silhouette[index] == pytest.approx(slow_silhouette(weighted, search.labels[index]))
    best, blind = oracle(search, y_true), label_free(search)
    accuracies = [matched_accuracy(y_true, labels) for labels in search.labels]
    assert accuracies[best] == max(accuracies) >= accuracies[blind]


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


def test_names_of_clusters_do_not_move_the_choice(two_groups):
    features, y_true = two_groups
    search = search_weights(features, "kmedoids")
    renamed = WeightSearch(labels=1 - search.labels, silhouette=search.silhouette)
    assert oracle(renamed, y_true) == oracle(search, y_true)
    assert oracle(search, 1 - y_true) == oracle(search, y_true)


def test_label_free_takes_the_largest_silhouette_and_the_first_of_equals():
    labels = np.zeros((4, 3), dtype=int)
    assert label_free(WeightSearch(labels, np.array([0.1, np.nan, 0.3, 0.3 + 1e-15]))) == 2
    with pytest.raises(ValueError, match="none of the 4 weightings"):
        label_free(WeightSearch(labels, np.full(4, np.nan)))


def test_oracle_takes_the_best_accuracy_and_the_first_of_equals():
    labels = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    assert oracle(WeightSearch(labels, np.zeros(3)), [0, 0, 1, 1]) == 1


def test_one_cluster_has_no_silhouette():
    search = search_weights(np.zeros((6, 4, 3)), "kmedoids")
    assert np.isnan(search.silhouette).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dmh", np.eye(4)), "method 'dmh'; valid methods: kmedoids, kmeans, agglomerative"),
        (("kmeans", np.eye(4), 5), "4 images cannot form 5 clusters"),
        (("kmeans", np.array([[0.0], [np.nan], [np.inf]])), "hold 2 NaN or infinite values of 3"),
        (("kmeans", np.zeros((4, 2, 2))), r"\(n_images, d\), got \(4, 2, 2\)"),
    ],
)
def test_cluster_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster(*arguments)


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


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="unknown variant 'paper'; valid variants: default, released"):
        make_clusterer("kmeans", variant="paper")
