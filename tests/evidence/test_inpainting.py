"""Lesions are filled from their surroundings, and nothing else changes."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.evidence.inpainting import MARGIN_PX, lesion_holes, remove_lesions, without_lesions
from ruranet_utils.profiles import ANNOTATIONS, LESIONS

RAMP = np.add.outer(np.arange(48), 2 * np.arange(48)).astype(np.uint8)


@pytest.fixture
def spotted():
    """A smooth gradient in three channels with a white spot, and the spot's mask."""
    mask = np.zeros((48, 48), bool)
    mask[20:25, 30:36] = True
    smooth = np.stack([RAMP, RAMP + 20, RAMP + 40])
    return np.where(mask, np.uint8(255), smooth), mask, smooth


def test_a_spot_on_a_gradient_disappears(spotted):
    image, mask, smooth = spotted
    filled = remove_lesions(image, mask)
    assert filled.dtype == np.uint8 and np.abs(filled.astype(int) - smooth).max() <= 1
    outside = ~binary_dilation(mask, iterations=MARGIN_PX)
    assert (filled[:, outside] == image[:, outside]).all()


def test_without_a_lesion_nothing_changes(spotted):
    image, mask, _ = spotted
    assert (remove_lesions(image, np.zeros_like(mask)) == image).all()


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_every_lesion_but_edema_makes_a_hole_whoever_found_it(phantoms, spotted, name):
    image, mask, _ = spotted
    drawn, found = np.zeros((1, len(ANNOTATIONS), 48, 48), bool), np.zeros((1, len(LESIONS), 48, 48), bool)
    drawn[0, ANNOTATIONS.index(name)] = mask
    expected = np.zeros_like(mask) if name == "edema" else mask
    assert (lesion_holes(Cohort(phantoms.table.head(1), image[None], drawn), found)[0] == expected).all()
    if name in LESIONS:
        found[0, LESIONS.index(name)] = mask
        assert (lesion_holes(Cohort(phantoms.table.head(1), image[None], None), found)[0] == expected).all()


def test_many_images_are_filled_as_one_and_once(store, spotted, journal):
    image, mask, _ = spotted
    images, holes = np.stack([image, image]), np.stack([mask, np.zeros_like(mask)])
    for _ in range(2):
        filled = without_lesions(images, holes, store)
        assert (filled[0] == remove_lesions(image, mask)).all() and (filled[1] == image).all()
    assert [event["found"] for event in journal()] == [False, True]
