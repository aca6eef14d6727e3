"""How the phantoms of :mod:`ruranet_utils.data.phantoms.eye` are painted: lesions, texture, light and cameras.

Lengths are in units of the image side, positions are row and column from its upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from ruranet_utils.data.phantoms import vessels

MIN_RADIUS_PX = 0.75  # a disk of more than 1/sqrt(2) px covers a pixel center wherever it lies
FIELD_RADIUS, FIELD_HALF_HEIGHT = 0.475, 0.43  # the same for both cameras, so that neither cuts off a lesion


@dataclass(frozen=True)
class Camera:
    """How one camera turns light into a photograph."""

    gain: tuple[float, float, float]
    gamma: float
    contrast: float
    sharpness: float  # > 0 unsharp masking, < 0 blur
    vignette: float
    radius: float
    half_height: float
    noise: float


CAMERAS = {
    "A": Camera((1.02, 0.97, 0.80), 1.06, 1.12, 0.5, 0.75, 0.488, 0.5, 0.012),
    "B": Camera((1.06, 1.02, 1.22), 0.9, 0.96, -0.4, 1.3, 0.492, 0.44, 0.018),
}


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A right eye without its lesions.

    Attributes
    ----------
    fovea, disc : ndarray of float, shape (2,)
        Centers of the fovea and of the optic disc.
    diameter : float
        Of the optic disc.
    vessels : ndarray of float, shape (n, 6)
        From :func:`ruranet_utils.data.phantoms.vessels.grow`.
    tone : ndarray of float, shape (3,)
        RGB of the retina, in [0, 1].
    mottling : float
        Deviation of the fine texture.
    """

    fovea: np.ndarray
    disc: np.ndarray
    diameter: float
    vessels: np.ndarray
    tone: np.ndarray
    mottling: float


