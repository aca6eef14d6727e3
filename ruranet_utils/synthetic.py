"""Seeded synthetic fundus photographs with exact masks of four lesions and a DME label by the clinical rule.

Anatomy and lesions are drawn once, as numbers in units of the image side, in the frame of a right eye (optic
disc on the right); :func:`make_patient` then rasterizes them at any size and mirrors the left eye. Each stage
has its own random stream, so that neither size nor camera changes where the lesions are, or the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from .config import LESIONS

MIN_SIZE_PX = 64
GRADES = (
    "none",
    "mild",
    "away",
    "dme",
)  # no lesion, few red dots, lesions off the macula, lesions that make DME
GRADE_PROBABILITY = (0.13, 0.12, 0.22, 0.53)
STEP = 0.008  # of a vessel's walk
MIN_RADIUS_PX = 0.75  # a disk of more than 1/sqrt(2) px covers a pixel center wherever it lies
FIELD_RADIUS, FIELD_HALF_HEIGHT = 0.475, 0.43  # common to both cameras, so that no camera cuts a lesion off
KEEP_OUT = 1.25  # disc diameters from the fovea that eyes without DME keep free of exudates and edema
NEAR = 0.75  # disc diameters within which an eye with DME has its defining lesion


@dataclass(frozen=True)
class Camera:
    """How one camera turns light into a photograph; lengths in units of the image side."""

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
class Phantom:
    """One eye of one synthetic patient.

    Attributes
    ----------
    image : ndarray of uint8, shape (size, size, 3)
        RGB photograph, black outside the field of view.
    masks : ndarray of bool, shape (n_lesions, size, size)
        Where each lesion of ``config.LESIONS`` was painted with opacity >= 0.5.
    patient_id : str
    eye : str
        ``"L"`` or ``"R"``.
    camera : str
        ``"A"`` or ``"B"``.
    label : int
        1 for DME: :func:`dme_label` of the masks.
    fovea_px, disc_px : tuple of float
        Row and column of the fovea and of the optic disc's center.
    disc_diameter_px : float
    """

    image: np.ndarray
    masks: np.ndarray
    patient_id: str
    eye: str
    camera: str
    label: int
    fovea_px: tuple[float, float]
    disc_px: tuple[float, float]
    disc_diameter_px: float


@dataclass(frozen=True, eq=False)
class _Anatomy:
    fovea: np.ndarray
    disc: np.ndarray
    diameter: float
    vessels: np.ndarray  # (n, 6): row and column of both ends of a segment, width, 1 for a vein


def make_patient(index: int, size_px: int, seed: int, camera: str | None = None) -> tuple[Phantom, Phantom]:
    """Photograph both eyes of one synthetic patient.

    Parameters
    ----------
    index : int
        Number of the patient, >= 0. Patients are independent: each can be made alone.
    size_px : int
        Side of the square image, >= 64.
    seed : int
        Seed of the whole population, >= 0.
    camera : str, optional
        ``"A"`` or ``"B"`` to prescribe the camera; by default each has probability 1/2. The camera changes
        neither anatomy nor lesions.

    Returns
    -------
    tuple of Phantom
        Left eye, right eye.

    Raises
    ------
    ValueError
        For a negative index or seed, a size below 64 or an unknown camera.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must be >= 0, got index={index!r}, seed={seed!r}")
    if size_px < MIN_SIZE_PX:
        raise ValueError(f"size_px must be >= {MIN_SIZE_PX}, got {size_px!r}")
    if camera is not None and camera not in CAMERAS:
        raise ValueError(f"unknown camera {camera!r}; valid cameras: {', '.join(CAMERAS)}")
    rng = np.random.default_rng([seed, index])
    grade = rng.choice(len(GRADES), p=GRADE_PROBABILITY)
    drawn = str(rng.choice(list(CAMERAS)))
    tone = np.array([0.72, 0.37, 0.15]) * rng.uniform([0.9, 0.82, 0.7], [1.1, 1.18, 1.3])
    traits = {"tone": tone, "mottling": rng.uniform(0.01, 0.035), "caliber": rng.uniform(0.9, 1.15)}
    left, right = (
        _make_eye(eye, [seed, index, i], size_px, int(grade), camera or drawn, traits)
        for i, eye in enumerate("LR", start=1)
    )
    return left, right


