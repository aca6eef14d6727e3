"""Reading photographs: what is accepted, what is refused, and how they are scaled to the target size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112  # EXIF: 1, or 0 where it is not stated, is upright


def read_image(path: Path, size_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a photograph and scale it to a square.

    Parameters
    ----------
    path : Path
    size_px : int
        Side of the result.

    Returns
    -------
    image : ndarray of uint8, shape (3, size_px, size_px)
        Bicubic with antialiasing; the aspect ratio is not kept, as in the paper (section 3.1). A JPEG of at least
        four times that side is decoded at a reduced scale, which changes values by at most 3 of 255 (IDRiD, 512 px).
    shape : tuple of int
        Height and width of the upright photograph in pixels, before scaling.

    Raises
    ------
    ValueError
        If the file is not one color image of at most ``MAX_PIXELS`` or cannot be decoded to its end.
    """
    try:
        with Image.open(path) as image:
            _check_photograph(image, path)
            turned = orientation(image)
            width, height = image.size if turned < 5 else image.size[::-1]
            # JPEG decodes straight to 1/2, 1/4 or 1/8; twice the target leaves the last step to the better filter.
            image.draft("RGB", (2 * size_px, 2 * size_px))
            upright = ImageOps.exif_transpose(image) if turned > 1 else image
            pixels = upright.convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    return np.asarray(pixels).transpose(2, 0, 1), (height, width)


def _check_photograph(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{path} has {width}x{height} pixels, expected at most {MAX_PIXELS:,}")
    if image.mode not in ("RGB", "RGBA"):
        why = "; the networks need color" if image.mode in GRAY else ""
        raise ValueError(f"{path} has the color mode {image.mode}, expected an 8-bit color image (RGB){why}")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # of which the first is the photograph
        raise ValueError(f"{path} holds {image.n_frames} frames, expected one photograph")


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
    ValueError
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
    raise ValueError(
        f"{photograph} is stored turned (EXIF orientation {turned}) and its masks do not tell by their size whether "
        "they are: turn it upright and save it again"
    )
