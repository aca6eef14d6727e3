"""Kept models: what they say of themselves, that they predict as before, and that a changed one is refused."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ruranet_utils.profiles import LESIONS
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.model_file import decide, load, load_all
from ruranet_utils.segmentation.segmenter import LesionSegmenter
from ruranet_utils.segmentation.study import best_encoders, encoder_study, keep, lesion_masks
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import Store


@pytest.fixture(scope="module")
def kept(phantoms, tiny, tmp_path_factory):
    """A store in which the tiny cohort's models are kept, and their study."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RURANET_STORE", str(root))
        segmenter = LesionSegmenter(phantoms, tiny, Store(root))
        study = encoder_study(segmenter)
        masks = segmenter.masks(phantoms.images, best_encoders(study))
        files = [paths.models("synthetic") / f"{model.name}.safetensors" for model in keep(segmenter, study)]
        return root, study, masks, files


@pytest.fixture(autouse=True)
def in_the_store(kept, monkeypatch):
    monkeypatch.setenv("RURANET_STORE", str(kept[0]))


def test_a_card_says_what_was_trained_on_what_and_how_it_scored(kept, phantoms):
    _, study, _, files = kept
    assert [file.name for file in files] == [f"{lesion}.safetensors" for lesion in LESIONS]
    for file, row in zip(files, study.to_dict("records"), strict=True):
        card = load(file).card
        assert (card["lesions"], card["encoder"], card["attention"]) == ([row["lesion"]], "mobilenet_v2", "scse")
        assert card["scores"][row["lesion"]]["iou_first"] == row["iou"] and card["weights"] == "random"
        assert card["trained_on"] == ["synthetic"] and len(card["data"]) == 64
        assert [card[f"n_{split}"] for split in ("train", "val", "test")] == [
            len(phantoms.split(split)) for split in ("train", "val", "test")
        ]
        assert "no diagnosis" in card["intended_use"]


def test_a_kept_model_predicts_what_the_trained_one_predicted(kept, phantoms, tiny, store):
    _, _, masks, files = kept
    for number, file in enumerate(files):
        np.testing.assert_array_equal(load(file).masks(phantoms.images, tiny, store)[:, 0], masks[:, number])


def test_photographs_without_masks_get_those_of_the_kept_models(kept, phantoms, tiny, store):
    unmasked = replace(phantoms, table=phantoms.table.drop(columns=[f"{lesion}_px" for lesion in LESIONS]), masks=None)
    assert unmasked.annotated == ()
    masks = lesion_masks(unmasked, phantoms.images, replace(tiny, models="synthetic"), store)
    np.testing.assert_array_equal(masks, kept[2])


def test_probabilities_are_the_mean_over_the_mirror_images(kept, phantoms, tiny):
    model = load(kept[3][0])
    network = unet.restore(model.state, "mobilenet_v2", "scse", tiny)
    image, probabilities = phantoms.images[:1], []
    for turn in (lambda x: x, np.fliplr, np.flipud, lambda x: x[::-1, ::-1]):
        found = unet.probabilities(network, np.stack([turn(part) for part in image[0]])[None], tiny)
        probabilities.append(turn(found[0, 0]))
    (mean,) = model.probabilities(image, tiny)
    np.testing.assert_allclose(mean[0, 0], np.mean(probabilities, axis=0), atol=1e-6)
    assert np.ptp(probabilities, axis=0).max() > 1e-4
    masks = replace(model, card={**model.card, "thresholds": [float(np.median(mean))]}).predict(image, tiny)
    np.testing.assert_array_equal(masks, mean > np.median(mean))


def test_missing_models_are_all_named_with_what_to_do(phantoms, tiny):
    with pytest.raises(FileNotFoundError, match=r"no trained model for edema: .*edema_without_scse\.safetensors in "):
        load_all(paths.models("synthetic"), ["edema"], attention=None)
    with pytest.raises(FileNotFoundError, match=r"for hard_exudates, edema: .*models/open.*PROFILE=open"):
        load_all(paths.models("open"), ["hard_exudates", "edema"])


def test_a_changed_or_damaged_or_foreign_file_is_refused(kept, tmp_path):
    file, changed = kept[3][0], tmp_path / "changed.safetensors"
    with safe_open(file, "np") as content:
        header = content.metadata()
    state = load_file(file)
    state["state.segmentation_head.0.bias"] = state["state.segmentation_head.0.bias"] + 1
    save_file(state, changed, header)
    with pytest.raises(ValueError, match=r"changed\.safetensors was modified or damaged"):
        load(changed)
    save_file(state, changed)
    with pytest.raises(ValueError, match=r"changed\.safetensors is not a segmentation model with a card"):
        load(changed)
    for card, said in (
        ("[]", "lacks attention, crop_field, decoder_width, encoder"),
        ('{"lesions": ["edema"]}', "lacks attention"),
        ("7", "card"),
    ):
        save_file(state, changed, {"card": card})
        with pytest.raises(ValueError, match=said):
            load(changed)
    changed.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"changed\.safetensors is not a segmentation model"):
        load(changed)
    with pytest.raises(FileNotFoundError, match="there is no model"):
        load(tmp_path / "absent.safetensors")


def test_the_disc_is_its_largest_part_and_lesions_are_all_of_theirs():
    probability = np.zeros((2, 2, 8, 8), np.float16)
    probability[:, :, 1, 1], probability[0, :, 4:6, 4:6] = 0.9, 0.6
    masks = decide(probability, [0.5, 0.5], disc=1)
    np.testing.assert_array_equal(masks[:, 0], probability[:, 0] > 0.5)
    assert masks[0, 1].sum() == 4 and masks[0, 1, 4:6, 4:6].all(), "not the reflex in the corner"
    assert masks[1, 1].sum() == 1 and not decide(probability * 0, [0.5, 0.5], disc=1).any()
    np.testing.assert_array_equal(decide(probability, [0.5, 0.7]), probability > np.reshape([0.5, 0.7], (2, 1, 1)))
    assert decide(probability[:0], [0.5, 0.5], disc=1).shape == (0, 2, 8, 8)


def test_a_lost_shipped_network_is_made_by_its_own_command(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Train them once \(make models\)"):
        load_all(paths.models("shipped"), ["edema"])
