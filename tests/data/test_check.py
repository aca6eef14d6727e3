"""Folders that people have: read right, or refused with everything that is wrong, before anything is computed."""

import gzip
import io
import json
import os
import shutil
import struct

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from ruranet_utils.cli import main
from ruranet_utils.data.check import check
from ruranet_utils.data.cohort import load_cohorts
from ruranet_utils.data.sources import folder
from ruranet_utils.profiles import get_profile
from ruranet_utils.storage import paths

SIZE = (160, 128)


def eye(seed: int) -> tuple[Image.Image, np.ndarray]:
    """A photograph with vessels and a few exudates, and where these are."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    distance = np.hypot(x - SIZE[0] / 2, y - SIZE[1] / 2) / (0.48 * SIZE[1])
    pixels = (np.array([170, 80, 35]) + rng.integers(-25, 25, 3)) * (1.1 - 0.4 * distance)[..., None]
    for _ in range(8):
        slope, offset = rng.normal(0, 1), rng.uniform(0, SIZE[1])
        pixels[np.abs(y - offset - slope * (x - SIZE[0] / 2)) < 1.5] *= 0.6
    lesion = np.zeros(SIZE[::-1], bool)
    for _ in range(5):
        lesion |= np.hypot(x - SIZE[0] / 2 - rng.normal(0, 15), y - SIZE[1] / 2 - rng.normal(0, 15)) < 2.5
    pixels[lesion] = [230, 215, 120]
    pixels[distance > 1] = 3
    return Image.fromarray(np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)), lesion


EYES = [eye(seed) for seed in range(12)]
SHARE = float(np.mean([lesion.mean() for _, lesion in EYES]))
NAMES = [f"eye {number:02d}" for number in range(12)]
ROWS = [f"{name}.png,{number % 2},P{number // 2}" for number, name in enumerate(NAMES)]


def mask(lesion: np.ndarray) -> Image.Image:
    return Image.fromarray(lesion.astype(np.uint8) * 255)


@pytest.fixture
def root(tmp_path):
    """Twelve eyes of six patients with masks of hard exudates and labels."""
    root = tmp_path / "eyes"
    for where in ("images", "masks/hard_exudates"):
        (root / where).mkdir(parents=True)
    for name, (image, lesion) in zip(NAMES, EYES, strict=True):
        image.save(root / "images" / f"{name}.png")
        mask(lesion).save(root / "masks/hard_exudates" / f"{name}.png")
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *ROWS]) + "\n")
    return root


def remask(root, make, suffix=".png"):
    for name, (_, lesion) in zip(NAMES, EYES, strict=True):
        (root / "masks/hard_exudates" / f"{name}.png").unlink()
        make(lesion).save(root / "masks/hard_exudates" / f"{name}{suffix}", quality=95)


def profile(root, **changes):
    return get_profile("folder", data_dir=str(root), image_size_px=128, patch_size_px=64, **changes)


def found(root, **changes) -> str:
    """What was found wrong, one problem per line."""
    return "\n".join(map(str, check(root, profile(root, **changes)).problems))


def reads(root) -> dict:
    """What a folder without problems gives; the cohort must agree."""
    checked = check(root, profile(root))
    assert checked.usable, str(checked)
    return checked.reads


def test_a_good_folder_is_read_whole(root, store):
    expected = {"masks": 12, "empty": 0, "share": pytest.approx(SHARE)}
    labels = {"0": 6, "1": 6}
    assert reads(root) == {"photographs": 12, "patients": 6, "labels": labels, "masks": {"hard_exudates": expected}}
    segmentation, diagnosis = load_cohorts(profile(root), store)
    assert len(segmentation) == len(diagnosis) == 12 and len(set(diagnosis.patients)) == 6
    assert (diagnosis.aspect == 1).all()
    assert (load_cohorts(profile(root, crop_field=False), store)[1].aspect == 160 / 128).all()
    sides = pd.concat([segmentation.table, diagnosis.table]).groupby("patient_id")["split"].nunique()
    assert sides.max() == 1, "both splits are dealt together"


def anti_aliased(lesion):
    return mask(lesion).resize((331, 265)).resize(SIZE)


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (lambda lesion: Image.fromarray(lesion), ".png"),
        (lambda lesion: Image.fromarray(lesion.astype(np.uint16) * 256), ".png"),
        (lambda lesion: Image.fromarray(lesion.astype(np.float32)), ".tif"),
        (lambda lesion: Image.fromarray((lesion[..., None] * [51, 221, 51]).astype(np.uint8)), ".png"),
        (lambda lesion: Image.fromarray((lesion[..., None] * [0, 255, 0]).astype(np.uint8)), ".png"),
        (mask, "_EX.png"),
        (mask, ".bmp"),
        (mask, ".webp"),
    ],
    ids=["1 bit", "16 bits", "float", "CVAT's green", "green", "suffix", "BMP", "WebP"],
)
def test_masks_in_other_encodings_have_the_same_share(root, store, make, suffix):
    remask(root, make, suffix)
    assert reads(root)["masks"]["hard_exudates"]["share"] == pytest.approx(SHARE)


def test_soft_edges_are_said(root):
    remask(root, anti_aliased)
    with pytest.warns(UserWarning, match="soft edges of masks are cut at half"):
        assert reads(root)["masks"]["hard_exudates"]["share"] == pytest.approx(SHARE, rel=0.15)


@pytest.mark.parametrize(
    ("make", "suffix", "message"),
    [
        (
            lambda lesion: mask(~lesion),
            ".png",
            r"marks \d+% of the field of view, expected at most 50%: invert it",
        ),
        (lambda lesion: Image.fromarray(lesion.astype(np.uint8)), ".jpg", "is a lossy file whose brightest value is"),
        (lambda lesion: Image.fromarray(lesion.astype(np.uint8) * 3), ".png", "holds the values 0, 3"),
        (lambda lesion: mask(lesion).resize((80, 64), 0), ".png", r"has 80x64 pixels, expected 160x128 pixels as its"),
        (lambda lesion: mask(lesion).transpose(Image.Transpose.ROTATE_90), ".png", r"has 128x160 pixels"),
    ],
    ids=["inverted", "JPEG of 0 and 1", "label map", "half size", "turned"],
)
def test_masks_that_leave_doubt_are_refused_all_at_once(root, make, suffix, message):
    remask(root, make, suffix)
    problems = found(root).splitlines()
    assert len(problems) == 12
    assert pd.Series(problems).str.contains(message).all()


def test_that_a_mask_is_not_inverted_can_be_said(root, store):
    remask(root, lambda lesion: mask(~lesion))
    assert check(root, profile(root, max_mask_share=1.0)).usable
    assert load_cohorts(profile(root, max_mask_share=1.0), store)[0].masks[:, 0].mean() > 0.5


def test_bytes_behind_the_end_of_a_photograph_do_no_harm(root):
    image = EYES[0][0]
    image.save(root / "images/eye 00.jpg")
    (root / "images/eye 00.png").unlink()
    with (root / "images/eye 00.jpg").open("ab") as file:
        file.write(b"\0" * 9000)  # longer than what is looked at: the file is decoded to be sure
    assert reads(root)["photographs"] == 12


@pytest.mark.parametrize("turned", [True, False])
def test_masks_of_a_turned_photograph_are_read_as_they_were_drawn(root, store, turned):
    image, lesion = EYES[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    image.transpose(Image.Transpose.ROTATE_90).save(root / "images/eye 00.png", exif=exif)
    drawn = mask(lesion).transpose(Image.Transpose.ROTATE_90) if turned else mask(lesion)
    drawn.save(root / "masks/hard_exudates/eye 00.png")
    before = load_cohorts(profile(root), store)[1]
    row = before.table.index[before.table["image_id"] == "eye 00"][0]
    image.save(root / "images/eye 00.png")
    mask(lesion).save(root / "masks/hard_exudates/eye 00.png")
    after = load_cohorts(profile(root), store)[1]
    np.testing.assert_array_equal(before.masks[row], after.masks[row])
    np.testing.assert_array_equal(before.images[row], after.images[row])


def test_all_bad_photographs_are_named_at_once(root, store):
    image = EYES[0][0]
    image.convert("CMYK").save(root / "images/eye 01.jpg")
    image.convert("L").save(root / "images/eye 02.jpg")
    image.save(root / "images/eye 03.jpg")
    data = (root / "images/eye 03.jpg").read_bytes()
    (root / "images/eye 03.jpg").write_bytes(data[: len(data) // 2])
    (root / "images/eye 04.jpg").write_bytes(b"")
    data = (root / "images/eye 05.png").read_bytes()
    (root / "images/eye 05.png").write_bytes(data[: len(data) // 2])
    for number in range(1, 5):
        (root / f"images/eye 0{number}.png").unlink()
    text = found(root)
    for expected in (
        "01.jpg has the color mode CMYK",
        "02.jpg is gray (color mode L)",
        "03.jpg is cut off",
        "04.jpg is e",
    ):
        assert expected in text
    assert "05.png cannot be decoded" in text and text.count("\n") == 4
    with pytest.raises(ValueError, match="5 problems:") as error:
        load_cohorts(profile(root), store)
    assert str(error.value).count("\n") == 5


def test_what_only_decoding_shows_is_named_at_once_too(root, store, monkeypatch):
    for number in (1, 2):
        EYES[number][0].convert("L").convert("RGB").save(root / f"images/eye 0{number}.png")
    monkeypatch.setattr("ruranet_utils.data.check.MOST_GLANCES", 0)
    shutil.rmtree(root / "masks")
    assert check(root, profile(root)).usable, "headers alone are read of many photographs"
    with pytest.raises(ValueError, match=r"2 problems:\n.*01\.png shows only shades of gray.*\n.*02\.png shows"):
        load_cohorts(profile(root), store)


def test_other_suffixes_and_folders_are_read_and_the_rest_is_named(root):
    shutil.rmtree(root / "masks")
    (root / "labels.csv").unlink()
    (root / "images/right").mkdir()
    for number in range(6, 12):
        (root / f"images/eye {number:02d}.png").rename(root / f"images/right/eye {number:02d}.png")
    EYES[0][0].save(root / "images/eye 00.webp")
    (root / "images/eye 00.png").unlink()
    for suffix in (".dcm", ".jp2", ".heic", ".jfif", ".pgm", ""):
        (root / f"images/other{suffix}").write_bytes(b"not read")
    checked = check(root, profile(root))
    assert checked.usable and checked.reads["photographs"] == 12
    [note] = checked.notes
    assert "6 of the files and folders are not read" in note and "other.dcm" in note and "export DICOM as PNG" in note
    assert "right/eye 06" in folder.look(root).images


def test_a_label_and_a_mask_find_a_photograph_in_a_folder(root):
    (root / "images/left").mkdir()
    (root / "images/eye 00.png").rename(root / "images/left/eye 00.png")
    assert reads(root)["masks"]["hard_exudates"]["masks"] == 12
    EYES[0][0].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "images/eye 00.png")
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *ROWS, "left/eye 00.png,0,P0"]) + "\n")
    assert reads(root)["photographs"] == 13


@pytest.mark.parametrize("column", ["Patient", "PatientID", "patient_id", "Subject ID"])
def test_patients_are_found_under_common_names(root, column):
    (root / "labels.csv").write_text("\n".join([f"image,label,{column}", *ROWS]) + "\n")
    assert reads(root)["patients"] == 6


def test_patients_that_are_not_stated_are_said(root):
    (root / "labels.csv").write_text("\n".join(["image,label,pid", *ROWS]) + "\n")
    checked = check(root, profile(root))
    assert checked.reads["patients"] == 12
    assert any("ignored columns: pid; if one says who the patient is" in note for note in checked.notes)
    assert any("gives no patient for 12 photographs" in note for note in checked.notes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["yes", "no"], r"has labels other than 0 and 1: eye 00 \(yes\).*write 1 for macular edema"),
        (["0", "2"], r"\(2\)"),
    ],
)
def test_grades_and_words_are_refused_with_how_to_map_them(root, labels, message):
    rows = [f"{name},{labels[number % 2]}" for number, name in enumerate(NAMES)]
    (root / "labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    assert pd.Series(found(root)).str.contains(message).all()


def test_every_fault_of_the_labels_is_named_at_once(root):
    rows = [*ROWS[1:], ROWS[2], "stranger.png,1,P9"]
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")
    text = found(root)
    for expected in (
        "names a photograph twice: eye 02",
        "not in images/: stranger.png",
        "lacks the label of",
    ):
        assert expected in text


def test_without_a_lesion_in_any_mask_the_photographs_are_still_clustered(root, store):
    remask(root, lambda lesion: mask(lesion & False))
    checked = check(root, profile(root))
    assert checked.usable and any("all masks are empty" in note for note in checked.notes)
    segmentation, diagnosis = load_cohorts(profile(root), store)
    assert segmentation is diagnosis and len(diagnosis) == 12


def test_masks_of_one_patient_are_not_enough(root):
    for name in NAMES[2:]:
        (root / "masks/hard_exudates" / f"{name}.png").unlink()
    assert "holds masks of one patient, expected at least 3: training, validation and test need one each: add" in found(
        root
    )


def test_two_photographs_are_not_enough(root):
    shutil.rmtree(root / "masks")
    (root / "labels.csv").unlink()
    for name in NAMES[2:]:
        (root / "images" / f"{name}.png").unlink()
    assert "holds photographs of 2 patients, expected at least 3" in found(root)


def test_labels_of_one_class_are_refused_before_decoding(root):
    (root / "labels.csv").write_text("\n".join(["image,label", *(f"{name},1" for name in NAMES)]) + "\n")
    assert "labels.csv cannot be split (there are 0 images labeled 0 and 12 images labeled 1, expected both)" in found(
        root
    )


def test_over_long_names_are_refused_before_any_work(root):
    (root / "images/eye 00.png").rename(root / f"images/{'眼' * 80}.png")
    assert "has a name of 240 bytes, expected at most 220: shorten it, since" in found(root)


def test_a_burst_is_compared_with_what_stays(root, store):
    shutil.rmtree(root)
    (root / "images").mkdir(parents=True)
    for number in range(10):
        Image.fromarray(np.roll(np.asarray(EYES[0][0]), 8 * number, 1)).save(root / f"images/frame {number}.png")
    with pytest.warns(UserWarning, match="photographs that look like others are left out, .* in all: frame"):
        assert 3 <= len(load_cohorts(profile(root), store)[1]) < 10
    for path in (root / "images").glob("frame [2-9].png"):
        path.unlink()
    with (
        pytest.warns(UserWarning, match="photographs that look like others are left out, 1 in all"),
        pytest.raises(
            ValueError, match=r"holds 1 different photographs \(2 with duplicates\), expected at least 3: add others"
        ),
    ):
        load_cohorts(profile(root), store)


def test_folders_of_the_same_name_have_results_of_their_own(tmp_path):
    names = {paths.results(profile(tmp_path / where / "photos")) for where in "ab"}
    assert len(names) == 2 and all(name.startswith("folder/photos-") for name in names)


@pytest.mark.parametrize("spelling", ["Hard Exudates", "3. Hard Exudates", "EX", "exudates", "hard-exudates"])
def test_lesions_are_found_under_common_names(root, spelling):
    (root / "masks/hard_exudates").rename(root / "masks" / spelling)
    checked = check(root, profile(root))
    assert checked.usable and checked.reads["masks"]["hard_exudates"]["masks"] == 12
    assert any("is read as masks of hard_exudates" in note for note in checked.notes)


def test_a_lesion_in_two_folders_is_refused(root):
    shutil.copytree(root / "masks/hard_exudates", root / "masks/EX")
    assert "hard_exudates means hard_exudates, as EX does" in found(root)


def test_names_in_other_unicode_forms_and_cases_are_found(root):
    (root / "images/eye 00.png").rename(root / "images/Auge é.png")
    (root / "masks/hard_exudates/eye 00.png").rename(root / "masks/hard_exudates/auge e\u0301.png")
    rows = ["AUGE e\u0301.PNG,0,P0", *ROWS[1:]]
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")
    assert reads(root)["masks"]["hard_exudates"]["masks"] == 12


def white_is_zero(values: np.ndarray) -> bytes:
    """A TIFF whose zeros are white."""
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 8), (259, 3, 1), (262, 3, 0), (277, 3, 1), (278, 3, height)]
    tags = sorted([*tags, (273, 4, 8 + 2 + 12 * 9 + 4), (279, 4, values.size)])
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + struct.pack("<HH" if kind == 3 else "<I", *((value, 0) if kind == 3 else (value,)))
        for tag, kind, value in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + values.tobytes()


def test_where_white_is_zero_the_mask_is_read_as_shown(root):
    for name, (_, lesion) in zip(NAMES, EYES, strict=True):
        (root / "masks/hard_exudates" / f"{name}.png").unlink()
        shown = np.where(lesion, 0, 255).astype(np.uint8)  # zero is white
        (root / "masks/hard_exudates" / f"{name}.tif").write_bytes(white_is_zero(shown))
    assert reads(root)["masks"]["hard_exudates"]["share"] == pytest.approx(SHARE)


def test_the_command_prints_every_problem_and_its_exit_code_says_whether_there_is_one(root):
    done = CliRunner().invoke(main, ["check", str(root)])
    assert done.exit_code == 0, done.output
    assert "12 photographs of 6 patients, 6 labeled 0, 6 labeled 1" in done.output
    assert (
        f"12 masks of hard_exudates, covering {SHARE:.2%} of their photographs on average\n{root} is usable"
        in done.output
    )
    remask(root, lambda lesion: mask(~lesion))
    done = CliRunner().invoke(main, ["check", str(root)])
    assert done.exit_code == 1 and "not usable: 12 problems" in done.output
    done = CliRunner().invoke(main, ["check", str(root), "--json"])
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and len(said["problems"]) == 12 and not said["usable"]
    assert set(said["problems"][0]) == {"file", "found", "expected", "remedy"}
    assert said["problems"][0]["file"] == "masks/hard_exudates/eye 00.png"
    assert CliRunner().invoke(main, ["check", str(root), "--max-mask-share", "1"]).exit_code == 0


def test_cluster_and_reproduce_refuse_with_the_same_table(root):
    (root / "images/eye 04.png").write_bytes(b"")
    for command in (["cluster", str(root)], ["reproduce", "--profile", "folder", "-p", "data_dir", str(root)]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 1 and "nothing was computed" in done.output
        assert "images/eye 04.png  is empty" in done.output and "not usable: one problem" in done.output


def test_segment_names_every_bad_photograph_and_does_the_others(root):
    for number in (4, 5):
        (root / f"images/eye 0{number}.png").write_bytes(b"")
    done = CliRunner().invoke(main, ["segment", str(root / "images"), "--out", str(root / "found")])
    assert done.exit_code == 1 and all(f"left out: {root}/images/eye 0{number}.png" in done.output for number in (4, 5))
    assert (root / "found/eye 00_overlay.jpg").exists()


def test_a_file_for_a_folder_and_a_folder_without_images(tmp_path):
    (tmp_path / "photos").mkdir()
    assert "has no folder images (it holds photos)" in found(tmp_path)
    (tmp_path / "images").mkdir()
    assert "images holds no image, expected at least one: put files there (.jpg" in found(tmp_path)


# What a newcomer tried


def test_a_mask_of_another_photograph_is_not_taken_for_a_suffix(root):
    for number, name in enumerate(NAMES):
        for where in ("images", "masks/hard_exudates"):
            (root / where / f"{name}.png").rename(root / where / f"IMG_{number}.png")
    (root / "masks/hard_exudates/IMG_3.png").rename(root / "masks/hard_exudates/IMG_31.png")
    (root / "labels.csv").unlink()
    assert "IMG_31.png matches no image" in found(root)


def test_lesions_outside_the_field_of_view_are_refused(root):
    lesion = np.zeros(SIZE[::-1], bool)
    lesion[2:14, 2:14] = True
    mask(lesion).save(root / "masks/hard_exudates/eye 00.png")
    assert "eye 00.png lies 100% outside the field of view" in found(root)


def test_only_known_droppings_are_passed_over(root):
    for old, new in (("eye 00", "@home"), ("eye 01", "__eye")):
        (root / f"images/{old}.png").rename(root / f"images/{new}.png")
        (root / f"masks/hard_exudates/{old}.png").rename(root / f"masks/hard_exudates/{new}.png")
    (root / "labels.csv").unlink()
    assert reads(root)["photographs"] == 12


def test_two_folders_of_one_name_are_refused_and_strangers_named(root):
    (root / "Images").mkdir()
    (root / "mask").mkdir()
    (root / "grades.tsv").write_text("image\tlabel\n")
    checked = check(root, profile(root))
    assert "images lies beside Images, expected one images: put both together" in str(checked.problems[0])
    assert any("mask are not read; masks belong in masks/" in note for note in checked.notes)
    assert any("grades.tsv is not read; labels belong in labels.csv" in note for note in checked.notes)


def test_patients_are_read_without_labels(root):
    rows = [f"{name}.png,,{number // 2}.0" for number, name in enumerate(NAMES)]
    for table in (["image,label,patient", *rows], ["image,patient", *(row.replace(",,", ",") for row in rows)]):
        (root / "labels.csv").write_text("\n".join(table) + "\n")
        assert (reads(root)["patients"], reads(root)["labels"]) == (6, None)


def test_patients_that_differ_in_case_are_said(root):
    rows = [row.replace("P0", "p0") if number else row for number, row in enumerate(ROWS)]
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")
    assert any(
        "differ only in case count as different ones: P0 and p0" in note for note in check(root, profile(root)).notes
    )


def test_a_name_that_is_no_utf8_is_refused_and_printed(root):
    os.rename(root / "images/eye 00.png", os.fsencode(root / "images") + b"/eye_\xe9.png")
    done = CliRunner().invoke(main, ["check", str(root)])
    assert done.exit_code == 1 and "eye_\\udce9.png" in done.output and "not UTF-8" in done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,label\n".encode("utf-16-le") + b"".join(f"{name},1\n".encode("utf-16-le") for name in NAMES),
            "cannot be split",
        ),
        (b"PK\x03\x04rest", "is an Excel workbook, expected a text file: save it as CSV"),
        (b"eye 00,1\neye 01,0\n", "expected a first row with image, label"),
        (b'image,label\n"eye 00,1\neye 01,0\n', "has a quotation mark that is not closed, up to line"),
    ],
    ids=["UTF-16 without mark", "Excel", "no header", "open quote"],
)
def test_what_is_no_table_is_refused_with_the_remedy(root, content, message):
    (root / "labels.csv").write_bytes(content)
    assert message in found(root)


def test_names_with_dots_blanks_and_backslashes_are_found(root):
    for number, name in ((0, "P0_2024.05.01"), (1, " eye  one"), (2, "P1\\left")):
        (root / f"images/eye 0{number}.png").unlink()
        (root / f"masks/hard_exudates/eye 0{number}.png").unlink()
        EYES[number][0].save(root / "images" / name, "PNG")
        mask(EYES[number][1]).save(root / "masks/hard_exudates" / f"{name}.png")
    rows = ["P0_2024.05.01,0,P0", "eye one,1,P0", "P1/left,0,P1", *ROWS[3:]]
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")
    assert reads(root)["masks"]["hard_exudates"]["masks"] == 12


def test_masks_that_leave_a_side_of_the_split_without_any_are_refused_before_anything_is_decoded(root, store):
    """Of twelve patients, masks of the three that the diagnosis draws for training."""
    rows = [f"{name}.png,{number % 2},P{number}" for number, name in enumerate(NAMES)]
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *rows]) + "\n")
    table = load_cohorts(profile(root), store)[1].table
    kept = set(table.loc[table["split"] == "train", "image_id"][:3])
    for file in (root / "masks/hard_exudates").iterdir():
        if file.stem not in kept:
            file.unlink()
    assert "holds masks of no patient drawn for test, expected at least 3" in found(root)
    with pytest.raises(ValueError, match=r"no photograph with masks falls to test \(3 patients have masks\)"):
        load_cohorts(profile(root), store)


def test_a_gzipped_photograph_is_decoded_not_searched_for_its_end(root):
    for name, (image, _) in zip(NAMES, EYES, strict=True):
        (root / "images" / f"{name}.png").unlink()
        content = io.BytesIO()
        image.save(content, "JPEG", quality=95)
        (root / "images" / f"{name}.jpg.gz").write_bytes(gzip.compress(content.getvalue()))
    assert reads(root)["photographs"] == 12


def test_a_video_behind_the_end_of_a_photograph_does_no_harm(root):
    EYES[0][0].save(root / "images/eye 00.jpg")
    (root / "images/eye 00.png").unlink()
    with (root / "images/eye 00.jpg").open("ab") as file:
        file.write(b"ftypmp42" + b"\xff\xda" * 9000)
    assert reads(root)["photographs"] == 12


def test_photographs_of_something_else_are_said(root):
    noise = np.random.default_rng(0).integers(-30, 30, (*SIZE[::-1], 3))
    Image.fromarray((np.array([90, 140, 220]) + noise).astype(np.uint8)).save(root / "images/sky.png")
    shutil.rmtree(root / "masks")
    (root / "labels.csv").unlink()
    checked = check(root, profile(root))
    assert checked.usable and checked.notes == ["1 of the photographs may not show a retina, such as sky"]


def test_raw_files_are_not_taken_for_their_thumbnails(root):
    EYES[0][0].save(root / "images/IMG_1.nef", format="TIFF")
    [note] = check(root, profile(root)).notes
    assert "IMG_1.nef" in note and "develop raw files as JPEG" in note


def test_dicom_without_a_suffix_is_known_by_its_content(root):
    (root / "images/IM000001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    [note] = check(root, profile(root)).notes
    assert "IM000001" in note and "export DICOM as PNG" in note


def test_what_lies_in_the_wrong_place_is_named(root):
    EYES[0][0].save(root / "eye 12.jpg")
    (root / "masks.zip").write_bytes(b"PK")
    (root / "masks/hemorrhages.zip").write_bytes(b"PK")
    beside, among = check(root, profile(root)).notes
    assert "not read: eye 12.jpg, masks.zip; photographs belong in images/; unpack archives" in beside
    assert "not read: hemorrhages.zip; masks belong in a folder for their lesion" in among


def test_results_among_the_photographs_are_passed_over(root):
    shutil.rmtree(root / "masks")
    (root / "images/found").mkdir()
    (root / "images/found/lesions.csv").write_text("image,lesion,number\neye 00,hemorrhages,1\n")
    EYES[0][0].save(root / "images/found/eye 00_overlay.jpg")
    [note] = check(root, profile(root)).notes
    assert "found" in note and "folders with lesions.csv hold results" in note
    assert reads(root)["photographs"] == 12


def test_the_number_of_a_visit_is_no_suffix_of_masks(root):
    for name in NAMES:
        (root / f"masks/hard_exudates/{name}.png").rename(root / f"masks/hard_exudates/{name}_2.png")
    assert "eye 00_2.png matches no image" in found(root)
