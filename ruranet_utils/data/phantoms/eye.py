"""Seeded synthetic fundus photographs with exact masks of four lesions and a DME label by the clinical rule.

Anatomy and lesions are drawn here, as numbers in units of the image side, in the frame of a right eye (optic disc on
the right); :mod:`ruranet_utils.data.phantoms.painting` paints them at any size, and the left eye is mirrored. Each
stage has its own random stream, so that neither size nor camera changes where the lesions are, or the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ruranet_utils.data.phantoms import vessels
from ruranet_utils.data.phantoms.painting import (
    CAMERAS,
    FIELD_HALF_HEIGHT,
    FIELD_RADIUS,
    Anatomy,
    paint,
    photograph,
    rasterize,
)
from ruranet_utils.profiles import LESIONS

MIN_SIZE_PX = 64
GRADES = ("none", "mild", "away", "dme")  # no lesion, a few red dots, lesions off the macula, lesions that cause DME
GRADE_PROBABILITY = (0.13, 0.12, 0.22, 0.53)
KEEP_OUT = 1.25  # disc diameters from the fovea that eyes without DME keep free of exudates and edema
NEAR = 0.75  # disc diameters within which an eye with DME has its defining lesion


@dataclass(frozen=True, eq=False)
class Phantom:
    """One eye of one synthetic patient.

    Attributes
    ----------
    image : ndarray of uint8, shape (size, size, 3)
        RGB photograph, black outside the field of view.
    masks : ndarray of bool, shape (n_lesions, size, size)
        Where each lesion of ``profiles.LESIONS`` was painted with opacity >= 0.5.
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


def make_patient(
    index: int, size_px: int, seed: int, camera: str | None = None, lesions: bool = True
) -> tuple[Phantom, Phantom]:
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
    lesions : bool
        ``False`` paints the same eyes without their lesions. Masks and label stay: they say where the lesions would be.

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
        _make_eye(eye, [seed, index, i], size_px, int(grade), camera or drawn, traits, lesions)
        for i, eye in enumerate("LR", start=1)
    )
    return left, right


def dme_label(masks: np.ndarray, fovea_px: tuple[float, float], disc_diameter_px: float) -> int:
    """Grade diabetic macular edema by the clinical rule.

    Parameters
    ----------
    masks : ndarray of bool, shape (n_lesions, h, w)
        In the order of ``profiles.LESIONS``.
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


def _make_eye(eye: str, stream: list[int], size: int, grade: int, camera: str, traits: dict, lesions: bool) -> Phantom:
    anatomy_rng, lesion_rng, photo_rng = (np.random.default_rng([*stream, part]) for part in range(3))
    # Both eyes of a patient are alike but not equal: one in five is a grade better or worse.
    shift = lesion_rng.choice((-1, 0, 1), p=(0.1, 0.8, 0.1))
    anatomy = _draw_anatomy(anatomy_rng, **traits)
    spots = _draw_lesions(lesion_rng, GRADES[np.clip(grade + shift, 0, len(GRADES) - 1)], anatomy)
    opacity = rasterize([spots[name] for name in LESIONS], size)
    image = photograph(paint(anatomy, opacity * lesions, anatomy_rng), CAMERAS[camera], photo_rng)
    masks = opacity >= 0.5
    fovea, disc = ((float(y), float(x)) for y, x in (anatomy.fovea * size - 0.5, anatomy.disc * size - 0.5))
    if eye == "L":
        image, masks = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(masks[:, :, ::-1])
        fovea, disc = (fovea[0], size - 1 - fovea[1]), (disc[0], size - 1 - disc[1])
    diameter = float(anatomy.diameter * size)
    label = dme_label(masks, fovea, diameter)
    return Phantom(image, masks, f"P{stream[1]:04d}", eye, camera, label, fovea, disc, diameter)


# Anatomy


def _draw_anatomy(rng: Generator, tone: np.ndarray, mottling: float, caliber: float) -> Anatomy:
    diameter = rng.uniform(0.118, 0.132)
    disc = np.array([0.48, 0.76]) + rng.uniform(-0.02, 0.02, 2)
    fovea = disc + diameter * np.array([rng.uniform(0.15, 0.4), -rng.uniform(2.4, 2.6)])
    return Anatomy(fovea, disc, diameter, vessels.grow(rng, disc, fovea, caliber), tone, mottling)


# Lesions


def _draw_lesions(rng: Generator, grade: str, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Spots of every lesion, in the form ``rasterize`` takes, for an eye of one of ``GRADES``."""
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
    groups = {"microaneurysms": dots, "hemorrhages": blots, "hard_exudates": clusters, "edema": swellings}
    return {name: np.concatenate([np.empty((0, 7)), *parts]) for name, parts in groups.items()}


def _site(rng: Generator, anatomy: Anatomy, nearest: float, farthest: float, clear: float = 0) -> np.ndarray:
    """A point at a distance from the fovea between two limits, inside the field of view and off the disc."""
    rim = 0.03 + clear
    while True:
        distance, angle = rng.uniform(nearest, farthest), rng.uniform(0, 2 * np.pi)
        site = anatomy.fovea + distance * np.array([np.sin(angle), np.cos(angle)])
        row, col = site - 0.5
        inside = np.hypot(row, col) < FIELD_RADIUS - rim and abs(row) < FIELD_HALF_HEIGHT - rim
        if inside and np.hypot(*(site - anatomy.disc)) > 0.75 * anatomy.diameter + clear:
            return site


def _spot(row, col, major, minor, angle, lobes: float, softness: float) -> np.ndarray:
    columns = np.broadcast_arrays(row, col, major, minor, angle, lobes, softness)
    return np.stack(columns, axis=-1).reshape(-1, 7)


def _dot(rng: Generator, site: np.ndarray) -> np.ndarray:
    radius = rng.uniform(0.003, 0.005)
    return _spot(*site, radius, radius, 0, 0, 0.004)


def _cluster(rng: Generator, site: np.ndarray, anatomy: Anatomy) -> np.ndarray:
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


def _hemorrhage(rng: Generator, site: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """A blot, or a flame: streaks along the nerve fibers, which run from the disc."""
    if rng.random() < 0.65:
        major = rng.uniform(0.009, 0.022)
        return _spot(*site, major, major * rng.uniform(0.6, 1), rng.uniform(0, np.pi), 0.16, 0.006)
    fibers = np.arctan2(*(site - anatomy.disc)) + rng.normal(0, 0.08, 5)
    across = np.linspace(-1, 1, 5) * rng.uniform(0.007, 0.011)
    along = rng.normal(0, 0.006, 5)
    row = along * np.sin(fibers) + across * np.cos(fibers) + site[0]
    col = along * np.cos(fibers) - across * np.sin(fibers) + site[1]
    return _spot(row, col, rng.uniform(0.014, 0.03, 5), 0.0045, fibers, 0, 0.004)


def _swelling(rng: Generator, site: np.ndarray, largest: float) -> np.ndarray:
    major = rng.uniform(0.6, 1) * largest
    return _spot(*site, major, major * rng.uniform(0.7, 1), rng.uniform(0, np.pi), 0.1, 0.045)
