import numpy as np
import pytest
import torch
from sklearn.base import clone

from ruranet_utils.clustering import dmh
from ruranet_utils.clustering.dmh import DMH, estimate_medoids, train_heads
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.weighting import aggregate
from ruranet_utils.statistics.metrics import matched_accuracy


@pytest.fixture(scope="module")
def two_groups():
    """Forty images in two groups that every lesion separates, on top of an offset per lesion."""
    rng = np.random.default_rng(0)
    y_true = np.arange(40) % 2
    features = rng.normal(size=(40, 4, 10)) + 20 * rng.normal(size=(4, 10))
    features[:, :, 0] += 4.0 * y_true[:, None]
    return features, y_true


@pytest.fixture(scope="module")
def trained(two_groups):
    return train_heads(two_groups[0], epochs=100, lam=0.3, seed=0)


def test_medoids_are_images_of_their_lesion_without_gradient():
    outputs = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    medoids = estimate_medoids(outputs)
    assert medoids.shape == (4, 2, 3) and not medoids.requires_grad
    for lesion in range(4):
        for medoid in medoids[lesion]:
            assert (outputs[:, lesion] == medoid).all(dim=1).any()


def test_equally_good_medoids_of_a_head_are_no_reason_to_warn(recwarn):
    areas = np.random.default_rng(2).integers(0, 3, size=(64, 4)) / 3.0
    estimate_medoids(torch.from_numpy((areas - areas.mean(axis=0)) / areas.std(axis=0))[:, None])
    assert not [warning for warning in recwarn if "iteration" in str(warning.message)]


def test_training_lowers_the_loss_and_records_it(trained):
    history = trained.history
    assert history.columns.tolist() == ["epoch", "loss_diversity", "loss_cluster", "threshold", "similarity"]
    assert history["epoch"].tolist() == list(range(1, 101))
    total = history["loss_diversity"] + 0.3 * history["loss_cluster"]
    assert total.iloc[-1] < total.iloc[0] / 2
    # Heads start equal, more similar than the target: the diversity loss acts, T first falls, then rises.
    assert history["loss_diversity"].iloc[0] > 0
    assert history["similarity"].iloc[0] > 0.5 > history["similarity"].iloc[-1]
    threshold = history["threshold"].to_numpy()
    factors = np.where(history["similarity"] > 0.5, 0.99, 1.01)[:-1]
    assert threshold[0] == 0.5
    np.testing.assert_allclose(threshold[1:], np.minimum(threshold[:-1] * factors, 1))


def test_both_terms_of_equation_3_drive_the_training(two_groups):
    def last(lam, threshold):
        settings = {"epochs": 8, "lam": lam, "seed": 0, "target_similarity": threshold, "rule": "fixed"}
        return train_heads(two_groups[0], **settings).history.iloc[-1]

    # With T = 1 no pair is too similar, so Eq. 4 is silent; with lambda = 0 Eq. 5 is.
    neither, spread, pulled = last(0, 1.0), last(0, 0.0), last(1, 1.0)
    assert spread["similarity"] < neither["similarity"] - 0.1
    assert pulled["loss_cluster"] < neither["loss_cluster"] - 0.1


def test_heads_do_not_collapse(trained, two_groups):
    embedding = trained.embedding
    assert embedding.shape == (40, 4, 32) and embedding.dtype == np.float32
    # Without the scaling to length 1, Eq. 5 makes every output shrink.
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=2), 1, atol=1e-5)
    # And within the unit sphere, the images of a lesion do not all move to one point.
    between = np.linalg.norm(embedding[:20, None] - embedding[None, 20:], axis=3)
    assert (between.mean(axis=(0, 1)) > 0.3).all()
    labels = Clustering("kmedoids").fit_predict(aggregate(embedding, [1, 1, 1, 1]))
    assert matched_accuracy(two_groups[1], labels) > 0.9


