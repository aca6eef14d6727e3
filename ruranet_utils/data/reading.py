"""Reading photographs: what is accepted, what is rejected, and which square is scaled to the target size."""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ruranet_utils.data.field import DARK, Frame, frame_of
from ruranet_utils.data.refusal import Refused

FORMATS = ("JPEG", "PNG", "TIFF", "PPM", "BMP", "GIF", "WEBP", "JPEG2000", "AVIF")
COLOR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "YCbCr")
GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
MAX_PIXELS = 100_000_000
BITS_PER_SAMPLE = 258  # a tag of TIFF
ORIENTATION = 0x0112  # EXIF: 1 is upright, and so is 0, not stated
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GLANCE_PX = 128
DARKEST, BRIGHTEST = 12, 235  # of 255: what counts as a black image, and as a white background
GRAY_LEVELS = 2  # of 255; channels that differ by less than this on average show no color
DAMAGE = (OSError, EOFError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)
EXPORT = "copy it again, or export it as JPEG or PNG"
NO_COLOR = "use the color original; gray and red-free photographs cannot be used"
DEPTHS = (8, 10, 12, 16)  # bits that cameras use of the 16 in a channel


def read_image(path: Path, size_px: int, crop_field: bool = True) -> tuple[np.ndarray, Frame]:
    """Read a photograph and scale it, or the square around its field of view, to the target size.

    ============================================  =====================================================================
    file                                          read as
    ============================================  =====================================================================
    JPEG, PNG, TIFF, PPM, BMP, GIF, WebP,         by content, whatever the suffix; also gzipped (``.gz``)
    JPEG 2000, AVIF
    MPO, as cameras write it                      its first frame
    turned by EXIF                                upright
    palette                                       its colors
    transparency                                  on black
    PNG and TIFF with 16 bits per channel         scaled by as many bits as the brightest value fills, of ``DEPTHS``
    gray, or channels that are all alike          refused: the networks need color (a red-free photograph has none)
    CMYK, Lab                                     refused
    several frames or pages, more than            refused
    ``MAX_PIXELS``, damaged, cut off, black, on
    white, two eyes side by side
    ============================================  =====================================================================

    Parameters
    ----------
    path : Path
    size_px : int
        Side of the result.
    crop_field : bool
        Cut the square around the field of view, black where it extends beyond the photograph; otherwise scale the whole
        photograph without keeping its aspect ratio, as in the paper (section 3.1).

    Returns
    -------
    image : ndarray of uint8, shape (3, size_px, size_px)
        Bicubic with antialiasing. A JPEG at least four times that size is decoded at a reduced scale, which changes
        values by at most 3 of 255 (IDRiD, 512 px).
    frame : Frame
        The part of the upright photograph that was scaled.

    Raises
    ------
    Refused
        If the file is not a single color photograph of at most ``MAX_PIXELS``, or cannot be decoded to its end.
    """
    upright, frame = read_upright(path, size_px, crop_field)
    pixels = np.asarray(frame.cut(upright, size_px, Image.Resampling.BICUBIC))
    check_color(pixels, path)
    return pixels.transpose(2, 0, 1), frame