def dme_label(masks: np.ndarray, fovea_px: tuple[float, float], disc_diameter_px: float) -> int:
    """Grade diabetic macular edema by the clinical rule.

    Parameters
    ----------
    masks : ndarray of bool, shape (n_lesions, h, w)
        In the order of ``config.LESIONS``.
    fovea_px : tuple of float
        Row and column of the fovea.
    disc_diameter_px : float
        Diameter of the optic disc, > 0.

    Returns
    -------
    int
        1 if the center of any pixel of hard exudates or edema is at most one disc diameter from the fovea.

    Raises
    ------
    ValueError
        If the masks are not one per lesion, or the diameter is not positive.

    References
    ----------
    Porwal et al. (2018), Data 3(3), 25, grade 2 of "risk of macular edema". doi:10.3390/data3030025
    """
    masks = np.asarray(masks, dtype=bool)
    if masks.ndim != 3 or len(masks) != len(LESIONS):
        raise ValueError(f"masks must have shape ({len(LESIONS)}, h, w), got {masks.shape}")
    if not disc_diameter_px > 0:
        raise ValueError(f"disc_diameter_px must be > 0, got {disc_diameter_px!r}")
    rows, cols = np.nonzero(masks[LESIONS.index("hard_exudates")] | masks[LESIONS.index("edema")])
    distance_px = np.hypot(rows - fovea_px[0], cols - fovea_px[1])
    return int((distance_px <= disc_diameter_px).any())


def _make_eye(eye: str, stream: list[int], size: int, grade: int, camera: str, traits: dict) -> Phantom:
    anatomy_rng, lesion_rng, photo_rng = (np.random.default_rng([*stream, part]) for part in range(3))
    # Eyes of one patient are alike, not equal: one in five is a grade better or worse.
    shift = lesion_rng.choice((-1, 0, 1), p=(0.1, 0.8, 0.1))
    anatomy = _draw_anatomy(anatomy_rng, traits["caliber"])
    spots = _draw_lesions(lesion_rng, GRADES[np.clip(grade + shift, 0, len(GRADES) - 1)], anatomy)
    opacity = np.stack([_rasterize(spots[name], size) for name in LESIONS])
    opacity *= _field_of_view(size, FIELD_RADIUS, FIELD_HALF_HEIGHT)
    image = _photograph(_paint(anatomy, opacity, traits, size, anatomy_rng), CAMERAS[camera], photo_rng)
    masks = opacity >= 0.5
    fovea, disc = ((float(y), float(x)) for y, x in (anatomy.fovea * size - 0.5, anatomy.disc * size - 0.5))
    if eye == "L":
        image, masks = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(masks[:, :, ::-1])
        fovea, disc = (fovea[0], size - 1 - fovea[1]), (disc[0], size - 1 - disc[1])
    diameter = float(anatomy.diameter * size)
    label = dme_label(masks, fovea, diameter)
    return Phantom(image, masks, f"P{stream[1]:04d}", eye, camera, label, fovea, disc, diameter)


# Anatomy


def _draw_anatomy(rng: Generator, caliber: float) -> _Anatomy:
    diameter = rng.uniform(0.118, 0.132)
    disc = np.array([0.48, 0.76]) + rng.uniform(-0.02, 0.02, 2)
    fovea = disc + diameter * np.array([rng.uniform(0.15, 0.4), -rng.uniform(2.4, 2.6)])
    return _Anatomy(fovea, disc, diameter, _draw_vessels(rng, disc, fovea, caliber))


