"""Reading masks: encodings that are taken, files that are refused by name, scaling by area."""

import re

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin
from skimage.transform import downscale_local_mean

from ruranet_utils.data.field import Frame, shrink_mask
from ruranet_utils.data.masks import read_mask
from ruranet_utils.data.refusal import Refused
from tests.data.trees import save_mask

LESION = np.zeros((48, 64), bool)
LESION[8:16, 8:24], LESION[30:33, 40:43] = True, True


def gray(values, dtype=np.uint8) -> Image.Image:
    return Image.fromarray((LESION * values).astype(dtype))


def color(lesion, ground=(0, 0, 0), mode="RGB") -> Image.Image:
    return Image.fromarray(np.where(LESION[..., None], lesion, ground).astype(np.uint8), mode)


def palette(colors, ground=0, transparency=None) -> Image.Image:
    image = Image.fromarray(np.where(LESION, 1, ground).astype(np.uint8), "P")
    image.putpalette([value for one in colors for value in one])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def soft(scale=4) -> Image.Image:
    large = Image.fromarray(LESION).convert("L").resize((64 * scale, 48 * scale), Image.Resampling.NEAREST)
    return large.rotate(3).resize((64, 48), Image.Resampling.BILINEAR)


def labels(values) -> Image.Image:
    image = Image.new("L", (64, 48))
    for i, value in enumerate(values):
        ImageDraw.Draw(image).ellipse((10 * i + 2, 10, 10 * i + 9, 17), fill=value)
    return image


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", Image.fromarray(LESION)),
        ("a.png", gray(1)),
        ("a.png", gray(200)),
        ("a.png", gray(256, np.uint16)),
        ("a.png", gray(65535, np.uint16)),
        ("a.tif", gray(1, np.uint16)),
        ("a.tif", gray(1, np.int32)),
        ("a.tif", gray(1.0, np.float32)),
        ("a.png", color((51, 221, 51))),
        ("a.png", color((0, 255, 0))),
        ("a.png", color((0, 0, 255))),
        ("a.png", color((255, 0, 0, 255), (0, 0, 0, 255), "RGBA")),
        ("a.png", color((255, 255, 255, 255), (255, 255, 255, 0), "RGBA")),
        ("a.png", color((0, 0, 0, 255), (0, 0, 0, 0), "RGBA")),
        ("a.png", color((0, 255, 0, 130), (255, 255, 255, 0), "RGBA")),
        ("a.png", color((255, 255), (255, 0), "LA")),
        ("a.png", palette([(0, 0, 0), (255, 0, 0)])),
        ("a.png", palette([(0, 0, 0), (0, 0, 0)])),
        ("a.png", palette([(255, 255, 255), (0, 255, 0)], transparency=0)),
        ("a.png", palette([(9, 9, 9), (255, 255, 255), (0, 0, 0)], ground=2)),
        ("a.webp", gray(255)),
        ("a.jpg", color((51, 221, 51))),
        ("a.bmp", gray(255)),
        ("a.gif", gray(255)),
    ],
)
def test_one_value_or_color_on_black_is_the_lesion(tmp_path, name, image):
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name), LESION)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("image", [gray(0), gray(0, np.uint16), Image.fromarray(LESION & False), color((0, 0, 0))])
def test_a_black_mask_is_empty(tmp_path, name, image):
    image.save(tmp_path / name)
    assert not read_mask(tmp_path / name).any()


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.png", labels([1, 2, 3, 4]), "holds the values 0, 1, 2, 3, 4, expected 0 and 1 or 0 and 255"),
        (
            "a.png",
            labels([2]),
            "holds the values 0, 2, expected 0 and 1 or 0 and 255: if they are kinds of lesions, save",
        ),
        ("a.png", gray(5), "holds the values 0, 5, expected"),
        ("a.png", labels([1, 255]), "holds the values 0, 1, 255"),
        ("a.png", labels([50, 100, 150, 200, 255]), "holds the values 0, 50, 100, 150, 200, 255"),
        ("a.png", Image.fromarray((LESION + 1).astype(np.uint8)), "holds the values 1, 2"),
        ("a.png", color((255, 0, 0), (255, 255, 255)), "holds the colors 255/0/0, 255/255/255, expected one color"),
        ("a.png", palette([(0, 0, 0), (255, 0, 0), (0, 255, 0)], ground=2), "holds the colors 0/255/0, 255/0/0"),
        ("a.jpg", color((255, 0, 0), (0, 0, 255)), "is a lossy file with areas of several values or colors"),
        ("a.jpg", gray(1), "is a lossy file whose brightest value is"),
        ("a.tif", Image.fromarray(np.where(LESION, np.nan, 0).astype(np.float32)), "holds 0, nan"),
        ("a.tif", gray(-1, np.int32), "holds -1, 0"),
        ("a.jpg", gray(255).convert("CMYK"), "has the color mode CMYK, expected a mask of gray values or colors"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(tmp_path, name, image, message):
    image.save(tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(f"{name} {message}")):
        read_mask(tmp_path / name)


def test_several_pages_are_refused(tmp_path):
    gray(0).save(tmp_path / "a.tif", save_all=True, append_images=[gray(255)])
    with pytest.raises(ValueError, match=r"a\.tif holds 2 pages, expected the mask of one lesion"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("shown", [(255, 255, 255), (80, 160, 240)])
def test_soft_edges_are_cut_at_half(tmp_path, shown):
    edges = np.asarray(soft())
    assert len(np.unique(edges)) > 10
    pixels = np.rint(edges[..., None] / 255 * shown).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="soft edges of masks are cut at half"):
        found = read_mask(tmp_path / "a.png")
    assert (found != (edges >= 127.5)).sum() <= (np.abs(edges.astype(int) - 127) < 3).sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_read_as_shown_or_refused(tmp_path, dtype):
    gray(255, dtype).save(tmp_path / "a.tif", tiffinfo={262: 0})
    try:
        np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), np.asarray(Image.open(tmp_path / "a.tif")) == 255)
    except ValueError as error:
        assert "in which white is zero" in str(error)


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_read_mask_gives_the_lesion_in_both_encodings(tmp_path, mode):
    lesion = np.random.default_rng(0).random((48, 64)) < 0.2
    np.testing.assert_array_equal(read_mask(save_mask(tmp_path / "m.tif", lesion, mode)), lesion)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_read_mask_names_a_damaged_file(tmp_path):
    path = save_mask(tmp_path / "cut.tif", np.ones((48, 64), bool))
    path.write_bytes(path.read_bytes()[: 48 * 64 // 2])
    with pytest.raises(ValueError, match=r"cut\.tif (cannot be decoded|is not an image).*: save it"):
        read_mask(path)


@pytest.mark.parametrize(("ones", "zeros"), [(1, 0), (127, 0), (255, 0), (255, 127)])
def test_read_mask_takes_one_value_for_the_lesion_and_what_is_not_to_be_judged_for_none(tmp_path, ones, zeros):
    lesion = np.random.default_rng(0).random((48, 64)) < 0.2
    Image.fromarray(np.where(lesion, ones, zeros).astype(np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", zeros), lesion)


def test_read_mask_of_a_jpeg_is_cut_in_the_middle(tmp_path):
    lesion = np.zeros((48, 64), bool)
    lesion[8:24, 16:40] = True
    Image.fromarray(lesion.astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=60)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), lesion)


def shrink(mask: np.ndarray, size_px: int) -> tuple[np.ndarray, float]:
    return shrink_mask(mask, Frame.whole(*mask.shape), size_px)


def test_shrink_mask_by_hand():
    """4x4 to 2x2: covered by 4, 1, 0 and 2 of 4 pixels; a quarter is enough."""
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    small, lost = shrink(mask, 2)
    np.testing.assert_array_equal(small, [[True, True], [False, True]])
    assert lost == 0


def test_shrink_mask_drops_less_than_a_quarter():
    mask = np.zeros((12, 12), bool)
    mask[0, :2] = True  # 2 of 9 pixels
    mask[6:7, 6:9] = True  # 3 of 9 pixels
    small, lost = shrink(mask, 4)
    assert np.argwhere(small).tolist() == [[2, 2]] and lost == pytest.approx(2 / 5, abs=0.01)
    assert shrink(np.zeros((12, 12), bool), 4)[1] == 0


def test_shrink_mask_agrees_with_block_means_and_mirrors():
    mask = np.random.default_rng(1).random((96, 160)) < 0.22
    expected = downscale_local_mean(mask.astype(float), (3, 5)) >= 0.25
    np.testing.assert_array_equal(shrink(mask, 32)[0], expected)
    np.testing.assert_array_equal(shrink(mask[:, ::-1], 32)[0], expected[:, ::-1])


def test_a_lesion_that_is_drawn_half_transparent_is_found(tmp_path):
    color((255, 0, 0, 102), (0, 0, 0, 0), "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), LESION)


@pytest.mark.parametrize("colors", [(100, 200), ((255, 0, 0), (255, 128, 0))])
def test_a_lossy_label_map_is_refused(tmp_path, colors):
    image = Image.new("RGB" if isinstance(colors[0], tuple) else "L", (64, 48))
    for left, value in zip((4, 36), colors, strict=True):
        ImageDraw.Draw(image).rectangle((left, 10, left + 20, 30), fill=value)
    image.save(tmp_path / "a.jpg", quality=95)
    with pytest.raises(ValueError, match=r"a\.jpg is a lossy file with areas of several values or colors"):
        read_mask(tmp_path / "a.jpg")


def test_a_label_map_of_0_127_and_255_is_refused(tmp_path):
    labels([127, 255]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds the values 0, 127, 255"):
        read_mask(tmp_path / "a.png")


def test_a_mask_that_says_it_is_turned_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    gray(255).save(tmp_path / "a.png", exif=exif)
    with pytest.raises(ValueError, match=r"a\.png is stored rotated \(EXIF\), expected an upright mask"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("ground", [0, 127])
def test_a_mask_of_nothing_but_what_is_not_to_be_judged_is_empty(tmp_path, ground):
    Image.fromarray(np.where(LESION, 127, ground).astype(np.uint8)).save(tmp_path / "m.png")
    assert not read_mask(tmp_path / "m.png", 127).any()


@pytest.mark.parametrize("width", [720, 64])
def test_sixteen_is_no_depth_where_it_is_part_of_another_number(tmp_path, width):
    """The rows of a BMP 720 pixels wide have 2160 bytes."""
    lesion = np.pad(LESION, ((0, 0), (0, width - 64)))
    Image.fromarray(lesion.astype(np.uint8) * 255).convert("RGB").save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.bmp"), lesion)


@pytest.mark.parametrize("value", [1, 255, 65535])
def test_color_masks_of_sixteen_bits_are_refused(tmp_path, value):
    """Pillow drops their lower bytes: a mask of ones would be empty."""
    deep = np.repeat(LESION[..., None], 3, axis=2).astype(np.uint16) * value
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    with pytest.raises(Refused, match="16 bits per channel"):
        read_mask(tmp_path / "a.png")


def test_what_pillow_refuses_without_a_name_is_named(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", " " * 2**21, zip=True)
    gray(255).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(Refused, match=r"a\.png cannot be decoded"):
        read_mask(tmp_path / "a.png")
