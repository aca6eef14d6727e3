"""Photographs without their lesions: what a control of notebook 08 sees."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.restoration import inpaint_biharmonic

from ruranet_utils.cohort import Cohort
from ruranet_utils.config import ANNOTATIONS, LESIONS
from ruranet_utils.progress import progress
from ruranet_utils.store import Store, digest_arrays

MARGIN_PX = 3  # around a lesion, where its edge still shows
REMOVED = [row for row, name in enumerate(ANNOTATIONS) if name != "edema"]  # on real images "edema" is the disc


def remove_lesions(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill a mask and a margin of ``MARGIN_PX`` smoothly from its surroundings.

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


def without_lesions(cohort: Cohort, found: np.ndarray, store: Store) -> np.ndarray:
    """The images of a cohort without the lesions that were found in them or that somebody has drawn.

    Parameters
    ----------
    cohort : Cohort
        Its masks are taken, too, where it has any.
    found : ndarray of bool, shape (n, n_lesions, h, w)
        In the order of ``config.LESIONS``. Edema is left in place: on real images its masks show the optic disc.
    store : Store

    Returns
    -------
    ndarray of uint8, shape (n, 3, h, w)
        Mapped from the store.
    """

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for index in progress(range(len(cohort)), desc="removing lesions", unit="image"):
            masks = [found[index, [row for row in REMOVED if row < len(LESIONS)]]]
            if cohort.masks is not None:
                masks.append(cohort.masks[index, REMOVED])
            yield {"images": remove_lesions(cohort.images[index], np.concatenate(masks).any(axis=0))}

    settings = {"images": digest_arrays(cohort.images), "masks": digest_arrays(found, cohort.masks)}
    return store.fetch_rows("lesions_removed", settings, rows, len(cohort), [sys.modules[__name__]])["images"]
