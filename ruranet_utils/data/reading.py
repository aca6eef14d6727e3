"""Reading photographs: what is accepted, what is refused, and which square of them is scaled to the target size."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ruranet_utils.data.field import Frame, frame_of
from ruranet_utils.data.refusal import Refused

FORMATS = ("JPEG", "PNG", "TIFF", "PPM", "BMP", "GIF", "WEBP", "JPEG2000", "AVIF")
COLOR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "YCbCr")
GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112  # EXIF: 1, or 0 where it is not stated, is upright
GRAY_LEVELS = 2  # of 255; channels that are on average no further apart than this show no color
DAMAGE = (OSError, EOFError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)
EXPORT = "copy it again, or export it as JPEG or PNG"
NO_COLOR = "the networks need color, which gray and red-free photographs lack"
DEPTHS = (8, 10, 12, 16)  # bits that cameras fill of the 16 of a channel


def read_image(path: Path, size_px: int, crop_field: bool = True) -> tuple[np.ndarray, Frame]:
    """Read a photograph and scale it, or the square around its field of view, to a square.

    ============================================  =====================================================================
    file                                          read as
    ============================================  =====================================================================
    JPEG, PNG, TIFF, PPM, BMP, GIF, WebP,         by its content, whatever its suffix; ``.gz`` around it is undone
    JPEG 2000, AVIF
    MPO, as cameras write it                      its first frame
    turned by EXIF                                upright
    palette                                       its colors
    transparency                                  the colors below it
    PNG and TIFF with 16 bits per channel         scaled by as many bits as the brightest value fills, of ``DEPTHS``
    gray, or channels that are all alike          refused: the networks need color (a red-free photograph has none)
    CMYK, Lab                                     refused
    several frames or pages, more than            refused
    ``MAX_PIXELS``, damaged
    ============================================  =====================================================================

    Parameters
    ----------
    path : Path
    size_px : int
        Side of the result.
    crop_field : bool
        Cut the square around the field of view, black where it leaves the photograph; else scale the whole photograph,
        whose aspect ratio is not kept, as in the paper (section 3.1).

    Returns
    -------
    image : ndarray of uint8, shape (3, size_px, size_px)
        Bicubic with antialiasing. A JPEG of at least four times that side is decoded at a reduced scale, which changes
        values by at most 3 of 255 (IDRiD, 512 px).
    frame : Frame
        The part of the upright photograph that was scaled.

    Raises
    ------
    Refused
        If the file is not one color photograph of at most ``MAX_PIXELS``, or cannot be decoded to its end.
    """
    with opened(path) as image:
        check_header(image, path)
        is_deep = _is_deep(image)  # before the EXIF of a PNG is read, with which Pillow decodes it
        turned = orientation(image)
        width, height = image.size if turned < 5 else image.size[::-1]
        # JPEG decodes straight to 1/2, 1/4 or 1/8; twice the target leaves the last step to the better filter.
        image.draft("RGB", (2 * size_px, 2 * size_px))
        stored = _eight_bits(path) if is_deep else image
        upright = (ImageOps.exif_transpose(stored) if turned > 1 else stored).convert("RGB")
        frame = frame_of(upright, (height, width), crop_field)
        pixels = np.asarray(frame.cut(upright, size_px, Image.Resampling.BICUBIC))
    _check_color(pixels, path)
    return pixels.transpose(2, 0, 1), frame


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A photograph's file of which the header is read; whatever is wrong with it is a ValueError that names it."""
    try:
        with (
            _open(path) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            yield image
    except UnidentifiedImageError:
        found = "is no image" if path.stat().st_size else "is empty"
        raise Refused(path, found, f"one of {', '.join(FORMATS)}", EXPORT) from None
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> Refused:
    return Refused(path, f"is damaged ({error})", "a whole file", EXPORT)


def check_header(image: Image.Image, path: Path) -> None:
    """Raise :class:`Refused` if the header alone shows that a file is no photograph that can be read."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Refused(path, f"has {width}x{height} pixels", f"at most {MAX_PIXELS:,}", "scale it down")
    if image.mode not in COLOR_MODES:
        found = f"has the color mode {image.mode}"
        remedy = NO_COLOR if image.mode in GRAY else "save it as RGB"
        raise Refused(path, found, "a color photograph (RGB)", remedy)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # of which the first is the photograph
        raise Refused(path, f"holds {image.n_frames} frames", "one photograph", "save that one alone")


def _check_color(pixels: np.ndarray, path: Path) -> None:
    """Refuse gray photographs that are stored as color ones, and those with one channel exposed."""
    red, green, blue = pixels.reshape(-1, 3).astype(np.int16).T
    if max(np.abs(red - green).mean(), np.abs(green - blue).mean()) < GRAY_LEVELS and pixels.any():
        raise Refused(path, "shows shades of gray alone", "a color photograph", NO_COLOR)
    if np.sort([channel.mean() for channel in (red, green, blue)])[1] < GRAY_LEVELS < pixels.max():
        raise Refused(path, "has light in one channel alone", "a color photograph", NO_COLOR)


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow would drop the lower 8 of 16 bits."""
    return image.format in ("PNG", "TIFF") and any(";16" in str(tile[3]) for tile in image.tile)


def _eight_bits(path: Path) -> Image.Image:
    """An image with 16 bits per channel by its upper 8; cameras often fill 10 or 12 bits alone."""
    import imagecodecs  # a tenth of a second, and needed here alone

    try:
        with _open(path) as file:
            pixels = imagecodecs.imread(file.read())[..., :3]
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    depth = next(bits for bits in DEPTHS if pixels.max() < 2**bits)
    return Image.fromarray(np.round(pixels / (2**depth - 1) * 255).astype(np.uint8))


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright, from 5 on height and width are exchanged."""
    stated = image.getexif().get(ORIENTATION, 1)
    return stated if stated in range(1, 9) else 1


def turn_mask(mask: np.ndarray, photograph: Path, shape: tuple[int, int]) -> np.ndarray:
    """Turn a mask as its photograph is turned, if it was drawn on the file as it is stored.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    photograph : Path
    shape : tuple of int
        Height and width of the upright photograph.

    Raises
    ------
    Refused
        If the size of the mask does not tell how it was drawn.
    """
    with Image.open(photograph) as image:
        turned = orientation(image)
    if turned == 1 or (turned >= 5 and mask.shape == shape != shape[::-1]):
        return mask
    if turned >= 5 and mask.shape == shape[::-1] != shape:
        exif = Image.Exif()
        exif[ORIENTATION] = turned
        stored = Image.fromarray(mask)
        stored.info["exif"] = exif.tobytes()
        return np.asarray(ImageOps.exif_transpose(stored))
    raise Refused(
        photograph,
        f"is stored turned (EXIF orientation {turned})",
        "masks that tell by their size whether they are turned, too",
        "turn it upright and save it again",
    )