def _draw_vessels(rng: Generator, disc: np.ndarray, fovea: np.ndarray, caliber: float) -> np.ndarray:
    """Twelve trunks leave the disc and each generation branches into the next; see ``_Anatomy.vessels``.

    An artery and a vein each for the arcade around the fovea, the nasal side and the macula, above and below.
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


# Lesions: a spot is row, column, major and minor radius, angle, depth of the lobes, softness of the edge.


def _draw_lesions(rng: Generator, grade: str, anatomy: _Anatomy) -> dict[str, np.ndarray]:
    """Spots of every lesion for an eye of one of ``GRADES``."""
    few, many, d = grade == "mild", grade in ("away", "dme"), anatomy.diameter
    n_dots = rng.integers(6, 24) if many else rng.integers(3, 9) * few
    n_blots = rng.integers(1, 9) if many else rng.integers(0, 3) * few
    n_far = rng.integers(0, 4) * many
    n_near, n_near_edema = rng.choice([(1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 1)]) * (grade == "dme")
    n_far_edema = int(rng.random() < 0.4) * many
    dots = [_dot(rng, _site(rng, anatomy, 0.1 * d, 0.42)) for _ in range(n_dots)]
    blots = [_hemorrhage(rng, _site(rng, anatomy, 0.4 * d, 0.42), anatomy) for _ in range(n_blots)]
    clusters = [_cluster(rng, _site(rng, anatomy, 1.6 * d, 0.42), anatomy) for _ in range(n_far)]
    far = (KEEP_OUT * d + 0.1, 0.4, 0.06)
    swellings = [_swelling(rng, _site(rng, anatomy, *far), 0.07) for _ in range(n_far_edema)]
    if grade != "dme":
        clusters = [c[np.hypot(*(c[:, :2] - anatomy.fovea).T) - c[:, 2] > KEEP_OUT * d] for c in clusters]
    clusters += [_cluster(rng, _site(rng, anatomy, 0.2 * d, NEAR * d), anatomy) for _ in range(n_near)]
    swellings += [_swelling(rng, _site(rng, anatomy, 0, NEAR * d), 0.09) for _ in range(n_near_edema)]
    nothing = [np.empty((0, 7))]
    groups = {"microaneurysms": dots, "hemorrhages": blots, "hard_exudates": clusters, "edema": swellings}
    return {name: np.concatenate(nothing + parts) for name, parts in groups.items()}


def _site(rng: Generator, anatomy: _Anatomy, nearest: float, farthest: float, clear: float = 0) -> np.ndarray:
    """A point between two distances from the fovea, in the field of view and off the disc."""
    while True:
        distance, angle = rng.uniform(nearest, farthest), rng.uniform(0, 2 * np.pi)
        site = anatomy.fovea + distance * np.array([np.sin(angle), np.cos(angle)])
        row, col = site - 0.5
        rim = 0.03 + clear
        inside = np.hypot(row, col) < FIELD_RADIUS - rim and abs(row) < FIELD_HALF_HEIGHT - rim
        if inside and np.hypot(*(site - anatomy.disc)) > 0.75 * anatomy.diameter + clear:
            return site


def _spot(row, col, major, minor, angle, lobes: float, softness: float) -> np.ndarray:
    columns = np.broadcast_arrays(row, col, major, minor, angle, lobes, softness)
    return np.stack(columns, axis=-1).reshape(-1, 7)


def _dot(rng: Generator, site: np.ndarray) -> np.ndarray:
    radius = rng.uniform(0.003, 0.005)
    return _spot(*site, radius, radius, 0, 0, 0.004)


def _cluster(rng: Generator, site: np.ndarray, anatomy: _Anatomy) -> np.ndarray:
    """Hard exudates: a heap or a circinate ring through the site. The first spot lies exactly on the site."""
    n = rng.integers(10, 28)
    if rng.random() < 0.4:
        turn, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.025, 0.045)
        around = turn + rng.uniform(0.6, 1.0) * np.pi * rng.uniform(-1, 1, n)
        offset = radius * np.stack([np.sin(around) - np.sin(turn), np.cos(around) - np.cos(turn)])
        offset += rng.normal(0, 0.003, (2, n))
    else:
        offset = rng.normal(0, rng.uniform(0.008, 0.022), (2, n)) * np.array([[1.0], [rng.uniform(0.5, 1.0)]])
    offset[:, 0] = 0
    major = 0.0025 + 0.008 * rng.random(n) ** 2
    minor, angle = major * rng.uniform(0.5, 1, n), rng.uniform(0, np.pi, n)
    spots = _spot(*(site[:, None] + offset), major, minor, angle, 0.12, 0.003)
    return spots[np.hypot(*(spots[:, :2] - anatomy.disc).T) > 0.7 * anatomy.diameter]


def _hemorrhage(rng: Generator, site: np.ndarray, anatomy: _Anatomy) -> np.ndarray:
    """A blot, or a flame: streaks along the nerve fibers, which run from the disc."""
    if rng.random() < 0.65:
        major = rng.uniform(0.009, 0.022)
        return _spot(*site, major, major * rng.uniform(0.6, 1), rng.uniform(0, np.pi), 0.16, 0.006)
    fibers = np.arctan2(*(site - anatomy.disc)) + rng.normal(0, 0.08, 5)
    across = np.linspace(-1, 1, 5) * rng.uniform(0.007, 0.011)
    along = rng.normal(0, 0.006, 5)
    row, col = (
        along * np.sin(fibers) + across * np.cos(fibers),
        along * np.cos(fibers) - across * np.sin(fibers),
    )
    return _spot(site[0] + row, site[1] + col, rng.uniform(0.014, 0.03, 5), 0.0045, fibers, 0.0, 0.004)


def _swelling(rng: Generator, site: np.ndarray, largest: float) -> np.ndarray:
    major = rng.uniform(0.6, 1) * largest
    return _spot(*site, major, major * rng.uniform(0.7, 1), rng.uniform(0, np.pi), 0.1, 0.045)


# Rendering


def _rasterize(spots: np.ndarray, size: int) -> np.ndarray:
    """Opacity of a lesion, shape (size, size), in [0, 1]: the union of soft-edged, lobed ellipses."""
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


def _vessel_coverage(vessels: np.ndarray, size: int) -> np.ndarray:
    """Profiles of arteries and of veins, (2, size, size): highest on the midline, fainter in thin vessels."""
    n = int(np.ceil(STEP * size / 1.1))
    t = (np.arange(n) + 0.5)[:, None] / n
    row, col = ((vessels[:, i] * (1 - t) + vessels[:, i + 2] * t) * size - 0.5 for i in (0, 1))
    # A few blurs serve all widths: each point is shared between the two calibers nearest to its own.
    calibers = 0.0025 * 1.8 ** np.arange(4)
    position = np.interp(np.log(vessels[:, 4]), np.log(calibers), np.arange(4))
    # Points one pixel apart, blurred by sigma, make a line 1 / (sigma * sqrt(2 pi)) high.
    height = np.sqrt(2 * np.pi) * STEP * size / n * np.minimum(1, vessels[:, 4] / 0.007) ** 0.5
    coverage = np.zeros((2, size, size))
    for kind, level in np.ndindex(2, 4):
        share = np.where(vessels[:, 5] == kind, 1 - np.abs(position - level), 0)
        near = share > 0
        sigma = calibers[level] * size / 2.355
        weight = np.tile(sigma * height[near] * share[near], n)
        line = _deposit(row[:, near].ravel(), col[:, near].ravel(), weight, size)
        # The pixel blurs as well, which fades lines thinner than itself.
        coverage[kind] += ndimage.gaussian_filter(line, np.hypot(sigma, 0.35), truncate=3)
    return np.minimum(coverage, 1)


def _deposit(row: np.ndarray, col: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Image of weighted points, each shared bilinearly by the four pixels around it."""
    top, left = np.floor(row).astype(int), np.floor(col).astype(int)
    image = np.zeros(size * size)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = weight * (1 - np.abs(row - top - i)) * (1 - np.abs(col - left - j))
        inside = (top + i >= 0) & (top + i < size) & (left + j >= 0) & (left + j < size)
        image += np.bincount(((top + i) * size + left + j)[inside], share[inside], size * size)
    return image.reshape(size, size)


