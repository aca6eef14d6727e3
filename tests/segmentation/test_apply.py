"""Two lines on photographs: one file, a folder, an array; what is written, and what is refused."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ruranet_utils.data.field import Frame
from ruranet_utils.data.refusal import Refused
from ruranet_utils.profiles import get_profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.apply import (
    COLORS,
    LEGEND_PX,
    SHOWN_PX,
    TABLE,
    Finder,
    Finding,
    photographs,
    read_rows,
    segment,
    segment_into,
)
from ruranet_utils.segmentation.model_file import SHAPE, Model, load

LESIONS = ("hard_exudates", "hemorrhages", "optic_disc")


@pytest.fixture
def model(tiny, untrained, monkeypatch):
    """Finds the left half as hard exudates, two bars as hemorrhages, and a square as disc."""

    def drawn(network, images, profile):
        found = np.zeros((len(images), 3, *images.shape[2:]), np.float32)
        half = images.shape[3] // 2
        found[:, 0, :, :half] = 1
        found[:, 1, 4:8, 8:-8] = found[:, 1, -8:-4, 8:-8] = 1
        found[:, 2, half - 8 : half + 8, half - 8 : half + 8] = 1
        found[:, 2, :3, -9:] = 1  # a reflex
        return found

    monkeypatch.setattr(unet, "probabilities", drawn)
    monkeypatch.setattr("ruranet_utils.segmentation.model_file.MIRRORS", ((),))
    kept = load(untrained / "models/synthetic/hemorrhages.safetensors")
    card = {**kept.card, "lesions": ["hard_exudates", "hemorrhages", "edema"], "thresholds": [0.5] * 3, "disc": True}
    return replace(kept, card={**card, "sha256": "0" * 64})


@pytest.fixture
def folder(tmp_path, phantoms):
    folder = tmp_path / "my eyes"
    folder.mkdir()
    for number in range(2):
        image = Image.fromarray(phantoms.images[number].transpose(1, 2, 0))
        image.resize((200, 100)).save(folder / f"eye {number}.png")
    return folder


def test_a_folder_gives_masks_of_the_photographs_size_overlays_and_a_table(model, folder, tmp_path):
    found = segment(folder, model=model)
    written = sorted(path.name for path in found.save(tmp_path / "out").iterdir())
    masks = [f"eye {n}_{lesion}.png" for n in (0, 1) for lesion in LESIONS]
    assert written == sorted([*masks, "eye 0_overlay.jpg", "eye 1_overlay.jpg", TABLE])
    mask = np.asarray(Image.open(tmp_path / "out" / "eye 0_hard_exudates.png"))
    assert mask.shape == (100, 200) and mask.dtype == np.uint8
    assert (mask[:, :99] == 255).all() and (mask[:, 101:] == 0).all()
    table = pd.read_csv(tmp_path / "out" / TABLE)
    pd.testing.assert_frame_equal(table, found.table)
    assert table["lesion"].tolist() == list(LESIONS) * 2


def test_the_table_counts_parts_and_measures_by_the_field_and_the_disc(model, phantoms):
    (finding,) = segment(phantoms.images[:1], model=model).findings
    field = (phantoms.images[0].max(axis=0) > 20).mean()
    table = finding.table.set_index("lesion")
    assert table["number"].to_dict() == {"hard_exudates": 1, "hemorrhages": 2, "optic_disc": 1}
    assert table.loc["hard_exudates", "area_percent"] == pytest.approx(100 * 0.5 / field)
    assert table.loc["hard_exudates", "disc_areas"] == pytest.approx(64 * 32 / 16**2)
    without = Finding("eye", finding.shown, {"hemorrhages": finding.masks["hemorrhages"]}, finding.frame, finding.field)
    assert without.table["disc_areas"].isna().all()
    touching = np.eye(8, dtype=bool)
    assert Finding("eye", finding.shown, {"hemorrhages": touching}, finding.frame, 1.0).table["number"].tolist() == [1]


def test_an_overlay_is_the_photograph_with_outlines_and_a_legend(model, phantoms):
    (finding,) = segment(phantoms.images[:1], model=model).findings
    overlay = np.asarray(finding.overlay)
    assert overlay.shape == (64 + 3 * LEGEND_PX, 64, 3), "a line for each lesion, since two have no room in one"
    changed = (overlay[:64] != finding.shown).any(axis=-1)
    assert (overlay[2, 31] == COLORS["hard_exudates"]).all() and not changed[2, :31].any()
    assert (overlay[4, 40] == COLORS["hemorrhages"]).all() and (overlay[24, 40 - 1] == COLORS["optic_disc"]).all()


def test_a_large_photograph_is_shown_larger_than_the_network_sees_it(model, folder, phantoms):
    image = Image.fromarray(phantoms.images[0].transpose(1, 2, 0))
    image.resize((2400, 1600)).save(folder / "large.jpg")
    finding = Finder.of(model).read("large", folder / "large.jpg")
    assert finding.shown.shape == (SHOWN_PX, SHOWN_PX, 3) and finding.masks["optic_disc"].shape == (64, 64)
    assert finding.overlay.height == SHOWN_PX + 2 * LEGEND_PX
    small = Finder.of(model).read("eye 0", folder / "eye 0.png")
    assert small.shown.shape == (200, 200, 3)


def test_a_file_and_an_array_are_taken_too_and_lesions_are_chosen(model, folder, phantoms):
    assert segment(folder / "eye 1.png", "optic_disc", model).table["lesion"].tolist() == ["optic_disc"]
    found = segment(phantoms.images[:3], ["hemorrhages", "hard_exudates"], model)
    assert [finding.name for finding in found.findings] == ["image_1", "image_2", "image_3"]
    assert list(found.findings[0].masks) == ["hard_exudates", "hemorrhages"]
    np.testing.assert_array_equal(found.findings[2].shown, phantoms.images[2].transpose(1, 2, 0))


def into(out, folder, finder):
    return list(segment_into(out, photographs(folder), finder))


def test_a_stopped_folder_goes_on_and_nothing_is_found_twice(model, folder, tmp_path, monkeypatch):
    out, finder, read = tmp_path / "out", Finder.of(model), []
    original = Finder.read
    monkeypatch.setattr(Finder, "read", lambda self, name, file: read.append(name) or original(self, name, file))
    next(iter(segment_into(out, photographs(folder), finder)))  # and then it is stopped
    first, table = read.copy(), (out / TABLE).read_text()
    results = into(out, folder, finder)
    assert first == ["eye 0"] and read == ["eye 0", "eye 1"] and (out / TABLE).read_text().startswith(table)
    complete = (out / TABLE).read_text()
    assert results == into(out, folder, finder) == [None, None]
    assert read == ["eye 0", "eye 1"] and (out / TABLE).read_text() == complete
    (out / "eye 0_optic_disc.png").unlink()
    into(out, folder, finder)
    assert read[2:] == ["eye 0"]
    Image.open(folder / "eye 1.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "eye 1.png")
    into(out, folder, finder)
    assert read[3:] == ["eye 1"]
    into(out, folder, Finder.of(replace(model, card={**model.card, "sha256": "1" * 64})))
    assert read[4:] == ["eye 0", "eye 1"]
    assert len(pd.read_csv(out / TABLE)) == 6
    with (out / TABLE).open("a") as file:
        file.write("eye 9,hemorrh")  # a line that was cut
    into(out, folder, Finder.of(model))
    assert read[6:] == ["eye 0", "eye 1"] and len(pd.read_csv(out / TABLE)) == 6


def test_one_bad_file_does_not_stop_the_others(model, folder, tmp_path):
    (folder / "eye 0b.png").write_bytes((folder / "eye 0.png").read_bytes()[:500])
    first, refused, last = into(tmp_path / "out", folder, Finder.of(model))
    assert first is None and last is None
    assert isinstance(refused, Refused) and "eye 0b.png" in str(refused)


def test_rows_come_in_the_order_of_the_photographs_and_a_name_may_be_a_number(model, folder, tmp_path):
    for old, new in (("eye 0", "001"), ("eye 1", "NA")):
        (folder / f"{old}.png").rename(folder / f"{new}.png")
    out, finder = tmp_path / "out", Finder.of(model)
    into(out, folder, finder)
    table = (out / TABLE).read_bytes()
    into(out, folder, finder)
    assert (out / TABLE).read_bytes() == table
    rows = read_rows(out, ["NA", "001"], ("hemorrhages", "hard_exudates"))
    assert rows["image"].tolist() == ["NA", "NA", "001", "001"]
    expected = pd.concat([finder.read(name, folder / f"{name}.png").table for name in ("NA", "001")])
    expected = expected[expected["lesion"] != "optic_disc"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected, check_exact=True)


def test_a_models_file_is_taken_by_its_path_and_must_find_the_lesion(folder, untrained):
    file = untrained / "models/synthetic/hemorrhages.safetensors"
    assert segment(folder, model=file).model.lesions == ("hemorrhages",)
    with pytest.raises(ValueError, match="the model does not find optic_disc; it finds hemorrhages"):
        segment(folder, "optic_disc", model=file)


def test_what_cannot_be_segmented_is_refused(folder, phantoms, tmp_path, model, monkeypatch):
    monkeypatch.setenv("RURANET_STORE", str(tmp_path))
    with pytest.raises(ValueError, match=r"does not find drusen; it finds hard_exudates, hemorrhages, optic_disc"):
        segment(folder, "drusen", model)
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*absent"):
        segment(tmp_path / "absent", model=model)
    with pytest.raises(
        FileNotFoundError, match=r"no network for all lesions, .*synthetic.lesions\.safetensors: train it"
    ):
        segment(folder, model="synthetic")
    with pytest.raises(ValueError, match=r"unknown model 'mine': expected a \.safetensors file, 'shipped' or one of"):
        segment(folder, model="mine")
    with pytest.raises(
        ValueError, match=r"expected uint8 images of shape \(n, 3, h, w\), got float64 \(1, 3, 64, 64\)"
    ):
        segment(np.zeros((1, 3, 64, 64)), model=model)


def test_a_card_that_names_another_architecture_is_refused(untrained, phantoms, tmp_path):
    kept = load(untrained / "models/synthetic/hemorrhages.safetensors")
    file = Model(kept.state, {**kept.card, "encoder": "resnet18"}).save(tmp_path)
    with pytest.raises(ValueError, match="not the parameters of a U-Net with resnet18"):
        segment(phantoms.images[:1], model=file)


def test_a_kept_model_predicts_by_its_own_shape(untrained, phantoms, tiny):
    kept = load(untrained / "models/synthetic/hemorrhages.safetensors")
    assert all(getattr(get_profile("open"), name) != kept.card[name] for name in SHAPE)
    other = replace(tiny, encoder_depth=5, decoder_width=64)
    np.testing.assert_array_equal(kept.predict(phantoms.images, other), kept.predict(phantoms.images, tiny))


def test_what_a_cropping_model_finds_comes_back_where_it_was(model, phantoms, tmp_path):
    cropping = replace(model, card={**model.card, "crop_field": True})
    photograph = Image.new("RGB", (300, 200))
    photograph.paste(Image.fromarray(phantoms.images[0].transpose(1, 2, 0)).resize((160, 160)), (20, 20))
    photograph.save(tmp_path / "eye.png")
    found = segment(tmp_path / "eye.png", model=cropping)
    frame = found.findings[0].frame
    assert (
        isinstance(frame, Frame) and frame.left == pytest.approx(24, abs=4) and frame.right == pytest.approx(176, abs=4)
    )
    found.save(tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out/eye_hard_exudates.png")) > 0
    assert mask.shape == (200, 300) and not mask[:, 102:].any() and mask[100, 30:98].all()
    field = np.asarray(photograph).max(axis=2) > 20
    share = found.table["area_percent"][0]
    assert share == pytest.approx(100 * mask.sum() / field.sum(), rel=0.05)


def test_results_are_no_photographs(model, folder):
    out = folder / "found"
    assert into(out, folder, Finder.of(model)) == [None, None]
    assert set(photographs(folder, out)) == set(photographs(folder)) == {"eye 0", "eye 1"}
    with pytest.raises(Refused, match=r"holds nothing but results in .*name another --out"):
        photographs(out, out)


def test_a_photograph_has_one_name_alone_and_in_its_folder(tmp_path):
    for name in ("eye.jpg.gz", "a.b.png"):
        (tmp_path / name).write_bytes(b"x")
    Image.new("RGB", (9, 9)).save(tmp_path / "other.webp")
    alone = {name for file in tmp_path.iterdir() for name in photographs(file)}
    assert alone == set(photographs(tmp_path)) == {"eye", "a.b", "other"}


def test_rows_of_lesions_that_are_not_asked_for_repeat_nothing(model, folder, tmp_path, monkeypatch):
    out, read = tmp_path / "out", []
    into(out, folder, Finder.of(model))
    another = replace(model, card={**model.card, "sha256": "1" * 64})
    into(out, folder, Finder.of(another, "hemorrhages"))
    original = Finder.read
    monkeypatch.setattr(Finder, "read", lambda self, name, file: read.append(name) or original(self, name, file))
    into(out, folder, Finder.of(another, "hemorrhages"))
    assert not read
    (out / "eye 1_overlay.jpg").unlink()
    into(out, folder, Finder.of(another, "hemorrhages"))
    assert read == ["eye 1"]


def test_without_a_field_of_view_a_share_is_missing(model):
    found = segment(np.zeros((1, 3, 64, 64), np.uint8), model=model)
    assert found.table["area_percent"].isna().all()


def test_results_of_another_folder_are_not_replaced(model, folder, tmp_path):
    """Cameras number photographs alike; a photograph changed in its place is found again."""
    out, finder, other = tmp_path / "out", Finder.of(model), tmp_path / "other"
    assert into(out, folder, finder) == [None, None]
    other.mkdir()
    (other / "eye 1.png").write_bytes((folder / "eye 1.png").read_bytes())  # a copy
    Image.open(folder / "eye 0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other / "eye 0.png")
    table = (out / TABLE).read_bytes()
    refused, copied = into(out, other, finder)
    assert "of another folder" in str(refused) and "name another --out" in str(refused) and copied is None
    assert (out / TABLE).read_bytes() == table
    (other / "eye 0.png").replace(folder / "eye 0.png")
    assert into(out, folder, finder) == [None, None] and (out / TABLE).read_bytes() != table


def test_a_table_of_an_older_version_is_continued(model, folder, tmp_path):
    out, finder = tmp_path / "out", Finder.of(model)
    into(out, folder, finder)
    pd.read_csv(out / TABLE).drop(columns="folder").to_csv(out / TABLE, index=False)
    (folder / "eye 0.png").replace(folder / "eye 2.png")
    assert into(out, folder, finder) == [None, None]
    assert set(read_rows(out, ["eye 1", "eye 2"], ["hemorrhages"])["image"]) == {"eye 1", "eye 2"}


def test_files_that_cannot_be_opened_or_named_do_not_stop_the_others(model, folder, tmp_path):
    (folder / "eye 0a.png").symlink_to(folder / "gone.png")
    (folder / ("x" * 230 + ".png")).write_bytes((folder / "eye 0.png").read_bytes())
    first, broken, last, long = into(tmp_path / "out", folder, Finder.of(model))
    assert first is None and last is None
    assert "cannot be opened (No such file" in str(broken) and "name of 230 bytes" in str(long)


def test_a_photograph_of_something_else_is_said(model, folder):
    noise = np.random.default_rng(0).integers(-30, 30, (60, 80, 3))
    Image.fromarray((np.array([90, 140, 220]) + noise).astype(np.uint8)).save(folder / "sky.png")
    with pytest.warns(UserWarning, match=r"sky\.png may not show a retina"):
        Finder.of(model).read("sky", folder / "sky.png")


def test_what_is_passed_over_is_said_even_if_nothing_is_left(tmp_path):
    (tmp_path / "eye.dcm").write_bytes(b"x")
    with pytest.warns(UserWarning, match="export DICOM as PNG"), pytest.raises(Refused, match="holds no image"):
        photographs(tmp_path)


def test_links_belong_to_the_folder_they_lie_in(model, folder, tmp_path):
    """Two folders of links into one pool, several folders deep."""
    out, finder, pool = tmp_path / "out", Finder.of(model), folder
    for place, photograph in (("one", "eye 0"), ("two", "eye 1")):
        (tmp_path / place / "a/b/c").mkdir(parents=True)
        (tmp_path / place / "a/b/c/eye.png").symlink_to(pool / f"{photograph}.png")
    assert into(out, tmp_path / "one", finder) == [None]
    [refused] = into(out, tmp_path / "two", finder)
    assert "of another folder" in str(refused)


def test_results_written_from_python_are_found_again_by_the_command(model, folder, tmp_path):
    out = tmp_path / "out"
    segment(folder, model=model).save(out)
    assert into(out, folder, Finder.of(model)) == [None, None]
    assert not pd.read_csv(out / TABLE)["folder"].isna().any()


def test_a_line_cut_in_its_last_column_is_written_again(model, folder, tmp_path):
    out, finder = tmp_path / "out", Finder.of(model)
    into(out, folder, finder)
    table = (out / TABLE).read_bytes()
    (out / TABLE).write_bytes(table[:-5])
    into(out, folder, finder)
    assert (out / TABLE).read_bytes() == table


def test_repeating_a_command_says_nothing_of_its_own_results(model, folder, recwarn):
    into(folder / "found", folder, Finder.of(model))
    recwarn.clear()
    assert set(photographs(folder, folder / "found")) == {"eye 0", "eye 1"} and not recwarn


def test_a_raw_file_is_refused_alone_too(folder):
    (folder / "IMG_1.NEF").write_bytes((folder / "eye 0.png").read_bytes())
    with pytest.raises(Refused, match="only a thumbnail"):
        photographs(folder / "IMG_1.NEF")


def drawn_eye(width=300, height=300, level=160, size=(400, 300)):
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    inside = np.hypot((x - size[0] / 2) / (width / 2), (y - size[1] / 2) / (height / 2)) < 0.98
    noise = np.random.default_rng(0).random((*size[::-1], 1)) * 0.2 + 0.8
    return Image.fromarray((inside[..., None] * noise * [level, level / 2, level / 4]).astype(np.uint8))


@pytest.mark.parametrize(
    ("eye", "doubts"),
    [
        ({}, []),
        ({"width": 400, "height": 400}, []),  # cut at the top and the bottom
        ({"size": (200, 300)}, []),  # cut at the left and the right
        ({"width": 200, "size": (300, 300)}, ["shows an ellipse: was it squeezed"]),
        ({"level": 55}, ["is dark: lesions may be missed"]),
    ],
)
def test_what_makes_findings_doubtful_is_said(model, tmp_path, eye, doubts):
    drawn_eye(**eye).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Finder.of(model, "hemorrhages").read("a", tmp_path / "a.png")
    said = [str(one.message) for one in caught if "a.png" in str(one.message)]
    assert len(said) == len(doubts) and all(map(str.__contains__, said, doubts)), said


def test_a_disc_of_an_unusual_size_is_said_and_a_speck_is_not_measured_by(model, phantoms, tmp_path):
    drawn_eye().save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png has an optic disc of 6\.\d%"):  # a square of 16 of 64 pixels
        finding = Finder.of(model).read("a", tmp_path / "a.png")
    assert finding.table["disc_areas"].notna().all()
    speck = np.zeros((100, 100), bool)
    speck[30, 30:32] = True
    assert replace(finding, masks={**finding.masks, "optic_disc": speck}).table["disc_areas"].isna().all()


def test_an_overlay_shows_what_was_found_earlier_too(model, folder, tmp_path, monkeypatch):
    out, read, found = tmp_path / "out", Finder.read, []
    monkeypatch.setattr(Finder, "read", lambda self, *of: found.append(read(self, *of)) or found[-1])
    for lesion in ("hemorrhages", "hard_exudates", "hemorrhages"):
        into(out, folder / "eye 0.png", Finder.of(model, lesion))
    assert [list(finding.masks) for finding in found] == [["hemorrhages"], ["hard_exudates", "hemorrhages"]]
    assert sorted(read_rows(out, ["eye 0"], LESIONS)["lesion"]) == ["hard_exudates", "hemorrhages"]


def test_an_empty_table_is_begun_again(model, folder, tmp_path):
    """A full disk leaves one."""
    out = tmp_path / "out"
    out.mkdir()
    (out / TABLE).touch()
    assert into(out, folder, Finder.of(model)) == [None, None]
    assert len(read_rows(out, ["eye 0", "eye 1"], LESIONS)) == 6
