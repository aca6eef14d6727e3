"""Reading masks: every encoding in which one lesion can be told from the background, and no other."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from ruranet_utils.data.reading import DAMAGE, has_16_bits, orientation
from ruranet_utils.data.refusal import Refused

MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "F")
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")
FULL = (1, 255, 65280, 65535)  # peak values of an image with soft edges: 65280 is 255 in the upper byte
MOST_NUMBERS = 20  # values from 2 to below this number a kind of lesion rather than give a brightness
SPLIT_UP = "save each kind in a mask of its own, white on black"
BLURRED_PX = 5  # larger areas of a lossy file are not blurred edges
WHITE_IS_ZERO = {262: 0}  # TIFF's photometric interpretation


def read_mask(path: Path, unjudged: int = 0) -> np.ndarray:
    """Read a mask of one lesion.

    ============================================  =====================================================================
    file                                          lesion
    ============================================  =====================================================================
    gray of 1, 8, 16 or 32 bits or float          the one value above 0; ``unjudged`` does not count
    one value from 2 to 19                        refused: a label map that shows one lesion here
    palette                                       as its colors
    one color on black                            that color (IDRiD's are red)
    transparency                                  what is at least half as opaque as the most opaque, or its one color
                                                  if it holds black, too
    soft edges, from black to one color           at least half as bright as the brightest
    JPEG and other lossy files                    half as bright as the lesion; refused where areas lie between or have
                                                  another color
    TIFF in which white is zero                   as shown
    several values or colors, several pages,      refused, naming them
    a background that is not black, NaN,
    negative, turned by EXIF
    ============================================  =====================================================================

    Parameters
    ----------
    path : Path
    unjudged : int
        The value of pixels that are not to be judged: 127 in Retinal Lesions, 0 if there is none.

    Returns
    -------
    ndarray of bool, shape (h, w)
        At the size of the file.

    Raises
    ------
    Refused
        If the file cannot be decoded, or leaves open what the lesion is.
    """
    try:
        with Image.open(path) as image:
            _check_header(image, path)
            lossy = image.format in LOSSY
            colors, index = _colors(image)
    except UnidentifiedImageError:
        found = "is not an image that can be read" if path.stat().st_size else "is empty"
        raise Refused(path, found, "a mask", "save it as PNG") from None
    except Image.DecompressionBombError:
        raise Refused(path, "has too many pixels", "the size of its photograph", "scale it down") from None
    except Refused:
        raise
    except (*DAMAGE, ValueError) as error:
        raise Refused(path, f"cannot be decoded ({error})", "an undamaged file", "save it again, as PNG") from error
    if not np.isfinite(colors).all() or colors.min() < 0:
        raise Refused(path, f"holds {_listed(colors)}", "0 and one value above it", "save it as an 8-bit gray image")
    colors = _on_black(colors)
    if lossy and 0 < colors.max() < 128:
        found = f"is a lossy file whose brightest value is {colors.max():.0f}"
        raise Refused(path, found, "0 and 255", "export the original mask as PNG")
    if lossy:
        return _lossy_lesion(colors, index, path)
    return _lesion(_levels(colors, path), index, path, unjudged)[index]


def _check_header(image: Image.Image, path: Path) -> None:
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise Refused(path, f"holds {image.n_frames} pages", "the mask of one lesion", "save that page alone")
    deep = image.mode.startswith("RGB") and has_16_bits(image)  # before the EXIF of a PNG, which makes Pillow decode it
    if image.format != "TIFF" and orientation(image) != 1:  # Pillow turns a TIFF itself
        raise Refused(path, "is stored rotated (EXIF)", "an upright mask", "turn it upright and save it again")
    inverted = image.mode not in ("1", "L") and dict(getattr(image, "tag_v2", {})).items() >= WHITE_IS_ZERO.items()
    if image.mode not in MODES or deep or inverted:
        what = " with 16 bits per channel" if deep else ", in which white is zero" if inverted else ""
        found = f"has the color mode {image.mode}{what}"
        raise Refused(path, found, "a mask of gray values or colors", "save it as an 8-bit gray image")


def _colors(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The colors in use, shape (n, 1 to 4), and the number of each pixel's color, shape (h, w)."""
    if image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode == "P":
        numbers = np.asarray(image)
        palette = np.asarray(image.getpalette("RGB"), float).reshape(-1, 3)
        palette = np.concatenate([palette, np.zeros((256 - len(palette), 3))])
        used = np.bincount(numbers.ravel(), minlength=256) > 0
        if len(np.unique(palette[used], axis=0)) < used.sum():  # not meant to be looked at
            palette = np.arange(256.0)[:, None]
        return palette[used], (np.cumsum(used) - 1)[numbers]
    values = np.asarray(image)
    if values.dtype in (np.uint8, bool) and values.ndim == 2:
        used = np.bincount(values.ravel(), minlength=256) > 0
        return np.flatnonzero(used)[:, None].astype(float), (np.cumsum(used) - 1)[values.astype(np.uint8)]
    if values.ndim == 2:
        colors, index = np.unique(values, return_inverse=True)
        return colors[:, None].astype(float), index.reshape(values.shape)
    packed = sum(values[..., i].astype(np.uint32) << 8 * i for i in range(values.shape[-1]))
    packed, index = np.unique(packed, return_inverse=True)
    colors = np.column_stack([packed >> 8 * i & 255 for i in range(values.shape[-1])])
    return colors.astype(float), index.reshape(values.shape[:2])


def _on_black(colors: np.ndarray) -> np.ndarray:
    """Colors without transparency, put on a black background."""
    if colors.shape[1] in (1, 3):
        return colors
    colors, opaque = colors[:, :-1], colors[:, -1] >= max(1, colors[:, -1].max() / 2)
    if opaque.all():
        return colors
    if not colors[opaque].any():  # the lesion is drawn only by transparency
        return opaque[:, None] * 255.0
    return colors * opaque[:, None]


def _levels(colors: np.ndarray, path: Path) -> np.ndarray:
    """Gray values; for colors the share of the brightest one, times 255, if all are shades of it."""
    if colors.shape[1] == 1 or (colors == colors[:, :1]).all():
        return colors[:, 0]
    share, off = _shades(colors, colors[colors.sum(axis=1).argmax()])
    if (off > 8).any():
        raise Refused(path, f"holds the colors {_listed(colors)}", "one color on black", SPLIT_UP)
    return share * 255


def _shades(colors: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each color, its share of one of them, and how far it is from being a shade of it (of 255)."""
    share = colors @ of / (of @ of)
    return share, np.abs(colors - share[:, None] * of).max(axis=1)


def _lossy_lesion(colors: np.ndarray, index: np.ndarray, path: Path) -> np.ndarray:
    """The lesion in a file blurred by compression: bool, shape (h, w)."""
    if not colors.any():
        return np.zeros(index.shape, bool)
    brightness, n_pixels = colors.sum(axis=1), np.bincount(index.ravel(), minlength=len(colors))
    bright = brightness > brightness.max() / 2
    lesion = np.average(colors[bright], axis=0, weights=n_pixels[bright])
    share, off = _shades(colors, lesion)
    between = ((share > 0.25) & (share < 0.75)) | (off > 64)
    if ndimage.binary_erosion(between[index], np.ones((BLURRED_PX, BLURRED_PX))).any():
        found = "is a lossy file with areas of several values or colors"
        raise Refused(path, found, "0 and 255", SPLIT_UP + ", and as PNG")
    return (share >= 0.5)[index]


def _lesion(levels: np.ndarray, index: np.ndarray, path: Path, unjudged: int) -> np.ndarray:
    """Which of the levels are part of the lesion, shape (n_levels,)."""
    levels = np.where(levels == unjudged, 0, levels)
    top = levels.max()
    if top == 0:
        return levels > 0
    between = (levels > 0) & (levels < top)
    numbers_a_lesion = top in range(2, MOST_NUMBERS)
    if not between.any() and not numbers_a_lesion:
        return levels == top
    if levels.min() > 0 or not np.isclose(top, FULL, rtol=0.02).any() or _is_flat(index, between):
        found = f"holds the values {_listed(levels[:, None])}"
        remedy = f"if they are kinds of lesions, {SPLIT_UP}; if they are shades, threshold it"
        raise Refused(path, found, "0 and 1 or 0 and 255", remedy)
    warnings.warn("the soft edges of masks are cut at half of their brightest value", stacklevel=2)
    return levels >= top / 2


def _is_flat(index: np.ndarray, between: np.ndarray) -> bool:
    """Whether 2x2 pixels share a value between background and brightest: label maps do, soft edges do not."""
    first = index[:-1, :-1]
    same = (first == index[1:, :-1]) & (first == index[:-1, 1:]) & (first == index[1:, 1:])
    return bool((same & between[first]).any())


def _listed(colors: np.ndarray) -> str:
    colors = np.unique(colors, axis=0)
    names = ["/".join(f"{value:g}" for value in color) for color in colors[:8]]
    return ", ".join(names) + (f", … ({len(colors)} in all)" if len(colors) > 8 else "")
