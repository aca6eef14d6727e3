"""Table 3: batches that keep image and label together, and scores that follow from the stored probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from ruranet_utils import supervised
from ruranet_utils.backbones import normalize
from ruranet_utils.cohort import Cohort
from ruranet_utils.supervised import ImageBatches, predict_test, table_3


@pytest.fixture
def numbered():
    """Eleven images that show their number everywhere but in one corner, and their numbers as labels."""
    images = torch.zeros(11, 3, 4, 6) + torch.arange(11).view(11, 1, 1, 1) / 20
    images[:, :, 0, 0] = 1
    return images, np.arange(11)


def collect(batches: ImageBatches) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_labels_stay_with_their_images_and_each_image_comes_once(numbered):
    batches = ImageBatches(*numbered, batch_size=4, seed=0)
    for _ in range(3):
        images, labels = collect(batches)
        assert sorted(labels.tolist()) == list(range(11)) and labels.tolist() != list(range(11))
        plain = normalize(numbered[0])[labels.long()]
        torch.testing.assert_close(images[:, :, 1:-1, 1:-1], plain[:, :, 1:-1, 1:-1])


def test_images_are_mirrored_either_way_and_never_turned(numbered):
    batches, mirrored = ImageBatches(*numbered, batch_size=4, seed=0), []
    for _ in range(8):
        images, labels = collect(batches)
        plain = normalize(numbered[0])[labels.long()]
        for image, original in zip(images, plain, strict=True):
            (axes,) = [axes for axes in ((), (1,), (2,), (1, 2)) if torch.equal(image, original.flip(axes))]
            mirrored.append(axes)
    counts = [mirrored.count(axes) for axes in ((), (1,), (2,), (1, 2))]
    assert min(counts) > 0.15 * len(mirrored)


def test_batches_depend_on_seed_and_iteration_alone(numbered):
    batches = ImageBatches(*numbered, 4, seed=3)
    rounds = [collect(batches) for _ in range(2)]
    again = collect(ImageBatches(*numbered, 4, seed=3, iteration=1))
    assert all(torch.equal(a, b) for a, b in zip(rounds[1], again, strict=True))
    assert not torch.equal(rounds[0][1], rounds[1][1])
    assert not torch.equal(rounds[0][1], collect(ImageBatches(*numbered, 4, seed=4))[1])


def test_without_a_seed_images_come_in_order_and_unchanged(numbered):
    batches = ImageBatches(*numbered, batch_size=4)
    for _ in range(2):
        images, labels = collect(batches)
        assert labels.tolist() == list(range(11)) and labels.dtype == torch.float32
        torch.testing.assert_close(images, normalize(numbered[0]))


@pytest.mark.parametrize("batch_size", [2, 3])
@pytest.mark.parametrize("n", range(2, 12))
def test_no_batch_holds_a_single_image(numbered, n, batch_size):
    images, labels = numbered
    batches = ImageBatches(images[:n], labels[:n], batch_size, seed=0)
    sizes = [len(batch) for batch, _ in batches]
    assert len(sizes) == len(batches) and sum(sizes) == n
    assert min(sizes) >= 2 and max(sizes) < 2 * batch_size


@pytest.fixture(scope="module")
def two_networks(tiny):
    return replace(tiny, classifiers=("mobilenet_v2", "resnet18"), batch_size=8)


def test_table_3_follows_from_its_probabilities_and_is_computed_once(phantoms, two_networks, store, journal):
    table, probabilities = table_3(phantoms, two_networks, store)
    truth = phantoms.split("test").labels
    assert table["backbone"].tolist() == list(probabilities) == ["mobilenet_v2", "resnet18"]
    for row in table.itertuples():
        probability = probabilities[row.backbone]
        assert probability.shape == truth.shape and ((probability > 0) & (probability < 1)).all()
        predicted = probability > 0.5
        assert row.accuracy == pytest.approx(accuracy_score(truth, predicted))
        assert row.precision == pytest.approx(precision_score(truth, predicted, zero_division=0))
        assert row.recall == pytest.approx(recall_score(truth, predicted))
        assert row.f1 == pytest.approx(f1_score(truth, predicted))
        assert row.auc == pytest.approx(roc_auc_score(truth, probability))
        assert row.accuracy_low <= row.accuracy <= row.accuracy_high
        assert row.n == len(truth) and row.weights == "random"
    assert not np.allclose(*probabilities.values())
    again, _ = table_3(phantoms, two_networks, store)
    assert again.equals(table)
    assert [(event["step"], event["found"]) for event in journal()] == [
        ("classifier", f) for f in (False, False, True, True)
    ]


def test_a_probability_above_one_half_is_a_diagnosis(phantoms, two_networks, store, monkeypatch):
    right = 0.45 + 0.1 * phantoms.split("test").labels
    by_backbone = {"mobilenet_v2": right, "resnet18": 1 - right}
    monkeypatch.setattr(supervised, "predict_test", lambda cohort, profile, store: by_backbone)
    table, _ = table_3(phantoms, two_networks, store)
    for name in ("accuracy", "precision", "recall", "f1", "auc", "accuracy_low", "accuracy_high"):
        assert table[name].tolist() == [1, 0]


def test_a_network_learns_what_is_plain_to_see(phantoms, tiny, store):
    """Bright images are class 1: a few steps suffice, and the test images were not among them."""
    labels = phantoms.labels
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, size=phantoms.images.shape) + 150 * labels[:, None, None, None]
    cohort = Cohort(phantoms.table, images.astype(np.uint8), None)
    profile = replace(tiny, classifiers=("resnet18",), classifier_epochs=4, classifier_learning_rate=1e-3)
    probability = predict_test(cohort, profile, store)["resnet18"]
    assert roc_auc_score(cohort.split("test").labels, probability) == 1


def test_the_classifier_sees_no_label_of_a_test_image(phantoms, tiny, store):
    """Exchanging the test labels changes nothing."""
    table = phantoms.table.copy()
    test = table["split"] == "test"
    table.loc[test, "label"] = 1 - table.loc[test, "label"]
    exchanged = Cohort(table, phantoms.images, phantoms.masks)
    first, second = (predict_test(cohort, tiny, store)["mobilenet_v2"] for cohort in (phantoms, exchanged))
    assert phantoms.digest != exchanged.digest
    np.testing.assert_array_equal(first, second)
