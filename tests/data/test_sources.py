"""The adapters, on small copies of the published folder trees and, where it is at hand, on the real data."""

import gzip
import shutil
from collections import Counter

import numpy as np
import pytest

from ruranet_utils import profiles
from ruranet_utils.data.masks import read_mask
from ruranet_utils.data.reading import read_image
from ruranet_utils.data.sources import (
    READERS,
    SOURCES,
    haemorrhage,
    idrid,
    refuge2,
    require,
    retinal_lesions,
    srahim,
    vessels,
)
from ruranet_utils.storage import paths
from tests.data.trees import (
    ADED,
    DATA,
    MILD_DME,
    NO_DR,
    SEVERE,
    make_grades,
    make_idrid,
    make_retinal_lesions,
    make_srahim,
    make_vessels,
    real_data,
    save_mask,
    save_photograph,
)


@pytest.fixture
def idrid_root(tmp_path):
    return make_idrid(tmp_path / "idrid")


@pytest.fixture
def srahim_root(tmp_path):
    return make_srahim(tmp_path / "srahim")


def test_idrid_declares_split_and_masks(idrid_root):
    records = idrid.records(idrid_root, "A")
    assert [r.image_id for r in records] == [f"IDRiD_{i:02d}" for i in range(1, 6)]
    assert [r.split for r in records] == ["train"] * 3 + ["test"] * 2
    assert {r.label for r in records} == {None}
    assert len({r.patient_id for r in records}) == 5
    assert "hemorrhages" not in records[1].mask_paths
    assert records[0].mask_paths["edema"].name == "IDRiD_01_OD.tif"
    assert set(records[0].mask_paths) == set(profiles.ANNOTATIONS)


