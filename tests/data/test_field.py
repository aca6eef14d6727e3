"""The field of view: found on fields of every shape, cut, and put back at the photograph's own size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ruranet_utils.data.field import Frame, find_field, shrink_mask
from ruranet_utils.data.reading import read_image
from tests.data.trees import DATA, real_data

RETINA = (170, 80, 35)


def field(size=(600, 400), center=(300, 200), radius=180, brightness=1.0, noise=2.0) -> Image.Image:
    """A vignetted disc in the colors of a retina on a dark, noisy ground."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    distance = np.hypot(x - center[0], y - center[1]) / radius
    pixels = (distance < 1)[..., None] * RETINA * (1 - 0.5 * distance[..., None] ** 2) * brightness
    pixels += np.random.default_rng(0).normal(1, noise, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def stamped(image: Image.Image) -> Image.Image:
    draw = ImageDraw.Draw(image)
    draw.text((5, 5), "2026-11-25 10:42 OD", fill="white")
    draw.rectangle((520, 330, 590, 390), fill="white")
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (field(), (120, 20, 480, 380)),
        (field(radius=250), (50, -50, 550, 450)),  # clipped above and below
        (field(center=(180, 200)), (0, 20, 360, 380)),
        (field(brightness=0.15), (120, 20, 480, 380)),
        (stamped(field()), (120, 20, 480, 380)),
        (field((2400, 1600), (1200, 800), 300), (900, 500, 1500, 1100)),
        (field((600, 400), (300, 200), 900), (0, -100, 600, 500)),  # fills the frame
    ],
    ids=["45 degrees", "clipped", "off center", "dim", "date stamp and label", "small", "ultra-wide"],
)
def test_the_square_around_the_field_is_found(image, expected):
    np.testing.assert_allclose(find_field(image), expected, atol=max(image.size) * 0.015)


def test_a_square_clipped_field_is_as_wide_as_it_shows():
    left, top, right, bottom = find_field(field(radius=250, center=(300, 300)))
    assert right - left == bottom - top == pytest.approx(500, abs=10)
    assert left == pytest.approx(50, abs=8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((300, 500, 3), np.uint8),
        np.full((300, 500, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8),
    ],
    ids=["black", "white", "noise"],
)
def test_what_shows_no_field_is_taken_whole(pixels):
    np.testing.assert_allclose(find_field(Image.fromarray(pixels)), (0, -100, 500, 400), atol=5)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 7), (7, 40)])
def test_tiny_images_do_not_fail(size):
    left, top, right, bottom = find_field(Image.new("RGB", size, RETINA))
    assert right - left == bottom - top == max(size)


def test_the_crop_fills_the_square_and_keeps_the_aspect_ratio(tmp_path):
    field((1200, 800), (600, 400), 450).save(tmp_path / "a.png")
    image, frame = read_image(tmp_path / "a.png", 128)
    whole, _ = read_image(tmp_path / "a.png", 128, crop_field=False)
    bright, squeezed = (pixels.max(axis=0) > 30 for pixels in (image, whole))
    assert bright.any(axis=0).mean() > 0.97 > 0.8 > squeezed.any(axis=0).mean()
    assert bright.any(axis=1).mean() == pytest.approx(800 / 900, abs=0.03), "black where the sensor has clipped"
    assert frame.left == pytest.approx(150, abs=12) and frame.top == pytest.approx(-50, abs=12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(40, 160),
    st.integers(40, 160),
    st.integers(-30, 30),
    st.integers(-30, 30),
    st.sampled_from([32, 64, 80]),
)
def test_masks_come_back_where_they_were(height, width, left, top, size_px):
    side = max(height, width)
    frame = Frame(height, width, left, top, left + side, top + side)
    mask = np.zeros((height, width), bool)
    mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
    small, _ = shrink_mask(mask, frame, size_px)
    back = frame.restore(small)
    assert back.shape == mask.shape and back.dtype == bool
    reach = side / size_px + 1.5  # pixels by which an edge may move
    seen = np.zeros_like(mask)
    seen[max(0, top) : max(0, frame.bottom), max(0, left) : max(0, frame.right)] = True
    assert not back[~seen].any()
    rows, columns = np.nonzero((back != mask) & seen)
    edges = [height // 3, 2 * height // 3], [width // 3, 2 * width // 3]
    off = np.minimum(
        *(np.abs(values[:, None] + 0.5 - edge).min(axis=1) for values, edge in zip((rows, columns), edges, strict=True))
    )
    assert (off <= reach).all()


def test_cutting_agrees_with_a_padded_copy():
    image = field((90, 60), (45, 30), 40)
    frame = Frame(60, 90, 0, -15, 90, 75)
    padded = Image.new("RGB", (90, 90))
    padded.paste(image, (0, 15))
    expected = np.asarray(padded.resize((30, 30), Image.Resampling.BOX))
    np.testing.assert_array_equal(np.asarray(frame.cut(image, 30, Image.Resampling.BOX)), expected)


def test_a_frame_survives_the_store():
    frame = Frame(60, 90, 0, -15, 90, 75)
    assert Frame(*frame.as_array().tolist()) == frame


@real_data
@pytest.mark.parametrize(("pattern", "width"), [("idrid/**/*.jpg", (0.7, 0.9)), ("srahim/**/*.jpg", (0.7, 0.85))])
def test_real_fields_are_found(pattern, width):
    """The fields of IDRiD and SRahim are clipped above and below and have the same width on all photographs."""
    for path in sorted(DATA.glob(pattern))[::20]:
        image, frame = read_image(path, 128)
        assert width[0] < (frame.right - frame.left) / frame.width_px < width[1], path
        bright = image.max(axis=0) > 20
        assert bright[:, 1:4].any() and bright[:, -4:-1].any(), path
