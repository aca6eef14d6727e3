"""``make reproduce PROFILE=folder`` with real kernels: own photographs, with and without masks and labels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reliability.runs import pairs
from ruranet_utils.data.phantoms.eye import make_patient
from ruranet_utils.profiles import LESIONS, get_profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.model_file import Model
from ruranet_utils.storage import paths
from tests.running.command import reproduce

# Settings of the profile `folder` under which a network is trained and applied in seconds.
QUICK = {"image_size_px": 96, "patch_size_px": 24, "encoder_depth": 3, "feature_size_px": 64, "epochs": 1}
QUICK |= {"weights": "random", **dict.fromkeys(("encoders", "classifiers", "extractors"), "mobilenet_v2")}


@pytest.fixture
def own(tmp_path):
    """Twelve synthetic photographs of 128 px in a folder with a blank and an accent in its name."""
    root = tmp_path / "meine Bilder ä"
    (root / "images").mkdir(parents=True)
    phantoms = [phantom for patient in range(1, 40) for phantom in make_patient(patient, 128, seed=5)]
    chosen = [phantom for label in (0, 1) for phantom in [p for p in phantoms if p.label == label][:6]]
    for number, phantom in enumerate(chosen):
        Image.fromarray(phantom.image).save(root / "images" / f"Auge {number}.png")
    return root, chosen


def own_run(folder, root, *arguments):
    places = {"RURANET_STORE": str(folder / "store"), "RURANET_FIGURES": str(root.parent / "figures")}
    own = ["--profile", "folder", "-p", "data_dir", str(root), *pairs(QUICK)]
    done = reproduce(folder, *own, *arguments, **places)
    return done, root.parent / "figures" / paths.results(get_profile("folder", data_dir=str(root)))


@pytest.fixture(scope="module")
def modelled(tmp_path_factory):
    """Folder of a store in which networks for all lesions are kept as those of the profile synthetic, untrained."""
    folder = tmp_path_factory.mktemp("modelled")
    profile = get_profile("synthetic")
    network = unet.build("mobilenet_v2", "scse", profile)
    state = {f"state.{name}": value.numpy() for name, value in network.state_dict().items()}
    shared = {
        "encoder": "mobilenet_v2",
        "attention": "scse",
        "encoder_depth": 3,
        "decoder_width": 256,
        "image_size_px": 512,
        "crop_field": True,
        "seed": 0,
    }
    image = next(iter(make_patient(3, 128, seed=5))).image.transpose(2, 0, 1)[None]
    found = unet.probabilities(unet.restore(state, "mobilenet_v2", "scse", profile), image, profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RURANET_STORE", str(folder / "store"))
        for share, lesion in zip((0.5, 0.6, 0.7, 0.8), LESIONS, strict=True):
            about = {"lesions": [lesion], "thresholds": [float(np.quantile(found, share))], "trained_on": ["synthetic"]}
            about |= {"licenses": [], "weights": "random", "notes": {lesion: ""}, "n_train": 0, "n_test": 0}
            about["scores"] = {lesion: dict.fromkeys(("iou_first", "iou_low", "iou_high"), 0.0)}
            Model(state, {**shared, **about}).save(paths.models("synthetic"))
    return folder


def test_own_photographs_without_masks_or_labels(modelled, own):
    root, _ = own
    done, results = own_run(modelled, root, "-p", "models", "synthetic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is left out: there are no labels") == 5
    assert "02_backbone_study is left out: there are no masks" in done.stdout
    clusters = pd.read_csv(results / "clusters.csv")
    assert sorted(clusters["image_id"]) == sorted(f"Auge {number}" for number in range(12))
    assert "accuracy" not in pd.read_csv(results / "table_clusters.csv")
    assert (results / "photographs/fig_lesions_found.png").exists() and not (results / "fig_lesions_found.png").exists()
    assert json.loads((results / "run.json").read_text())["parameters"]["data_dir"] == str(root)


def test_two_clusters_of_own_photographs_in_one_command(modelled, own):
    places = {"RURANET_STORE": str(modelled / "store"), "RURANET_FIGURES": str(own[0].parent / "figures")}
    for photograph in sorted((own[0] / "images").iterdir())[::2]:  # at 512 px, the size of the profile
        photograph.unlink()
    (own[0] / "images/Auge 1.png").rename(own[0] / "images/001.png")
    command = [Path(sys.executable).with_name("ruranet"), "cluster", own[0], "--models", "synthetic", "--json"]
    done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 6 and {row["areas"] for row in rows} == {"more lesions", "fewer lesions"}
    assert "kmedoids" not in rows[0] and "001" in {row["image_id"] for row in rows}
    assert [row["severity"] for row in rows] == sorted((row["severity"] for row in rows), reverse=True)
    assert "[1/1] 09_own_images" in done.stderr


def test_own_photographs_without_a_model_are_told_which_is_missing(tmp_path, own):
    done, results = own_run(tmp_path, own[0], "--only", "09", "-p", "models", "paper")
    assert done.returncode == 1
    assert "no trained model for hard_exudates, microaneurysms, hemorrhages, edema" in done.stderr
    assert "PROFILE=paper" in done.stderr and not (results / "clusters.csv").exists()


def test_own_photographs_with_labels_and_masks_of_one_lesion(modelled, own):
    root, phantoms = own
    labels = [f"Auge {number},{phantom.label},{phantom.patient_id}" for number, phantom in enumerate(phantoms)]
    (root / "labels.csv").write_text("\n".join(["image,label,patient", *labels]) + "\n")
    (root / "masks/hemorrhages").mkdir(parents=True)
    for number, phantom in enumerate(phantoms):
        mask = phantom.masks[LESIONS.index("hemorrhages")]
        Image.fromarray(mask.astype("uint8") * 255).save(root / f"masks/hemorrhages/Auge {number}.png")
    only = [part for number in ("01", "02", "04", "08", "09", "10") for part in ("--only", number)]
    done, results = own_run(modelled, root, *only, "-p", "models", "synthetic")
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
    table_1 = pd.read_csv(results / "table_1.csv")
    assert table_1.loc[table_1["iou ours"].notna(), "lesion"].tolist() == ["hemorrhages"]
    found = pd.read_csv(results / "table_lesions_found.csv").set_index("lesion")["trained on"]
    assert found.to_dict() == {lesion: "folder" if lesion == "hemorrhages" else "synthetic" for lesion in LESIONS}
    assert pd.read_csv(results / "table_clusters.csv")["accuracy"].between(0.5, 1).all()
    assert pd.read_csv(results / "table_4.csv")["accuracy ours"].notna().sum() == 3 * 4
    assert set(pd.read_csv(results / "table_confound.csv")["cohort"]) == {"as it is"}
    assert pd.read_csv(results / "table_confound_camera.csv")["auc"].isna().all(), "one camera"