def test_missing_root_says_what_was_expected(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1\. Original Images.*found \['elsewhere'\]"):
        idrid.records(tmp_path, "A")
    with pytest.raises(FileNotFoundError, match=r"10 classes.*found \['elsewhere'\]"):
        srahim.records(tmp_path)


def test_idrid_empty_folder(idrid_root):
    folder = idrid_root / "A. Segmentation" / idrid.IMAGES / "b. Testing Set"
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(ValueError, match=r"no image in .*b\. Testing Set"):
        idrid.records(idrid_root, "A")


def test_idrid_mask_without_image(idrid_root):
    (idrid_root / "A. Segmentation" / idrid.IMAGES / "a. Training Set" / "IDRiD_03.jpg").unlink()
    with pytest.raises(ValueError, match=r"IDRiD_03_EX\.tif belongs to no image"):
        idrid.records(idrid_root, "A")


def test_idrid_mask_of_another_lesion(idrid_root):
    folder = idrid_root / "A. Segmentation" / idrid.MASKS / "a. Training Set" / "3. Hard Exudates"
    (folder / "IDRiD_03_EX.tif").rename(folder / "IDRiD_03_MA.tif")
    with pytest.raises(ValueError, match=r"IDRiD_03_MA\.tif .*expected <image>_EX"):
        idrid.records(idrid_root, "A")


def test_idrid_image_without_any_mask(idrid_root):
    save_photograph(idrid_root / "A. Segmentation" / idrid.IMAGES / "a. Training Set" / "IDRiD_77.jpg", 77)
    with pytest.raises(ValueError, match=r"IDRiD_77\.jpg has no mask"):
        idrid.records(idrid_root, "A")


@pytest.mark.parametrize("second", ["a. Training Set/IDRiD_01.JPG", "a. Training Set/IDRiD_01.png"])
def test_idrid_two_images_of_one_name(idrid_root, second):
    images = idrid_root / "A. Segmentation" / idrid.IMAGES
    shutil.copy(images / "a. Training Set" / "IDRiD_01.jpg", images / second)
    if len(list((images / "a. Training Set").iterdir())) == 3:
        pytest.skip("the file system does not tell letter case")
    with pytest.raises(ValueError, match=r"same name: .*IDRiD_01.* and .*IDRiD_01"):
        idrid.records(idrid_root, "A")


def test_idrid_image_in_both_splits(idrid_root):
    part = idrid_root / "A. Segmentation"
    for top, name in ((idrid.IMAGES, "IDRiD_01.jpg"), (idrid.MASKS, "3. Hard Exudates/IDRiD_01_EX.tif")):
        shutil.copy(part / top / "a. Training Set" / name, part / top / "b. Testing Set" / name)
    with pytest.raises(ValueError, match="two images named IDRiD_01"):
        idrid.records(idrid_root, "A")


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


def test_srahim_finds_conflicts_in_the_manifest_of_the_originals(srahim_root):
    """The files differ here, or one is absent: only the published hashes tell that they are one photograph."""
    manifest = srahim_root.parent / "manifests" / "srahim_originals.sha256"
    manifest.parent.mkdir()
    lines = [("a" * 64, NO_DR, "Patient001_L"), ("a" * 64, MILD_DME, "Patient008_R")]
    lines += [("b" * 64, MILD_DME, "Patient009_L"), ("b" * 64, SEVERE, "Patient300_L")]
    lines += [("c" * 64, NO_DR, "Patient003_L"), ("c" * 64, ADED, "Patient099_L")]
    manifest.write_text("".join(f"{digest}  ./{srahim.CLASSES}/{c}/{name}.jpg\n" for digest, c, name in lines))
    disputed = {r.image_id: r.disputed_by for r in srahim.records(srahim_root) if r.disputed_by}
    assert disputed == {
        "Patient001_L": "Patient008_R", "Patient008_R": "Patient001_L", "Patient009_L": "Patient300_L"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{NO_DR}/Patient1.jpg", r"Patient1\.jpg has an unknown name, expected"),
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


@real_data
def test_real_idrid_is_complete():
    records = idrid.records(DATA / "idrid", "A")
    masks = Counter(lesion for r in records for lesion in r.mask_paths)
    assert Counter(r.split for r in records) == {"train": 54, "test": 27}
    assert [masks[lesion] for lesion in profiles.ANNOTATIONS] == [81, 81, 80, 81, 40]
    assert masks["soft_exudates"] == 40
    assert [r.image_id for r in records if "hemorrhages" not in r.mask_paths] == ["IDRiD_43"]


@real_data
def test_real_rgba_mask_has_the_area_of_its_red_pixels():
    record = next(r for r in idrid.records(DATA / "idrid", "A") if r.image_id == "IDRiD_81")
    mask = read_mask(record.mask_paths["hard_exudates"])
    assert mask.shape == (2848, 4288)
    assert mask.sum() == 312918


@real_data
def test_real_srahim_counts_and_conflicts():
    root = DATA / "srahim"
    assert len(list(root.rglob("*.jpg"))) == 402
    records = srahim.records(root)
    assert Counter(r.label for r in records) == {0: 307, 1: 89}
    assert {r.image_id: r.disputed_by for r in records if r.disputed_by} == {
        f"Patient{a}_{eye}": f"Patient{b}_{eye}" for a, b in ((299, 300), (300, 299)) for eye in "LR"
    }
    assert "Patient254_R" in {r.image_id for r in records}


@pytest.mark.parametrize(
    "above", ["A.%20Segmentation/A. Segmentation", "A. Segmentation/A. Segmentation", ".", "x/y/A"]
)
def test_part_a_is_found_wherever_it_lies(idrid_root, tmp_path, above):
    moved = tmp_path / "moved"
    shutil.copytree(idrid_root / "A. Segmentation", moved / above)
    found = [record.image_id for record in idrid.records(moved, "A")]
    assert found == [record.image_id for record in idrid.records(idrid_root, "A")]


def test_a_part_that_is_there_twice_is_refused_with_both_folders(idrid_root):
    shutil.copytree(idrid_root / "A. Segmentation", idrid_root / "copy")
    with pytest.raises(ValueError, match=r"'A. Segmentation' twice, in .*A. Segmentation and .*copy"):
        idrid.records(idrid_root, "A")


# IDRiD part B: grades


def test_idrid_grades_by_risk_of_macular_edema(tmp_path):
    records = idrid.records(make_grades(tmp_path), "B")
    assert {record.image_id: record.label for record in records} == {
        "B_train_IDRiD_001": 0,
        "B_train_IDRiD_002": 1,
        "B_train_IDRiD_003": 1,
        "B_test_IDRiD_001": 0,
        "B_test_IDRiD_002": 1,
    }
    assert [record.label_rule[-1] for record in records] == list("01202")
    assert len({record.patient_id for record in records}) == 5 and {record.split for record in records} == {None}


def test_parts_a_and_b_of_idrid_do_not_mix(idrid_root):
    make_grades(idrid_root)
    records = idrid.records(idrid_root, "AB")
    assert len({record.image_id for record in records}) == len(records) == 10
    assert all((record.label is None) == bool(record.mask_paths) for record in records)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",3,2", ",3,3"), r"labels other than .* for: IDRiD_003 \(1 in all\)"),
        (lambda text: text.replace("IDRiD_002", "IDRiD_009"), "labels images that are not there: IDRiD_009"),
        (lambda text: text.replace("IDRiD_002", "IDRiD_001"), "labels an image twice: IDRiD_001"),
        (lambda text: "\n".join(text.splitlines()[:3]) + "\n", "lacks the label of: IDRiD_003"),
        (lambda text: text.replace("Risk of macular edema ", "Risk"), r"expected also \['Risk of macular edema'\]"),
    ],
    ids=["another grade", "no image", "twice", "no label", "no column"],
)
def test_idrid_grades_must_fit_the_images(tmp_path, change, message):
    make_grades(tmp_path)
    file = tmp_path / "B. Disease Grading" / idrid.GRADES["train"]
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=message) as error:
        idrid.records(tmp_path, "B")
    assert str(file) in str(error.value)


