"""The field of view of a photograph, the square around it, and the way back to the photograph's own pixels."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from PIL import Image

SEARCH_PX = 256  # longest side of the copy in which the field is searched
DARK = 0.12  # share of the brightest values; darker pixels are background
NOISE = 5  # of 255; darker pixels are background in any case
LEAST_FIELD = 0.03  # share of the photograph; if no bright part is this large, the whole is taken

# A target pixel belongs to a lesion if at least this share of it is covered. From IDRiD's 4288x2848 to 512x512 this
# loses 4 of 3497 microaneurysms, 41 of 11642 hard exudates and no hemorrhage or disc; 0.5 loses 48, 536, 1 and 0. The
# price is area: microaneurysms grow by 31 %, hard exudates by 19 %, hemorrhages by 8 %, discs by 1 %.
MASK_COVERAGE = 0.25


FRAME = ("height_px", "width_px", "left_px", "top_px", "right_px", "bottom_px")  # columns that hold a frame


@dataclass(frozen=True)
class Frame:
    """The part of a photograph that is scaled to the networks' square.

    Attributes
    ----------
    height_px, width_px : int
        Of the upright photograph.
    left, top, right, bottom : int
        In its pixels; may lie outside it.
    """

    height_px: int
    width_px: int
    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def whole(cls, height_px: int, width_px: int) -> Frame:
        """The whole photograph, squeezed to a square."""
        return cls(height_px, width_px, 0, 0, width_px, height_px)

    def as_array(self) -> np.ndarray:
        """The six numbers, in the order of ``FRAME``; ``Frame(*array.tolist())`` converts back."""
        return np.array(astuple(self))

    def cut(self, image: Image.Image, size_px: int, resample: Image.Resampling) -> Image.Image:
        """Scale the frame's part of an image to a square, black where it extends beyond the image.

        Parameters
        ----------
        image : Image
            The photograph or its mask, at any scale.
        size_px : int
        resample : Image.Resampling
        """
        x, y = self.inside(size_px)
        scale = np.array([image.width / self.width_px, image.height / self.height_px])
        first = np.maximum((self.left, self.top), 0) * scale
        last = np.minimum((self.right, self.bottom), (self.width_px, self.height_px)) * scale
        part = image.resize((x[1] - x[0], y[1] - y[0]), resample, box=(*first, *last))
        if part.size == (size_px, size_px):
            return part
        square = Image.new(image.mode, (size_px, size_px))
        square.paste(part, (x[0], y[0]))
        return square

    def restore(self, square: np.ndarray, resample: Image.Resampling = Image.Resampling.NEAREST) -> np.ndarray:
        """Put what was found in the square back into the photograph.

        Parameters
        ----------
        square : ndarray of bool, uint8 or float32, shape (size, size) or (size, size, 3)
        resample : Image.Resampling

        Returns
        -------
        ndarray, shape (height_px, width_px) or (height_px, width_px, 3)
            Zero outside the frame.
        """
        x, y = self.inside(square.shape[0])
        left, top = max(0, self.left), max(0, self.top)
        right, bottom = min(self.right, self.width_px), min(self.bottom, self.height_px)
        part = Image.fromarray(square[slice(*y), slice(*x)]).resize((right - left, bottom - top), resample)
        found = np.zeros((self.height_px, self.width_px, *square.shape[2:]), square.dtype)
        found[top:bottom, left:right] = part
        return found

    def inside(self, size_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Columns and rows of the square that show the photograph, each as first and past-the-last."""
        spans = []
        for first, last, length in ((self.left, self.right, self.width_px), (self.top, self.bottom, self.height_px)):
            scale = size_px / (last - first)
            start = round(max(0, -first) * scale)
            spans.append((start, max(start + 1, round((min(last, length) - first) * scale))))
        return spans[0], spans[1]


def find_field(image: Image.Image) -> tuple[float, float, float, float]:
    """Find the square around the field of view.

    The field is the largest connected part brighter than ``DARK`` times the brightest percent: a date stamp or a label
    beside it does not count. If the sensor clips the circle, the square is as wide as the field and extends beyond the
    photograph.

    Parameters
    ----------
    image : Image, RGB

    Returns
    -------
    left, top, right, bottom : float
        In pixels of the image. If no part is large enough, the square around the whole image.

    Raises
    ------
    ValueError
        If there are two fields side by side.
    """
    from scipy import ndimage  # takes a tenth of a second, and only needed here

    factor = max(1, -(-max(image.size) // SEARCH_PX))
    brightest = np.asarray(image.reduce(factor)).max(axis=2)
    bright = brightest > max(NOISE, DARK * np.percentile(brightest, 99))
    numbered, n_parts = ndimage.label(ndimage.binary_opening(bright, np.ones((3, 3))))
    field = np.bincount(numbered.ravel(), minlength=2)[1:].argmax() + 1 if n_parts else 0
    if n_parts > 1 and len(_rounds(numbered)) > 1:
        raise ValueError("shows two fields of view")
    rows, columns = (np.flatnonzero((numbered == field).any(axis=axis)) for axis in (1, 0))
    if not n_parts or (numbered == field).mean() < LEAST_FIELD:
        rows, columns = (np.arange(side) for side in brightest.shape)
    (top, bottom), (left, right) = ((factor * side[0], factor * (side[-1] + 1)) for side in (rows, columns))
    right, bottom = min(right, image.width), min(bottom, image.height)
    side, x, y = max(right - left, bottom - top), (left + right) / 2, (top + bottom) / 2
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _rounds(numbered: np.ndarray) -> list[int]:
    """Numbers of the parts that are as round as a field of view, and at least half the size of the largest of them."""
    from scipy import ndimage

    found = {}
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        part = numbered[box] == number
        if (
            min(part.shape) > 0.75 * max(part.shape)
            and 0.7 < part.mean() < 0.95
            and part.size > LEAST_FIELD * numbered.size
        ):
            found[number] = part.sum()
    return [number for number, size in found.items() if size > max(found.values()) / 2]


def frame_of(upright: Image.Image, shape: tuple[int, int], crop_field: bool) -> Frame:
    """The frame to cut from a photograph of that height and width; ``upright`` may be a smaller copy of it."""
    if not crop_field:
        return Frame.whole(*shape)
    scale = shape[1] / upright.width
    left, top, right, _ = (round(edge * scale) for edge in find_field(upright))
    return Frame(*shape, left, top, right, top + right - left)


def shrink_mask(mask: np.ndarray, frame: Frame, size_px: int) -> tuple[np.ndarray, float]:
    """Scale a mask by area: a target pixel is set where the lesion covers ``MASK_COVERAGE`` of it or more.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    frame : Frame
        The part of the photograph that was scaled.
    size_px : int

    Returns
    -------
    small : ndarray of bool, shape (size_px, size_px)
    lost : float
        Share of the lesion's area that lies in pixels left unset, in [0, 1]; 0 for an empty mask.
    """
    coverage = np.asarray(frame.cut(Image.fromarray(mask.astype(np.uint8) * 255), size_px, Image.Resampling.BOX))
    small = coverage >= MASK_COVERAGE * 255
    return small, float(coverage[~small].sum() / max(1, coverage.sum()))
