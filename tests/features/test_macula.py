"""The macula: found on phantoms, whose fovea is known; zones counted pixel by pixel."""

from itertools import chain

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ruranet_utils.data.cohort import Cohort, synthetic_cohort
from ruranet_utils.data.phantoms.eye import dme_label, make_patient
from ruranet_utils.features.macula import (
    NOWHERE,
    ZONES,
    Macula,
    find_all,
    find_macula,
    fovea_error,
    zone_areas,
    zone_table,
)
from ruranet_utils.profiles import LESIONS, get_profile

SIZE = 128


@pytest.fixture(scope="module")
def eyes():
    return list(chain.from_iterable(make_patient(number, SIZE, seed=3) for number in range(30)))


def disc_of(eye):
    y, x = np.ogrid[:SIZE, :SIZE]
    return np.hypot(y - eye.disc_px[0], x - eye.disc_px[1]) <= eye.disc_diameter_px / 2


def squeezed(channel, width):
    return np.asarray(Image.fromarray(channel).resize((width, SIZE), Image.Resampling.NEAREST))


def test_the_fovea_of_phantoms_is_found(eyes):
    missed, by_the_vector_alone = [], []
    for eye in eyes:
        image, disc = eye.image.transpose(2, 0, 1), disc_of(eye)
        found = find_macula(image, disc, eye.masks[:3].any(axis=0))
        assert found.found and found.diameter_px == pytest.approx(eye.disc_diameter_px, abs=1.5)
        assert found.disc == pytest.approx(eye.disc_px, abs=1)
        missed.append(np.hypot(*np.subtract(found.fovea, eye.fovea_px)) / eye.disc_diameter_px)
        flat = find_macula(np.full_like(image, 90), disc)
        by_the_vector_alone.append(np.hypot(*np.subtract(flat.fovea, eye.fovea_px)) / eye.disc_diameter_px)
    assert np.median(missed) <= 0.15 and np.median(missed) < 0.9 * np.median(by_the_vector_alone)
    assert np.quantile(missed, 0.95) < 0.5


def test_an_image_that_was_made_square_shows_the_same_macula(eyes):
    for eye in eyes[:4]:
        image = np.stack([squeezed(channel, SIZE // 2) for channel in eye.image.transpose(2, 0, 1)])
        narrow = find_macula(image, squeezed(disc_of(eye), SIZE // 2), aspect=2.0)
        wide = find_macula(eye.image.transpose(2, 0, 1), disc_of(eye))
        assert narrow.diameter_px == pytest.approx(wide.diameter_px, rel=0.1)
        assert (narrow.fovea[0], 2 * narrow.fovea[1]) == pytest.approx(wide.fovea, abs=4)


def test_without_a_disc_nothing_is_said(eyes):
    image, speck = eyes[0].image.transpose(2, 0, 1), np.zeros((SIZE, SIZE), bool)
    assert find_macula(image, speck) is NOWHERE
    speck[3, 3] = True
    nowhere = find_macula(image, speck)
    assert not nowhere.found and np.isnan(nowhere.fovea).all()
    areas = zone_areas({"hard_exudates": ~speck}, nowhere)
    assert len(areas) == len(ZONES) + 2 and np.isnan(list(areas.values())).all()


def test_lesions_and_reflexes_do_not_move_the_fovea(eyes):
    eye = eyes[0]
    image, disc = eye.image.transpose(2, 0, 1).copy(), disc_of(eye)
    found = find_macula(image, disc)
    blot = (
        Macula(eye.disc_px, (found.fovea[0] + 4, found.fovea[1] + 4), eye.disc_diameter_px).distance(disc.shape) < 0.2
    )
    image[:, blot] = 5
    disc[2:5, 2:5] = True  # a second part, which is smaller
    assert find_macula(image, disc, blot).fovea == pytest.approx(found.fovea, abs=3)
    assert find_macula(image, disc, blot).disc == pytest.approx(found.disc)


@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_areas_are_counted_by_distance(aspect):
    rng = np.random.default_rng(0)
    mask, macula = rng.random((40, 60)) < 0.2, Macula((20.0, 5.0), (21.5, 30.25), 9.0, aspect)
    edges, areas, nearest = (0, *ZONES, np.inf), [0.0] * 4, np.inf
    for row, column in np.argwhere(mask):
        away = np.sqrt((row - 21.5) ** 2 + ((column - 30.25) * aspect) ** 2) / 9
        nearest = min(nearest, away)
        areas[next(zone for zone in range(4) if edges[zone] <= away <= edges[zone + 1])] += aspect / (np.pi * 4.5**2)
    found = zone_areas({"a": mask, "b": np.zeros_like(mask)}, macula)
    assert [found[f"a {name}"] for name in ("0.5 DD", "1 DD", "2 DD", "outside")] == pytest.approx(areas)
    assert found["a nearest"] == pytest.approx(nearest) and found["b nearest"] == np.inf and found["b 1 DD"] == 0


def test_the_clinical_rule_is_a_zone(eyes):
    labels = []
    for eye in eyes:
        macula = Macula(eye.disc_px, eye.fovea_px, eye.disc_diameter_px)
        found = zone_areas(dict(zip(LESIONS, eye.masks, strict=True)), macula)
        labels.append(min(found["hard_exudates nearest"], found["edema nearest"]) <= 1)
        assert labels[-1] == dme_label(eye.masks, eye.fovea_px, eye.disc_diameter_px)
    assert 0 < sum(labels) < len(labels)


def test_a_cohort_of_phantoms_knows_its_foveae(store, journal):
    """Cut to their field of view and scaled, they lie where the cohort's table says."""
    profile = get_profile("synthetic", n_images=24, image_size_px=64)
    cohort = synthetic_cohort(profile, store)
    masks = cohort.masks[:, : len(LESIONS)]
    maculae = find_all(cohort, masks, profile, store)
    assert np.median(fovea_error(maculae, cohort)) <= 0.15
    image, row = cohort.images[0], cohort.table.iloc[0]
    alone = find_macula(image, _circle(row), masks[0, 0])
    assert maculae[0].fovea == alone.fovea and maculae[0].diameter_px == alone.diameter_px
    journal()
    assert find_all(cohort, masks, profile, store)[0] == maculae[0] and [event["found"] for event in journal()] == [
        True
    ]
    zones = zone_table(masks, maculae)
    assert zones.iloc[3].to_dict() == zone_areas(dict(zip(LESIONS[:3], masks[3], strict=False)), maculae[3])


def _circle(row):
    y, x = np.ogrid[:64, :64]
    return np.hypot(y - row["disc_row"], x - row["disc_column"]) <= row["disc_diameter_px"] / 2


def test_of_photographs_the_disc_is_the_one_that_was_found(store, eyes):
    images = np.stack([eye.image.transpose(2, 0, 1) for eye in eyes[:4]])
    masks = np.zeros((4, len(LESIONS), SIZE, SIZE), bool)
    for mask, eye in zip(masks[:3], eyes, strict=False):
        mask[-1] = disc_of(eye)
    frame = dict.fromkeys(["left_px", "top_px"], 0) | dict.fromkeys(["right_px", "bottom_px"], SIZE)
    cohort = Cohort(pd.DataFrame([frame] * 4), images, None)
    maculae = find_all(cohort, masks, get_profile("open"), store)
    assert [macula.found for macula in maculae] == [True, True, True, False]
    assert maculae[1].disc == pytest.approx(eyes[1].disc_px, abs=1)
    assert fovea_error(maculae, cohort).size == 0, "nobody knows it"
