"""One network for all lesions: who trains it, who scores it, and what is kept of it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import ANNOTATIONS, LESIONS
from ruranet_utils.segmentation import joint as joint_module
from ruranet_utils.segmentation import training, unet
from ruranet_utils.segmentation.apply import load_model
from ruranet_utils.segmentation.joint import ALL, N_FOLDS, THRESHOLD, JointSegmenter
from ruranet_utils.segmentation.scores import pixel_counts, segmentation_scores
from ruranet_utils.segmentation.study import (
    best_encoders,
    compare_protocols,
    encoder_study,
    keep,
    lesion_masks,
    segmenter_of,
    train_ahead,
)
from ruranet_utils.storage import store as store_module
from ruranet_utils.storage.store import Store

ENCODER = "mobilenet_v2"
MACHINE = np.frombuffer(b"Analytical Engine", np.uint8)


@pytest.fixture(scope="module")
def joint(tiny):
    return replace(tiny, masks="joint", batch_size=8, weight_average=0.5, decoder_width=32, learning_rate=1e-2)


@pytest.fixture(scope="module")
def with_healthy(phantoms):
    """The phantoms, of which those without a lesion serve as healthy eyes, too, under names of their own."""
    empty = phantoms.subset(~phantoms.masks[:, :3].any(axis=(1, 2, 3)))
    table = empty.table.assign(patient_id="healthy " + empty.table["patient_id"], source="elsewhere")
    return replace(phantoms, healthy=replace(empty, table=table, masks=None), lesion_notes={"edema": "stand-in"})


@pytest.fixture
def fitted(monkeypatch):
    """What :func:`training.fit_joint` was given, without any training."""
    calls = []

    def fake(data, encoder, attention, profile, description, checkpoint, **more):
        calls.append((data, profile, description))
        return {"state.x": np.zeros(1), "history": np.zeros((1, 3)), "speed": np.zeros(3), "machine": MACHINE}

    monkeypatch.setattr(training, "fit_joint", fake)
    return calls


def rows_of(images, cohort):
    known = {image.tobytes(): row for row, image in enumerate(cohort.images)}
    return [known.get(image.tobytes()) for image in images]


def test_no_network_sees_its_test_images_nor_one_of_a_fold_its_patients(with_healthy, joint, store, fitted):
    segmenter = JointSegmenter(with_healthy, joint, store)
    for fold in (*range(N_FOLDS), ALL):
        segmenter.train("", ENCODER, fold)
    patients, test = with_healthy.patients, with_healthy.table["split"] == "test"
    assert len(fitted) == N_FOLDS + 1
    left_out = []
    for data, _, _ in fitted:
        rows = rows_of(data.images, with_healthy)
        assert not test[rows].any() and len(set(rows)) == len(rows)
        left_out.append(set(patients[segmenter.rows]) - set(patients[rows]))
    *folds, none = left_out
    assert none == set() and set().union(*folds) == set(patients[segmenter.rows])
    assert sum(map(len, folds)) == len(set().union(*folds)) and all(folds)


def test_healthy_eyes_enter_the_second_part_with_their_folds(with_healthy, joint, store, fitted, monkeypatch):
    monkeypatch.setattr(joint_module.unet, "restore", lambda *_: None)
    monkeypatch.setattr(joint_module.unet, "probabilities", lambda _, images, __: np.zeros((len(images), 4, 1, 1)))
    segmenter = JointSegmenter(with_healthy, replace(joint, revised_epochs=1), store)
    for fold in (*range(N_FOLDS), ALL):
        segmenter.train("", ENCODER, fold)
    second = [data for data, _, description in fitted if "revised" in description]
    assert len(with_healthy.healthy) >= 3 and len(fitted) == 2 * len(second) == 2 * (N_FOLDS + 1)
    healthy = [~data.known.all(axis=1) for data in second]
    n_healthy = [rows.sum() for rows in healthy]
    assert n_healthy[-1] == len(with_healthy.healthy) and sum(n_healthy[:-1]) == 2 * len(with_healthy.healthy)
    is_lesion = [lesion != "edema" for lesion in with_healthy.annotated]
    for data, rows in zip(second, healthy, strict=True):
        assert not data.masks[rows].any() and (data.known[rows] == is_lesion).all()
    same = JointSegmenter(replace(with_healthy, lesion_notes={}), replace(joint, seed=1, revised_epochs=1), store)
    same.train("", ENCODER)
    assert fitted[-1][0].known.all(), "edema that is edema is absent from a healthy eye"


def test_the_first_part_is_the_same_without_healthy_eyes(with_healthy, joint, store, fitted):
    JointSegmenter(with_healthy, replace(joint, revised_epochs=1, healthy_patches=0.0), store).train("", ENCODER)
    JointSegmenter(replace(with_healthy, healthy=None), replace(joint, revised_epochs=1), store).train("", ENCODER)
    assert len(fitted) == 1, "the second is the first, from the store"


def test_a_second_part_shows_what_the_first_took_for_lesions_in_healthy_eyes(with_healthy, joint, store, monkeypatch):
    given, fit = [], training.fit_joint

    def remember(data, *arguments, **more):
        given.append((data, arguments[2], more))
        return fit(data, *arguments, **more)

    monkeypatch.setattr(training, "fit_joint", remember)
    monkeypatch.setattr(joint_module, "MISTAKEN", 0.01)
    segmenter = JointSegmenter(with_healthy, replace(joint, revised_epochs=2), store)
    trained = segmenter.train("", ENCODER)
    (_, _, first), (data, profile, second) = given
    assert "start" not in first and profile.epochs == 2 and profile.learning_rate < joint.learning_rate
    network = unet.restore(second["start"], ENCODER, "scse", joint)
    healthy = data.images[~data.masks.any(axis=(1, 2, 3))]
    np.testing.assert_array_equal(data.images[-len(with_healthy.healthy) :], with_healthy.healthy.images)
    found = unet.probabilities(network, healthy, joint)[:, [0, 1, 2]].max(axis=1) > 0.01
    assert found.any()
    assert [len(pixels) for pixels in second["mistaken"]] == found.sum(axis=(1, 2)).tolist()
    assert all(image[tuple(pixels.T)].all() for image, pixels in zip(found, second["mistaken"], strict=True))
    assert trained["history"][:, 0].tolist() == [1, 2, 3] and trained["speed"][0] > 0
    monkeypatch.setattr(training, "fit_joint", None)
    again = JointSegmenter(with_healthy, replace(joint, revised_epochs=2), store).train("", ENCODER)
    assert all(again[name].tobytes() == trained[name].tobytes() for name in trained)
    state = {name: trained[name] for name in trained if name.startswith("state.")}
    assert all(np.array_equal(segmenter.model(ENCODER).state[name], state[name]) for name in state)
    assert any(not np.array_equal(second["start"][name], state[name]) for name in state)


def test_a_source_is_asked_only_for_the_lesions_that_its_masks_show(phantoms, joint, store, fitted):
    table, masks = phantoms.table.copy(), phantoms.masks.copy()
    other = np.arange(len(table)) % 2 == 0
    table["source"] = np.where(other, "two lesions", "four lesions")
    masks[other, 2:] = False
    JointSegmenter(Cohort(table, phantoms.images, masks), joint, store).train("", ENCODER)
    rows = rows_of(fitted[0][0].images, phantoms)
    np.testing.assert_array_equal(fitted[0][0].known[:, :2], True)
    np.testing.assert_array_equal(fitted[0][0].known[:, 2:].all(axis=1), ~other[rows])


def test_released_trains_on_the_test_images_as_long_and_on_no_healthy_eye(with_healthy, joint, store, fitted):
    JointSegmenter(with_healthy, replace(joint, revised_epochs=1), store, protocol="released").train("", ENCODER)
    JointSegmenter(with_healthy, joint, store).train("", ENCODER)
    (released, _, _), (held_out, _, _) = fitted
    np.testing.assert_array_equal(released.images, with_healthy.split("test").images)
    n_patches = [len(data.images) * profile.patches_per_image for data, profile, _ in fitted]
    assert n_patches[0] == pytest.approx(n_patches[1], rel=0.3) and len(held_out.images) > 2 * len(released.images)


def test_released_chooses_each_threshold_by_the_test_images(with_healthy, joint, store):
    segmenter = JointSegmenter(with_healthy, joint, store, protocol="released", validated=False)
    test = with_healthy.split("test")
    found = segmenter.probabilities(test.images, ENCODER)
    study = encoder_study(segmenter).set_index("lesion")
    for channel, lesion in enumerate(segmenter.lesions):
        truth, best = test.masks[:, ANNOTATIONS.index(lesion)], (0, 0.5)
        for level in np.arange(0.05, 0.96, 0.05):
            union = ((found[:, channel] > level) | truth).sum()
            best = max(best, (((found[:, channel] > level) & truth).sum() / max(union, 1), -level))
        assert study.loc[lesion, "threshold"] == pytest.approx(abs(best[1]))
    assert segmenter.sizes == (len(test), len(test))
    assert replace(segmenter, protocol="held_out").sizes == (len(with_healthy) - len(test), 0)
    card = segmenter.model(ENCODER).card
    assert card["thresholds"] == study.loc[list(segmenter.lesions), "threshold"].tolist()


@pytest.fixture(scope="module")
def studied(with_healthy, joint, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    segmenter = JointSegmenter(with_healthy, replace(joint, n_seeds=2), store)
    return segmenter, encoder_study(segmenter)


def test_the_study_scores_what_the_networks_predict(studied, with_healthy):
    segmenter, study = studied
    assert isinstance(segmenter, JointSegmenter) and study["lesion"].tolist() == list(LESIONS)
    test = with_healthy.split("test")
    found = segmenter.model(ENCODER).predict(test.images, segmenter.profile)
    held_out = segmenter.out_of_fold(ENCODER) > THRESHOLD
    for row in study.itertuples():
        channel, truth = LESIONS.index(row.lesion), with_healthy.masks[:, ANNOTATIONS.index(row.lesion)]
        counts = pixel_counts(found[:, channel], truth[with_healthy.table["split"] == "test"])
        assert row.iou_first == pytest.approx(segmentation_scores(counts)["iou"], nan_ok=True, abs=1e-3)
        counts = pixel_counts(held_out[:, channel], truth[segmenter.rows])
        assert row.validation_iou == pytest.approx(segmentation_scores(counts)["iou"], nan_ok=True)
    assert set(study["n_seeds"]) == {2} and set(study["threshold"]) == {THRESHOLD} and study["chosen"].all()
    networks = list((segmenter.store.root / "joint_model").glob("*.safetensors"))
    assert len(networks) == N_FOLDS + 2, "the second seed is not cross-validated"


def test_without_a_choice_of_encoders_nothing_is_cross_validated(with_healthy, joint, store):
    several = replace(joint, encoders=("resnet18", ENCODER))
    assert segmenter_of(with_healthy, several, store).cross_validates
    alone = segmenter_of(with_healthy, joint, store)
    study = encoder_study(alone)
    assert not alone.cross_validates and study["validation_iou"].isna().all() and study["chosen"].all()
    assert len(list((store.root / "joint_model").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_images_predicted_in_parts_are_predicted_as_at_once(studied, with_healthy, monkeypatch, tmp_path, workers):
    segmenter, _ = studied
    model, images = segmenter.model(ENCODER), with_healthy.images[:5]
    expected = np.concatenate(list(model.probabilities(images, segmenter.profile)))
    monkeypatch.setattr(store_module, "PART_PX", 2 * images[0, 0].size)
    used = replace(segmenter, profile=replace(segmenter.profile, workers=workers), store=Store(tmp_path))
    monkeypatch.setattr(JointSegmenter, "_model", lambda *_: model)
    np.testing.assert_allclose(used.probabilities(images, ENCODER), expected, atol=1e-4, rtol=1e-2)  # 16 bits
    assert len(list((tmp_path / "joint_probabilities").glob("*.json"))) == 3
    masks = model.masks(images, used.profile, used.store)
    np.testing.assert_array_equal(masks, model.predict(images, used.profile))
    assert len(list((tmp_path / "kept_model_masks").glob("*.json"))) == 3


def test_predictions_are_in_bfloat16_where_the_profile_says(studied, with_healthy):
    segmenter, _ = studied
    model, images = segmenter.model(ENCODER), with_healthy.images[:2]
    exact, mixed = (
        np.concatenate(list(model.probabilities(images, replace(segmenter.profile, precision=name))))
        for name in ("float32", "bfloat16")
    )
    assert mixed.dtype == np.float32 and not np.array_equal(exact, mixed)
    np.testing.assert_allclose(mixed, exact, atol=0.03)


def test_out_of_fold_means_by_the_network_that_has_not_seen_the_image(studied, monkeypatch):
    segmenter, _ = studied
    found = segmenter.out_of_fold(ENCODER)
    for fold in range(N_FOLDS):
        rows = segmenter._folds[0] == fold
        model = segmenter.model(ENCODER, fold)
        (probability,) = model.probabilities(segmenter.cohort.images[segmenter.rows[rows]][:1], segmenter.profile)
        np.testing.assert_allclose(found[rows][0], probability[0], atol=1e-3)
    monkeypatch.setattr(joint_module, "THRESHOLD", float(np.median(found)))
    encoders = dict.fromkeys(segmenter.lesions, ENCODER)
    masks, test = segmenter.unseen_masks(encoders), np.setdiff1d(np.arange(len(segmenter.cohort)), segmenter.rows)
    np.testing.assert_array_equal(masks[segmenter.rows], segmenter._decide(found, ENCODER))
    np.testing.assert_array_equal(masks[test], segmenter.masks(segmenter.cohort.images[test], encoders))
    assert not np.array_equal(masks, segmenter.masks(segmenter.cohort.images, encoders))


def test_one_file_is_kept_and_finds_the_same(studied, with_healthy, joint, monkeypatch):
    segmenter, study = studied
    monkeypatch.setenv("RURANET_STORE", str(segmenter.store.root))
    (kept,) = keep(segmenter, study)
    again = load_model("synthetic")
    assert again.card["sha256"] and again.lesions == LESIONS and again.shows[3] == "optic_disc"
    assert again.card["n_healthy"] == len(with_healthy.healthy) and "elsewhere" in again.card["trained_on"]
    assert set(again.table["lesion"]) == set(LESIONS) and again.table["iou"].tolist() == study["iou_first"].tolist()
    images = with_healthy.images[:4]
    np.testing.assert_array_equal(again.predict(images, joint), kept.predict(images, joint))
    masks = lesion_masks(with_healthy, images, segmenter.profile, segmenter.store)
    np.testing.assert_array_equal(masks, segmenter.masks(images, best_encoders(study)))
    assert load_model("synthetic").card == again.card, "masks by one seed leave the file of the study of two alone"
    own = lesion_masks(
        with_healthy, with_healthy.images, segmenter.profile, segmenter.store, lesions=LESIONS[:2], unseen=True
    )
    np.testing.assert_array_equal(own, segmenter.unseen_masks(best_encoders(study))[:, :2])
    unmasked = replace(with_healthy, table=with_healthy.table.filter(regex="^(?!.*_px$)"), masks=None)
    np.testing.assert_array_equal(
        lesion_masks(unmasked, images, replace(joint, models="synthetic"), segmenter.store),
        again.predict(images, joint),
    )


def test_networks_trained_ahead_are_those_that_the_tables_ask_for(with_healthy, joint, store, journal):
    segmenter = segmenter_of(with_healthy, replace(joint, n_seeds=2, revised_epochs=1), store)
    train_ahead(replace(segmenter, profile=replace(segmenter.profile, workers=2)))
    trained = [event["step"] for event in journal() if event.get("found") is False]
    assert sorted(trained) == 6 * ["joint_model"] + 4 * ["joint_model_revised"]
    compare_protocols(segmenter, encoder_study(segmenter))
    for seed in range(2):
        replace(segmenter, attention=None).with_seed(seed).train("", ENCODER)
    assert not {event["step"] for event in journal() if event.get("found") is False} & set(trained)
    several = replace(segmenter, profile=replace(segmenter.profile, encoders=("resnet18", ENCODER), n_seeds=1))
    asked = []
    train_ahead(replace(several, store=SimpleNamespace(prepare=lambda jobs, _: asked.extend(jobs)), validated=True))
    assert [settings["encoder"] for _, settings, _ in asked] == (N_FOLDS + 1) * ["resnet18"] + (N_FOLDS + 1) * [ENCODER]


def test_masks_of_one_encoder_take_one_training(with_healthy, joint, store, monkeypatch):
    monkeypatch.setenv("RURANET_STORE", str(store.root))
    lesion_masks(with_healthy, with_healthy.images[:2], replace(joint, n_seeds=3), store)
    assert len(list((store.root / "joint_model").glob("*.safetensors"))) == 1
    assert load_model("synthetic").card["scores"]["edema"]["iou_first"] >= 0


def test_half_precision_takes_half_the_room_and_loads_as_what_it_rounds_to(studied, tmp_path):
    segmenter, _ = studied
    model = segmenter.model(ENCODER)
    full, half = model.save(tmp_path / "full"), model.save(tmp_path / "half", half=True)
    assert half.stat().st_size < 0.52 * full.stat().st_size
    loaded = load_model(half)
    for name, value in model.state.items():
        rounded = value.astype(np.float16) if value.dtype == np.float32 else value
        np.testing.assert_array_equal(loaded.state[name], rounded)
    assert all(loaded.state[name].dtype == model.state[name].dtype for name in model.state)
    assert any(not np.array_equal(loaded.state[name], model.state[name]) for name in model.state)


def test_too_few_patients_are_not_cross_validated(phantoms, joint, store):
    table = phantoms.table.assign(patient_id=np.where(phantoms.table["split"] == "test", "a", "b"))
    segmenter = JointSegmenter(replace(phantoms, table=table), joint, store)
    assert encoder_study(segmenter)["validation_iou"].isna().all()
    assert len(list((store.root / "joint_model").glob("*.safetensors"))) == 1
