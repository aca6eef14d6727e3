"""The adapters, on small copies of the published folder trees and, where it is at hand, on the real data."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.transform import downscale_local_mean

from ruranet_utils import config, paths
from ruranet_utils.sources import idrid, kaggle, read_image, shrink_mask, srahim

DATA = paths.from_root(os.environ.get("RURANET_DATA_ROOT", "../shared/data"))
real_data = pytest.mark.skipif(not (DATA / "idrid").is_dir(), reason="the real data is not at hand")

NO_DR, MILD_DME, SEVERE, ADED = (
    "1 - No DR",
    "3 - Mild DR with maculopathy",
    "6 - Severe DR without maculopathy",
    "10 - ADED",
)


def save_photograph(path: Path, seed: int, size=(64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, lesion: np.ndarray, mode="P") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(lesion.astype(np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0])
    else:
        zero, opaque = np.zeros_like(lesion, np.uint8), np.full(lesion.shape, 255, np.uint8)
        image = Image.fromarray(np.dstack([lesion.astype(np.uint8) * 255, zero, zero, opaque]))
    image.save(path)
    return path


def make_idrid(root: Path, n_train=3, n_test=2) -> Path:
    """A tree with the quirks of the real one: the last EX mask is RGBA, the second image has no HE mask."""
    lesion = np.zeros((48, 64), bool)
    lesion[8:16, 8:24] = True
    numbers = {"train": range(1, n_train + 1), "test": range(n_train + 1, n_train + n_test + 1)}
    for split, folder in idrid.SPLITS.items():
        for i in numbers[split]:
            save_photograph(root / idrid.IMAGES / folder / f"IDRiD_{i:02d}.jpg", i)
            for name, code in idrid.LESION_FOLDERS.values():
                if (i, code) == (2, "HE"):
                    continue
                mode = "RGBA" if (i, code) == (n_train + n_test, "EX") else "P"
                save_mask(root / idrid.MASKS / folder / name / f"IDRiD_{i:02d}_{code}.tif", lesion, mode)
    return root


def make_srahim(root: Path, n_patients=6) -> Path:
    """Both eyes of ``n_patients`` of each label, one file with a hyphen and an image that carries no label."""
    for i in range(1, 2 * n_patients + 1):
        folder = NO_DR if i <= n_patients else MILD_DME
        for eye in "LR":
            separator = "-" if (i, eye) == (2, "R") else "_"
            path = root / srahim.CLASSES / folder / f"Patient{i:03d}{separator}{eye}.jpg"
            save_photograph(path, 1000 + 2 * i + (eye == "R"))
    save_photograph(root / srahim.CLASSES / ADED / "Patient099_L.jpg", 99)
    return root


@pytest.fixture
def idrid_root(tmp_path):
    return make_idrid(tmp_path / "idrid")


@pytest.fixture
def srahim_root(tmp_path):
    return make_srahim(tmp_path / "srahim")


def test_idrid_declares_split_and_masks(idrid_root):
    records = idrid.records(idrid_root)
    assert [r.image_id for r in records] == [f"IDRiD_{i:02d}" for i in range(1, 6)]
    assert [r.split for r in records] == ["train"] * 3 + ["test"] * 2
    assert {r.label for r in records} == {None}
    assert len({r.patient_id for r in records}) == 5
    assert "hemorrhages" not in records[1].mask_paths
    assert records[0].mask_paths["edema"].name == "IDRiD_01_OD.tif"
    assert set(records[0].mask_paths) == {*config.LESIONS, "soft_exudates"}


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_read_mask_gives_the_lesion_in_both_encodings(tmp_path, mode):
    lesion = np.random.default_rng(0).random((48, 64)) < 0.2
    np.testing.assert_array_equal(idrid.read_mask(save_mask(tmp_path / "m.tif", lesion, mode)), lesion)


@pytest.mark.parametrize("values", [np.full((4, 4), 2), np.array([[0, 255]])])
def test_read_mask_refuses_other_values(tmp_path, values):
    path = save_mask(tmp_path / "odd.tif", values)
    with pytest.raises(ValueError, match=rf"odd\.tif .*{values.max()}.*expected 0 and 1"):
        idrid.read_mask(path)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_read_mask_names_a_damaged_file(tmp_path):
    path = save_mask(tmp_path / "cut.tif", np.ones((48, 64), bool))
    path.write_bytes(path.read_bytes()[: 48 * 64 // 2])
    with pytest.raises(ValueError, match=r"cut\.tif cannot be read"):
        idrid.read_mask(path)


def test_missing_root_says_what_was_expected(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1\. Original Images.*found \['elsewhere'\]"):
        idrid.records(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"10 classes.*found \['elsewhere'\]"):
        srahim.records(tmp_path)


def test_idrid_empty_folder(idrid_root):
    folder = idrid_root / idrid.IMAGES / "b. Testing Set"
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(ValueError, match=r"no image in .*b\. Testing Set"):
        idrid.records(idrid_root)


def test_idrid_mask_without_image(idrid_root):
    (idrid_root / idrid.IMAGES / "a. Training Set" / "IDRiD_03.jpg").unlink()
    with pytest.raises(ValueError, match=r"IDRiD_03_EX\.tif belongs to no image"):
        idrid.records(idrid_root)


def test_idrid_mask_of_another_lesion(idrid_root):
    folder = idrid_root / idrid.MASKS / "a. Training Set" / "3. Hard Exudates"
    (folder / "IDRiD_03_EX.tif").rename(folder / "IDRiD_03_MA.tif")
    with pytest.raises(ValueError, match=r"IDRiD_03_MA\.tif .*expected <image>_EX"):
        idrid.records(idrid_root)


def test_idrid_image_without_any_mask(idrid_root):
    save_photograph(idrid_root / idrid.IMAGES / "a. Training Set" / "IDRiD_77.jpg", 77)
    with pytest.raises(ValueError, match=r"IDRiD_77\.jpg has no mask"):
        idrid.records(idrid_root)


@pytest.mark.parametrize("second", ["a. Training Set/IDRiD_01.JPG", "a. Training Set/IDRiD_01.png"])
def test_idrid_two_images_of_one_name(idrid_root, second):
    images = idrid_root / idrid.IMAGES
    shutil.copy(images / "a. Training Set" / "IDRiD_01.jpg", images / second)
    if len(list((images / "a. Training Set").iterdir())) == 3:
        pytest.skip("the file system does not tell letter case")
    with pytest.raises(ValueError, match=r"same name: .*IDRiD_01.* and .*IDRiD_01"):
        idrid.records(idrid_root)


def test_idrid_image_in_both_splits(idrid_root):
    for top, name in ((idrid.IMAGES, "IDRiD_01.jpg"), (idrid.MASKS, "3. Hard Exudates/IDRiD_01_EX.tif")):
        shutil.copy(idrid_root / top / "a. Training Set" / name, idrid_root / top / "b. Testing Set" / name)
    with pytest.raises(ValueError, match="two images named IDRiD_01"):
        idrid.records(idrid_root)


def test_srahim_parses_patient_eye_and_label(srahim_root):
    records = srahim.records(srahim_root)
    assert len(records) == 24, "the ungraded image is left out"
    assert Counter(r.label for r in records) == {0: 12, 1: 12}
    hyphen = next(r for r in records if r.image_path.name == "Patient002-R.jpg")
    assert (hyphen.image_id, hyphen.patient_id, hyphen.eye) == ("Patient002_R", "Patient002", "R")
    assert {r.patient_id for r in records if r.label} == {f"Patient{i:03d}" for i in range(7, 13)}


def test_srahim_label_rule_by_class():
    assert [name for name, label in srahim.LABELS.items() if label == 1] == [
        name for name in srahim.LABELS if "with maculopathy" in name
    ]
    assert [name for name, label in srahim.LABELS.items() if label is None] == [ADED]


def test_srahim_accepts_a_subset_of_the_patients(srahim_root):
    shutil.rmtree(srahim_root / srahim.CLASSES / MILD_DME)
    assert {r.label for r in srahim.records(srahim_root)} == {0}


def test_srahim_drops_identical_files_with_two_labels(srahim_root):
    top = srahim_root / srahim.CLASSES
    (top / SEVERE).mkdir()
    shutil.copy(top / MILD_DME / "Patient007_L.jpg", top / SEVERE / "Patient300_L.jpg")
    with pytest.warns(UserWarning, match=r"Patient007_L .*with.*Patient300_L .*without"):
        records = srahim.records(srahim_root)
    assert {"Patient007_L", "Patient300_L"}.isdisjoint(r.image_id for r in records)
    assert len(records) == 23, "the other eye stays"


def test_srahim_keeps_identical_files_with_one_label(srahim_root, recwarn):
    top = srahim_root / srahim.CLASSES / NO_DR
    shutil.copy(top / "Patient001_L.jpg", top / "Patient300_L.jpg")
    assert len(srahim.records(srahim_root)) == 25
    assert not recwarn.list


def test_srahim_finds_conflicts_in_the_manifest_of_the_originals(srahim_root):
    """The files differ here, or one is absent: only the published hashes tell that they are one photograph."""
    manifest = srahim_root.parent / "manifests" / "srahim_originals.sha256"
    manifest.parent.mkdir()
    lines = [("a" * 64, NO_DR, "Patient001_L"), ("a" * 64, MILD_DME, "Patient008_R")]
    lines += [("b" * 64, MILD_DME, "Patient009_L"), ("b" * 64, SEVERE, "Patient300_L")]
    lines += [("c" * 64, NO_DR, "Patient003_L"), ("c" * 64, ADED, "Patient099_L")]
    manifest.write_text("".join(f"{digest}  ./{srahim.CLASSES}/{c}/{name}.jpg\n" for digest, c, name in lines))
    everything = 24
    with pytest.warns(UserWarning, match="dropped"):
        kept = {r.image_id for r in srahim.records(srahim_root)}
    assert len(kept) == everything - 3
    assert kept.isdisjoint({"Patient001_L", "Patient008_R", "Patient009_L"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{NO_DR}/Patient1.jpg", r"Patient1\.jpg is not named as expected"),
        (f"{MILD_DME}/Patient001_L.jpg", r"two images named Patient001_L: .*No DR.*with maculopathy"),
        (f"{NO_DR}/Patient002_R.jpg", "two images named Patient002_R"),
        ("11 - New/Patient400_L.jpg", r"holds \['11 - New'\], expected some of"),
    ],
)
def test_srahim_refuses_a_layout_it_does_not_know(srahim_root, path, message):
    save_photograph(srahim_root / srahim.CLASSES / path, 5)
    with pytest.raises(ValueError, match=message):
        srahim.records(srahim_root)


def test_srahim_empty_folders(srahim_root, tmp_path):
    (srahim_root / srahim.CLASSES / SEVERE).mkdir()
    with pytest.raises(ValueError, match=r"no image in .*6 - Severe"):
        srahim.records(srahim_root)
    (tmp_path / "new" / srahim.CLASSES).mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no folder"):
        srahim.records(tmp_path / "new")


def test_kaggle_lists_what_is_missing(tmp_path):
    (tmp_path / "refuge2").mkdir()
    with pytest.raises(FileNotFoundError, match="not built yet") as error:
        kaggle.records(tmp_path)
    message = str(error.value)
    assert message.count("https://www.kaggle.com/datasets/") == 6
    assert message.count("missing:") == 5
    assert "https://www.kaggle.com/datasets/victorlemosml/refuge2" in message


def test_read_image_is_the_bicubic_resize_of_the_whole_file(tmp_path):
    path = save_photograph(tmp_path / "a.png", 0)
    image, shape = read_image(path, 32)
    assert shape == (48, 64)
    expected = np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))


def test_read_image_at_reduced_jpeg_scale_stays_close_to_the_full_decode(tmp_path):
    y, x = np.mgrid[:1024, :1536] / 8
    pixels = 127 + 100 * np.stack([np.sin(x + y), np.cos(x), np.sin(y)], axis=-1)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    image, shape = read_image(path, 200)
    assert shape == (1024, 1536)
    expected = np.asarray(Image.open(path).resize((200, 200), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(image.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"text"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_read_image_names_a_damaged_file(tmp_path, damage, suffix):
    path = save_photograph(tmp_path / f"damaged{suffix}", 0, size=(400, 300))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"damaged\{suffix} cannot be read as an image: \w+"):
        read_image(path, 32)


def test_shrink_mask_by_hand():
    """4x4 to 2x2: covered by 4, 1, 0 and 2 of 4 pixels; a quarter is enough."""
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(shrink_mask(mask, 2), [[True, True], [False, True]])


def test_shrink_mask_drops_less_than_a_quarter():
    mask = np.zeros((12, 12), bool)
    mask[0, :2] = True  # 2 of 9 pixels
    mask[6:7, 6:9] = True  # 3 of 9 pixels
    assert np.argwhere(shrink_mask(mask, 4)).tolist() == [[2, 2]]


def test_shrink_mask_agrees_with_block_means_and_mirrors():
    mask = np.random.default_rng(1).random((96, 160)) < 0.22
    expected = downscale_local_mean(mask.astype(float), (3, 5)) >= 0.25
    np.testing.assert_array_equal(shrink_mask(mask, 32), expected)
    np.testing.assert_array_equal(shrink_mask(mask[:, ::-1], 32), expected[:, ::-1])


@real_data
def test_real_idrid_is_complete():
    records = idrid.records(DATA / "idrid")
    masks = Counter(lesion for r in records for lesion in r.mask_paths)
    assert Counter(r.split for r in records) == {"train": 54, "test": 27}
    assert [masks[lesion] for lesion in config.LESIONS] == [81, 81, 80, 81]
    assert masks["soft_exudates"] == 40
    assert [r.image_id for r in records if "hemorrhages" not in r.mask_paths] == ["IDRiD_43"]


@real_data
def test_real_rgba_mask_has_the_area_of_its_red_pixels():
    record = next(r for r in idrid.records(DATA / "idrid") if r.image_id == "IDRiD_81")
    mask = idrid.read_mask(record.mask_paths["hard_exudates"])
    assert mask.shape == (2848, 4288)
    assert mask.sum() == 312918


@real_data
def test_real_srahim_counts_and_conflicts():
    root = DATA / "srahim"
    assert len(list(root.rglob("*.jpg"))) == 402
    with pytest.warns(UserWarning, match=r"Patient299_L.*Patient299_R.*Patient300_L.*Patient300_R"):
        records = srahim.records(root)
    assert Counter(r.label for r in records) == {0: 305, 1: 87}
    assert not {"Patient299", "Patient300"} & {r.patient_id for r in records}
    assert "Patient254_R" in {r.image_id for r in records}