# The other Kaggle sources


def test_retinal_lesions_declares_patients_eyes_and_masks(tmp_path):
    left, right = retinal_lesions.records(make_retinal_lesions(tmp_path))
    assert (left.image_id, left.patient_id, left.eye, right.eye) == ("10_left", "10", "L", "R")
    assert set(left.mask_paths) == {"microaneurysms", "hemorrhages", "hard_exudates", "soft_exudates"}
    assert set(right.mask_paths) == {"microaneurysms", "hemorrhages"} and left.label is None
    assert read_mask(left.mask_paths["microaneurysms"], left.unjudged).sum() == 64  # the border of 127 is no lesion


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda top: shutil.rmtree(top / "lesion_segs_896x896/10_left"),
            r"1 images without a folder of masks are used as not annotated: 10_left",
        ),
        (
            lambda top: (top / "images_896x896/10_left.jpg").unlink(),
            r"1 folders of masks without an image are ignored: 10_left",
        ),
    ],
)
def test_of_a_pair_of_retinal_lesions_one_may_be_missing(tmp_path, damage, message):
    damage(make_retinal_lesions(tmp_path) / "retinal-lesions-v20191227")
    (tmp_path / "__MACOSX/retinal-lesions-v20191227/images_896x896").mkdir(parents=True)
    with pytest.warns(UserWarning, match=message):
        records = retinal_lesions.records(tmp_path)
    assert {record.image_id: bool(record.mask_paths) for record in records}["10_right"]


def test_retinal_lesions_refuses_names_that_it_does_not_know(tmp_path):
    top = make_retinal_lesions(tmp_path) / "retinal-lesions-v20191227"
    for path in top.glob("*/10_left*"):
        path.rename(str(path).replace("left", "up"))
    with pytest.raises(ValueError, match="has an unknown name"):
        retinal_lesions.records(tmp_path)


def test_the_vessel_sets_are_read_as_published(tmp_path):
    """DRIVE with a GIF beside a TIFF, CHASE_DB1 with two graders beside its images, STARE packed by gzip."""
    photographs = ["DRIVE/test/images/01_test.tif", "DRIVE/training/images/21_training.tif", "CHASEDB1/Image_01L.jpg"]
    for seed, name in enumerate(photographs):
        save_photograph(tmp_path / name, seed)
    for name in (
        "DRIVE/test/1st_manual/01_manual1.gif",
        "DRIVE/test/2nd_manual/01_manual2.gif",
        "DRIVE/test/mask/01_test_mask.gif",
        "DRIVE/training/1st_manual/21_manual1.gif",
        "CHASEDB1/Image_01L_1stHO.png",
        "CHASEDB1/Image_01L_2ndHO.png",
        "STARE/labels-ah/im0001.ah.ppm",
        "__MACOSX/DRIVE/test/images/._01_test.tif",
    ):
        save_photograph(tmp_path / name, 9)
    packed = tmp_path / "STARE/stare-images/im0001.ppm.gz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress(save_photograph(tmp_path / "im0001.ppm", 5).read_bytes()))
    (tmp_path / "im0001.ppm").unlink()
    found = [record.image_path for record in vessels.records(tmp_path, vessels.SINGLE)]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in found) == sorted(
        [*photographs, "STARE/stare-images/im0001.ppm.gz"]
    )
    assert all(read_image(path, 32)[0].any() for path in found)


