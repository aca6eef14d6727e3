"""Scores against hand computation, other libraries, slow loops and what must not change them."""

from itertools import permutations

import numpy as np
import pytest
from sklearn import metrics as sk

from ruranet_utils.statistics.metrics import classification_scores, clustering_scores, match_clusters, matched_accuracy


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# --- classification ----------------------------------------------------------------------------------------------


def labels_of(tp, fp, fn, tn):
    return np.repeat([1, 0, 1, 0], [tp, fp, fn, tn]), np.repeat([1, 1, 0, 0], [tp, fp, fn, tn])


def test_classification_scores_by_hand():
    scores = classification_scores(*labels_of(tp=3, fp=1, fn=2, tn=4))
    assert scores == pytest.approx({"accuracy": 0.7, "precision": 3 / 4, "recall": 3 / 5, "f1": 6 / 9})


def test_weighted_scores_give_the_row_the_paper_prints():
    scores = classification_scores(*labels_of(tp=110, fp=7, fn=41, tn=144), average="weighted")
    assert [round(score, 4) for score in scores.values()] == [0.8411, 0.8593, 0.8411, 0.8390]


@pytest.mark.parametrize("average", ["binary", "weighted"])
def test_classification_scores_agree_with_scikit_learn(rng, average):
    y_true, y_pred = rng.integers(0, 2, (2, 60))
    scores = classification_scores(y_true, y_pred, average)
    assert scores == pytest.approx(
        {
            "accuracy": sk.accuracy_score(y_true, y_pred),
            "precision": sk.precision_score(y_true, y_pred, average=average),
            "recall": sk.recall_score(y_true, y_pred, average=average),
            "f1": sk.f1_score(y_true, y_pred, average=average),
        }
    )


def test_no_class_is_an_error_of_either_class():
    y_true, y_pred = np.array([1, 1, 0, 0]), np.array([1, -1, 0, -1])
    expected = {"accuracy": 0.5, "precision": 1, "recall": 0.5, "f1": 2 / 3}
    assert classification_scores(y_true, y_pred) == pytest.approx(expected)
    assert classification_scores(y_true, y_pred, average="weighted") == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_degenerate_classifications_are_defined():
    assert set(classification_scores([1, 1, 1], [0, 0, 0]).values()) == {0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), r"y_true .* shape \(0,\)"),
        (([[0, 1]], [0, 1]), r"y_true .* shape \(1, 2\)"),
        (([0, 1], [0, 1, 1]), r"y_true \(2,\), y_pred \(3,\)"),
        (([0, 2], [0, 1]), r"y_true must hold only \(0, 1\), got \[2\]"),
        (([0, 1], [0, 3]), r"y_pred must hold only \(-1, 0, 1\), got \[3\]"),
        (([0.0, np.nan], [0, 1]), "y_true .* NaN"),
        (([0, 1], [0, 1], "macro"), "'macro'"),
    ],
)
def test_classification_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(*arguments)


# --- clustering --------------------------------------------------------------------------------------------------


def test_clusters_are_matched_by_hand():
    y_true = np.array([0, 0, 0, 1, 1, 1])
    y_cluster = np.array([5, 5, 9, 9, 9, 2])
    assert match_clusters(y_true, y_cluster).tolist() == [0, 0, 1, 1, 1, -1]
    assert matched_accuracy(y_true, y_cluster) == pytest.approx(4 / 6)


def test_one_cluster_is_matched_with_the_larger_class():
    assert match_clusters([0, 1, 1], [4, 4, 4]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 4])
def test_matching_is_as_good_as_the_best_of_all_renamings(rng, n_clusters):
    for _ in range(20):
        y_true, y_cluster = rng.integers(0, 2, 15), rng.integers(0, n_clusters, 15)
        names = [0, 1] + [-1] * max(0, n_clusters - 2)
        best = max(np.mean(np.take(p, y_cluster) == y_true) for p in permutations(names, n_clusters))
        assert matched_accuracy(y_true, y_cluster) == pytest.approx(best)


def test_clustering_scores_ignore_names_of_clusters_and_order_of_images(rng):
    for _ in range(30):  # so few images that equally good matches are common
        y_true, y_cluster, features = rng.permutation([0, 0, 0, 1, 1, 1]), rng.integers(0, 3, 6), rng.random((6, 2))
        order, names = rng.permutation(6), rng.permutation([3, 8, 11])
        expected = clustering_scores(features, y_true, y_cluster)
        renamed = clustering_scores(features[order], y_true[order], names[y_cluster[order]])
        assert renamed == pytest.approx(expected, nan_ok=True)


def test_clustering_scores_agree_with_scikit_learn(rng):
    y_true, features = rng.integers(0, 2, 40), rng.random((40, 3))
    y_cluster = np.where(rng.random(40) < 0.8, 1 - y_true, y_true)  # right for most, under the other names
    scores = clustering_scores(features, y_true, y_cluster)
    y_pred = 1 - y_cluster
    assert scores["accuracy"] == sk.accuracy_score(y_true, y_pred) > 0.5
    assert scores["f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="weighted"))
    assert scores["precision_positive"] == pytest.approx(sk.precision_score(y_true, y_pred))
    assert scores["f1_positive"] == pytest.approx(sk.f1_score(y_true, y_pred))
    assert scores["ari"] == pytest.approx(sk.adjusted_rand_score(y_true, y_cluster))
    assert scores["nmi"] == pytest.approx(sk.normalized_mutual_info_score(y_true, y_cluster))


def test_internal_scores_by_hand():
    features = np.array([[0.0], [2.0], [10.0], [12.0]])
    scores = clustering_scores(features, [0, 0, 1, 1], [0, 0, 1, 1])
    assert scores["accuracy"] == scores["ari"] == scores["nmi"] == 1
    assert scores["calinski_harabasz"] == pytest.approx((100 / 1) / (4 / 2))  # between 4·5², within 4·1²
    assert scores["davies_bouldin"] == pytest.approx((1 + 1) / 10)
    assert scores["silhouette"] == pytest.approx((9 / 11 + 7 / 9) / 2)  # a = 2; b = 11 or 9


@pytest.mark.parametrize("y_cluster", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_internal_scores_are_undefined_for_one_cluster_or_one_for_each_image(rng, y_cluster):
    scores = clustering_scores(rng.random((4, 2)), [0, 1, 0, 1], y_cluster)
    assert np.isnan([scores[name] for name in ("calinski_harabasz", "davies_bouldin", "silhouette")]).all()
    assert scores["accuracy"] == 0.5


def test_clustering_errors(rng):
    with pytest.raises(ValueError, match=r"y_true \(2,\), y_cluster \(3,\)"):
        match_clusters([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match=r"\[2\]"):
        match_clusters([0, 2], [0, 1])
    with pytest.raises(ValueError, match=r"y_cluster .* not empty"):
        match_clusters([0], [])
    with pytest.raises(ValueError, match=r"\(3, n_features\), got \(2, 5\)"):
        clustering_scores(rng.random((2, 5)), [0, 1, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="got 1 NaN or infinite"):
        clustering_scores(np.array([[0.0], [np.inf]]), [0, 1], [0, 1])
