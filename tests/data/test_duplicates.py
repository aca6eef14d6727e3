"""Duplicates and contradictions between sources, and whether an image shows a retina."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ruranet_utils.data.decoding import RETINA_SCORE, decode, retina_score
from ruranet_utils.data.duplicates import confounds, duplicates, join_patients, settle
from ruranet_utils.data.phantoms.eye import make_patient
from ruranet_utils.data.sources.base import Record
from ruranet_utils.profiles import get_profile
from tests.data.trees import save_photograph


def record(path: Path, label=None) -> Record:
    return Record(path.stem, "srahim", path.stem, "", label, "", path, {}, None)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Eight different synthetic photographs of 256 px, as lossless files."""
    folder, paths = tmp_path_factory.mktemp("phantoms"), []
    for patient in range(1, 5):
        for phantom in make_patient(patient, 256, seed=0):
            paths.append(folder / f"{phantom.patient_id}_{phantom.eye}.png")
            Image.fromarray(phantom.image).save(paths[-1])
    return paths


def test_scaled_and_recompressed_copies_are_found_and_other_eyes_are_not(phantoms, tmp_path, store):
    copies = []
    for number, path in enumerate(phantoms[:4]):
        copies.append(tmp_path / f"copy{number}.jpg")
        copy = Image.open(path).resize((150 + 100 * number, 300))  # squeezed
        copy = ImageOps.expand(copy, (60, 20, 10, 0)) if number % 2 else copy  # with more black around it
        copy.save(copies[-1], quality=60 + 10 * number)
    copies.append(tmp_path / "same bytes.png")
    copies[-1].write_bytes(phantoms[7].read_bytes())
    facts = decode([record(path) for path in (*phantoms, *copies)], get_profile(), store).facts
    assert duplicates(facts).tolist() == [*range(8), 0, 1, 2, 3, 7]


def test_the_facts_are_those_of_the_files_and_are_looked_up_the_second_time(phantoms, store, journal):
    records = [record(path) for path in phantoms]
    first, second = (decode(records, get_profile(), store).facts for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert [event["found"] for event in journal()] == [False, True]
    assert set(first["width_px"]) == set(first["height_px"]) == {256}
    assert ((first["right_px"] - first["left_px"]).between(236, 252)).all(), "the field, not the black around it"
    assert first["phash"].str.len().eq(64).all() and first["retina_score"].between(0.9, 1).all()


def test_near_means_sixteen_bits_from_what_stays():
    bits = np.zeros((5, 256), np.uint8)
    bits[1, :16] = bits[2, :32] = bits[3, :49] = 1
    bits[4] = 1
    facts = pd.DataFrame({"sha256": list("abcde"), "phash": [np.packbits(row).tobytes().hex() for row in bits]})
    assert duplicates(facts).tolist() == [0, 0, 2, 3, 4], "2 is near 1, which does not stay"
    assert duplicates(facts[::-1].reset_index(drop=True)).tolist() == [0, 1, 2, 2, 4]


def test_a_burst_is_not_chained():
    bits = np.tri(40, 256, -1, dtype=np.uint8)  # each frame differs from the next one in one bit
    facts = pd.DataFrame({"sha256": map(str, range(40)), "phash": [np.packbits(row).tobytes().hex() for row in bits]})
    assert duplicates(facts).tolist() == [0] * 17 + [17] * 17 + [34] * 6


def test_patients_who_share_a_photograph_are_one():
    patients = pd.Series(["a", "a", "b", "c", "c", "d"])
    joined = join_patients(patients, np.array([0, 1, 1, 3, 4, 4]))
    assert joined.tolist() == ["a", "a", "a", "c", "c", "c"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_equal_bytes_are_grouped_as_by_a_slow_loop(names):
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in range(7)]
    facts = pd.DataFrame({"sha256": [str(name) for name in names], "phash": [hashes[name] for name in names]})
    assert duplicates(facts).tolist() == [names.index(name) for name in names]


def table(labels, assumed=None) -> pd.DataFrame:
    n = len(labels)
    return pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(n)],
            "source": "s",
            "label": pd.array(labels, "Int64"),
            "assumed": assumed or [False] * n,
            "disputed_by": "",
        }
    )


def test_the_graded_photograph_of_a_group_stays():
    settled = settle(table([None, 0, 1, 0], [False, True, False, False]), np.array([0, 0, 0, 3]))
    assert settled["dropped"].tolist() == ["duplicate", "duplicate", "", ""]
    assert settled["duplicate_of"].tolist() == ["s/i2", "s/i2", "", ""]


def test_the_first_of_equals_stays():
    settled = settle(table([1, 1, None, None]), np.array([0, 0, 2, 2]))
    assert settled["dropped"].tolist() == ["", "duplicate", "", "duplicate"]


def test_contradicting_grades_drop_the_whole_group_with_a_message():
    with pytest.warns(UserWarning, match=r"different labels: s/i0 \(1\), s/i1 \(0\), s/i2 \(<NA>\)"):
        settled = settle(table([1, 0, None, 0]), np.array([0, 0, 0, 3]))
    assert settled["dropped"].tolist() == ["conflict"] * 3 + [""]


def test_an_image_that_shows_no_retina_is_named_with_its_score(tmp_path, store):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    save_photograph(tmp_path / "eye.png", 0)
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[30:70, 30:70] = (120, 60, 30)
    Image.fromarray(pixels).save(tmp_path / "keyhole.png")
    records = [record(tmp_path / f"{name}.png") for name in ("eye", "noise", "keyhole")]
    with pytest.warns(UserWarning, match=r"2 images may not .*noise\.png \(score 0\.\d\d, field .*keyhole\.png "):
        facts = decode(records, get_profile(crop_field=False), store).facts
    assert facts["retina_score"][0] > 0.9 > RETINA_SCORE > facts["retina_score"][1]
    assert facts["field_of_view"].tolist() == pytest.approx([1, 1, 0.16], abs=0.01)


def test_retina_score_by_hand():
    image = np.zeros((3, 10, 10), np.uint8)
    image[:, 3:7, 3:5] = np.array([120, 60, 30])[:, None, None]  # half of the center; the rest is black
    assert retina_score(image) == 0.5
    assert retina_score(image[::-1]) == 0  # blue above red


def test_a_source_that_tells_the_label_is_a_confound():
    labels = [1] * 10 + [0] * 10
    told = pd.DataFrame({"label": labels, "source": ["a"] * 10 + ["b"] * 5 + ["c"] * 5, "camera": ["x", "y"] * 10})
    rows = confounds(told).set_index("known")
    assert rows.loc["source", ["groups", "accuracy", "guessing", "cramers_v"]].tolist() == pytest.approx([3, 1, 0.5, 1])
    assert rows.loc["camera", ["groups", "accuracy", "cramers_v", "p_value"]].tolist() == pytest.approx([2, 0.5, 0, 1])
    assert rows.loc["source", "p_value"] < 1e-4 and (rows["n"] == 20).all()
    one = confounds(told.assign(source="a"), ("source",)).iloc[0]
    assert (one["groups"], one["accuracy"], one["cramers_v"], one["p_value"]) == (1, 0.5, 0, 1)