def _paint(anatomy: _Anatomy, opacity: np.ndarray, traits: dict, size: int, rng: Generator) -> np.ndarray:
    """The lit retina before the camera, shape (3, size, size)."""
    exudate, dot, blot, swelling = opacity
    y, x = np.ogrid[:size, :size]
    y, x = (y + 0.5) / size, (x + 0.5) / size
    d = anatomy.diameter
    from_fovea = np.hypot(y - anatomy.fovea[0], x - anatomy.fovea[1])
    from_disc = np.hypot((y - anatomy.disc[0]) * 0.93, x - anatomy.disc[1])
    clouds, grain = _noise(rng, 6, size), _noise(rng, 26, size)
    artery, vein = _vessel_coverage(anatomy.vessels, size)

    light = 1 + 0.05 * clouds + traits["mottling"] * grain + 0.22 * np.exp(-((from_disc / 0.16) ** 2))
    macula, pit = np.exp(-((from_fovea / 0.11) ** 2)), np.exp(-((from_fovea / 0.032) ** 2))
    light = light * (1 - 0.2 * macula - 0.22 * pit)
    rgb = traits["tone"][:, None, None] * light
    rgb = _cover(rgb, 0.85 * _edge(0.5 * d - from_disc, 0.02), (0.98, 0.68, 0.36))
    cup = np.hypot(y - anatomy.disc[0], x - anatomy.disc[1] + 0.08 * d)
    rgb = _cover(rgb, 0.6 * _edge(0.26 * d - cup, 0.025), (1.0, 0.86, 0.6))
    rgb = _tint(rgb, _wall(artery), (0.88, 0.64, 0.66))
    rgb = _tint(rgb, 0.6 * np.clip((artery - 0.8) / 0.2, 0, 1), (1.12, 1.3, 1.2))
    rgb = _tint(rgb, _wall(vein), (0.74, 0.5, 0.56))

    if swelling.any():
        veil = ndimage.gaussian_filter(rgb, (0, 0.012 * size, 0.012 * size), truncate=3)
        rgb = _cover(rgb, 0.85 * swelling, _cover(veil, 0.6, (0.82, 0.64, 0.40)))
    rgb = _tint(rgb, 0.95 * blot, (0.58, 0.34, 0.45))
    rgb = _tint(rgb, dot, (0.56, 0.32, 0.42))
    return _cover(rgb, 0.95 * exudate, np.array([1.0, 0.85, 0.42])[:, None, None] * (1 + 0.05 * grain))


