"""A reader's own photographs: what may lie in the folder, what is refused, and the cohort that comes of it."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ruranet_utils.data.cohort import load_cohorts
from ruranet_utils.data.sources import folder
from ruranet_utils.profiles import get_profile
from tests.data.trees import save_mask, save_photograph

NAMES = [f"Auge {i} é" for i in range(12)]
LESION = np.eye(48, 64, dtype=bool)


@pytest.fixture
def root(tmp_path):
    """Twelve photographs with blanks and accents in their names, and nothing else."""
    for i, name in enumerate(NAMES):
        save_photograph(tmp_path / "own" / "images" / f"{name}{('.jpg', '.PNG')[i % 2]}", i)
    (tmp_path / "own/images/.hidden.jpg").write_bytes(b"")
    (tmp_path / "own/images/notes.txt").write_text("no image")
    return tmp_path / "own"


def write_labels(root, rows, columns="image,label,patient"):
    (root / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")


def cohorts(root, store, **changes):
    profile = get_profile("folder", data_dir=str(root), image_size_px=64, patch_size_px=32, **changes)
    return load_cohorts(profile, store)


def test_images_alone_are_one_cohort_without_masks_or_labels(root, store):
    segmentation, diagnosis = cohorts(root, store)
    assert segmentation is diagnosis and len(diagnosis) == 12
    assert diagnosis.masks is None and not diagnosis.labeled and diagnosis.annotated == ()
    assert set(diagnosis.table["image_id"]) == set(NAMES) and set(diagnosis.table["split"]) == {"train", "val", "test"}
    assert diagnosis.manifest()["hard_exudates_px"].isna().all()


def test_labels_and_patients_come_from_the_table(root, store):
    names = [f"{name}.jpg" if i % 4 == 0 else name for i, name in enumerate(NAMES)]  # with or without ending
    write_labels(root, [f" {name} ,{int(i < 5)},P{i // 2}" for i, name in enumerate(names)])
    _, diagnosis = cohorts(root, store, split=(0.4, 0.3, 0.3))
    assert diagnosis.labeled and Counter(diagnosis.labels) == {0: 5, 1: 5}
    table = diagnosis.table.set_index("image_id")
    assert table.loc[NAMES[0], ["label", "patient_id", "label_rule"]].tolist() == [1, "P0", "labels.csv"]
    assert table.groupby("patient_id")["split"].nunique().max() == 1


def test_masks_make_a_segmentation_cohort_of_the_lesions_they_show(root, store):
    for name in NAMES[:6]:
        save_mask(root / "masks/hard_exudates" / f"{name}.png", LESION)
    save_mask(root / "masks/edema" / f"{NAMES[0]}.png", LESION)
    segmentation, diagnosis = cohorts(root, store)
    assert len(segmentation) == 6 and segmentation.annotated == ("hard_exudates", "edema")
    assert len(diagnosis) == 12 and diagnosis.masks.any(axis=(2, 3)).sum(axis=0).tolist() == [6, 0, 0, 1, 0]
    manifest = diagnosis.manifest().set_index("image_id")
    assert manifest.loc[NAMES[0], "edema_px"] > 0 and manifest.loc[NAMES[1], "edema_px"] == 0
    assert pd.isna(manifest.loc[NAMES[9], "edema_px"])


def test_copies_enter_once_and_contradicting_copies_not_at_all(root, store):
    Image.open(root / "images" / f"{NAMES[1]}.PNG").resize((90, 70)).save(root / "images/copy.png")
    assert len(cohorts(root, store)[1]) == 12
    write_labels(root, [f"{name},{i % 2}" for i, name in enumerate(NAMES)] + ["copy,0"], "image,label")
    with pytest.warns(UserWarning, match=rf"different labels: folder/{NAMES[1]} \(1\), folder/copy \(0\)"):
        _, diagnosis = cohorts(root, store, split=(0.4, 0.3, 0.3))
    assert not {"copy", NAMES[1]} & set(diagnosis.table["image_id"])


def test_the_same_folder_gives_the_same_manifest(root, store, tmp_path):
    first, second = (cohorts(root, type(store)(tmp_path / name))[1] for name in "ab")
    assert first.manifest().to_csv() == second.manifest().to_csv() and first.digest == second.digest


ALL = [f"{name},{i % 2}" for i, name in enumerate(NAMES)]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [*ALL, "stranger,1"],
            "image,label",
            r"names photographs that are not in images/: stranger \(1 in all\), expected names as in images/",
        ),
        (ALL[:-2], "image,label", rf"lacks the label of: {NAMES[10]}, {NAMES[11]} \(2 in all\)"),
        (
            [*ALL[:-1], f"{NAMES[11]},2"],
            "image,label",
            rf"has labels other than 0 and 1: {NAMES[11]} \(2\).*write 1 for",
        ),
        ([*ALL[:-1], f"{NAMES[11]},yes"], "image,label", rf"has labels other than 0 and 1: {NAMES[11]} \(yes\)"),
        ([*ALL[:-1], f"{NAMES[11]},"], "image,label", rf"has labels other than 0 and 1: {NAMES[11]} \(blank\)"),
        ([*ALL, ALL[0]], "image,label", rf"names a photograph twice: {NAMES[0]}"),
        (ALL, "file,grade", r"has the columns \['file', 'grade'\], expected a first row with image, label"),
    ],
)
def test_labels_must_fit_the_images(root, store, rows, columns, message):
    write_labels(root, rows, columns)
    with pytest.raises(ValueError, match=rf"labels\.csv {message}"):
        cohorts(root, store)
    assert not store.root.exists()


def test_an_empty_table_of_labels_is_named(root, store):
    (root / "labels.csv").write_text("")
    with pytest.raises(ValueError, match=r"labels\.csv is empty, expected a first row with image, label"):
        cohorts(root, store)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            "masks/hard_exudates/stranger.png",
            r"stranger\.png matches no image, expected the name of a file in .*images: rename",
        ),
        (
            "masks/drusen/Auge 1 é.png",
            "drusen is not named after a lesion, expected one folder for each of hard_exudates",
        ),
        (
            "masks/edema/Auge 1 é.tif",
            r"Auge 1 é\.tif has the same name as Auge 1 é\.png but for the suffix, expected one file of each name",
        ),
    ],
)
def test_masks_must_fit_the_images(root, store, mask, message):
    save_mask(root / "masks/edema/Auge 1 é.png", LESION)
    save_mask(root / mask, LESION)
    with pytest.raises(ValueError, match=message):
        cohorts(root, store)


def test_a_folder_without_images_says_what_is_there(tmp_path, store):
    save_photograph(tmp_path / "own/photos/eye.jpg", 0)
    with pytest.raises(FileNotFoundError, match=r"expected the folder 'images' in .*own, found \['photos'\]"):
        cohorts(tmp_path / "own", store)


def test_links_in_a_circle_are_named(root, store):
    (root / "images/circle.jpg").symlink_to("circle.jpg")
    with pytest.raises(OSError, match=r"symbolic links: .*circle\.jpg"):
        cohorts(root, store)
    (root / "images/circle.jpg").unlink()
    (root / "masks").symlink_to(root)  # a folder that holds itself
    with pytest.raises(ValueError, match=r"masks/images is not named after a lesion"):
        cohorts(root, store)


def test_what_systems_leave_behind_is_passed_over(root, store):
    for name in NAMES:
        save_mask(root / "masks/hard_exudates" / f"{name}.png", LESION)
    for name in ("masks/Thumbs.db", "masks/hard_exudates/desktop.ini", "masks/@eaDir/x", "masks/__MACOSX/x"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    assert cohorts(root, store)[0].annotated == ("hard_exudates",)


def test_a_suffix_that_all_masks_share_is_stripped_and_said(root):
    for name in NAMES[:3]:
        save_mask(root / "masks/hard_exudates" / f"{name}_EX.png", LESION)
    with pytest.warns(UserWarning, match="the suffix '_EX' of the masks' names is ignored"):
        masks = {record.image_id: record.mask_paths for record in folder.records(root)}
    assert masks[NAMES[2]]["hard_exudates"].name == f"{NAMES[2]}_EX.png" and not masks[NAMES[3]]
    save_mask(root / "masks/hard_exudates" / f"{NAMES[4]}_HE.png", LESION)
    with pytest.raises(ValueError, match="matches no image"):
        folder.records(root)


@pytest.mark.parametrize("name", ["synthetic", "open", "paper"])
def test_data_dir_belongs_to_the_profile_folder(name, root):
    with pytest.raises(ValueError, match=f"data_dir belongs to the profile folder, not to {name}"):
        get_profile(name, data_dir=str(root))
    with pytest.raises(ValueError, match="the profile folder needs data_dir"):
        get_profile("folder")


def test_every_file_is_declared_once(root):
    records = folder.records(root)
    assert [record.image_id for record in records] == sorted(NAMES)
    assert {record.source for record in records} == {"folder"} and not any(record.mask_paths for record in records)


def test_a_photograph_of_nobody_known_counts_as_a_patient(root):
    given = ["P1", " ", "", "P1 "] * 3
    write_labels(
        root,
        [f"{name},{number % 2},{patient}" for number, (name, patient) in enumerate(zip(NAMES, given, strict=True))],
    )
    found = {record.image_id: record.patient_id for record in folder.records(root)}
    assert found == {name: patient.strip() or name for name, patient in zip(NAMES, given, strict=True)}
