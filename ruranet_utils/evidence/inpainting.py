"""Photographs without their lesions: the control in notebook 08."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.restoration import inpaint_biharmonic

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import ANNOTATIONS
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store, digest_arrays

REMOVAL = Step("lesions_removed", 1, ("evidence.inpainting",))
MARGIN_PX = 3  # around a lesion, where its edge still shows
REMOVED = [row for row, name in enumerate(ANNOTATIONS) if name != "edema"]  # on real images "edema" is the disc


def remove_lesions(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill a mask and a margin of ``MARGIN_PX`` smoothly from the surroundings.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)
    mask : ndarray of bool, shape (h, w)

    Returns
    -------
    ndarray of uint8, shape (3, h, w)

    References
    ----------
    Damelin & Hoang (2018), On surface completion and image inpainting by biharmonic functions.
    doi:10.1155/2018/3950312
    """
    if not mask.any():
        return image
    hole = binary_dilation(mask, iterations=MARGIN_PX)
    filled = inpaint_biharmonic(image.transpose(1, 2, 0), hole, split_into_regions=True, channel_axis=-1)
    return np.where(hole, np.rint(filled.clip(0, 1) * 255).transpose(2, 0, 1), image).astype(np.uint8)


def lesion_holes(cohort: Cohort, found: np.ndarray) -> np.ndarray:
    """Where lesions were found or annotated.

    Parameters
    ----------
    cohort : Cohort
        Its masks are included, if it has any.
    found : ndarray of bool, shape (n, n_lesions, h, w)
        The first of ``profiles.ANNOTATIONS``. Edema stays in place: on real images its masks show the optic disc.

    Returns
    -------
    ndarray of bool, shape (n, h, w)
    """
    holes = found[:, [row for row in REMOVED if row < found.shape[1]]].any(axis=1)
    return holes if cohort.masks is None else holes | cohort.masks[:, REMOVED].any(axis=1)


def without_lesions(images: np.ndarray, holes: np.ndarray, store: Store) -> np.ndarray:
    """:func:`remove_lesions` for many images, once per store.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 3, h, w)
    holes : ndarray of bool, shape (n, h, w)
        From :func:`lesion_holes`.
    store : Store

    Returns
    -------
    ndarray of uint8, shape (n, 3, h, w)
        Memory-mapped from the store.
    """

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for image, hole in progress(zip(images, holes, strict=True), total=len(images), desc="filling", unit="image"):
            yield {"images": remove_lesions(image, hole)}

    settings = {"images": digest_arrays(images), "holes": digest_arrays(holes)}
    return store.fetch_rows(REMOVAL, settings, rows, len(images))["images"]
