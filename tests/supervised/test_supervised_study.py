"""Table 3: batches that keep image and label together, and scores that follow from the stored probabilities."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.data.splits import assign_splits
from ruranet_utils.networks import training
from ruranet_utils.networks.backbones import normalize
from ruranet_utils.supervised import classifier
from ruranet_utils.supervised.classifier import ImageBatches
from ruranet_utils.supervised.study import (
    PROTOCOLS,
    calibration_bins,
    contradicted,
    deal,
    hold_out_draws,
    predict,
    table_3,
)


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


def test_batches_depend_on_seed_and_epoch_alone(numbered):
    batches = ImageBatches(*numbered, 4, seed=3)
    rounds = [collect(batches) for _ in range(2)]
    again = collect(ImageBatches(*numbered, 4, seed=3, epoch=1))
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


def trainings_of(cohort, profile):
    parts = [(name, *one) for name, parts in deal(cohort, profile).items() for one in enumerate(parts)]
    return {(backbone, name, fold): part for name, fold, part in parts for backbone in profile.classifiers}


def test_table_3_follows_from_the_predictions_and_is_computed_once(phantoms, two_networks, store, journal):
    trainings = trainings_of(phantoms, two_networks)
    predictions = predict(trainings, two_networks, store)
    table = table_3(predictions, two_networks)
    assert table["backbone"].tolist() == ["mobilenet_v2", "mobilenet_v2", "resnet18", "resnet18"]
    assert table["protocol"].tolist() == [*PROTOCOLS, *PROTOCOLS]
    for row in table.itertuples():
        part = predictions.query("backbone == @row.backbone and protocol == @row.protocol")
        truth, probability = part["label"], part["probability"]
        assert probability.between(0, 1, inclusive="neither").all()
        predicted = (probability > 0.5).astype(int)
        assert row.accuracy == pytest.approx(sk.accuracy_score(truth, predicted))
        assert row.precision == pytest.approx(sk.precision_score(truth, predicted, zero_division=0))
        assert row.recall == pytest.approx(sk.recall_score(truth, predicted))
        assert row.f1 == pytest.approx(sk.f1_score(truth, predicted))
        assert row.balanced_accuracy == pytest.approx(sk.recall_score(truth, predicted, average="macro"))
        assert row.brier == pytest.approx(np.mean((probability - truth) ** 2))
        pairs = part.groupby("fold")["label"].agg(lambda labels: labels.sum() * (1 - labels).sum())
        within = [sk.roc_auc_score(fold["label"], fold["probability"]) for _, fold in part.groupby("fold")]
        assert row.auc == pytest.approx(np.average(within, weights=pairs))
        assert row.accuracy_low <= row.accuracy <= row.accuracy_high
        assert row.auc_low <= row.auc <= row.auc_high or np.isnan([row.auc_low, row.auc_high]).all()
        assert row.n == len(part) and row.weights == "random"
    assert predict(trainings, two_networks, store).equals(predictions)
    n_trainings = 2 * (1 + two_networks.n_folds)
    assert [(event["step"], event["found"]) for event in journal()] == [
        ("classifier", found) for found in [False] * n_trainings + [True] * n_trainings
    ]


def test_every_image_is_scored_once_and_no_patient_is_on_two_sides(phantoms, tiny):
    dealt = deal(phantoms, tiny)
    assert [len(dealt[protocol]) for protocol in PROTOCOLS] == [1, tiny.n_folds]
    for parts in dealt.values():
        for part in parts:
            assert part.table.groupby("patient_id")["split"].nunique().eq(1).all()
            assert part.table.groupby("split")["label"].nunique().to_dict() == {"train": 2, "val": 2, "test": 2}
    folds = dealt["cross-validation"]
    for side in ("test", "val"):
        scored = pd.concat([part.split(side).table["image_id"] for part in folds])
        assert sorted(scored) == sorted(phantoms.table["image_id"])
    assert dealt["hold-out"][0].table["split"].equals(assign_splits(phantoms.table, tiny.split, tiny.seed))


@pytest.mark.parametrize(("n", "expected"), [(302, 62), (174, 62), (124, 62), (122, 24)])
def test_the_hold_out_has_about_as_many_images_as_the_papers(tiny, n, expected):
    names = [f"{i:03d}" for i in range(n)]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "label": np.arange(n) % 2})
    profile = replace(tiny, split=(0.8, 0.1, 0.1) if n > 122 else (0.7, 0.1, 0.2))
    (part,) = deal(Cohort(table.astype({"label": "Int64"}), np.zeros((n, 3, 1, 1), np.uint8), None), profile)[
        "hold-out"
    ]
    per_class = part.table.query("split == 'test'").groupby("label").size().to_numpy()
    assert len(per_class) == 2 and np.abs(per_class - expected / 2).max() <= 2


def test_every_draw_is_another_hold_out_scored_on_images_it_was_not_fitted_to(phantoms, tiny):
    told = phantoms.labels[:, None] + np.random.default_rng(0).normal(0, 0.01, (len(phantoms), 3))
    draws = hold_out_draws(told, phantoms, tiny, n_draws=4)
    assert draws["seed"].tolist() == [0, 1, 2, 3] and draws["n"].between(3, 5).all()
    assert (draws[["accuracy", "auc"]] == 1).all(axis=None)
    named = np.eye(len(phantoms))  # who an image is says nothing about the others
    guessed = hold_out_draws(named, phantoms, tiny, n_draws=8)
    assert guessed["accuracy"].mean() < 0.8
    noise = hold_out_draws(np.random.default_rng(1).normal(size=(len(phantoms), 3)), phantoms, tiny, n_draws=8)
    assert noise["auc"].std() > 0


def test_folds_without_a_class_are_refused(phantoms, tiny):
    few = phantoms.table.assign(patient_id=np.where(phantoms.labels == 1, "one", phantoms.table["patient_id"]))
    with pytest.raises(ValueError, match="need both classes"):
        deal(Cohort(few, phantoms.images, None), tiny)


def test_a_probability_above_one_half_is_a_diagnosis(phantoms, two_networks, store, monkeypatch):
    def fit(cohort, backbone, profile, checkpoint):
        right = 0.45 + 0.1 * cohort.split("test").labels
        history = np.array([[1, 0.7, 0.4], [2, 0.6, 0.8], [3, 0.5, 0.8]])
        return {"probability": right if backbone == "mobilenet_v2" else 1 - right, "history": history}

    monkeypatch.setattr(classifier, "fit", fit)
    table = table_3(predict(trainings_of(phantoms, two_networks), two_networks, store), two_networks)
    for name in ("accuracy", "precision", "recall", "f1", "auc", "balanced_accuracy"):
        assert table[name].tolist() == [1, 1, 0, 0]
    assert table[["auc_low", "auc_high"]].isna().all(axis=None), "all resamples agree"
    assert (table["epoch"] == 2).all() and table["validation_auc"].tolist() == pytest.approx([0.8] * 4)


def test_a_network_learns_what_is_plain_to_see(phantoms, tiny):
    """Bright images are class 1: a few steps suffice, and the test images were not among them."""
    labels = phantoms.labels
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, size=phantoms.images.shape) + 150 * labels[:, None, None, None]
    cohort = Cohort(phantoms.table, images.astype(np.uint8), None)
    profile = replace(tiny, classifier_epochs=4, classifier_learning_rate=1e-3)
    probability = classifier.fit(cohort, "resnet18", profile)["probability"]
    assert sk.roc_auc_score(cohort.split("test").labels, probability) == 1


def test_the_classifier_sees_no_label_of_a_test_image(phantoms, tiny):
    """Exchanging the test labels changes nothing."""
    table = phantoms.table.copy()
    test = table["split"] == "test"
    table.loc[test, "label"] = 1 - table.loc[test, "label"]
    exchanged = Cohort(table, phantoms.images, phantoms.masks)
    first, second = (classifier.fit(cohort, "mobilenet_v2", tiny) for cohort in (phantoms, exchanged))
    np.testing.assert_array_equal(first["probability"], second["probability"])


def test_a_killed_training_goes_on_to_the_same_probabilities(phantoms, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    profile, checkpoint = replace(tiny, classifier_epochs=3), tmp_path / "classifier.ckpt"
    whole = classifier.fit(phantoms, "mobilenet_v2", profile)

    class Killed(Exception):
        pass

    def die(self, trainer, module):
        if trainer.current_epoch == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training.Record, "on_train_batch_end", lambda self, trainer, *_: die(self, trainer, None))
        classifier.fit(phantoms, "mobilenet_v2", profile, checkpoint)
    assert checkpoint.exists()
    resumed = classifier.fit(phantoms, "mobilenet_v2", profile, checkpoint)
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values)


def test_labels_are_contradicted_with_confidence():
    """By the definition, image by image: the other class at least as probable as usual for it, and above one half."""
    rng = np.random.default_rng(0)
    labels, probability = rng.integers(0, 2, 60), rng.random(60)
    found = contradicted(labels, probability)
    for label, p, doubted in zip(labels, probability, found, strict=True):
        other = p if label == 0 else 1 - p
        of_other = probability[labels == 1] if label == 0 else 1 - probability[labels == 0]
        assert doubted == (other >= of_other.mean() and other > 0.5)
    assert 0 < found.sum() < 60


def test_calibration_bins_hold_the_share_of_positive_images(tiny):
    """Ten patients of two images; the second backbone gives every image the same probability."""
    image = np.arange(20)
    told = pd.DataFrame({"patient_id": image // 2, "label": image >= 10, "probability": image / 20}).astype(
        {"label": int}
    )
    predictions = pd.concat([told.assign(backbone="a"), told.assign(backbone="b", probability=0.5)])
    bins = calibration_bins(predictions, tiny, n_bins=4)
    a, b = (bins[bins["backbone"] == name] for name in "ab")
    assert a["predicted"].tolist() == pytest.approx([0.1, 0.35, 0.6, 0.85])
    assert a["share"].tolist() == [0, 0, 1, 1] and a[["low", "high"]].eq(a["share"], axis=0).all(axis=None)
    assert b["share"].tolist() == [0.5] and b["low"].item() < 0.5 < b["high"].item()