def test_same_seed_same_embedding_and_global_state_untouched(two_groups):
    features = two_groups[0]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second = (train_heads(features, epochs=5, lam=0.3, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.embedding, second.embedding)
    assert first.history.equals(second.history)
    assert torch.equal(state, torch.get_rng_state())
    assert not np.array_equal(first.embedding, train_heads(features, epochs=5, lam=0.3, seed=2).embedding)


def test_order_of_images_moves_with_the_outputs(two_groups):
    features = two_groups[0]
    order = np.random.default_rng(3).permutation(40)
    straight = train_heads(features, epochs=15, lam=0.3, seed=0).embedding
    moved = train_heads(features[order], epochs=15, lam=0.3, seed=0).embedding
    np.testing.assert_allclose(moved, straight[order], atol=1e-3)


def test_unit_and_offset_of_a_lesion_do_not_matter(two_groups):
    features = two_groups[0]
    straight = train_heads(features, epochs=3, lam=0.3, seed=0).embedding
    other = train_heads(1000 * features + np.arange(4)[:, None], epochs=3, lam=0.3, seed=0).embedding
    np.testing.assert_allclose(other, straight, atol=1e-3)


def test_a_lesion_that_no_image_shows_is_no_obstacle(two_groups):
    features = two_groups[0].copy()
    features[:, 1] = features[0, 1]
    result = train_heads(features, epochs=5, lam=0.3, seed=0)
    assert np.isfinite(result.embedding).all() and np.isfinite(result.history).all(axis=None)


def test_many_images_are_compared_in_batches(two_groups, monkeypatch):
    features = np.concatenate([two_groups[0]] * 5)
    monkeypatch.setattr(dmh, "BATCH_SIZE", 50)
    seen, loss = [], dmh.diversity_loss
    monkeypatch.setattr(dmh, "diversity_loss", lambda outputs, t: seen.append(len(outputs)) or loss(outputs, t))
    first, again = (train_heads(features, epochs=25, lam=0.3, seed=0) for _ in range(2))
    assert seen == [50] * 4 * 25 * 2
    np.testing.assert_array_equal(first.embedding, again.embedding)
    labels = Clustering("kmedoids").fit_predict(aggregate(first.embedding, [1, 1, 1, 1]))
    assert matched_accuracy(np.tile(two_groups[1], 5), labels) > 0.9


def test_the_other_reading_trains_too(two_groups):
    result = train_heads(two_groups[0], epochs=20, lam=0.3, seed=0, reading="clusters")
    assert result.history["loss_cluster"].iloc[-1] < result.history["loss_cluster"].iloc[0]
    assert not np.array_equal(result.embedding, train_heads(two_groups[0], epochs=20, lam=0.3, seed=0).embedding)
    with pytest.raises(ValueError, match="unknown reading 'rows'; valid readings: images, clusters"):
        train_heads(two_groups[0], epochs=1, lam=0.3, seed=0, reading="rows")


def test_dmh_is_heads_then_equation_2_then_kmedoids(two_groups):
    features, y_true = two_groups
    weights = [1, 5, 10, 1]
    fitted = clone(DMH(weights, epochs=100)).fit(features)
    expected = train_heads(features, epochs=100, lam=0.3, seed=0)
    np.testing.assert_array_equal(fitted.embedding_, expected.embedding)
    assert fitted.history_.equals(expected.history)
    np.testing.assert_array_equal(
        fitted.labels_, Clustering("kmedoids").fit_predict(aggregate(expected.embedding, weights))
    )
    np.testing.assert_array_equal(fitted.fit_predict(features), fitted.labels_)
    assert matched_accuracy(y_true, fitted.labels_) > 0.9
    assert fitted.get_params()["weights"] == weights and "lam=0.7" in repr(DMH(lam=0.7))


def test_dmh_refuses_weights_outside_the_grid(two_groups):
    with pytest.raises(ValueError, match=r"weights must lie in \[1, 10\], got 0.1"):
        DMH([0.1, 1, 1, 1], epochs=1).fit(two_groups[0])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.full((5, 4, 3), np.nan), "hold 60 NaN or infinite values of 60"),
        (np.ones((1, 4, 3)), "1 images cannot form 2 clusters"),
        (np.ones((5, 4)), r"n_lesions >= 2, k\), got \(5, 4\)"),
        (np.ones((5, 1, 3)), r"got \(5, 1, 3\)"),
        (np.ones((5, 4, 3)), "do not vary between the 5 images"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        train_heads(features, epochs=1, lam=0.3, seed=0)


def test_without_a_number_of_epochs_training_ends_when_equation_3_stops_falling(two_groups):
    settled = train_heads(two_groups[0], epochs=None, lam=0.3, seed=0)
    total = (settled.history["loss_diversity"] + 0.3 * settled.history["loss_cluster"]).to_numpy()
    falls = [total[end - 40 : end - 20].mean() - total[end - 20 : end].mean() for end in range(40, len(total) + 1)]
    assert falls[-1] < 0.01 * total[0] and all(fall >= 0.01 * total[0] for fall in falls[:-1]) and len(falls) > 1
    fixed = train_heads(two_groups[0], epochs=len(total), lam=0.3, seed=0)
    np.testing.assert_array_equal(settled.embedding, fixed.embedding)


def test_the_course_holds_the_outputs_on_the_way(two_groups):
    found = train_heads(two_groups[0], epochs=7, lam=0.3, seed=0, course=(0, 3, 7, 9)).course
    assert sorted(found) == [0, 3, 7]
    for epochs in (3, 7):
        shorter = train_heads(two_groups[0], epochs=epochs, lam=0.3, seed=0)
        np.testing.assert_array_equal(found[epochs], shorter.embedding)
