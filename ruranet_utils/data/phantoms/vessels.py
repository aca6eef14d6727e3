"""The vessels of a phantom: grown as a tree of segments, then blurred into the profiles that are painted."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import ndimage

STEP = 0.008  # length of a segment, in image sides


def grow(rng: Generator, disc: np.ndarray, fovea: np.ndarray, caliber: float) -> np.ndarray:
    """Let twelve trunks leave the disc and each of two generations branch into the next.

    The trunks are one artery and one vein each for the arcade around the fovea, the nasal side and the macula, above
    and below.

    Parameters
    ----------
    rng : Generator
    disc, fovea : ndarray of float, shape (2,)
        Row and column of their centers, in image sides.
    caliber : float
        Factor on all widths, around 1.

    Returns
    -------
    ndarray of float, shape (n, 6)
        Segments: row and column of both ends, width, 1 for a vein and 0 for an artery.
    """
    up, vein = np.tile([-1.0, -1.0, 1.0, 1.0], 3), np.tile([0.0, 1.0], 6)
    width = caliber * np.repeat([1.0, 0.7, 0.4], 4) * (0.0115 + 0.004 * vein)
    length = np.repeat([0.95, 0.5, 0.3], 4) * rng.uniform(0.9, 1.1, 12)
    heading = up * np.repeat([1.5, 1.2, 2.6], 4) + rng.normal(0, 0.12, 12)
    turn = up * np.repeat([1.95, -0.9, 0.5], 4) * rng.uniform(0.9, 1.1, 12)
    turn_length = np.repeat([0.24, 0.14, 0.1], 4) * rng.uniform(0.85, 1.15, 12)
    start = disc + np.stack([0.004 * up, 0.012 - 0.008 * vein], axis=1)
    segments = []
    for spacing in (0.06, 0.055, np.inf):
        path, angle, width = _walk(rng, start, heading, turn, turn_length, width, length, fovea)
        alive = width > 0
        ends = np.concatenate([path[:, :-1], path[:, 1:]], axis=2)[alive]
        kind = np.broadcast_to(vein[:, None], alive.shape)[alive]
        segments.append(np.column_stack([ends, width[alive], kind]))
        fork = (rng.random(alive.shape) < STEP / spacing) & (width > 0.0025)
        fork[:, :6] = False
        side = np.where(np.cumsum(fork, axis=1) % 2, 1.0, -1.0)[fork]
        parent, step = np.nonzero(fork)
        n = len(parent)
        start, width = path[parent, step], width[fork] * rng.uniform(0.45, 0.75, n)
        heading, turn = angle[fork] + side * rng.uniform(0.6, 1.2, n), -side * rng.uniform(-0.2, 0.8, n)
        length, turn_length = np.minimum(width * rng.uniform(20, 45, n), 0.3), np.full(n, 0.08)
        vein = vein[parent]
    return np.concatenate(segments)


def _walk(rng: Generator, start, heading, turn, turn_length, width, length, fovea):
    """Points (n, steps + 1, 2), headings and widths (n, steps) of n vessels; width 0 where one has ended."""
    steps = int(np.ceil(length.max() / STEP))
    gone = np.arange(steps) * STEP
    wander = ndimage.gaussian_filter1d(rng.normal(0, 0.75, (len(start), steps)), 3, axis=1)
    angle = heading[:, None] + turn[:, None] * (1 - np.exp(-gone / turn_length[:, None])) + wander
    path = np.cumsum(STEP * np.stack([np.sin(angle), np.cos(angle)], axis=2), axis=1) + start[:, None]
    path = np.concatenate([start[:, None], path], axis=1)
    to_fovea, to_center = (np.hypot(*np.moveaxis(path[:, 1:] - p, -1, 0)) for p in (fovea, np.full(2, 0.5)))
    done = gone / length[:, None]
    alive = np.logical_and.accumulate((done < 1) & (to_fovea > 0.045) & (to_center < 0.52), axis=1)
    return path, angle, np.where(alive, width[:, None] * (1 - 0.6 * np.minimum(done, 1)), 0.0)


def coverage(vessels: np.ndarray, size: int) -> np.ndarray:
    """Profiles of the vessels: highest on the midline, fainter in thin ones.

    Parameters
    ----------
    vessels : ndarray of float, shape (n, 6)
        From :func:`grow`.
    size : int
        Side of the square image in pixels.

    Returns
    -------
    ndarray of float, shape (2, size, size)
        For arteries and veins, in [0, 1].
    """
    n = int(np.ceil(STEP * size / 1.1))
    t = (np.arange(n) + 0.5)[:, None] / n
    row, col = ((vessels[:, i] * (1 - t) + vessels[:, i + 2] * t) * size - 0.5 for i in (0, 1))
    # A few blurs serve all widths: each point is shared between the two calibers nearest its own.
    calibers = 0.0025 * 1.8 ** np.arange(4)
    position = np.interp(np.log(vessels[:, 4]), np.log(calibers), np.arange(4))
    # Points one pixel apart, blurred by sigma, make a line 1 / (sigma * sqrt(2 pi)) high.
    height = np.sqrt(2 * np.pi) * STEP * size / n * np.minimum(1, vessels[:, 4] / 0.007) ** 0.5
    profiles = np.zeros((2, size, size))
    for kind, level in np.ndindex(2, 4):
        share = np.where(vessels[:, 5] == kind, 1 - np.abs(position - level), 0)
        near = share > 0
        sigma = calibers[level] * size / 2.355
        weight = np.tile(sigma * height[near] * share[near], n)
        line = _deposit(row[:, near].ravel(), col[:, near].ravel(), weight, size)
        # The pixel itself also blurs, which fades lines thinner than a pixel.
        profiles[kind] += ndimage.gaussian_filter(line, np.hypot(sigma, 0.35), truncate=3)
    return np.minimum(profiles, 1)


def _deposit(row: np.ndarray, col: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Image of weighted points, each shared bilinearly by the four pixels around it."""
    top, left = np.floor(row).astype(int), np.floor(col).astype(int)
    image = np.zeros(size * size)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = weight * (1 - np.abs(row - top - i)) * (1 - np.abs(col - left - j))
        inside = (top + i >= 0) & (top + i < size) & (left + j >= 0) & (left + j < size)
        image += np.bincount(((top + i) * size + left + j)[inside], share[inside], size * size)
    return image.reshape(size, size)
