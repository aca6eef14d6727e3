"""Reading photographs: files that are taken, files that are refused, scaling."""

import re

import numpy as np
import pytest
from PIL import Image

from ruranet_utils.data import reading
from ruranet_utils.data.reading import read_image
from tests.data.trees import DATA, real_data, save_photograph


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


@pytest.mark.parametrize("stated", range(10))
def test_photographs_are_turned_upright(tmp_path, stated):
    upright = Image.fromarray(np.kron(np.arange(6).reshape(2, 3), np.ones((40, 40))).astype(np.uint8) * 40)
    exif = Image.Exif()  # says how the file was turned; here are the names of the inverse turns
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = upright.transpose(Image.Transpose[turns[stated]]) if stated in turns else upright
    exif[reading.ORIENTATION] = stated
    stored.convert("RGB").save(tmp_path / "a.png", exif=exif)
    image, shape = read_image(tmp_path / "a.png", 96)
    assert shape == (80, 120)
    expected = np.asarray(upright.convert("RGB").resize((96, 96), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(image, expected)
    mask = np.asarray(upright) == 80
    if stated in range(2, 5):
        with pytest.raises(ValueError, match="do not tell by their size whether they are"):
            reading.turn_mask(mask, tmp_path / "a.png", shape)
    else:
        for drawn in (mask, np.asarray(stored) == 80):
            np.testing.assert_array_equal(reading.turn_mask(drawn, tmp_path / "a.png", shape), mask)


def test_of_a_square_photograph_it_cannot_be_told_how_the_mask_was_drawn(tmp_path):
    exif = Image.Exif()
    exif[reading.ORIENTATION] = 6
    photograph(size=(30, 30)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match="do not tell by their size"):
        reading.turn_mask(np.zeros((30, 30), bool), tmp_path / "a.jpg", (30, 30))


def test_the_first_frame_of_a_cameras_mpo_is_the_photograph(tmp_path):
    photograph().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photograph(size=(8, 6))], quality=95)
    photograph().save(tmp_path / "b.jpg", quality=95)
    np.testing.assert_array_equal(*(read_image(tmp_path / name, 32)[0] for name in ("a.jpg", "b.jpg")))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    Image.new("RGB", (11000, 11000)).save(tmp_path / "large.png", compress_level=1)
    with pytest.raises(ValueError, match=r"large\.png has 11000x11000 pixels, expected at most 100,000,000"):
        read_image(tmp_path / "large.png", 32)


def test_transparency_is_dropped(tmp_path):
    photograph().save(tmp_path / "a.png")
    photograph("RGBA").save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 32)[0], read_image(tmp_path / "b.png", 32)[0])
