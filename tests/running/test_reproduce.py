"""The command line with real kernels: ``python -m ruranet_utils.running.reproduce`` and plain papermill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from click.testing import CliRunner
from PIL import Image

from ruranet_utils.data.phantoms.eye import make_patient
from ruranet_utils.profiles import ENCODERS, LESIONS, get_profile
from ruranet_utils.running import headless
from ruranet_utils.running.reproduce import estimate, main, notebooks, parse_value
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.model_file import Model
from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import FIXED

ONE_OF_EACH = {"encoders": "mobilenet_v2", "classifiers": "mobilenet_v2", "extractors": "mobilenet_v2"}
# What the notebooks' outputs were computed with, too, so that little of it is computed again.
FEW = {"classifiers": "mobilenet_v2", "extractors": "googlenet"}
# Settings of the profile `folder` under which a network is trained and applied in seconds.
QUICK = {"image_size_px": 96, "patch_size_px": 24, "encoder_depth": 3, "feature_size_px": 64, "epochs": 1}


def as_options(parameters: dict) -> list[str]:
    return [part for name, value in parameters.items() for part in ("-p", name, str(value))]


def reproduce(tmp_path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    places = {"RURANET_STORE": str(tmp_path / "store"), "RURANET_FIGURES": str(tmp_path / "figures")}
    command = [sys.executable, "-m", "ruranet_utils.running.reproduce", *arguments]
    return subprocess.run(
        command, env={**os.environ, **places, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A function that runs the command in this process, with store and figures of its own."""
    monkeypatch.setenv("RURANET_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path / "figures"))
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """All notebooks with injected parameters, and one of them again; what nbval has left in the store is found."""
    folder = tmp_path_factory.mktemp("run")
    shared = {"RURANET_STORE": str(paths.store())}
    first = reproduce(folder, *as_options(FEW), **shared)
    tables = {path.name: path.read_bytes() for path in (folder / "figures/synthetic").glob("*.csv")}
    second = reproduce(folder, "--only", "04", *as_options(FEW), **shared)
    return folder, first, tables, second


def test_every_notebook_runs_with_injected_parameters(small_run):
    folder, first, tables, _ = small_run
    assert first.returncode == 0, first.stderr
    for path in notebooks():
        assert (folder / "figures/synthetic/notebooks" / path.name).exists()
        assert f"{path.stem}  0" in first.stdout
    assert {f"table_{number}.csv" for number in range(1, 6)} <= set(tables)
    table_3 = pd.read_csv(folder / "figures/synthetic/table_3.csv")
    assert set(table_3.loc[table_3["auc ours"].notna(), "backbone"]) == {"mobilenet_v2"}


def test_a_study_of_one_encoder(tmp_path):
    one = as_options({"encoders": "mobilenet_v2"})
    done = reproduce(tmp_path, "--only", "02", *one, RURANET_STORE=str(paths.store()))
    assert done.returncode == 0, done.stderr
    table_1 = pd.read_csv(tmp_path / "figures/synthetic/table_1.csv")
    assert set(table_1.loc[table_1["iou ours"].notna(), "encoder"]) == {"mobilenet_v2"}


def test_the_committed_tables_are_repeated(small_run):
    """Of tables that do not depend on which encoders and extractors take part."""
    _, _, tables, _ = small_run
    for name in ("cohort_segmentation", "table_audit", "table_confounds", "table_cohort"):
        assert tables[f"{name}.csv"] == (paths.ROOT / f"figures/synthetic/{name}.csv").read_bytes(), name


def test_the_expected_time_is_said_before_anything_runs(small_run):
    _, first, _, _ = small_run
    assert first.stdout.splitlines()[0].startswith("expected: ")
    assert "no earlier run" in estimate(notebooks(), get_profile("paper"))[""]


def test_progress_names_the_step_and_how_many_there_are():
    noted = [{"key": "a", "found": False}, {"planned": "networks", "keys": ["b", "c", "d"]}]
    noted += [{"key": "its first stage", "found": False}, {"key": "b", "found": False}]
    noted += [{"key": "b", "found": True}, {"key": "c", "found": True}, {"weights": {}}]
    assert headless.progress_of(noted) == "networks 1 of 3"
    assert headless.progress_of(noted[:1]) == ""


def test_tables_hold_computed_numbers_beside_the_papers(small_run):
    folder, *_ = small_run
    table = pd.read_csv(folder / "figures/synthetic/table_4.csv")
    ours = table[table["accuracy ours"].notna()]
    assert set(zip(ours["method"], ours["backbone"], ours["selection"], strict=True)) == {
        (method, "googlenet", selection)
        for method in ("kmedoids", "kmeans", "agglomerative", "dmh")
        for selection in ("oracle", "held_out", "equal")
    }
    assert set(ours["weights"]) == {"random"} and set(ours["n"]) == {get_profile("synthetic").n_images}
    assert table["accuracy paper"].notna().sum() == 3 * 20


def test_run_json_tells_where_the_tables_come_from(small_run):
    folder, *_ = small_run
    run = json.loads((folder / "figures/synthetic/run.json").read_text())
    assert {"machine", "profile", "data", "notebooks", "parameters"} <= set(run)
    assert set(run["data"]) == {"cohort_diagnosis.csv", "cohort_segmentation.csv"}
    assert run["disk_mb"]["store"] > 0 and run["disk_mb"]["environment"] > 1000
    facts = run["notebooks"]["04_clustering"]
    assert facts["time_s"] > 0 and facts["peak_memory_mb"] > 100 and "commit" in facts
    # 04 ran again by itself; what the first run said of the others is still there
    assert list(run["notebooks"]) == [path.stem for path in notebooks()]
    assert facts["computed"] == 0  # the first run did, unless an earlier test run left its store
    assert facts["costliest"]["computed"] + facts["costliest"]["found"] >= facts["found"] > 0


def test_run_json_says_of_each_notebook_what_it_computed_with(small_run):
    folder, *_ = small_run
    run = json.loads((folder / "figures/synthetic/run.json").read_text())
    for name, facts in run["notebooks"].items():
        assert facts["device"] == "cpu" and facts["instructions"] == FIXED and facts["versions"]["torch"], name
    used = {name: facts["weights"] for name, facts in run["notebooks"].items()}
    random = {"origin": "random", "sha256": "random"}
    assert used["04_clustering"] == {backbone: random for backbone in (*ENCODERS, "googlenet")}
    assert used["07_paper_audit"] == {}


def test_what_has_run_is_noted_although_a_later_notebook_fails(here, tmp_path, monkeypatch):
    def failing(*given):
        yield "01_data_merge", {"computed": 1, "time_s": 2.0}
        raise click.ClickException("02_backbone_study failed")

    monkeypatch.setattr("ruranet_utils.running.reproduce._run_all", failing)
    assert here().exit_code == 1
    run = json.loads((tmp_path / "figures/synthetic/run.json").read_text())
    assert run["notebooks"]["01_data_merge"]["time_s"] == 2


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(small_run):
    folder, _, tables, second = small_run
    assert second.returncode == 0, second.stderr
    assert second.stdout.count(" 0 steps computed") == 1
    for name, content in tables.items():
        assert (folder / "figures/synthetic" / name).read_bytes() == content


def test_list(here):
    done = here("--list")
    assert done.stdout.split() == [path.stem for path in notebooks()]


@pytest.mark.parametrize(
    ("arguments", "complaints"),
    [
        (["--profile", "papper"], ["'papper'", "synthetic, open, paper, folder"]),
        (["-p", "epoch", "3"], ["epoch", "epochs"]),
        (["-p", "encoders", "resnet19"], ["resnet19", "densenet201"]),
        (["--only", "11"], ["'11'", "06_pca"]),
        (["-p", "epochs", "0"], ["epochs", "0"]),
        (["--profile", "folder"], ["needs data_dir", "own_images.md"]),
        (["--profile", "folder", "-p", "data_dir", "no/such"], ["expected the folder", "no/such/images"]),
        (["--profile", "folder", "-p", "data_dir", "2024_11"], ["2024_11/images"]),
        (["-p", "data_dir", "/tmp"], ["data_dir belongs to the profile folder, not to synthetic"]),
    ],
)
def test_unknown_names_and_values_are_refused_before_anything_runs(here, tmp_path, arguments, complaints):
    done = here(*arguments)
    assert done.exit_code == 2
    for complaint in complaints:
        assert complaint in done.stderr
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(
    ("profile", "environment", "complaints"),
    [
        ("open", {"RURANET_DATA_ROOT": "no/such/folder"}, ["01_data_merge", "cell 4", "no/such/folder"]),
        ("paper", {}, ["01_data_merge", "refuge2", "kaggle.com/datasets"]),
    ],
)
def test_missing_data_names_notebook_cell_and_remedy(tmp_path, profile, environment, complaints):
    done = reproduce(tmp_path, "--profile", profile, "--only", "01", **environment)
    assert done.returncode == 1
    for complaint in complaints:
        assert complaint in done.stderr
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob("run.json"))