def rasterize(lesions: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Opacity of each lesion inside the field of view.

    Parameters
    ----------
    lesions : sequence of ndarray of float, shape (n, 7)
        Spots: row, column, major and minor radius, angle, depth of the lobes, softness of the edge.
    size : int
        Side of the square image in pixels.

    Returns
    -------
    ndarray of float, shape (n_lesions, size, size)
        In [0, 1].
    """
    return np.stack([_union(spots, size) for spots in lesions]) * _field_of_view(size, FIELD_RADIUS, FIELD_HALF_HEIGHT)


def paint(anatomy: Anatomy, opacity: np.ndarray, rng: Generator) -> np.ndarray:
    """The illuminated retina in front of the camera.

    Parameters
    ----------
    anatomy : Anatomy
    opacity : ndarray of float, shape (n_lesions, size, size)
        From :func:`rasterize`, in the order of ``profiles.LESIONS``.
    rng : Generator

    Returns
    -------
    ndarray of float, shape (3, size, size)
        1 is white; values may exceed it.
    """
    exudate, dot, blot, swelling = opacity
    size = opacity.shape[-1]
    y, x = _grid(size)
    d = anatomy.diameter
    from_fovea = np.hypot(y - anatomy.fovea[0], x - anatomy.fovea[1])
    from_disc = np.hypot((y - anatomy.disc[0]) * 0.93, x - anatomy.disc[1])
    from_cup = np.hypot(y - anatomy.disc[0], x - anatomy.disc[1] + 0.08 * d)
    clouds, grain = _noise(rng, 6, size), _noise(rng, 26, size)
    artery, vein = vessels.coverage(anatomy.vessels, size)

    light = 1 + 0.05 * clouds + anatomy.mottling * grain + 0.22 * np.exp(-((from_disc / 0.16) ** 2))
    macula, pit = np.exp(-((from_fovea / 0.11) ** 2)), np.exp(-((from_fovea / 0.032) ** 2))
    rgb = _color(anatomy.tone) * (light * (1 - 0.2 * macula - 0.22 * pit))
    rgb = _cover(rgb, 0.85 * _edge(0.5 * d - from_disc, 0.02), _color((0.98, 0.68, 0.36)))
    rgb = _cover(rgb, 0.6 * _edge(0.26 * d - from_cup, 0.025), _color((1.0, 0.86, 0.6)))
    rgb = _tint(rgb, _wall(artery), (0.88, 0.64, 0.66))
    rgb = _tint(rgb, 0.6 * np.clip((artery - 0.8) / 0.2, 0, 1), (1.12, 1.3, 1.2))
    rgb = _tint(rgb, _wall(vein), (0.74, 0.5, 0.56))

    if swelling.any():
        veil = _cover(_blur(rgb, 0.012 * size), 0.6, _color((0.82, 0.64, 0.40)))
        rgb = _cover(rgb, 0.85 * swelling, veil)
    rgb = _tint(rgb, 0.95 * blot, (0.58, 0.34, 0.45))
    rgb = _tint(rgb, dot, (0.56, 0.32, 0.42))
    return _cover(rgb, 0.95 * exudate, _color((1.0, 0.85, 0.42)) * (1 + 0.05 * grain))


def photograph(rgb: np.ndarray, camera: Camera, rng: Generator) -> np.ndarray:
    """What a camera makes of the retina.

    Parameters
    ----------
    rgb : ndarray of float, shape (3, size, size)
        From :func:`paint`.
    camera : Camera
    rng : Generator

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        Black outside the camera's field of view.
    """
    size = rgb.shape[-1]
    y, x = (axis - 0.5 for axis in _grid(size))
    slope, center = rng.uniform(-0.3, 0.3, 2), rng.uniform(-0.06, 0.06, 2)
    light = 1 + slope[0] * y + slope[1] * x
    light = light * (1 - camera.vignette * ((y - center[0]) ** 2 + (x - center[1]) ** 2))
    gain = camera.gain * rng.uniform(0.95, 1.05, 3)
    rgb = np.clip(rgb * light * _color(gain), 0, None) ** camera.gamma
    rgb = 0.4 + camera.contrast * (rgb - 0.4)
    rgb = rgb + camera.sharpness * (rgb - _blur(rgb, 0.004 * size))
    rgb = rgb + camera.noise * rng.normal(size=rgb.shape)
    rgb = np.clip(rgb, 0.02, 1) * _field_of_view(size, camera.radius, camera.half_height)
    return np.ascontiguousarray(np.rint(rgb * 255).astype(np.uint8).transpose(1, 2, 0))


def _union(spots: np.ndarray, size: int) -> np.ndarray:
    """Soft-edged, lobed ellipses, the highest opacity at each pixel; shape (size, size)."""
    opacity = np.zeros((size, size))
    for row, col, major, minor, angle, lobes, softness in spots:
        y, x = row * size - 0.5, col * size - 0.5
        major_px, minor_px = max(major * size, MIN_RADIUS_PX), max(minor * size, MIN_RADIUS_PX)
        edge_px = max(softness * size, 1.0)
        reach = (1 + 1.5 * lobes) * major_px + edge_px
        top, left = max(int(y - reach), 0), max(int(x - reach), 0)
        window = opacity[top : int(y + reach) + 2, left : int(x + reach) + 2]
        dy, dx = np.arange(window.shape[0])[:, None] + (top - y), np.arange(window.shape[1]) + (left - x)
        cos, sin = np.cos(angle), np.sin(angle)
        p, q = (dx * cos + dy * sin) / major_px, (dy * cos - dx * sin) / minor_px
        rim = 1.0
        if lobes and minor_px > 2 * MIN_RADIUS_PX:
            around = np.arctan2(q, p)
            rim = 1 + lobes * (np.sin(2 * around + 9 * angle) + 0.5 * np.sin(5 * around + 17 * angle))
        np.maximum(window, np.minimum(0.5 + (rim - np.hypot(p, q)) * minor_px / edge_px, 1), out=window)
    return opacity


def _field_of_view(size: int, radius: float, half_height: float) -> np.ndarray:
    y, x = (axis - 0.5 for axis in _grid(size))
    soft = max(0.004, 1 / size)
    return _edge(radius - np.hypot(y, x), soft) * _edge(half_height - np.abs(y), soft)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (size, 1) and columns (1, size) of the pixel centers."""
    y, x = np.ogrid[:size, :size]
    return (y + 0.5) / size, (x + 0.5) / size


def _edge(inside: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1 over ``width``, 0.5 where the signed distance ``inside`` is 0."""
    t = np.clip(0.5 + inside / width, 0, 1)
    return t * t * (3 - 2 * t)


def _wall(profile: np.ndarray) -> np.ndarray:
    """Opacity of a vessel: steeper at the wall than the blurred line."""
    return np.clip(1.6 * profile - 0.3, 0, 1)


def _noise(rng: Generator, n: int, size: int) -> np.ndarray:
    """Smooth noise of unit order with n bumps along the side, the same at every size."""
    return ndimage.zoom(rng.normal(size=(n, n)), size / n, order=2, mode="reflect", grid_mode=True)


def _blur(rgb: np.ndarray, sigma_px: float) -> np.ndarray:
    return ndimage.gaussian_filter(rgb, (0, sigma_px, sigma_px), truncate=3)


def _color(rgb: Sequence[float]) -> np.ndarray:
    return np.reshape(rgb, (3, 1, 1))


def _tint(rgb: np.ndarray, amount: np.ndarray, factor: Sequence[float]) -> np.ndarray:
    return rgb * (1 + amount * (_color(factor) - 1))


def _cover(rgb: np.ndarray, amount: np.ndarray | float, color: np.ndarray) -> np.ndarray:
    return rgb + amount * (color - rgb)
