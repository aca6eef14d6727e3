"""Reading photographs and masks: encodings that are taken, files that are refused, scaling by area."""

import re

import numpy as np
import pytest
from PIL import Image
from skimage.transform import downscale_local_mean

from ruranet_utils.data import reading
from ruranet_utils.data.reading import read_image, read_mask, shrink_mask
from tests.data.trees import DATA, real_data, save_mask, save_photograph


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_read_mask_gives_the_lesion_in_both_encodings(tmp_path, mode):
    lesion = np.random.default_rng(0).random((48, 64)) < 0.2
    np.testing.assert_array_equal(read_mask(save_mask(tmp_path / "m.tif", lesion, mode)), lesion)


@pytest.mark.parametrize("values", [np.full((4, 4), 2), np.array([[0, 1, 255]])])
def test_read_mask_refuses_other_values(tmp_path, values):
    path = save_mask(tmp_path / "odd.tif", values)
    with pytest.raises(ValueError, match=rf"odd\.tif .*{values.max()}\], expected 0 and 1 or 0, 127, 255"):
        read_mask(path)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_read_mask_names_a_damaged_file(tmp_path):
    path = save_mask(tmp_path / "cut.tif", np.ones((48, 64), bool))
    path.write_bytes(path.read_bytes()[: 48 * 64 // 2])
    with pytest.raises(ValueError, match=r"cut\.tif cannot be read"):
        read_mask(path)


@pytest.mark.parametrize(("ones", "zeros"), [(1, 0), (255, 0), (255, 127)])
def test_read_mask_takes_one_and_255_for_the_lesion_and_127_for_none(tmp_path, ones, zeros):
    lesion = np.random.default_rng(0).random((48, 64)) < 0.2
    Image.fromarray(np.where(lesion, ones, zeros).astype(np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), lesion)


def test_read_mask_of_a_jpeg_is_cut_in_the_middle(tmp_path):
    lesion = np.zeros((48, 64), bool)
    lesion[8:24, 16:40] = True
    Image.fromarray(lesion.astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=60)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), lesion)


def test_read_image_is_the_bicubic_resize_of_the_whole_file(tmp_path):
    path = save_photograph(tmp_path / "a.png", 0)
    image, shape = read_image(path, 32)
    assert shape == (48, 64)
    expected = np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))


def test_read_image_at_reduced_jpeg_scale_stays_close_to_the_full_decode(tmp_path):
    y, x = np.mgrid[:1024, :1536] / 8
    pixels = 127 + 100 * np.stack([np.sin(x + y), np.cos(x), np.sin(y)], axis=-1)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    image, shape = read_image(path, 200)
    assert shape == (1024, 1536)
    expected = np.asarray(Image.open(path).resize((200, 200), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(image.astype(int) - expected).mean() < 1


@real_data
def test_real_photographs_at_reduced_scale_differ_by_three_levels_at_most():
    for path in sorted((DATA / "idrid/A. Segmentation/1. Original Images/b. Testing Set").iterdir())[:4]:
        with Image.open(path) as image:
            full = np.asarray(image.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        difference = np.abs(read_image(path, 512)[0].astype(int) - full)
        assert 0 < difference.max() <= 3 and difference.mean() < 0.2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"text"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_read_image_names_a_damaged_file(tmp_path, damage, suffix):
    path = save_photograph(tmp_path / f"damaged{suffix}", 0, size=(400, 300))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"damaged\{suffix} cannot be read as an image: \w+"):
        read_image(path, 32)


def test_shrink_mask_by_hand():
    """4x4 to 2x2: covered by 4, 1, 0 and 2 of 4 pixels; a quarter is enough."""
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    small, lost = shrink_mask(mask, 2)
    np.testing.assert_array_equal(small, [[True, True], [False, True]])
    assert lost == 0


def test_shrink_mask_drops_less_than_a_quarter():
    mask = np.zeros((12, 12), bool)
    mask[0, :2] = True  # 2 of 9 pixels
    mask[6:7, 6:9] = True  # 3 of 9 pixels
    small, lost = shrink_mask(mask, 4)
    assert np.argwhere(small).tolist() == [[2, 2]] and lost == pytest.approx(2 / 5, abs=0.01)
    assert shrink_mask(np.zeros((12, 12), bool), 4)[1] == 0


def test_shrink_mask_agrees_with_block_means_and_mirrors():
    mask = np.random.default_rng(1).random((96, 160)) < 0.22
    expected = downscale_local_mean(mask.astype(float), (3, 5)) >= 0.25
    np.testing.assert_array_equal(shrink_mask(mask, 32)[0], expected)
    np.testing.assert_array_equal(shrink_mask(mask[:, ::-1], 32)[0], expected[:, ::-1])


def photograph(mode="RGB", size=(40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("name", "image", "options", "message"),
    [
        ("a.jpg", photograph("CMYK"), {}, "has the color mode CMYK, expected an 8-bit color image"),
        ("a.png", photograph("L"), {}, "has the color mode L"),
        ("a.png", Image.fromarray(np.zeros((30, 40), np.uint16)), {}, "has the color mode I;16"),
        ("a.png", photograph(), {"save_all": True, "append_images": [photograph().rotate(90)]}, "holds 2 frames"),
    ],
    ids=["CMYK", "gray", "16 bits", "animated"],
)
def test_other_kinds_of_images_are_refused_by_name(tmp_path, name, image, options, message):
    image.save(tmp_path / name, **options)
    with pytest.raises(ValueError, match=f"{re.escape(name)} {message}"):
        read_image(tmp_path / name, 32)


def test_a_turned_photograph_is_refused_and_an_upright_one_taken(tmp_path):
    exif = Image.Exif()
    for orientation in (1, 6):
        exif[reading.ORIENTATION] = orientation
        photograph().save(tmp_path / f"{orientation}.jpg", exif=exif)
    assert read_image(tmp_path / "1.jpg", 32)[1] == (30, 40)
    with pytest.raises(ValueError, match=r"6\.jpg is stored turned \(EXIF orientation 6\)"):
        read_image(tmp_path / "6.jpg", 32)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    Image.new("RGB", (11000, 11000)).save(tmp_path / "large.png", compress_level=1)
    with pytest.raises(ValueError, match=r"large\.png has 11000x11000 pixels, expected at most 100,000,000"):
        read_image(tmp_path / "large.png", 32)


def test_transparency_is_dropped(tmp_path):
    photograph().save(tmp_path / "a.png")
    photograph("RGBA").save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 32)[0], read_image(tmp_path / "b.png", 32)[0])