def test_plain_papermill_refuses_an_unknown_parameter(tmp_path):
    output = tmp_path / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match=r"unknown parameter epoch; .*epochs"):
        papermill.execute_notebook(
            paths.NOTEBOOKS / "06_pca.ipynb", output, {"epoch": 3}, cwd=paths.NOTEBOOKS, progress_bar=False
        )
    assert nbformat.read(output, as_version=4)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("1e-3", 1e-3), ("resnet18,vgg16", "resnet18,vgg16"), ("None", None), ("'3'", "3")]
)
def test_command_line_values_are_read_as_python(text, value):
    assert parse_value("epochs", text) == value


@pytest.mark.parametrize(("text", "value"), [("2024_11", "2024_11"), ("1e3", "1e3"), ("None", None)])
def test_a_folder_may_have_the_name_of_a_number(text, value):
    assert parse_value("data_dir", text) == value


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
    quick = as_options({**QUICK, **ONE_OF_EACH, "weights": "random"})
    done = reproduce(folder, "--profile", "folder", "-p", "data_dir", str(root), *quick, *arguments, **places)
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


def test_other_peoples_conditions(tmp_path):
    """Another backend, another kernel of the same name, no home, and a path with blanks, umlauts and a dollar."""
    other = tmp_path / "kernels/python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "another", "language": "python"}')
    place = tmp_path / "Größe in $ HOME"
    done = reproduce(
        place, "--only", "07", MPLBACKEND="TkAgg", JUPYTER_PATH=str(tmp_path), HOME="/proc/nowhere", DISPLAY=""
    )
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(place / "figures/synthetic/notebooks/07_paper_audit.ipynb", as_version=4)
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in one for one in data) == 1
