"""Cohorts of every profile, and the two choices that must not leak: who takes part and on which side."""

import hashlib
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ruranet_utils import profiles
from ruranet_utils.data.cohort import COLUMNS, Cohort, all_labeled, load_cohorts
from ruranet_utils.data.duplicates import confounds
from ruranet_utils.data.masks import read_mask
from ruranet_utils.data.reading import read_image
from ruranet_utils.data.sources import SOURCES, idrid, srahim
from ruranet_utils.data.splits import _apportion, assign_splits, balance, deal_patients
from ruranet_utils.storage.store import Store
from tests.data.trees import (
    DATA,
    make_grades,
    make_idrid,
    make_retinal_lesions,
    make_srahim,
    make_vessels,
    real_data,
    save_mask,
    save_photograph,
)

FRACTIONS = (0.7, 0.1, 0.2)


def make_table(patients: list[tuple[int, ...]]) -> pd.DataFrame:
    """One row per eye; each patient is given as the labels of the eyes photographed."""
    rows = [(f"P{i:03d}", eye, label) for i, eyes in enumerate(patients) for eye, label in enumerate(eyes)]
    table = pd.DataFrame(rows, columns=["patient_id", "eye", "label"])
    return table.assign(image_id=table["patient_id"] + table["eye"].astype(str))


def make_cohort(labels=(0, 1, 1)) -> Cohort:
    n = len(labels)
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "label": pd.array(labels, "Int64")})
    table["patient_id"], table["split"] = "p", ["train", "val", "test"][:n]
    images = np.arange(n * 3 * 16, dtype=np.uint8).reshape(n, 3, 4, 4)
    masks = np.zeros((n, len(profiles.ANNOTATIONS), 4, 4), bool)
    masks[1, 2, :2] = True
    table[[f"{lesion}_px" for lesion in profiles.ANNOTATIONS]] = masks.sum(axis=(2, 3))
    return Cohort(table, images, masks)


