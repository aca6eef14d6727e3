"""Three lines on photographs: one file, a folder, an array; what is written, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ruranet_utils.profiles import get_profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.apply import OUTLINE, segment
from ruranet_utils.segmentation.model_file import Model, load
from ruranet_utils.storage import paths


@pytest.fixture(autouse=True)
def half_found(untrained, monkeypatch):
    """The kept model's probabilities: the middle half of every image."""
    monkeypatch.setenv("RURANET_STORE", str(untrained))

    def middle_half(network, images, profile):
        inside = np.abs(np.arange(images.shape[3]) - (images.shape[3] - 1) / 2) < images.shape[3] / 4
        return np.broadcast_to(inside.astype(np.float32), (len(images), *images.shape[2:]))

    monkeypatch.setattr(unet, "probabilities", middle_half)


@pytest.fixture
def photographs(tmp_path, phantoms):
    folder = tmp_path / "my eyes"
    folder.mkdir()
    for number in range(2):
        image = Image.fromarray(phantoms.images[number].transpose(1, 2, 0))
        image.resize((200, 100)).save(folder / f"eye {number}.png")
    return folder


def test_a_folder_gives_masks_and_overlays_of_the_photographs_size(photographs, tmp_path):
    found = segment(photographs, "hemorrhages", model="synthetic")
    assert found.names == ("eye 0", "eye 1") and found.masks.shape == (2, 64, 64)
    assert found.table["area_percent"].tolist() == [50, 50]
    written = sorted(path.name for path in found.save(tmp_path / "out").iterdir())
    assert written == sorted(f"eye {n}_hemorrhages{kind}.png" for n in (0, 1) for kind in ("", "_overlay"))
    mask = np.asarray(Image.open(tmp_path / "out" / "eye 0_hemorrhages.png").convert("L"))
    assert mask.shape == (100, 200) and (mask[:, 51:149] == 255).all() and (mask[:, :49] == 0).all()
    overlay = np.asarray(Image.open(tmp_path / "out" / "eye 0_hemorrhages_overlay.png"))
    assert overlay.shape == (100, 200, 3)


def test_an_overlay_is_the_image_with_the_outline_alone(photographs):
    found = segment(photographs, "hemorrhages", model="synthetic")
    changed = (found.overlays != found.images.transpose(0, 2, 3, 1)).any(axis=-1)
    assert set(np.nonzero(changed)[2]) == {15, 16, 47, 48}
    np.testing.assert_array_equal(found.overlays[0, 5, 15], OUTLINE)


def test_a_file_and_an_array_are_taken_too(photographs, phantoms):
    assert segment(photographs / "eye 1.png", "hemorrhages", model="synthetic").names == ("eye 1",)
    found = segment(phantoms.images[:3], "hemorrhages", model="synthetic")
    assert found.names == ("image_1", "image_2", "image_3")
    np.testing.assert_array_equal(found.images, phantoms.images[:3])


def test_a_models_file_is_taken_by_its_path_and_must_find_the_lesion(photographs, untrained):
    file = paths.models("synthetic") / "hemorrhages.safetensors"
    assert segment(photographs, "hemorrhages", model=file).card["lesion"] == "hemorrhages"
    with pytest.raises(ValueError, match="finds hemorrhages, not edema"):
        segment(photographs, "edema", model=file)


def test_what_cannot_be_segmented_is_refused(photographs, phantoms, tmp_path):
    with pytest.raises(ValueError, match=r"unknown lesion 'drusen'; valid lesions: hard_exudates, .*soft_exudates"):
        segment(photographs, "drusen")
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*absent"):
        segment(tmp_path / "absent", "hemorrhages", model="synthetic")
    with pytest.raises(FileNotFoundError, match="no trained model for edema"):
        segment(photographs, "edema", model="synthetic")
    with pytest.raises(
        ValueError, match=r"expected uint8 images of shape \(n, 3, h, w\), got float64 \(1, 3, 64, 64\)"
    ):
        segment(np.zeros((1, 3, 64, 64)), "hemorrhages", model="synthetic")


def test_a_card_that_names_another_architecture_is_refused(untrained, phantoms, tmp_path):
    kept = load(paths.models("synthetic") / "hemorrhages.safetensors")
    file = Model(kept.state, {**kept.card, "encoder": "resnet18"}).save(tmp_path)
    with pytest.raises(ValueError, match="no parameters of a U-Net with resnet18"):
        segment(phantoms.images[:1], "hemorrhages", model=file)


def test_a_kept_model_predicts_by_its_own_depth(untrained, phantoms, tiny):
    kept = load(paths.models("synthetic") / "hemorrhages.safetensors")
    assert get_profile("open").encoder_depth != kept.card["encoder_depth"]
    deep = replace(tiny, encoder_depth=5)
    np.testing.assert_array_equal(kept.predict(phantoms.images, deep), kept.predict(phantoms.images, tiny))


def test_what_a_cropping_model_finds_comes_back_where_it_was(untrained, phantoms, tmp_path):
    kept = load(paths.models("synthetic") / "hemorrhages.safetensors")
    file = Model(kept.state, {**kept.card, "crop_field": True}).save(tmp_path)
    photograph = Image.new("RGB", (300, 200))
    photograph.paste(Image.fromarray(phantoms.images[0].transpose(1, 2, 0)).resize((160, 160)), (20, 20))
    photograph.save(tmp_path / "eye.png")
    found = segment(tmp_path / "eye.png", "hemorrhages", model=file)
    frame = found.frames[0]
    assert frame.left == pytest.approx(24, abs=4) and frame.right == pytest.approx(176, abs=4)
    found.save(tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out/eye_hemorrhages.png").convert("L")) > 0
    assert mask.shape == (200, 300) and not mask[:, :58].any() and not mask[:, 142:].any() and mask[100, 65:135].all()
    assert found.table["area_percent"][0] == pytest.approx(100 * mask.mean(), rel=0.05)
    assert np.asarray(Image.open(tmp_path / "out/eye_hemorrhages_overlay.png")).shape == (200, 300, 3)