def test_two_masks_of_one_photograph_are_refused_where_masks_are_used(tmp_path):
    save_photograph(tmp_path / "images/Image_01L.jpg", 1)
    for grader in ("1stHO", "2ndHO"):
        save_mask(tmp_path / "masks" / f"Image_01L_{grader}.png", np.eye(48, 64, dtype=bool))
    with pytest.raises(ValueError, match=r"2ndHO\.png and .*1stHO\.png are both masks of .*Image_01L\.jpg"):
        haemorrhage.records(tmp_path)


def test_vessel_photographs_are_assumed_negative(tmp_path):
    records = vessels.records(make_vessels(tmp_path), vessels.COMBINED)
    assert sorted(record.image_id for record in records) == [
        "Test/Images/01_h",
        "Test/Images/im0001",
        "Training/images/21_training",
        "Training/images/Image_01L",
    ]
    assert {record.label for record in records} == {0} and not any(record.mask_paths for record in records)
    assert all("assumed" in record.label_rule for record in records) and vessels.COMBINED.assumed


def test_refuge2_declares_three_folders_as_assumed_negative(tmp_path):
    for split, names in (("train", ["g0001", "n0001"]), ("val", ["V0001"]), ("test", ["T0001"])):
        for name in names:
            save_photograph(tmp_path / "REFUGE2" / split / "images" / f"{name}.jpg", 1)
            save_photograph(tmp_path / "REFUGE2" / split / "mask" / f"{name}.bmp", 1)
    records = refuge2.records(tmp_path)
    assert [record.image_id for record in records] == ["train/g0001", "train/n0001", "val/V0001", "test/T0001"]
    assert {record.label for record in records} == {0} and refuge2.SOURCE.assumed
    shutil.rmtree(tmp_path / "REFUGE2" / "val")
    with pytest.raises(FileNotFoundError, match=r"expected the folder 'val/images'.*found \['test', 'train'\]"):
        refuge2.records(tmp_path)


def test_haemorrhage_masks_are_found_by_rule(tmp_path):
    for name in ("a b", "ü1", "c"):
        save_photograph(tmp_path / "Images" / f"{name}.png", 1)
    save_mask(tmp_path / "labels" / "a b.png", np.eye(48, 64, dtype=bool))
    save_mask(tmp_path / "labels" / "ü1_mask.png", np.eye(48, 64, dtype=bool))
    records = {record.image_path.stem: record for record in haemorrhage.records(tmp_path)}
    assert set(records["ü1"].mask_paths) == {"hemorrhages"} and records["c"].mask_paths == {}
    (tmp_path / "labels" / "z.png").write_bytes((tmp_path / "labels" / "a b.png").read_bytes())
    with pytest.raises(ValueError, match=r"z\.png matches no image, expected one image named z"):
        haemorrhage.records(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(ValueError, match=r"3 images in \['Images'\], 0 masks.*layout\.yml"):
        haemorrhage.records(tmp_path)


LAYOUT = "images: [Eyes/A, Eyes/B]\nmasks: [Drawn]\n"


@pytest.fixture
def odd_layout(tmp_path):
    """Folders that no rule knows."""
    for folder, name in (("Eyes/A", "1"), ("Eyes/B", "2")):
        save_photograph(tmp_path / folder / f"{name}.png", int(name))
    save_mask(tmp_path / "Drawn" / "2_mask.png", np.eye(48, 64, dtype=bool))
    return tmp_path


def test_a_layout_file_says_what_no_rule_finds(odd_layout, capsys):
    with pytest.raises(ValueError, match=r"images lie in \['Drawn', 'Eyes/A', 'Eyes/B'\].*layout\.yml"):
        haemorrhage.records(odd_layout)
    (odd_layout / "layout.yml").write_text(LAYOUT)
    records = {record.image_id: record for record in haemorrhage.records(odd_layout)}
    assert set(records) == {"Eyes/A/1", "Eyes/B/2"}
    assert [name for name, record in records.items() if record.mask_paths] == ["Eyes/B/2"]
    assert "2 images in ['Eyes/A', 'Eyes/B'], 1 masks in ['Drawn']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("photos: [Eyes/A]", r"has the keys \['photos'\], expected images"),
        ("images: [Eyes/C]", r"expected the folder 'C' in .*Eyes, found \['A', 'B'\]"),
        ("images: Eyes/A", r"expected lists of folders"),
        ("images: [Eyes/A\n", r"layout\.yml is not valid YAML"),
        ("- Eyes/A", r"expected lists of folders"),
    ],
)
def test_a_wrong_layout_file_is_refused(odd_layout, layout, message):
    (odd_layout / "layout.yml").write_text(layout)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        haemorrhage.records(odd_layout)