@pytest.fixture
def profile():
    return profiles.get_profile("open", image_size_px=32, patch_size_px=32, crop_field=False)


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    make_idrid(tmp_path / "data" / "idrid", n_train=8, n_test=2)
    make_srahim(tmp_path / "data" / "srahim")
    monkeypatch.setenv("RURANET_DATA_ROOT", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


eyes = st.lists(st.integers(0, 1), min_size=1, max_size=2).map(tuple)
pure = [(0,), (0, 0), (0,), (1,), (1, 1), (1,)]  # enough for every side to get both classes


@settings(max_examples=40, deadline=None)
@given(st.lists(eyes, max_size=40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_splits_hold_each_image_once_each_patient_once_whatever_the_row_order(patients, seed, random):
    table = make_table(pure + patients)
    split = assign_splits(table, FRACTIONS, seed)
    assert split.index.equals(table.index)
    assert split.isin(["train", "val", "test"]).all()
    assert table.assign(split=split).drop_duplicates(["patient_id", "split"])["patient_id"].is_unique
    assert table["label"].groupby(split).nunique().eq(2).all() and split.nunique() == 3
    rows = list(table.index)
    random.shuffle(rows)
    pd.testing.assert_series_equal(assign_splits(table.loc[rows], FRACTIONS, seed).sort_index(), split)


@settings(max_examples=40, deadline=None)
@given(st.integers(15, 90), st.integers(15, 90), st.sampled_from([1, 2]), st.sampled_from([FRACTIONS, (0.8, 0.1, 0.1)]))
def test_splits_keep_fractions_and_class_ratio_to_within_three_patients(n_negative, n_positive, eyes, fractions):
    table = make_table([(0,) * eyes] * n_negative + [(1,) * eyes] * n_positive)
    split = assign_splits(table, fractions, seed=0)
    ratio = n_positive / (n_negative + n_positive)
    for name, fraction in zip(("train", "val", "test"), fractions, strict=True):
        labels = table["label"][split == name]
        for label, n in ((0, n_negative), (1, n_positive)):
            assert abs((labels == label).sum() - eyes * n * fraction) <= 3 * eyes
        assert abs((labels == 1).sum() - len(labels) * ratio) <= 2 * eyes


@settings(max_examples=15, deadline=None)
@given(st.lists(eyes, max_size=60), st.integers(0, 5))
def test_splits_keep_fractions_where_the_eyes_of_a_patient_differ(patients, seed):
    """To within a few patients; a class with few of them allows few folds, and with three the sides are equal."""
    table = make_table(5 * pure + patients)
    split = assign_splits(table, FRACTIONS, seed)
    for name, fraction in zip(("train", "val", "test"), FRACTIONS, strict=True):
        for label in (0, 1):
            of_class = table["label"] == label
            assert abs((of_class & (split == name)).sum() - of_class.sum() * fraction) <= 8


@pytest.mark.parametrize(
    "patients", [[(0,)] * 3 + [(1,)] * 3, [(0, 0)] * 3 + [(1, 1)] * 3, [(0, 1)] * 3], ids=["one", "two", "mixed"]
)
def test_three_patients_of_each_class_are_enough(patients):
    table = make_table(patients)
    for seed in range(5):
        counts = pd.crosstab(assign_splits(table, FRACTIONS, seed), table["label"])
        assert counts.shape == (3, 2) and counts.nunique().eq(1).all()


def test_largest_remainders_by_hand():
    assert _apportion(10, (0.8, 0.1, 0.1)).tolist() == [8, 1, 1]
    assert _apportion(87, (0.7, 0.1, 0.2)).tolist() == [61, 9, 17]
    assert _apportion(3, (0.8, 0.1, 0.1)).tolist() == [1, 1, 1] and _apportion(2, (0.8, 0.1, 0.1)).sum() == 2


def test_splits_by_hand():
    table = make_table([(0,)] * 10 + [(1,)] * 20)
    split = assign_splits(table, (0.8, 0.1, 0.1), seed=3)
    assert Counter(zip(table["label"], split, strict=True)) == {
        (0, "train"): 8, (0, "val"): 1, (0, "test"): 1, (1, "train"): 16, (1, "val"): 2, (1, "test"): 2,
    }  # fmt: skip


def test_splits_depend_on_the_seed():
    table = make_table([(0, 0)] * 20 + [(1, 1)] * 20)
    first, again, other = (assign_splits(table, FRACTIONS, seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_splits_refuse_a_side_without_a_class():
    table = make_table([(0,)] * 9 + [(1, 1)] * 2)
    with pytest.raises(ValueError, match=r"val holds no image of class 1; .*'val': \{0: \d, 1: 0\}.* from 11 patients"):
        assign_splits(table, FRACTIONS, seed=0)
    with pytest.raises(ValueError, match="train holds no image of class 0"):
        assign_splits(make_table([(1,)] * 9), FRACTIONS, seed=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(eyes, max_size=30), st.integers(0, 5), st.randoms(use_true_random=False))
def test_balance_is_even_and_independent_of_row_order(patients, seed, random):
    table = make_table(pure + patients)
    drawn = balance(table, None, seed)
    counts = drawn["label"].value_counts()
    assert counts[0] == counts[1] == table["label"].value_counts().min()
    assert drawn["image_id"].is_unique
    pd.testing.assert_frame_equal(drawn, table.loc[drawn.index])
    rows = list(table.index)
    random.shuffle(rows)
    pd.testing.assert_frame_equal(balance(table.loc[rows], None, seed), drawn)


def test_balance_keeps_patients_whole():
    drawn = balance(make_table([(0, 0)] * 10 + [(1, 1)] * 5), 8, seed=0)
    assert drawn.groupby("patient_id").size().tolist() == [2] * 4


def test_balance_depends_on_the_seed():
    table = make_table([(0, 0)] * 10 + [(1, 1)] * 5)
    assert not balance(table, 8, seed=0).equals(balance(table, 8, seed=1))


def test_balance_refuses_one_class_and_too_few():
    with pytest.raises(ValueError, match=r"there are 5 images labeled 0 and 0 images labeled 1, expected both"):
        balance(make_table([(0,)] * 5), None, seed=0)
    with pytest.raises(ValueError, match=r"expected at least 3 of each"):
        balance(make_table([(0,)] * 5 + [(1,)] * 2), 6, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, "train", "test"])), min_size=3, max_size=30),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_patients_without_labels_are_dealt_whole_and_an_official_split_is_kept(patients, seed, random):
    rows = [(f"P{i:03d}", split) for i, (n, split) in enumerate(patients) for _ in range(n)]
    table = pd.DataFrame(rows, columns=["patient_id", "split"]).assign(image_id=[f"i{k:03d}" for k in range(len(rows))])
    dealt = deal_patients(table, FRACTIONS, seed)
    assert dealt.isin(["train", "val", "test"]).all() and dealt.index.equals(table.index)
    assert table.assign(split=dealt).groupby("patient_id")["split"].nunique().max() == 1
    assert (dealt[table["split"] == "test"] == "test").all()
    trained = dealt[table["split"] == "train"]
    assert trained.isin(["train", "val"]).all() and (trained.empty or "train" in set(trained))
    free = table["split"].isna()
    if table["patient_id"][free].nunique() >= 3:
        assert set(dealt[free]) == {"train", "val", "test"}
    shuffled = list(table.index)
    random.shuffle(shuffled)
    pd.testing.assert_series_equal(deal_patients(table.loc[shuffled], FRACTIONS, seed).sort_index(), dealt)


def test_subset_split_and_manifest():
    cohort = make_cohort()
    val = cohort.split("val")
    assert (len(val), val.labels.tolist(), val.table.index.tolist()) == (1, [1], [0])
    np.testing.assert_array_equal(val.images[0], cohort.images[1])
    assert val.manifest()[[f"{lesion}_px" for lesion in profiles.ANNOTATIONS]].iloc[0].tolist() == [0, 0, 8, 0, 0]
    picked = cohort.subset(np.array([2, 0]))
    assert picked.table["image_id"].tolist() == ["i2", "i0"]
    np.testing.assert_array_equal(picked.masks, cohort.masks[[2, 0]])
    assert len(cohort.subset(np.array([True, False, True]))) == 2
    with pytest.raises(ValueError, match=r"'valid'.*train, val, test"):
        cohort.split("valid")


def test_labels_refuse_ungraded_images():
    with pytest.raises(ValueError, match="1 of 3 images have no label"):
        _ = make_cohort((0, None, 1)).labels


def test_digest_sees_every_part():
    cohort = make_cohort()
    assert cohort.digest == make_cohort().digest
    digests = {cohort.digest, make_cohort((1, 1, 1)).digest, cohort.subset(np.array([0, 1])).digest}
    for name in ("images", "masks"):
        changed = make_cohort()
        getattr(changed, name)[0, 0, 0, 0] ^= 1
        digests.add(changed.digest)
    digests.add(Cohort(cohort.table, cohort.images, None).digest)
    assert len(digests) == 6


def test_synthetic_profile_is_one_balanced_cohort(store):
    profile = profiles.get_profile("synthetic", n_images=32, image_size_px=64)
    segmentation, cohort = load_cohorts(profile, store)
    assert segmentation is cohort
    assert cohort.images.shape == (32, 3, 64, 64) and cohort.images.dtype == np.uint8
    assert cohort.masks.shape == (32, len(profiles.ANNOTATIONS), 64, 64) and cohort.masks.dtype == bool
    assert Counter(cohort.labels) == {0: 16, 1: 16}
    assert cohort.table.drop_duplicates(["patient_id", "split"])["patient_id"].is_unique
    assert tuple(cohort.table.columns[: len(COLUMNS)]) == COLUMNS and (cohort.table["width_px"] == 64).all()
    stored, _ = load_cohorts(profile, store)
    assert stored.digest == cohort.digest, "the stored copy is the computed one"
    other, _ = load_cohorts(profiles.get_profile("synthetic", n_images=32, image_size_px=64, seed=1), store)
    assert other.digest != cohort.digest


def test_open_profile_reads_both_sources(data_root, profile, store):
    segmentation, diagnosis = load_cohorts(profile, store)
    assert segmentation.images.shape == (10, 3, 32, 32)
    assert Counter(segmentation.table["split"]) == {"train": 7, "val": 1, "test": 2}
    assert segmentation.table["split"].tolist()[-2:] == ["test", "test"], "the official test images stay"
    assert segmentation.lesion_notes == {"edema": idrid.EDEMA_NOTE}
    # 8x16 of 48x64 pixels at rows 8:16, columns 8:24 become rows 5.33:10.67, columns 4:12 of 32x32
    expected = np.zeros((32, 32), bool)
    expected[5:11, 4:12] = True
    for image, lesion in np.ndindex(segmentation.masks.shape[:2]):
        absent = (image, profiles.ANNOTATIONS[lesion]) == (1, "hemorrhages")
        np.testing.assert_array_equal(segmentation.masks[image, lesion], expected & (not absent))
    assert diagnosis.masks is None
    assert Counter(diagnosis.labels) == {0: 12, 1: 12}
    assert diagnosis.manifest()["edema_px"].isna().all()
    assert [c.digest for c in load_cohorts(profile, store)] == [segmentation.digest, diagnosis.digest]


def test_all_labeled_photographs_of_the_open_profile_are_more_than_the_balanced_ones(data_root, profile, store):
    for path in (data_root / "srahim").rglob("Patient007*"):
        path.unlink()
    everything, balanced = all_labeled(profile, store), load_cohorts(profile, store)[1]
    assert len(everything) == 22 > len(balanced)
    rows = everything.table.set_index("image_id").loc[balanced.table["image_id"]]
    np.testing.assert_array_equal(rows["label"], balanced.table["label"])
    index = everything.table["image_id"].tolist().index(balanced.table["image_id"][3])
    np.testing.assert_array_equal(everything.images[index], balanced.images[3])


def test_open_profile_keeps_image_and_row_together(data_root, profile, store):
    for path in (data_root / "srahim").rglob("Patient007*"):
        path.unlink()
    _, diagnosis = load_cohorts(profile, store)
    assert len(diagnosis) == 20, "balanced to the smaller class"
    files = {path.stem.replace("-", "_"): path for path in (data_root / "srahim").rglob("*.jpg")}
    for image, name, digest in zip(
        diagnosis.images, diagnosis.table["image_id"], diagnosis.table["sha256"], strict=True
    ):
        np.testing.assert_array_equal(image, read_image(files[name], 32, crop_field=False)[0])
        assert digest == hashlib.sha256(files[name].read_bytes()).hexdigest()


def test_open_profile_notices_a_changed_mask(data_root, profile, store):
    before, _ = load_cohorts(profile, store)
    path = next((data_root / "idrid").rglob("IDRiD_01_EX.tif"))
    upper = np.zeros((48, 64), bool)
    upper[:18] = True
    save_mask(path, upper)
    after, _ = load_cohorts(profile, store)
    assert not before.masks[0, 0, :8].all()
    assert after.masks[0, 0, :8].all()


def test_an_inverted_mask_is_refused_with_the_question(data_root, profile, store):
    path = next((data_root / "idrid").rglob("IDRiD_01_EX.tif"))
    save_mask(path, ~read_mask(path))
    with pytest.raises(ValueError, match=r"IDRiD_01_EX\.tif marks \d+% of the field of view, .* invert it"):
        load_cohorts(profile, store)


@pytest.mark.parametrize("data", [b"", b"not an image"])
def test_open_profile_names_an_unreadable_image_and_stores_nothing(data_root, profile, store, data):
    next((data_root / "idrid").rglob("IDRiD_04.jpg")).write_bytes(data)
    with pytest.raises(
        ValueError, match=r"IDRiD_04\.jpg is (empty|not an image that can be read), expected one of JPEG"
    ):
        load_cohorts(profile, store)
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_open_profile_refuses_a_mask_of_another_size(data_root, profile, store):
    save_mask(next((data_root / "idrid").rglob("IDRiD_02_MA.tif")), np.ones((48, 60), bool))
    with pytest.raises(
        ValueError, match=r"IDRiD_02_MA\.tif has 60x48 pixels, expected 64x48 pixels as its photograph IDRiD_02\.jpg"
    ):
        load_cohorts(profile, store)


def test_open_profile_refuses_one_class(data_root, profile, store):
    for path in (data_root / "srahim" / srahim.CLASSES / "3 - Mild DR with maculopathy").iterdir():
        path.rename(path.parent.with_name("1 - No DR") / path.name)
    (data_root / "srahim" / srahim.CLASSES / "3 - Mild DR with maculopathy").rmdir()
    with pytest.raises(ValueError, match=r"there are 24 images labeled 0 and 0 images labeled 1"):
        load_cohorts(profile, store)


def test_missing_data_root(tmp_path, monkeypatch, profile, store):
    monkeypatch.setenv("RURANET_DATA_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"2 of 2 data sets are missing below .*nowhere \(RURANET_DATA_ROOT\)"):
        load_cohorts(profile, store)
    monkeypatch.delenv("RURANET_DATA_ROOT")
    with pytest.raises(FileNotFoundError, match=r"data.raw.srahim from https://github.com/SRahimDR"):
        load_cohorts(profile, store)


def test_paper_profile_says_what_to_fetch(store, monkeypatch):
    monkeypatch.delenv("RURANET_DATA_ROOT", raising=False)
    with pytest.raises(FileNotFoundError, match=r"data.raw.refuge2 from https://refuge\.grand-challenge\.org"):
        load_cohorts(profiles.get_profile("paper"), store)


@pytest.fixture
def six_sources(tmp_path, monkeypatch):
    """All six Kaggle sources, small; the vessel sets share a photograph, part C of IDRiD repeats part B."""
    root = tmp_path / "raw"
    make_retinal_lesions(root / "retinal_lesions")
    make_vessels(root / "retinal_vessel_segmentation_combined")
    for seed in range(4):
        save_photograph(root / "retinal_vessel_segmentation/images" / f"v{seed}.png", 300 + seed)
    shared = root / "retinal_vessel_segmentation_combined/Training/images/21_training.tif"
    Image.open(shared).resize((90, 70)).save(root / "retinal_vessel_segmentation/images/21.png")
    for seed in range(12):
        split = ("train", "val", "test")[seed % 3]
        save_photograph(root / "refuge2/REFUGE2" / split / "images" / f"g{seed}.jpg", 400 + seed)
    make_grades(make_idrid(root / "idrid"), train="0120212021", test="0212")
    for folder in idrid.SPLITS.values():
        shutil.copytree(
            root / "idrid/B. Disease Grading/1. Original Images" / folder,
            root / "idrid/C. Localization/1. Original Images" / folder,
        )
    for seed in range(3):
        save_photograph(root / "final_clean_haemorrhage/images" / f"h{seed}.png", 900 + seed)
        save_mask(root / "final_clean_haemorrhage/labels" / f"h{seed}.png", np.eye(48, 64, dtype=bool))
    monkeypatch.setenv("RURANET_DATA_ROOT", str(root))
    return root


def paper(**changes) -> profiles.Profile:
    return profiles.get_profile("paper", image_size_px=64, patch_size_px=32, split=(0.5, 0.25, 0.25), **changes)


def test_graded_negatives_come_from_one_camera_and_assumed_ones_tell_the_class(six_sources, store):
    graded, assumed = (load_cohorts(paper(n_images=8, negatives=name), store)[1] for name in ("graded", "assumed"))
    assert set(graded.table["source"]) == {"idrid"} and not graded.table["assumed"].any()
    told = [confounds(cohort.table, ("source",)).loc[0, "accuracy"] for cohort in (graded, assumed)]
    assert told[0] == 0.5 < 0.7 < told[1]
    pd.testing.assert_frame_equal(graded.audit, assumed.audit)


def test_a_photograph_that_trains_the_segmentation_never_tests_the_diagnosis(six_sources, store):
    make_grades(six_sources / "idrid", train="02" * 12, test="02" * 3)
    parts = [six_sources / "idrid" / part / idrid.IMAGES for part in ("A. Segmentation", "B. Disease Grading")]
    for split, numbers in (("train", (1, 2, 3)), ("test", (4, 5))):
        for number in numbers:  # the same photographs with masks and with grades
            copy = parts[1] / idrid.SPLITS["train"] / f"IDRiD_{number:03d}.jpg"
            shutil.copy(parts[0] / idrid.SPLITS[split] / f"IDRiD_{number:02d}.jpg", copy)
    segmentation, diagnosis = load_cohorts(paper(n_images=24), store)
    joined = segmentation.table.merge(diagnosis.table, on="patient_id", suffixes=("", "_diagnosis"))
    assert len(joined) >= 4
    assert ((joined["split"] == "test") == (joined["split_diagnosis"] == "test")).all()


def test_paper_profile_merges_six_sources(six_sources, store):
    profile = paper(n_images=16, negatives="assumed")
    segmentation, diagnosis = load_cohorts(profile, store)
    assert Counter(segmentation.table["source"]) == {"retinal_lesions": 2, "idrid": 5, "final_clean_haemorrhage": 3}
    assert segmentation.masks.any(axis=(2, 3)).any(axis=1).all()
    assert Counter(diagnosis.labels) == {0: 8, 1: 8}
    assert set(diagnosis.table["label_rule"][diagnosis.table["assumed"]]) <= {
        source.label_rule for source in SOURCES.values() if source.assumed
    }
    for cohort in (segmentation, diagnosis):
        assert (cohort.table["dropped"] == "").all() and cohort.table.groupby("patient_id")[
            "split"
        ].nunique().max() == 1
    audit = diagnosis.audit
    dropped = audit[audit["dropped"] == "duplicate"]
    assert set(dropped["image_id"][dropped["source"] == "idrid"].str[0]) == {"C"} and len(dropped) == 14 + 1
    assert dropped["duplicate_of"].str.startswith("retinal_vessel_segmentation/").sum() == 1
    again = load_cohorts(profile, store)
    assert [cohort.digest for cohort in again] == [segmentation.digest, diagnosis.digest]
    pd.testing.assert_frame_equal(again[1].audit, audit)


def test_masks_take_part_though_a_copy_with_a_label_is_preferred(six_sources, store):
    masked = next((six_sources / "idrid/A. Segmentation" / idrid.IMAGES / idrid.SPLITS["train"]).iterdir())
    shutil.copy(masked, six_sources / "retinal_vessel_segmentation/images/copy.jpg")
    profile = paper(n_images=16, negatives="assumed")
    segmentation, diagnosis = load_cohorts(profile, store)
    audit = diagnosis.audit.set_index("image_id")
    assert audit.loc[masked.stem, ["dropped", "duplicate_of"]].tolist() == [
        "duplicate", "retinal_vessel_segmentation/images/copy"
    ]  # fmt: skip
    assert masked.stem in set(segmentation.table["image_id"]) and segmentation.table["image_id"].is_unique
    assert (segmentation.table["dropped"] == "").all()


@real_data
def test_real_conflicts_are_dropped_with_and_without_the_hashes_of_the_originals(tmp_path, monkeypatch, store):
    (tmp_path / "data").mkdir()
    profile = profiles.get_profile("open", image_size_px=96, patch_size_px=32)
    for folders in (["idrid", "srahim", "manifests"], ["idrid", "srahim"]):
        root = tmp_path / str(len(folders))
        root.mkdir()
        for name in folders:
            (root / name).symlink_to(DATA / name)
        monkeypatch.setenv("RURANET_DATA_ROOT", str(root))
        with pytest.warns(UserWarning, match=r"different labels: srahim/Patient299_L \(1\)"):
            segmentation, diagnosis = load_cohorts(profile, store)
        dropped = diagnosis.audit[diagnosis.audit["dropped"] != ""]
        assert set(dropped["image_id"]) == {"Patient299_L", "Patient299_R", "Patient300_L", "Patient300_R"}
        assert set(dropped["dropped"]) == {"conflict"}
        assert Counter(diagnosis.labels) == {0: 87, 1: 87}
        assert Counter(segmentation.table["split"]) == {"train": 47, "val": 7, "test": 27}