def _photograph(rgb: np.ndarray, camera: Camera, rng: Generator) -> np.ndarray:
    """Image of uint8, shape (size, size, 3)."""
    size = rgb.shape[-1]
    y, x = np.ogrid[:size, :size]
    y, x = (y + 0.5) / size - 0.5, (x + 0.5) / size - 0.5
    slope, center = rng.uniform(-0.3, 0.3, 2), rng.uniform(-0.06, 0.06, 2)
    light = 1 + slope[0] * y + slope[1] * x
    light = light * (1 - camera.vignette * ((y - center[0]) ** 2 + (x - center[1]) ** 2))
    gain = np.array(camera.gain) * rng.uniform(0.95, 1.05, 3)
    rgb = np.clip(rgb * light * gain[:, None, None], 0, None) ** camera.gamma
    rgb = 0.4 + camera.contrast * (rgb - 0.4)
    sigma = 0.004 * size
    rgb = rgb + camera.sharpness * (rgb - ndimage.gaussian_filter(rgb, (0, sigma, sigma), truncate=3))
    rgb = rgb + camera.noise * rng.normal(size=rgb.shape)
    rgb = np.clip(rgb, 0.02, 1) * _field_of_view(size, camera.radius, camera.half_height)
    return np.ascontiguousarray(np.rint(rgb * 255).astype(np.uint8).transpose(1, 2, 0))


def _field_of_view(size: int, radius: float, half_height: float) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    y, x = (y + 0.5) / size - 0.5, (x + 0.5) / size - 0.5
    soft = max(0.004, 1 / size)
    return _edge(radius - np.hypot(y, x), soft) * _edge(half_height - np.abs(y), soft)


def _edge(inside: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1 over ``width``, 0.5 where the signed distance ``inside`` is 0."""
    t = np.clip(0.5 + inside / width, 0, 1)
    return t * t * (3 - 2 * t)


def _wall(profile: np.ndarray) -> np.ndarray:
    """Opacity of a vessel: steeper at the wall than the blurred line is."""
    return np.clip(1.6 * profile - 0.3, 0, 1)


def _noise(rng: Generator, n: int, size: int) -> np.ndarray:
    """Smooth noise of unit order with n bumps along the side, the same at every size."""
    return ndimage.zoom(rng.normal(size=(n, n)), size / n, order=2, mode="reflect", grid_mode=True)


def _tint(rgb: np.ndarray, amount: np.ndarray, factor: tuple[float, float, float]) -> np.ndarray:
    return rgb * (1 + amount * (np.array(factor)[:, None, None] - 1))


def _cover(rgb: np.ndarray, amount, color) -> np.ndarray:
    color = np.asarray(color)
    return rgb + amount * ((color[:, None, None] if color.ndim == 1 else color) - rgb)