def test_the_example_in_the_data_card_is_a_layout(odd_layout):
    example = (paths.ROOT / "data/README.md").read_text().split("```yaml\n")[1].split("```")[0]
    for name in ("Train", "Test"):
        save_photograph(odd_layout / name / "Photos" / f"{name}.png", 1)
        save_mask(odd_layout / name / "Labels" / f"{name}.png", np.eye(48, 64, dtype=bool))
    (odd_layout / "layout.yml").write_text(example)
    assert all(record.mask_paths for record in haemorrhage.records(odd_layout))


def test_a_mask_of_two_images_or_none_is_refused(tmp_path):
    for folder in ("a/images", "b/images"):
        save_photograph(tmp_path / folder / "1.png", 1)
    save_mask(tmp_path / "labels" / "1.png", np.eye(48, 64, dtype=bool))
    with pytest.raises(ValueError, match=r"labels/1\.png matches \['a/images/1\.png', 'b/images/1\.png'\]"):
        haemorrhage.records(tmp_path)
    (tmp_path / "labels/1.png").rename(tmp_path / "labels/7.png")
    with pytest.raises(ValueError, match=r"labels/7\.png matches no image"):
        haemorrhage.records(tmp_path)


def test_a_folder_that_links_to_itself_is_walked_once(odd_layout):
    (odd_layout / "layout.yml").unlink(missing_ok=True)
    (odd_layout / "Eyes").rename(odd_layout / "images")
    (odd_layout / "images/A/1.png").rename(odd_layout / "images/1.png")
    (odd_layout / "Drawn").rename(odd_layout / "labels")
    save_mask(odd_layout / "labels/1_mask.png", np.eye(48, 64, dtype=bool))
    (odd_layout / "labels/2_mask.png").unlink()
    (odd_layout / "images/loop").symlink_to(odd_layout)
    assert [record.image_id for record in haemorrhage.records(odd_layout)] == ["images/1"]


# All of them


def test_every_source_declares_license_page_and_rules():
    assert set(SOURCES) == {*READERS}
    for name, source in SOURCES.items():
        if name == "folder":  # the reader's own
            continue
        assert source.name == name and source.license and source.citation and source.label_rule and source.patient_rule
        assert source.url.startswith("https://") and set(source.lesions) <= set(profiles.ANNOTATIONS)
        assert source.kaggle is None or source.kaggle.split("/")[2:] == ["versions", "1"]
        assert source.assumed == ("assumed" in source.label_rule)


def test_missing_sources_are_listed_with_their_pages(tmp_path):
    (tmp_path / "refuge2").mkdir()
    with pytest.raises(FileNotFoundError, match="2 of 3 data sets are missing") as error:
        require(["refuge2", "idrid", "srahim"], tmp_path)
    for part in (str(tmp_path / "idrid"), "github.com/SRahimDR", "ruranet data --source idrid --source srahim"):
        assert part in str(error.value)
