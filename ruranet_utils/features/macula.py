"""Where the macula lies, located from the optic disc, and how far the lesions are from it.

Maculopathy is graded by distance: an exudate within one disc diameter of the fovea (doi:10.1155/2015/310239).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.measure import label, regionprops

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import LESIONS, Profile
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store

# From the disc's center to the fovea: disc diameters, and degrees below the horizontal. PMC4577126.
DISTANCE, ANGLE = 2.65, 5.6
SPREAD = 0.18  # disc diameters, of the fovea around that point along each axis: half lie within 0.21
SEARCHED, BLUR, SURROUNDINGS = 0.75, 0.2, 1.0  # disc diameters: search radius, blur of the pit and of its background
ZONES = (0.5, 1.0, 2.0)  # disc diameters from the fovea
LEAST_DISC = 1e-3  # share of the image covered by the disc; anything smaller is a reflection
DISC = LESIONS.index("edema")  # what stands in for edema
KNOWN = ["disc_row", "disc_column", "disc_diameter_px"]
LANDMARKS = Step("landmarks", 1, ("features.macula",))


@dataclass(frozen=True)
class Macula:
    """Landmarks of one photograph, in pixels; NaN if no disc was found.

    Attributes
    ----------
    disc, fovea : tuple of float
        Row and column of the center.
    diameter_px : float
        Of the disc: the square root of height times width, measured in rows. This is one disc diameter (DD).
    aspect : float
        Width divided by height of what the image shows, before it was squeezed to a square.
    """

    disc: tuple[float, float]
    fovea: tuple[float, float]
    diameter_px: float
    aspect: float = 1.0

    @property
    def found(self) -> bool:
        """Whether a disc was found."""
        return bool(np.isfinite(self.diameter_px))

    def distance(self, shape: tuple[int, int], origin: tuple[float, float] | None = None) -> np.ndarray:
        """Disc diameters from the fovea, or another point, to every pixel: float, of this shape."""
        y, x = np.ogrid[: shape[0], : shape[1]]
        row, column = origin or self.fovea
        return np.hypot(y - row, (x - column) * self.aspect) / self.diameter_px


NOWHERE = Macula((np.nan, np.nan), (np.nan, np.nan), np.nan)


def find_macula(image: np.ndarray, disc: np.ndarray, lesions: np.ndarray | None = None, aspect: float = 1.0) -> Macula:
    """Find the fovea of one photograph.

    The expected position is 2.65 DD from the disc's center toward the middle of the photograph, 5.6 degrees down.
    Within 0.75 DD of it, the fovea is the pixel with the highest score: how dark it is in the smoothed green channel
    relative to its surroundings, without the lesions, in standard deviations, plus the logarithm of a normal
    distribution around the expected position.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)
    disc : ndarray of bool, shape (h, w)
        Only its largest part counts.
    lesions : ndarray of bool, shape (h, w), optional
        Pixels to ignore when judging how dark the retina is.
    aspect : float

    Returns
    -------
    Macula
        ``NOWHERE`` if no part of ``disc`` covers ``LEAST_DISC`` of the image.
    """
    parts = regionprops(label(disc))
    largest = max(parts, key=lambda part: part.area, default=None)
    if largest is None or largest.area < LEAST_DISC * disc.size:
        return NOWHERE
    top, left, bottom, right = largest.bbox
    diameter, center = float(np.sqrt((bottom - top) * (right - left) * aspect)), largest.centroid
    side = np.sign((disc.shape[1] - 1) / 2 - center[1]) or 1.0
    angle = np.deg2rad(ANGLE)
    expected = (
        center[0] + DISTANCE * diameter * np.sin(angle),
        center[1] + side * DISTANCE * diameter * np.cos(angle) / aspect,
    )
    guess = Macula(center, expected, diameter, aspect)
    valid = (image.max(axis=0) > 0) & ~disc & (True if lesions is None else ~lesions)
    away = guess.distance(disc.shape)
    near = (away <= SEARCHED) & valid
    if not near.any():
        return guess
    darkness = _darkness(image[1].astype(np.float64), valid, diameter / np.array([1.0, aspect]))
    score = darkness / max(darkness[near].std(), 1e-6) - away**2 / (2 * SPREAD**2)
    row, column = np.unravel_index(np.where(near, score, -np.inf).argmax(), disc.shape)
    return Macula(center, (float(row), float(column)), diameter, aspect)


def _darkness(green: np.ndarray, valid: np.ndarray, diameter_px: np.ndarray) -> np.ndarray:
    """How much darker each pixel is than its surroundings, both as means over the valid pixels only."""
    spot, around = (
        ndimage.gaussian_filter(green * valid, width * diameter_px)
        / np.maximum(ndimage.gaussian_filter(valid.astype(np.float64), width * diameter_px), 1e-6)
        for width in (BLUR, SURROUNDINGS)
    )
    return around - spot


def find_all(cohort: Cohort, masks: np.ndarray, profile: Profile, store: Store, with_disc: bool = True) -> list[Macula]:
    """:func:`find_macula` for all images of a cohort, once per store.

    Only exudates are masked out of the search: the fovea, dark and red, is itself easily mistaken for a hemorrhage.

    Parameters
    ----------
    cohort : Cohort
        For phantoms the disc is known, not found.
    masks : ndarray of bool, shape (n, n_lesions, h, w)
        Found lesions, in the order of ``profiles.LESIONS``.
    profile : Profile
    store : Store
    with_disc : bool
        Whether the last mask is the optic disc; without a disc there is no macula.
    """
    discs, exudates = masks[:, DISC], masks[:, LESIONS.index("hard_exudates")]
    if not with_disc:
        discs = np.zeros_like(discs)
    if "disc_row" in cohort.table:
        discs = np.stack([_circle(*place, discs.shape[1:]) for place in cohort.table[KNOWN].to_numpy()])

    data = cohort.images, discs, exudates, np.asarray(cohort.aspect)
    rows = store.fetch_parts(LANDMARKS, {"": ({}, _landmarks)}, *data, workers=profile.workers)[""]["landmarks"]
    return [Macula((row[0], row[1]), (row[2], row[3]), row[4], row[5]) for row in rows.tolist()]


def _landmarks(images: np.ndarray, discs: np.ndarray, exudates: np.ndarray, aspect: np.ndarray) -> Arrays:
    each = progress(list(zip(images, discs, exudates, aspect.tolist(), strict=True)), desc="macula", unit="image")
    found = [find_macula(*one) for one in each]
    return {"landmarks": np.array([[*one.disc, *one.fovea, one.diameter_px, one.aspect] for one in found])}


def _circle(row: float, column: float, diameter_px: float, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - row, x - column) <= diameter_px / 2


def fovea_error(maculae: Sequence[Macula], cohort: Cohort) -> np.ndarray:
    """Distance of each found fovea from the true one in disc diameters, for phantoms; empty if the true one is
    unknown."""
    if "fovea_row" not in cohort.table:
        return np.empty(0)
    truth = cohort.table[["fovea_row", "fovea_column"]].to_numpy()
    found = np.array([macula.fovea for macula in maculae])
    offset = (found - truth) * np.column_stack([np.ones(len(truth)), cohort.aspect])
    return np.hypot(*offset.T) / [macula.diameter_px for macula in maculae]


def zone_table(masks: np.ndarray, maculae: Sequence[Macula]) -> pd.DataFrame:
    """:func:`zone_areas` of many photographs, one row each.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, n_lesions, h, w)
        In the order of ``profiles.LESIONS``; the optic disc is left out.
    maculae : sequence of Macula
        From :func:`find_all`.
    """
    lesions = {name: number for number, name in enumerate(LESIONS) if number != DISC}
    rows = [
        zone_areas({name: of_image[number] for name, number in lesions.items()}, macula)
        for of_image, macula in zip(masks, maculae, strict=True)
    ]
    return pd.DataFrame(rows)


def zone_areas(masks: Mapping[str, np.ndarray], macula: Macula) -> dict[str, float]:
    """Area of each lesion by its distance from the fovea, and how near the nearest one is.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool, shape (h, w)
        By lesion.
    macula : Macula

    Returns
    -------
    dict of str to float
        For each lesion, ``<lesion> <zone>`` in disc areas (of a circle one DD across), where the zone is ``"0.5 DD"``,
        ``"1 DD"``, ``"2 DD"`` (inside it but outside the next smaller one) or ``"outside"``; ``<lesion> nearest``: disc
        diameters from the fovea to its nearest pixel, infinite if there is none. All NaN without a disc.
    """
    names = [*(f"{edge:g} DD" for edge in ZONES), "outside"]
    found = {}
    for lesion, mask in masks.items():
        if not macula.found:
            found |= dict.fromkeys([f"{lesion} {name}" for name in (*names, "nearest")], np.nan)
            continue
        away = macula.distance(mask.shape)[mask]
        counts = np.bincount(np.searchsorted(ZONES, away), minlength=len(names))
        areas = counts * macula.aspect / (np.pi * macula.diameter_px**2 / 4)
        found |= {f"{lesion} {name}": float(area) for name, area in zip(names, areas, strict=True)}
        found[f"{lesion} nearest"] = float(away.min(initial=np.inf))
    return found
