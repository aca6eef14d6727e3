"""The network that is part of the project and its card."""

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard

from ruranet_utils import published
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
    file = tmp_path / "lesions.safetensors"
    file.write_bytes(bytes(8_800_000))
    made = ship.card_of(Model({}, card), *tables, file)
    made.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert ModelCard(text).data.datasets == ["idrid", "srahim"]
    for said in ("54 photographs of IDRiD", "137 photographs of SRahim", "8.8 MB", "a" * 64, "optic disc", "CC BY 4.0"):
        assert said in text
    field, _ = tables
    assert f"{field['mean iou'][1]:.3f}" in text and "0.12" in text and "Apache-2.0" in text
    assert all(f"iou {lesion}" in text for lesion in published.FIELD_LESIONS) and "{{" not in text


@pytest.mark.skipif(not SHIPPED.is_file(), reason="no network is shipped")
def test_the_network_of_this_project_has_the_card_beside_it():
    assert SHIPPED.stat().st_size <= 15e6
    model = load_model()
    assert model.card["sha256"] in SHIPPED.with_name("README.md").read_text()
    assert model.shows == ("hard_exudates", "microaneurysms", "hemorrhages", "optic_disc", "soft_exudates")
    assert model.card["weights"] == "ImageNet" and model.card["n_train"] + model.card["n_val"] == 54
