"""Reading photographs: files that are taken, files that are refused, scaling."""

import gzip
import re
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from ruranet_utils.data import reading
from ruranet_utils.data.field import Frame
from ruranet_utils.data.reading import read_image
from ruranet_utils.data.refusal import Refused
from tests.data.trees import DATA, real_data, save_photograph


def test_read_image_is_the_bicubic_resize_of_the_whole_file(tmp_path):
    path = save_photograph(tmp_path / "a.png", 0)
    image, frame = read_image(path, 32, crop_field=False)
    assert frame == Frame.whole(48, 64)
    expected = np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))


def test_read_image_at_reduced_jpeg_scale_stays_close_to_the_full_decode(tmp_path):
    y, x = np.mgrid[:1024, :1536] / 8
    pixels = 127 + 100 * np.stack([np.sin(x + y), np.cos(x), np.sin(y)], axis=-1)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    image, frame = read_image(path, 200, crop_field=False)
    assert frame == Frame.whole(1024, 1536)
    expected = np.asarray(Image.open(path).resize((200, 200), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(image.astype(int) - expected).mean() < 1


@real_data
def test_real_photographs_at_reduced_scale_differ_by_three_levels_at_most():
    for path in sorted((DATA / "idrid/A. Segmentation/1. Original Images/b. Testing Set").iterdir())[:4]:
        with Image.open(path) as image:
            full = np.asarray(image.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        difference = np.abs(read_image(path, 512, crop_field=False)[0].astype(int) - full)
        assert 0 < difference.max() <= 3 and difference.mean() < 0.2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"text"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_read_image_names_a_damaged_file(tmp_path, damage, suffix):
    path = save_photograph(tmp_path / f"damaged{suffix}", 0, size=(400, 300))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        Refused,
        match=rf"damaged\{suffix} (is empty|is not an image that|cannot be decoded \(.+\)).*, expected .*: copy it",
    ):
        read_image(path, 32)


def photograph(mode="RGB", size=(40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "LAB":
        return ImageCms.profileToProfile(
            Image.fromarray(pixels), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    return Image.fromarray(pixels).convert(mode)


def red_free() -> Image.Image:
    return Image.fromarray(np.asarray(photograph()) * np.array([0, 1, 0], np.uint8))


@pytest.mark.parametrize(
    ("name", "image", "options", "message"),
    [
        ("a.jpg", photograph("CMYK"), {}, "has the color mode CMYK, expected a color photograph (RGB): save it as RGB"),
        (
            "a.png",
            photograph("L"),
            {},
            "is gray (color mode L), expected a color photograph (RGB): use the color original",
        ),
        ("a.jpg", photograph("L").convert("RGB"), {}, "shows only shades of gray"),
        ("a.png", red_free(), {}, "has light in only one color channel"),
        ("a.tif", photograph("LAB"), {}, "has the color mode LAB"),
        ("a.png", Image.fromarray(np.zeros((30, 40), np.uint16)), {}, "is gray (color mode I;16)"),
        ("a.png", photograph(), {"save_all": True, "append_images": [photograph().rotate(90)]}, "holds 2 frames"),
    ],
    ids=["CMYK", "gray", "gray as color", "red-free", "Lab", "16 bits", "animated"],
)
def test_other_kinds_of_images_are_refused_by_name(tmp_path, name, image, options, message):
    image.save(tmp_path / name, **options)
    with pytest.raises(Refused, match=re.escape(f"{name} {message}")):
        read_image(tmp_path / name, 32)


def warm(gray: Image.Image) -> Image.Image:
    return Image.merge("RGB", (gray, gray.point(lambda level: level // 2), gray.point(lambda level: level // 4)))


@pytest.mark.parametrize("stated", range(10))
def test_photographs_are_turned_upright(tmp_path, stated):
    upright = Image.fromarray(np.kron(np.arange(6).reshape(2, 3), np.ones((40, 40))).astype(np.uint8) * 40)
    exif = Image.Exif()  # says how the file was turned; here are the names of the inverse turns
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = upright.transpose(Image.Transpose[turns[stated]]) if stated in turns else upright
    exif[reading.ORIENTATION] = stated
    warm(stored).save(tmp_path / "a.png", exif=exif)
    image, frame = read_image(tmp_path / "a.png", 96, crop_field=False)
    assert frame == Frame.whole(80, 120)
    shape = (80, 120)
    expected = np.asarray(warm(upright).resize((96, 96), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(image, expected)
    mask = np.asarray(upright) == 80
    if stated in range(2, 5):
        with pytest.raises(ValueError, match="its masks' size does not show whether they are, too"):
            reading.turn_mask(mask, tmp_path / "a.png", shape)
    else:
        for drawn in (mask, np.asarray(stored) == 80):
            np.testing.assert_array_equal(reading.turn_mask(drawn, tmp_path / "a.png", shape), mask)


def test_of_a_square_photograph_it_cannot_be_told_how_the_mask_was_drawn(tmp_path):
    exif = Image.Exif()
    exif[reading.ORIENTATION] = 6
    photograph(size=(30, 30)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match="its masks' size does not show"):
        reading.turn_mask(np.zeros((30, 30), bool), tmp_path / "a.jpg", (30, 30))


def test_the_first_frame_of_a_cameras_mpo_is_the_photograph(tmp_path):
    photograph().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photograph(size=(8, 6))], quality=95)
    photograph().save(tmp_path / "b.jpg", quality=95)
    np.testing.assert_array_equal(*(read_image(tmp_path / name, 32)[0] for name in ("a.jpg", "b.jpg")))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    Image.new("RGB", (11000, 11000)).save(tmp_path / "large.png", compress_level=1)
    with pytest.raises(
        ValueError, match=r"large\.png has 121,000,000 pixels \(11000x11000\), expected at most 100,000,000"
    ):
        read_image(tmp_path / "large.png", 32)


def test_transparency_is_dropped(tmp_path):
    photograph().save(tmp_path / "a.png")
    photograph("RGBA").save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 32)[0], read_image(tmp_path / "b.png", 32)[0])


@pytest.mark.parametrize("name", ["a.webp", "a.jp2", "a.bmp", "a.ppm", "a.avif", "a.tif", "a.gif", "a", "a.jpe"])
def test_whatever_its_suffix_a_photograph_is_read_by_its_content(tmp_path, name):
    kind = {"": "PNG", ".jpe": "JPEG"}.get(Path(name).suffix)
    photograph(size=(96, 96)).resize((400, 400)).save(tmp_path / name, kind)
    photograph(size=(96, 96)).resize((400, 400)).save(tmp_path / "b.png")
    difference = read_image(tmp_path / name, 32)[0].astype(int) - read_image(tmp_path / "b.png", 32)[0]
    assert np.abs(difference).mean() < 8


def test_what_gzip_packed_is_read(tmp_path):
    photograph().save(tmp_path / "im0001.ppm")
    packed = tmp_path / "im0001.ppm.gz"
    packed.write_bytes(gzip.compress((tmp_path / "im0001.ppm").read_bytes()))
    np.testing.assert_array_equal(read_image(packed, 32)[0], read_image(tmp_path / "im0001.ppm", 32)[0])
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(Refused, match=r"im0001\.ppm\.gz cannot be decoded"):
        read_image(packed, 32)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_sixteen_bits_per_channel_lose_nothing(tmp_path, suffix, bits):
    deep = np.asarray(photograph(size=(64, 64)), np.uint32) * (2**bits - 1) // 255
    path, deep = tmp_path / f"a{suffix}", deep.astype(np.uint16)
    path.write_bytes(imagecodecs.png_encode(deep)) if suffix == ".png" else tifffile.imwrite(path, deep)
    photograph(size=(64, 64)).save(tmp_path / "b.png")
    difference = read_image(path, 64)[0].astype(int) - read_image(tmp_path / "b.png", 64)[0]
    assert np.abs(difference).max() <= 1


def test_a_damaged_file_of_sixteen_bits_is_named(tmp_path):
    data = imagecodecs.png_encode(np.asarray(photograph(size=(64, 64)), np.uint16) * 257)
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(Refused, match=r"a\.png cannot be decoded"):
        read_image(tmp_path / "a.png", 32)


def test_a_palette_gives_its_colors(tmp_path):
    photograph().quantize(64).save(tmp_path / "a.png")
    photograph().quantize(64).convert("RGB").save(tmp_path / "b.png")
    np.testing.assert_array_equal(*(read_image(tmp_path / name, 32)[0] for name in ("a.png", "b.png")))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {"pnginfo": "gamma"}),
        (".png", {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}),
        (".jpg", {"progressive": True, "quality": 95}),
        (".jpg", {"quality": 95, "comment": b"\xff\xd9"}),
        (".tif", {"compression": "tiff_lzw"}),
        (".tif", {"compression": "jpeg", "quality": 95}),
    ],
    ids=["gamma", "color profile", "progressive", "end marker in a comment", "LZW", "JPEG in TIFF"],
)
def test_what_surrounds_the_pixels_changes_nothing(tmp_path, suffix, options):
    if "pnginfo" in options:
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add(b"gAMA", (45455).to_bytes(4, "big"))
    smooth = photograph(size=(8, 8)).resize((96, 96), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / f"a{suffix}", **options)
    smooth.save(tmp_path / "b.png")
    difference = read_image(tmp_path / f"a{suffix}", 32)[0].astype(int) - read_image(tmp_path / "b.png", 32)[0]
    assert np.abs(difference).max() <= (0 if options.keys() <= {"pnginfo", "icc_profile", "compression"} else 20)


@pytest.mark.parametrize("stated", range(2, 9))
@pytest.mark.parametrize("kind", ["TIFF", "deep TIFF", "deep PNG"])
def test_a_turn_is_undone_once_whoever_undoes_it(tmp_path, stated, kind):
    upright = photograph(size=(60, 40))
    back = {6: 8, 8: 6}.get(stated, stated)
    stored = np.asarray(reading.turn(upright, back))
    exif = Image.Exif()
    exif[reading.ORIENTATION] = stated
    path = tmp_path / ("a.png" if kind == "deep PNG" else "a.tif")
    if kind == "TIFF":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, 3, 1, stated, True)])
    elif kind == "deep TIFF":
        deep = stored.astype(np.uint16) * 257
        tifffile.imwrite(path, deep, photometric="rgb", extratags=[(274, 3, 1, stated, True)])
    else:
        data, chunk = imagecodecs.png_encode(stored.astype(np.uint16) * 257), b"eXIf" + exif.tobytes()[6:]
        crc = zlib.crc32(chunk).to_bytes(4, "big")
        path.write_bytes(data[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + crc + data[33:])
    image, frame = read_image(path, 32, crop_field=False)
    assert frame == Frame.whole(40, 60)
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(image, expected)


def test_planes_of_one_color_each_are_put_together(tmp_path):
    pixels = np.asarray(photograph(size=(64, 48)))
    planes = (pixels.astype(np.uint16) * 257).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    photograph(size=(64, 48)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(*(read_image(tmp_path / name, 32)[0] for name in ("a.tif", "b.png")))


def disc(ground=(0, 0, 0), size=(160, 128)) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    inside = np.hypot(x - size[0] / 2, y - size[1] / 2) < 0.45 * size[1]
    noise = np.random.default_rng(0).integers(0, 30, (size[1], size[0], 3))
    return np.where(inside[..., None], np.array([160, 80, 40]) + noise, ground).astype(np.uint8)


def cut_off(folder):
    Image.fromarray(disc(size=(960, 720))).save(folder / "whole.jpg", quality=90)
    data = (folder / "whole.jpg").read_bytes()
    return data[: len(data) // 2] + b"\0" * (len(data) // 2 - 2) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Image.fromarray(disc() * 0), "is black, expected a photograph"),
        (lambda folder: Image.fromarray(disc((255, 255, 255))), "has a white ground, expected black around the field"),
        (
            lambda folder: Image.fromarray(np.hstack([disc(), disc()])),
            "shows two fields of view, expected one eye: cut it",
        ),
    ],
    ids=["black", "white ground", "two eyes"],
)
def test_what_is_no_photograph_of_one_eye_on_black_is_refused(tmp_path, make, message):
    make(tmp_path).save(tmp_path / "a.png")
    with pytest.raises(Refused, match=message):
        read_image(tmp_path / "a.png", 64)


def test_an_interrupted_copy_filled_with_zeros_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(cut_off(tmp_path))
    with pytest.raises(Refused, match=r"a\.jpg ends in an area without detail, expected a whole photograph"):
        read_image(tmp_path / "a.jpg", 64)


def test_a_transparent_ground_is_black(tmp_path):
    pixels = np.dstack([disc((255, 255, 255)), np.where(disc().any(axis=2), 255, 0).astype(np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(disc()).save(tmp_path / "b.png")
    np.testing.assert_array_equal(*(read_image(tmp_path / name, 32)[0] for name in ("a.png", "b.png")))


@pytest.mark.parametrize("level", [16, 20])
def test_a_ground_that_is_not_quite_black_is_no_missing_end(tmp_path, level):
    Image.fromarray(disc((level, level, level))).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 64)[0].max() > 100


def test_a_transparent_ground_of_sixteen_bits_is_black(tmp_path):
    opaque = np.where(disc().any(axis=2), 65535, 0).astype(np.uint16)
    pixels = np.dstack([disc((255, 255, 255)).astype(np.uint16) * 257, opaque])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    Image.fromarray(disc()).save(tmp_path / "b.png")
    np.testing.assert_array_equal(*(read_image(tmp_path / name, 32)[0] for name in ("a.png", "b.png")))


def test_what_pillow_refuses_without_a_name_is_named(tmp_path):
    """Comments of more than a megabyte, and a compression that it does not know."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", " " * 2**21, zip=True)
    Image.fromarray(disc()).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(Refused, match=r"a\.png cannot be decoded"):
        read_image(tmp_path / "a.png", 32)
    tifffile.imwrite(tmp_path / "a.tif", disc(), photometric="rgb", compression="jpeg2000")
    with pytest.raises(Refused, match=r"a\.tif is not an image that can be read"):
        read_image(tmp_path / "a.tif", 32)
