"""Tables 1 and 2: which models are trained, by which images they are chosen and scored, and what is kept."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.data.decoding import AREAS
from ruranet_utils.data.field import FRAME, Frame
from ruranet_utils.profiles import ANNOTATIONS, LESIONS
from ruranet_utils.segmentation import training, unet
from ruranet_utils.segmentation.model_file import MIRRORS, Model
from ruranet_utils.segmentation.scores import pixel_counts, segmentation_scores
from ruranet_utils.segmentation.segmenter import TRAINING, LesionSegmenter
from ruranet_utils.segmentation.study import (
    best_encoders,
    compare_protocols,
    encoder_study,
    finds_disc,
    invert_edema,
    lesion_masks,
)
from ruranet_utils.storage.store import Store

GOOD, BAD = "mobilenet_v2", "resnet18"


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": list("aabcddef"), "split": ["train"] * 2 + ["val"] * 2 + ["test"] * 4})
    table[list(FRAME)] = Frame.whole(32, 48).as_array()
    table["label"] = pd.array([0, 1] * 4, "Int64")
    images = rng.integers(0, 256, size=(8, 3, 32, 32), dtype=np.uint8)
    masks = rng.random((8, len(ANNOTATIONS), 32, 32)) < 0.3
    table[AREAS] = masks.sum(axis=(2, 3))
    return Cohort(table, images, masks)


@pytest.fixture
def oracle(cohort, monkeypatch):
    """Networks of known quality: GOOD knows the truth of the validation images, BAD that of the test images.

    Elsewhere they err by one column. For the last lesion it is the other way round.
    """
    known = {image.tobytes(): row for row, image in enumerate(cohort.images)}

    def fake_fit(train, validation, encoder, attention, profile, description, checkpoint):
        fitted_on.append((train.images, validation.images, profile.seed))
        assert abs(len(train.images) * profile.patches_per_image - 2 * 4) <= 2, "patches in an epoch"
        lesion = next(
            i for i in range(5) if np.array_equal(validation.masks[:, 0], cohort.masks[known_rows(validation), i])
        )
        good = (encoder == GOOD) != (lesion == 4)
        state = {"state.lesion": np.array([lesion]), "state.good": np.array([good])}
        return state | {"speed": np.array([8.0, 2.0, 0.5]), "machine": np.frombuffer(b"Turing", np.uint8)}

    def known_rows(data):
        return [known[image.tobytes()] for image in data.images]

    def fake_restore(trained, encoder, attention, profile):
        return SimpleNamespace(lesion=trained["state.lesion"][0], good=trained["state.good"][0])

    def fake_probabilities(model, images, profile):
        axes = next(axes for axes in MIRRORS if np.flip(images[0], axes).tobytes() in known)
        rows = [known[np.flip(image, axes).tobytes()] for image in images]
        right = (cohort.table["split"].iloc[rows] == ("val" if model.good else "test")).to_numpy()
        truth = cohort.masks[rows, model.lesion]
        found = np.where(np.where(right[:, None, None], truth, np.roll(truth, 1, axis=-1)), 0.9, 0.0).astype(np.float32)
        return np.flip(found, axes)[:, None]

    monkeypatch.setattr(training, "fit", fake_fit)
    monkeypatch.setattr(unet, "restore", fake_restore)
    monkeypatch.setattr(unet, "probabilities", fake_probabilities)
    fitted_on = []
    return fitted_on


@pytest.fixture
def segmenter(cohort, tiny, store, oracle):
    return LesionSegmenter(cohort, replace(tiny, encoders=(GOOD, BAD), patches_per_image=4), store)


def steps(events: list[dict], found: bool) -> dict[str, int]:
    return pd.Series([event["step"] for event in events if event["found"] == found], dtype=str).value_counts().to_dict()


def test_the_encoder_is_chosen_on_the_validation_images_not_on_the_test_images(segmenter):
    study = encoder_study(segmenter)
    assert study["lesion"].tolist() == list(np.repeat(ANNOTATIONS, 2)) and study["encoder"].tolist() == [GOOD, BAD] * 5
    assert best_encoders(study) == {**dict.fromkeys(ANNOTATIONS, GOOD), ANNOTATIONS[-1]: BAD}
    chosen = study[study["chosen"]]
    assert (chosen["validation_iou"] == 1).all() and (chosen["iou"] < 0.5).all()
    assert (study.loc[~study["chosen"], "iou"] == 1).all()


def test_the_study_scores_the_test_images(segmenter, cohort):
    study = encoder_study(segmenter).set_index(["lesion", "encoder"])
    truth = cohort.masks[cohort.table["split"] == "test", 1]
    predicted = np.roll(truth, 1, axis=-1)
    tp, fp = (truth & predicted).sum(), (~truth & predicted).sum()
    row = study.loc[(ANNOTATIONS[1], GOOD)]
    assert row["iou"] == pytest.approx(tp / (truth | predicted).sum())
    assert row["accuracy"] == pytest.approx((truth == predicted).mean())
    assert row["precision"] == pytest.approx(tp / (tp + fp)) and row["recall"] == pytest.approx(tp / truth.sum())
    assert row["dice"] == pytest.approx(2 * tp / (truth.sum() + predicted.sum()))
    each = [(t & p).sum() / (t | p).sum() for t, p in zip(truth, predicted, strict=True)]
    assert row["iou_mean"] == pytest.approx(np.mean(each))
    assert min(each) <= row["iou_low"] < row["iou"] < row["iou_high"] <= max(each)
    assert row["n"] == row["n_with"] == 4 and row["weights"] == "random" and row["parameters"] == 2
    assert (row["patches"], row["time_s"], row["waited_s"]) == (8, 2, 0.5)
    probability = np.where(predicted, 0.9, 0.0)
    assert row["aupr"] == pytest.approx(average_precision_score(truth.ravel(), probability.ravel()))
    each = [average_precision_score(t.ravel(), p.ravel()) for t, p in zip(truth, probability, strict=True)]
    assert row["aupr_mean"] == pytest.approx(np.mean(each))


def test_every_network_is_kept_and_nothing_is_done_twice(segmenter, cohort, store, journal):
    first = encoder_study(segmenter)
    assert steps(journal(), found=False) == {"segmentation_model": 10, "segmentation_scores": 10}
    assert len(list((store.root / "segmentation_model").glob("*.safetensors"))) == 2 * len(ANNOTATIONS)
    pd.testing.assert_frame_equal(encoder_study(segmenter), first)
    masks = [segmenter.masks(cohort.images, best_encoders(first)) for _ in range(2)]
    np.testing.assert_array_equal(*masks)
    assert steps(journal(), found=False) == {"lesion_masks": 5}


def test_the_threshold_is_the_one_with_the_best_validation_iou(segmenter, cohort, monkeypatch):
    """Half of the lesion at 0.32, all background at 0.27 but a tenth at 0.41: best between them is 0.3."""
    rng = np.random.default_rng(0)

    def graded(model, images, profile):
        rows = [next(r for r, known in enumerate(cohort.images) if np.array_equal(known, image)) for image in images]
        truth = cohort.masks[rows][:, [ANNOTATIONS.index(model.lesions[0])]]
        found = np.where(truth, np.where(rng.random(truth.shape) < 0.5, 0.32, 0.9), 0.27)
        yield np.where(~truth & (rng.random(truth.shape) < 0.1), 0.41, found)

    monkeypatch.setattr(Model, "probabilities", graded)
    scores = segmenter.scores([("hemorrhages", GOOD)])["hemorrhages", GOOD]
    assert scores["threshold"].tolist() == [0.3]


def test_seeds_are_averaged_and_the_first_one_is_applied(segmenter, oracle, store, monkeypatch):
    ious = {0: 0.5, 1: 0.2, 2: 0.8}

    def scored(self, lesion, encoder):
        tp = int(100 * ious[self.profile.seed])
        counts = np.array([[tp, 100 - tp, 0, 0]] * 4)
        aupr = np.array([ious[self.profile.seed]] * 2)
        self.train(lesion, encoder)
        one = {
            "threshold": np.ones(1),
            "parameters": np.ones(1),
            "speed": np.zeros(3),
            "machine": np.zeros(0, np.uint8),
        }
        return {"val": counts, "test": counts, "aupr": aupr, **one}

    monkeypatch.setattr(LesionSegmenter, "_score", scored)
    several = replace(segmenter, profile=replace(segmenter.profile, n_seeds=3, encoders=(GOOD,)))
    study = encoder_study(several)
    assert {seed for _, _, seed in oracle} == {0, 1, 2}
    assert study["iou"].tolist() == pytest.approx([0.5] * 5) and study["aupr"].tolist() == pytest.approx([0.5] * 5)
    assert study["iou_sd"].tolist() == pytest.approx([0.3] * 5) and set(study["n_seeds"]) == {3}
    assert study["iou_first"].tolist() == [0.5] * 5, "of the first seed, while the interval is of all"
    assert (study["iou_low"] < 0.35).all() and (study["iou_high"] > 0.65).all()
    of_seeds = [several.with_seed(seed) for seed in range(3)]
    kept = {store.path(TRAINING, one._settings(lesion, GOOD)) for one in of_seeds for lesion in ANNOTATIONS}
    assert kept == set((store.root / "segmentation_model").glob("*.safetensors")) and len(kept) == 15
    assert several.model(ANNOTATIONS[0], GOOD).card["seed"] == 0


@pytest.mark.parametrize(
    ("protocol", "train", "validation"), [("held_out", "train", "val"), ("released", "test", "test")]
)
def test_a_protocol_says_which_images_train_and_choose(protocol, train, validation, segmenter, cohort, oracle):
    study = encoder_study(replace(segmenter, protocol=protocol), [("hemorrhages", GOOD)])
    ((trained_on, chosen_by, _),) = oracle
    np.testing.assert_array_equal(trained_on, cohort.split(train).images)
    np.testing.assert_array_equal(chosen_by, cohort.split(validation).images)
    assert study["n"].tolist() == [4] and best_encoders(study) == {"hemorrhages": GOOD}


def test_protocols_are_compared_with_the_paper_lesion_by_lesion(segmenter, cohort, monkeypatch):
    study = encoder_study(segmenter)
    table = compare_protocols(segmenter, study)
    assert table["lesion"].tolist() == list(np.repeat(ANNOTATIONS[:4], 2))
    assert table["protocol"].tolist() == ["held_out", "released"] * 4
    assert table["n train"].tolist() == [2, 4] * 4 and table["n choosing"].tolist() == [2, 4] * 4
    row = study.set_index(["lesion", "encoder"]).loc[("microaneurysms", GOOD)]
    assert table.loc[2, "iou"] == row["iou"] and table.loc[2, "iou_low"] == row["iou_low"]
    assert table.loc[[0, 2, 4, 6], "iou paper"].tolist() == [0.8041, 0.0302, 0.4942, 0.9925]
    assert (table.groupby("lesion")["nearer"].sum() >= 1).all()
    distance = (table["iou"] - table["iou paper"]).abs()
    assert (distance[table["nearer"]].groupby(table["lesion"]).max() == distance.groupby(table["lesion"]).min()).all()


def test_masks_are_the_predictions_in_the_order_of_the_lesions(segmenter, cohort):
    encoders = {**dict.fromkeys(ANNOTATIONS, GOOD), ANNOTATIONS[2]: BAD}
    masks = segmenter.masks(cohort.images[2:], encoders)
    assert masks.shape == (6, len(ANNOTATIONS), 32, 32) and masks.dtype == bool
    for lesion, good in enumerate([True, True, False, True, False]):  # the third is BAD's, the last turned round
        truth = cohort.masks[2:, lesion].copy()
        wrong = slice(2, None) if good else slice(0, 2)  # of two validation and four test images
        truth[wrong] = np.roll(truth[wrong], 1, axis=-1)
        np.testing.assert_array_equal(masks[:, lesion], truth)
    flipped = segmenter.masks(cohort.images[:1:-1], encoders)
    np.testing.assert_array_equal(flipped[::-1], masks)


def test_the_ablation_trains_the_lesions_of_table_5_and_no_other(segmenter, cohort, store, journal, monkeypatch):
    monkeypatch.setenv("RURANET_STORE", str(store.root))
    cohort.table["source"] = "synthetic"
    encoder_study(segmenter)
    journal()
    masks = lesion_masks(cohort, cohort.images[2:], segmenter.profile, store, attention=None)
    assert masks.shape == (6, len(LESIONS), 32, 32)
    assert steps(journal(), found=False) == {
        "segmentation_model": len(LESIONS),
        "segmentation_scores": len(LESIONS),
        "lesion_masks": len(LESIONS),
    }


def test_another_setting_or_cohort_is_another_network(segmenter, cohort, journal):
    segmenter.train("edema", GOOD)
    masks = cohort.masks.copy()
    masks[0, 0, 0, 0] ^= True
    others = [
        replace(segmenter, attention=None),
        replace(segmenter, profile=replace(segmenter.profile, focal_alpha=0.5)),
        replace(segmenter, profile=replace(segmenter.profile, seed=1)),
        replace(segmenter, cohort=Cohort(cohort.table, cohort.images, masks)),
    ]
    journal()
    for other in others:
        other.train("edema", GOOD)
    assert steps(journal(), found=False) == {"segmentation_model": len(others)}
    same = replace(segmenter, profile=replace(segmenter.profile, dmh_epochs=3, classifiers=("alexnet",)))
    same.train("edema", GOOD)
    assert steps(journal(), found=True) == {"segmentation_model": 1}


def test_a_lesion_that_few_training_images_show_is_trained_for_longer(phantoms, tiny, store):
    """Six images show any lesion: all of them hard exudates, three microaneurysms, one hemorrhages."""
    masks, train = phantoms.masks.copy(), np.flatnonzero(phantoms.table["split"] == "train")
    masks[train] = False
    for lesion, n_shown in enumerate((6, 3, 1)):
        masks[train[:n_shown], lesion, 8:24, 8:24] = True
    segmenter = LesionSegmenter(Cohort(phantoms.table, phantoms.images, masks), tiny, store)
    epochs = [len(segmenter.train(lesion, GOOD)["history"]) for lesion in ANNOTATIONS[:3]]
    assert epochs == [1, 2, 3]  # not six: nothing is trained for longer than three times as long


def test_one_encoder_is_chosen_even_where_no_validation_image_decides(segmenter, cohort, monkeypatch):
    monkeypatch.setattr(unet, "probabilities", lambda _, images, profile: np.zeros(images[:, :1].shape))
    cohort.masks[cohort.table["split"] == "val"] = False
    study = encoder_study(segmenter)
    assert study["validation_iou"].isna().all()
    assert best_encoders(study) == dict.fromkeys(ANNOTATIONS, GOOD)


def test_evaluation_counts_the_pixels_of_a_real_network(phantoms, tiny, store):
    segmenter = LesionSegmenter(phantoms, replace(tiny, learning_rate=1e-2), store)
    study = encoder_study(segmenter).set_index("lesion")
    for lesion in ("hard_exudates", "edema"):
        model = segmenter.model(lesion, "mobilenet_v2")
        assert model.card["thresholds"] == [study.loc[lesion, "threshold"]]
        for split, column in (("val", "validation_iou"), ("test", "iou")):
            part = phantoms.split(split)
            counts = pixel_counts(
                model.predict(part.images, segmenter.profile)[:, 0], part.masks[:, ANNOTATIONS.index(lesion)]
            )
            assert study.loc[lesion, column] == pytest.approx(segmentation_scores(counts)["iou"], nan_ok=True)


def test_worker_processes_change_nothing(phantoms, tiny, tmp_path):
    studies, masks = [], []
    for workers in (1, 2):
        profile = replace(tiny, workers=workers, learning_rate=1e-2)
        segmenter = LesionSegmenter(phantoms, profile, Store(tmp_path / str(workers)))
        studies.append(encoder_study(segmenter))
        masks.append(segmenter.masks(phantoms.images, best_encoders(studies[-1])))
    pd.testing.assert_frame_equal(*(study.drop(columns=["time_s", "waited_s"]) for study in studies), check_exact=True)
    np.testing.assert_array_equal(*masks)
    names = [sorted(path.name for path in (tmp_path / str(workers)).rglob("*")) for workers in (1, 2)]
    assert names[0] == names[1] and len(names[0]) > 20


def test_the_inverted_edema_is_scored_without_its_masks():
    """From the scores of one row, against counting pixels of inverted masks."""
    rng = np.random.default_rng(0)
    truth = rng.random((3, 16, 16)) < 0.1
    found = truth ^ (rng.random(truth.shape) < 0.05)
    scores = segmentation_scores(pixel_counts(found, truth))
    row = {"lesion": "edema", "n": 3, "weights": "random", **scores}
    table = invert_edema(pd.DataFrame([row])).set_index("mask")["iou ours"]
    assert table["as drawn"] == scores["iou"]
    assert table["inverted"] == pytest.approx(segmentation_scores(pixel_counts(~found, ~truth))["iou"])
    everything = np.ones_like(truth)
    expected = segmentation_scores(pixel_counts(everything, ~truth))["iou"]
    assert table["inverted, every pixel painted"] == pytest.approx(expected)


def test_whether_edema_is_the_disc_is_known(phantoms, tiny, untrained, monkeypatch):
    monkeypatch.setenv("RURANET_STORE", str(untrained))
    assert not finds_disc(phantoms, tiny)
    assert finds_disc(replace(phantoms, lesion_notes={"edema": "optic disc"}), tiny)
    without = replace(phantoms, masks=None, table=phantoms.table.drop(columns=[f"{x}_px" for x in ANNOTATIONS]))
    assert finds_disc(without, replace(tiny, models="shipped"))
