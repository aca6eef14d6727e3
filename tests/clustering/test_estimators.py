from itertools import combinations, product

import kmedoids
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from ruranet_utils.clustering import estimators
from ruranet_utils.clustering.estimators import CLUSTERERS, Clustering
from ruranet_utils.statistics.metrics import matched_accuracy

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


def brute_force_objective(distances, k=2):
    n = len(distances)
    return min(distances[:, list(chosen)].min(axis=1).sum() for chosen in combinations(range(n), k))


def test_kmedoids_on_five_points_by_hand():
    fitted = Clustering("kmedoids").engine(5).set_params(metric="precomputed").fit(FIVE)
    assert FIVE[:, fitted.medoid_indices_].min(axis=1).sum() == 4
    assert 1 in fitted.medoid_indices_
    assert matched_accuracy([0, 0, 0, 1, 1], fitted.labels_) == 1


@pytest.mark.parametrize("seed", range(10))
def test_kmedoids_finds_the_best_two_of_twelve(seed):
    points = np.random.default_rng(seed).normal(size=(12, 3))
    points[:5] += 2
    assert Clustering("kmedoids").engine(12).fit(points).inertia_ == pytest.approx(
        brute_force_objective(cdist(points, points))
    )


@pytest.mark.parametrize("seed", range(10))
def test_no_single_swap_improves_kmedoids(seed):
    # All that PAM promises: on these points without groups, seed 9 ends 1 % above the best two.
    points = np.random.default_rng(seed).normal(size=(12, 3))
    fitted = Clustering("kmedoids").engine(12).fit(points)
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
    assert Clustering("kmedoids", n_clusters).engine(80).fit(points).inertia_ == pytest.approx(other.loss)


@pytest.mark.parametrize("method", CLUSTERERS)
def test_separate_groups_are_found_whatever_the_order(method, two_groups):
    features, y_true = two_groups
    features = features[:, 1] + 10 * y_true[:, None]
    order = np.random.default_rng(2).permutation(20)
    labels = Clustering(method).fit_predict(features)
    assert labels.shape == (20,) and labels.dtype == np.int64
    assert matched_accuracy(y_true, labels) == 1
    assert matched_accuracy(labels[order], Clustering(method).fit_predict(features[order])) == 1


@pytest.mark.parametrize("method", CLUSTERERS)
def test_same_seed_same_clusters(method, two_groups):
    features = two_groups[0][:, 0]
    np.testing.assert_array_equal(*(Clustering(method, random_state=3).fit_predict(features) for _ in range(2)))


def test_released_variant():
    assert Clustering("agglomerative", 2, variant="released").engine(9).n_clusters == 3
    alternating = Clustering("kmedoids", random_state=5, variant="released").engine(9)
    assert (alternating.method, alternating.init, alternating.random_state) == ("alternate", "random", 5)
    default = Clustering("kmedoids").engine(9)
    assert (default.method, default.init) == ("pam", "build")


def test_of_many_images_samples_are_clustered(monkeypatch):
    """CLARA finds what PAM finds, without a matrix of all distances."""
    rng = np.random.default_rng(0)
    y_true = np.arange(400) % 2
    features = rng.normal(size=(400, 6)) + 6 * y_true[:, None]
    monkeypatch.setattr(estimators, "CLARA_SAMPLE", 60)
    exact = Clustering("kmedoids").fit(features)
    monkeypatch.setattr(estimators, "PAM_LIMIT", 100)
    sampled, again = (Clustering("kmedoids", random_state=4).fit(features) for _ in range(2))
    assert type(sampled.engine(400)).__name__ == "CLARA" and type(exact.engine(100)).__name__ == "KMedoids"
    assert adjusted_rand_score(sampled.labels_, exact.labels_) > 0.95
    np.testing.assert_array_equal(sampled.labels_, again.labels_)


def test_equally_good_medoids_are_no_reason_to_warn(recwarn):
    areas = np.random.default_rng(2).integers(0, 3, size=(64, 4)) / 3.0
    areas = (areas - areas.mean(axis=0)) / areas.std(axis=0)
    assert len(np.unique(Clustering("kmedoids").fit_predict(areas))) == 2
    assert not [warning for warning in recwarn if "iteration" in str(warning.message)]


@pytest.mark.parametrize("method", CLUSTERERS)
def test_scikit_learn_accepts_the_estimator(method):
    check_estimator(Clustering(method), on_skip=None)


def test_parameters_are_scikit_learns():
    copy = clone(Clustering("kmeans", random_state=3)).set_params(n_clusters=4)
    expected = {"method": "kmeans", "n_clusters": 4, "variant": "default", "random_state": 3}
    assert copy.get_params() == expected


@pytest.mark.parametrize(
    ("options", "features", "message"),
    [
        ({"method": "dmh"}, np.eye(4), "method 'dmh'; valid methods: kmedoids, kmeans, agglomerative"),
        ({"n_clusters": 5}, np.eye(4), "4 images cannot form 5 clusters"),
        ({"n_clusters": 0}, np.eye(4), "n_clusters must be an integer >= 1, got 0"),
        ({}, np.array([[0.0], [np.nan], [1]]), "Input X contains NaN"),
        ({}, np.array([[0.0], [np.inf], [1]]), "Input X contains infinity"),
        ({}, np.zeros((4, 2, 2)), "Found array with dim 3"),
        ({}, np.ones((4, 3)), "the features are constant over 4 images"),
    ],
)
def test_clustering_refuses(options, features, message):
    with pytest.raises(ValueError, match=message):
        Clustering(**options).fit(features)


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="unknown variant 'paper'; valid variants: default, released"):
        Clustering("kmeans", variant="paper").fit(np.eye(3))
