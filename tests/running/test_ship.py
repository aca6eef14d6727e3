"""The network that is part of the project and its card."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torchvision.models import mobilenet_v2

from ruranet_utils import published
from ruranet_utils.data.field import FRAME
from ruranet_utils.data.sources.base import Record
from ruranet_utils.profiles import ANNOTATIONS
from ruranet_utils.running import ship
from ruranet_utils.segmentation import full_size
from ruranet_utils.segmentation.apply import load_model
from ruranet_utils.segmentation.model_file import Model
from ruranet_utils.storage import paths

SHIPPED = paths.models("shipped") / "lesions.safetensors"


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    counted = {name: rng.integers(1, 9, size=(6, 5, 2, full_size.BINS + 1)) for name in ("network", "own")}
    found = pd.DataFrame(
        {"lesion": ["optic_disc"], "no retinopathy": [0.125], "no retinopathy low": [0.1], "auc": [0.75]}
    )
    return full_size.field_table([counted], ANNOTATIONS), found


def test_a_card_says_what_was_trained_on_what_how_it_scores_and_whom_to_thank(tables, tmp_path):
    card = {"lesions": list(ANNOTATIONS), "disc": True, "sha256": "a" * 64, "trained_on": ["idrid", "srahim"]}
    card |= {"n_train": 47, "n_val": 7, "n_healthy": 137, "image_size_px": 512}
    card |= {"machine": "Analytical Engine", "thresholds": [0.3] * 5}
    file = tmp_path / "lesions.safetensors"
    file.write_bytes(bytes(8_800_000))
    made = ship.card_of(Model({}, card), *tables, file)
    made.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert ModelCard(text).data.datasets == ["idrid", "srahim"]
    for said in (
        "54 photographs of IDRiD",
        "137 photographs of SRahim",
        "8.8 MB",
        "a" * 64,
        "optic disc",
        "CC BY 4.0",
        "Analytical Engine",
    ):
        assert said in text
    field, _ = tables
    assert f"{field['mean iou'][1]:.3g}" in text and "0.12" in text and "Apache-2.0" in text
    assert all(f"iou {lesion}" in text for lesion in published.FIELD_LESIONS) and "{{" not in text


@pytest.mark.skipif(not SHIPPED.is_file(), reason="no network is shipped")
def test_the_network_of_this_project_has_the_card_beside_it():
    assert SHIPPED.stat().st_size <= 15e6
    model = load_model()
    assert model.card["sha256"] in SHIPPED.with_name("README.md").read_text()
    assert model.shows == ("hard_exudates", "microaneurysms", "hemorrhages", "optic_disc", "soft_exudates")
    assert model.card["weights"] == "ImageNet" and model.card["n_train"] + model.card["n_val"] == 54


@pytest.fixture
def annotated(phantoms, tmp_path):
    """The phantoms with soft exudates, and the files of their masks."""
    masks = phantoms.masks.copy()
    masks[:, ANNOTATIONS.index("soft_exudates")] = np.roll(masks[:, 0], 9, axis=-1)
    height, width = masks.shape[2:]
    frames = dict(zip(FRAME, (height, width, 0, 0, width, height), strict=True))
    frames["soft_exudates_px"] = masks[:, ANNOTATIONS.index("soft_exudates")].sum(axis=(1, 2))
    table = phantoms.table.assign(
        source="idrid", healthy=(phantoms.table["label"] == 0) & (phantoms.table.index % 2 == 0), **frames
    )
    photograph, records = tmp_path / "photograph.png", []
    Image.new("RGB", (width, height)).save(photograph)
    for name, of_image in zip(table["image_id"], masks, strict=True):
        files = {lesion: tmp_path / f"{name.replace('/', '_')}_{lesion}.png" for lesion in ANNOTATIONS}
        for file, mask in zip(files.values(), of_image, strict=True):
            Image.fromarray(mask.astype("uint8") * 255).save(file)
        records.append(Record(name, "idrid", name, "", None, "", photograph, files, None))
    return replace(phantoms, table=table, masks=masks, lesion_notes={"edema": "stand-in"}), records


def test_make_models_writes_the_network_its_card_and_its_scores(annotated, tiny, tmp_path, monkeypatch, capsys):
    cohort, records = annotated
    profile = replace(tiny, masks="joint", batch_size=8, learning_rate=1e-2)
    torch.save(mobilenet_v2().state_dict(), tmp_path / "mobilenet_v2.pth")
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("RURANET_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(ship, "LONGER", {"epochs": profile.epochs, "revised_epochs": profile.revised_epochs})
    monkeypatch.setattr(ship, "get_profile", lambda *_, **__: profile)
    monkeypatch.setattr(ship, "load_cohorts", lambda *_: (cohort, cohort))
    monkeypatch.setattr(ship.idrid, "records", lambda *_, **__: records)
    folders = paths.models
    monkeypatch.setattr(paths, "models", lambda name: tmp_path / name if name == "shipped" else folders(name))
    ship.main()
    assert "lesions.safetensors" in capsys.readouterr().out
    model = load_model()
    assert model.card["sha256"] in (tmp_path / "shipped/README.md").read_text()
    field = pd.read_csv(tmp_path / "shipped/table_field.csv")
    assert field["n"].iloc[0] == (cohort.table["split"] == "test").sum()
    assert field["mean iou"].iloc[0] == pytest.approx(field["mean iou"].iloc[1], abs=1e-3), "one size"
    healthy = pd.read_csv(tmp_path / "shipped/table_healthy.csv").set_index("lesion")
    area = model.predict(cohort.images, profile).sum(axis=(2, 3)) * 512**2 / cohort.images[0, 0].size
    found = (area >= 20)[cohort.table["healthy"]].mean(axis=0)
    np.testing.assert_allclose(healthy.loc[list(model.shows), "no retinopathy"], found)
    about = json.loads((tmp_path / "shipped/run.json").read_text())
    assert about["sha256"] == model.card["sha256"] and about["profile"]["masks"] == "joint"
