import hashlib

import numpy as np
import pytest
from scipy import ndimage

from ruranet_utils.data.phantoms.eye import dme_label, make_patient
from ruranet_utils.profiles import LESIONS

SIZE_PX = 64
EXUDATES, DOTS, HEMORRHAGES, EDEMA = range(len(LESIONS))


@pytest.fixture(scope="module")
def eyes():
    """Both eyes of 100 patients."""
    return [eye for index in range(100) for eye in make_patient(index, SIZE_PX, seed=0)]


def digest(phantom):
    return hashlib.sha256(phantom.image.tobytes() + phantom.masks.tobytes()).hexdigest()


def ring_contrast(eyes, lesion, channel):
    """Mean over images of (brightness inside a lesion minus brightness of a ring around it)."""
    differences = []
    for eye in eyes:
        inside = eye.masks[lesion]
        others = ndimage.binary_dilation(eye.masks.any(axis=0))
        ring = ndimage.binary_dilation(inside, iterations=4) & ~others
        if inside.any() and ring.any():
            value = eye.image[..., channel].astype(float)
            differences.append(value[inside].mean() - value[ring].mean())
    return np.mean(differences)


def test_fields_have_the_documented_types_and_shapes():
    left, right = make_patient(7, SIZE_PX, seed=0)
    assert (left.eye, right.eye) == ("L", "R")
    for eye in (left, right):
        assert eye.patient_id == "P0007"
        assert eye.image.shape == (SIZE_PX, SIZE_PX, 3) and eye.image.dtype == np.uint8
        assert eye.masks.shape == (len(LESIONS), SIZE_PX, SIZE_PX) and eye.masks.dtype == bool
        assert eye.image.flags.c_contiguous and eye.masks.flags.c_contiguous


def test_the_disc_is_nasal_and_bright_and_the_fovea_two_and_a_half_diameters_away(eyes):
    for eye in eyes:
        assert (eye.disc_px[1] < eye.fovea_px[1]) == (eye.eye == "L")
        distance_px = np.hypot(*np.subtract(eye.disc_px, eye.fovea_px))
        assert 2.35 < distance_px / eye.disc_diameter_px < 2.7
        disc, fovea = (tuple(np.rint(point).astype(int)) for point in (eye.disc_px, eye.fovea_px))
        window = ndimage.uniform_filter(eye.image[..., 1].astype(float), 5)
        if not eye.masks[[EXUDATES, EDEMA], fovea[0] - 4 : fovea[0] + 5, fovea[1] - 4 : fovea[1] + 5].any():
            assert window[disc] > window[fovea] + 10


def test_same_arguments_give_the_same_bytes_and_other_seeds_do_not():
    first, again, other = (make_patient(3, SIZE_PX, seed=seed) for seed in (5, 5, 6))
    assert [digest(eye) for eye in first] == [digest(eye) for eye in again]
    assert {digest(eye) for eye in first}.isdisjoint(digest(eye) for eye in other)


def test_a_patient_does_not_depend_on_the_patients_made_before(eyes):
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter either
    alone = make_patient(42, SIZE_PX, seed=0)
    assert [digest(eye) for eye in alone] == [digest(eye) for eye in eyes[84:86]]


def test_all_phantoms_differ(eyes):
    assert len({eye.image.tobytes() for eye in eyes}) == len(eyes)


@pytest.mark.parametrize("index", range(6))
def test_the_camera_changes_the_photograph_and_nothing_else(index):
    for a, b in zip(make_patient(index, SIZE_PX, 0, "A"), make_patient(index, SIZE_PX, 0, "B"), strict=True):
        assert (a.camera, b.camera) == ("A", "B")
        assert (a.image != b.image).any(axis=2).mean() > 0.5
        assert (a.masks == b.masks).all()
        assert (a.label, a.fovea_px, a.disc_px) == (b.label, b.fovea_px, b.disc_px)


def test_a_drawn_camera_is_the_prescribed_camera(eyes):
    cameras = [eye.camera for eye in eyes[::2]]
    assert cameras == [eye.camera for eye in eyes[1::2]]
    assert 35 <= cameras.count("A") <= 65
    for index in (0, 1):
        prescribed = make_patient(index, SIZE_PX, 0, cameras[index])
        assert [digest(eye) for eye in prescribed] == [digest(eye) for eye in eyes[2 * index : 2 * index + 2]]


def masks_with(lesion, row, col):
    masks = np.zeros((len(LESIONS), 40, 40), dtype=bool)
    masks[lesion, row, col] = True
    return masks


@pytest.mark.parametrize("lesion", [EXUDATES, EDEMA])
@pytest.mark.parametrize(
    ("row", "col", "expected"),
    [(20, 30, 1), (20, 31, 0), (14, 28, 1), (13, 28, 0), (20, 20, 1), (10, 20, 1), (9, 20, 0)],
)
def test_the_label_counts_distances_up_to_one_disc_diameter(lesion, row, col, expected):
    # Fovea (20, 20), diameter 10: (20, 30) and, as 6-8-10 triangle, (14, 28) lie exactly on the circle.
    assert dme_label(masks_with(lesion, row, col), (20.0, 20.0), 10.0) == expected


def test_red_lesions_on_the_fovea_are_no_edema():
    masks = masks_with(DOTS, 20, 20) | masks_with(HEMORRHAGES, 20, 20)
    assert dme_label(masks, (20.0, 20.0), 10.0) == 0