def read_upright(path: Path, size_px: int, crop_field: bool) -> tuple[Image.Image, Frame]:
    """A photograph as an RGB image, possibly reduced to no less than twice ``size_px``, and its frame.

    This is what :func:`read_image` scales; parameters and errors are the same.
    """
    with opened(path) as image:
        check_header(image, path)
        is_deep = has_16_bits(image)  # before reading the EXIF of a PNG, which makes Pillow decode it
        transparent = image.mode == "RGBA" and not any("RGBa" in str(tile[3]) for tile in image.tile)
        shape = upright_shape(image)
        turned = orientation(image)
        # JPEG decodes straight to 1/2, 1/4 or 1/8; twice the target leaves the last step to the better filter.
        image.draft("RGB", (2 * size_px, 2 * size_px))
        stored = _eight_bits(path, transparent) if is_deep else image
        is_upright = image.format == "TIFF" and not is_deep  # Pillow has turned it
        upright = _on_black(stored if is_upright else turn(stored, turned))
    _check_pixels(upright, path)
    try:
        frame = frame_of(upright, shape, crop_field)
    except ValueError as error:
        raise Refused(path, str(error), "one eye", "cut it in two") from None
    return upright, frame


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A photograph's file with its header read; anything wrong with it becomes a ValueError that names it."""
    try:
        with _open(path) as file, Image.open(file, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        found = "is not an image that can be read" if path.stat().st_size else "is empty"
        raise Refused(path, found, f"one of {', '.join(FORMATS)}", EXPORT) from None
    except Image.DecompressionBombError:
        raise Refused(path, "has too many pixels", f"at most {MAX_PIXELS:,}", "scale it down") from None
    except PermissionError:
        raise Refused(path, "may not be read", "read access", "change its permissions (chmod +r)") from None
    except Refused:
        raise
    except (*DAMAGE, ValueError) as error:
        raise _damaged(path, error) from error


def without_bomb_warnings() -> warnings.catch_warnings:
    """A context in which Pillow does not warn about photographs that are large but below ``MAX_PIXELS``."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)


def _damaged(path: Path, error: Exception) -> Refused:
    return Refused(path, f"cannot be decoded ({error})", "an undamaged file", EXPORT)


def check_header(image: Image.Image, path: Path) -> None:
    """Raise :class:`Refused` if the header alone shows that a file is not a readable photograph."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        found = f"has {width * height:,} pixels ({width}x{height})"
        raise Refused(path, found, f"at most {MAX_PIXELS:,}", "scale it down")
    if image.mode not in COLOR_MODES:
        is_gray = image.mode in GRAY
        found = f"is gray (color mode {image.mode})" if is_gray else f"has the color mode {image.mode}"
        raise Refused(path, found, "a color photograph (RGB)", NO_COLOR if is_gray else "save it as RGB")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # whose first frame is the photograph
        raise Refused(
            path, f"holds {image.n_frames} frames", "one photograph", "save the one you mean as a file of its own"
        )


def _check_pixels(image: Image.Image, path: Path) -> None:
    """Refuse what a header does not show: a photograph that is black, on a white background, or missing its end."""
    pixels = np.asarray(image.reduce(max(1, max(image.size) // GLANCE_PX)))
    if pixels.max() <= DARKEST:
        raise Refused(path, "is black", "a photograph", EXPORT)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if (rim.min(axis=1) > BRIGHTEST).mean() > 0.5:
        raise Refused(path, "has a white ground", "black around the field of view", "fill it with black")
    ground = max(DARKEST, DARK * np.percentile(pixels.max(axis=2), 99))  # some cameras' black is above 0
    for rows in (pixels, pixels[::-1], pixels.swapaxes(0, 1), pixels.swapaxes(0, 1)[::-1]):
        end = rows[-max(2, len(rows) // 20) :].astype(int)
        if len(rows) >= GLANCE_PX // 2 and np.ptp(end, axis=1).max() <= 1 and end.max() > ground:
            raise Refused(path, "ends in an area without detail", "a whole photograph", EXPORT)


def check_color(pixels: np.ndarray, path: Path) -> None:
    """Refuse gray photographs stored as color, and those with only one channel exposed."""
    red, green, blue = pixels.reshape(-1, 3).astype(np.int16).T
    if max(np.abs(red - green).mean(), np.abs(green - blue).mean()) < GRAY_LEVELS and pixels.any():
        raise Refused(path, "shows only shades of gray", "a color photograph", NO_COLOR)
    if np.sort([channel.mean() for channel in (red, green, blue)])[1] < GRAY_LEVELS < pixels.max():
        found = "has light in only one color channel (a mask? red-free?)"
        raise Refused(path, found, "a color photograph", NO_COLOR)


def has_16_bits(image: Image.Image) -> bool:
    """Whether Pillow would drop the lower 8 of 16 bits per channel; ask before it decodes the image."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) == 16
    return image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile)


def _eight_bits(path: Path, transparent: bool) -> Image.Image:
    """The upper 8 bits of an image with 16 per channel, on black; many cameras fill only 10 or 12 of them."""
    import imagecodecs  # takes a tenth of a second, and only needed here

    try:
        with _open(path) as file:
            pixels = imagecodecs.imread(file.read())
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    if pixels.shape[-1] not in (3, 4):  # planes of one color each
        pixels = np.moveaxis(pixels, 0, -1)
    opacity = pixels[..., 3:] / np.iinfo(pixels.dtype).max if transparent else 1
    pixels = pixels[..., :3]
    depth = next(bits for bits in DEPTHS if pixels.max() < 2**bits)
    return Image.fromarray(np.round(pixels * opacity / (2**depth - 1) * 255).astype(np.uint8))


def _on_black(image: Image.Image) -> Image.Image:
    if "transparency" in image.info or image.mode in ("RGBA", "PA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright; from 5 on, height and width are swapped."""
    stated = image.getexif().get(ORIENTATION, 1)
    return stated if stated in range(1, 9) else 1


def upright_shape(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image once it is turned upright; it was opened but not decoded."""
    width, height = image.size
    exchanged = orientation(image) >= 5 and image.format != "TIFF"  # Pillow has already swapped those of a TIFF
    return (width, height) if exchanged else (height, width)


def turn(image: Image.Image, stated: int) -> Image.Image:
    """Undo an EXIF orientation."""
    return image.transpose(TURNS[stated]) if stated in TURNS else image


def turn_mask(mask: np.ndarray, photograph: Path, shape: tuple[int, int]) -> np.ndarray:
    """Turn a mask like its photograph, if it was drawn on the file as stored.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    photograph : Path
    shape : tuple of int
        Height and width of the upright photograph.

    Raises
    ------
    Refused
        If the mask's size does not tell which way it was drawn.
    """
    with opened(photograph) as image:
        turned = orientation(image)
    if turned == 1 or (turned >= 5 and mask.shape == shape != shape[::-1]):
        return mask
    if turned >= 5 and mask.shape == shape[::-1] != shape:
        return np.asarray(turn(Image.fromarray(mask), turned))
    found = f"is stored rotated (EXIF orientation {turned}), and its masks' size does not show whether they are, too"
    raise Refused(photograph, found, "an upright photograph", "turn it, save it without EXIF, and look at its masks")