def test_the_label_is_the_rule_applied_to_the_masks(eyes):
    for eye in eyes:
        rows, cols = np.indices((SIZE_PX, SIZE_PX))
        near = (rows - eye.fovea_px[0]) ** 2 + (cols - eye.fovea_px[1]) ** 2 <= eye.disc_diameter_px**2
        assert eye.label == int((near & (eye.masks[EXUDATES] | eye.masks[EDEMA])).any())
        assert eye.label == dme_label(eye.masks, eye.fovea_px, eye.disc_diameter_px)


def test_no_label_is_borderline(eyes):
    for eye in eyes:
        rows, cols = np.nonzero(eye.masks[EXUDATES] | eye.masks[EDEMA])
        nearest_px = np.hypot(rows - eye.fovea_px[0], cols - eye.fovea_px[1]).min(initial=np.inf)
        assert nearest_px < 0.9 * eye.disc_diameter_px or nearest_px > 1.1 * eye.disc_diameter_px


def test_size_changes_neither_label_nor_which_lesions_there_are(eyes):
    for index in range(10):
        for small, large in zip(make_patient(index, 64, 0), make_patient(index, 128, 0), strict=True):
            assert small.label == large.label
            assert (small.masks.any(axis=(1, 2)) == large.masks.any(axis=(1, 2))).all()
            assert np.add(small.fovea_px, 0.5) * 2 == pytest.approx(np.add(large.fovea_px, 0.5))
            # The same area, up to the dots that may not become smaller than a pixel.
            areas = small.masks[EDEMA].mean(), large.masks[EDEMA].mean()
            assert areas[0] == pytest.approx(areas[1], rel=0.15)


def test_classes_are_balanced_and_negatives_come_with_and_without_lesions(eyes):
    positive = np.array([eye.label for eye in eyes], dtype=bool)
    lesions = np.array([eye.masks.any(axis=(1, 2)) for eye in eyes])
    assert 0.35 <= positive.mean() <= 0.65
    assert 0.1 < (~lesions[~positive].any(axis=1)).mean() < 0.45
    assert lesions[~positive][:, [EXUDATES, HEMORRHAGES]].any(axis=1).mean() > 0.4
    assert lesions[~positive].any(axis=0).all(), "every kind of lesion occurs in negatives"
    assert lesions[positive].any(axis=0).all(), "every kind of lesion occurs in positives"


def test_the_eyes_of_a_patient_agree_more_often_than_strangers(eyes):
    labels = np.array([eye.label for eye in eyes]).reshape(-1, 2)
    own = (labels[:, 0] == labels[:, 1]).mean()
    strangers = (labels[:, 0] == np.roll(labels[:, 1], 1)).mean()
    assert own > strangers + 0.15 and own < 1


def test_masks_lie_inside_the_field_of_view(eyes):
    y, x = (np.indices((SIZE_PX, SIZE_PX)) + 0.5) / SIZE_PX - 0.5
    outside = np.hypot(y, x) > 0.5
    for eye in eyes:
        assert not eye.image[outside].any(), "black outside"
        assert not eye.masks[:, outside].any()
        assert eye.image[eye.masks.any(axis=0)].max(axis=1).min(initial=255) > 25


def test_exudates_are_brighter_and_red_lesions_darker_than_their_surroundings(eyes):
    for camera in "AB":
        taken = [eye for eye in eyes if eye.camera == camera]
        assert ring_contrast(taken, EXUDATES, channel=1) > 20
        assert ring_contrast(taken, DOTS, channel=1) < -8
        assert ring_contrast(taken, HEMORRHAGES, channel=1) < -12
        assert ring_contrast(taken, EDEMA, channel=2) > 5


def test_no_microaneurysm_vanishes_at_the_smallest_size():
    for index in range(4):
        for small, large in zip(make_patient(index, 64, 0), make_patient(index, 256, 0), strict=True):
            dots, n_dots = ndimage.label(large.masks[DOTS])
            nearby = ndimage.binary_dilation(small.masks[DOTS], np.ones((3, 3)))
            for row, col in ndimage.center_of_mass(dots > 0, dots, range(1, n_dots + 1)):
                assert nearby[int((row + 0.5) / 4), int((col + 0.5) / 4)]


def test_one_phantom_is_what_it_was():
    assert (
        digest(make_patient(1, 128, seed=0, camera="A")[0])
        == "708d8a554131e1e57adf0b411104ef163455a61274197d0fc4300845fdd93341"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 128, 0), "index=-1"),
        ((0, 128, -3), "seed=-3"),
        ((0, 63, 0), "got 63"),
        ((0, 128, 0, "C"), "'C'; valid cameras: A, B"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_patient(*arguments)


def test_the_label_refuses_masks_of_another_shape_and_no_disc():
    with pytest.raises(ValueError, match=r"\(4, h, w\), got \(3, 8, 8\)"):
        dme_label(np.zeros((3, 8, 8), dtype=bool), (4, 4), 2)
    with pytest.raises(ValueError, match="> 0, got 0"):
        dme_label(np.zeros((4, 8, 8), dtype=bool), (4, 4), 0)


@pytest.mark.parametrize("camera", ["A", "B"])
def test_an_eye_without_its_lesions_is_the_same_eye(camera):
    for index in range(12):
        pairs = zip(*(make_patient(index, 128, 0, camera, lesions) for lesions in (True, False)), strict=True)
        for eye, bare in pairs:
            assert (eye.masks == bare.masks).all() and (eye.label, eye.fovea_px) == (bare.label, bare.fovea_px)
            changed = (eye.image != bare.image).any(axis=2)
            lesions = eye.masks.any(axis=0)
            assert not changed[~ndimage.binary_dilation(lesions, iterations=12)].any()
            # no lesion has so little contrast that removing it changes nothing
            assert changed[lesions].mean() > 0.9 if lesions.any() else not changed.any()
