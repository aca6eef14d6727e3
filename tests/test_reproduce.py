"""The command line with real kernels: ``python -m ruranet_utils.reproduce`` and plain papermill."""

import json
import os
import subprocess
import sys

import nbformat
import pandas as pd
import papermill
import pytest

from ruranet_utils import paths
from ruranet_utils.reproduce import notebooks, parse_value

SMALL = {
    "n_images": "64",
    "epochs": "6",
    "encoders": "mobilenet_v2",
    "classifiers": "mobilenet_v2",
    "extractors": "mobilenet_v2",
}


def reproduce(tmp_path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    places = {"RURANET_STORE": str(tmp_path / "store"), "RURANET_FIGURES": str(tmp_path / "figures")}
    command = [sys.executable, "-m", "ruranet_utils.reproduce", *arguments]
    return subprocess.run(
        command, env={**os.environ, **places, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """All notebooks with injected parameters, twice."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [part for name, value in SMALL.items() for part in ("-p", name, value)]
    first = reproduce(folder, *arguments)
    tables = {path.name: path.read_bytes() for path in (folder / "figures/synthetic").glob("*.csv")}
    second = reproduce(folder, "--only", "02", "--only", "04", *arguments)
    return folder, first, tables, second


def test_every_notebook_runs_with_injected_parameters(small_run):
    folder, first, tables, _ = small_run
    assert first.returncode == 0, first.stderr
    for path in notebooks():
        assert (folder / "figures/synthetic/notebooks" / path.name).exists()
        assert f"{path.stem}  0" in first.stdout
    assert {f"table_{number}.csv" for number in range(1, 6)} <= set(tables)
    assert len(pd.read_csv(folder / "figures/synthetic/cohort_diagnosis.csv")) == int(SMALL["n_images"])


def test_tables_hold_computed_numbers_beside_the_papers(small_run):
    folder, *_ = small_run
    table = pd.read_csv(folder / "figures/synthetic/table_4.csv")
    ours = table[table["accuracy ours"].notna()]
    assert set(zip(ours["method"], ours["backbone"], ours["selection"], strict=True)) == {
        (method, "mobilenet_v2", selection)
        for method in ("kmedoids", "kmeans", "agglomerative", "dmh")
        for selection in ("oracle", "label_free")
    }
    assert set(ours["weights"]) == {"random"} and set(ours["n"]) == {64}
    assert table["accuracy paper"].notna().sum() == 2 * 20


def test_run_json_tells_where_the_tables_come_from(small_run):
    folder, *_ = small_run
    run = json.loads((folder / "figures/synthetic/run.json").read_text())
    assert {"versions", "profile", "data", "notebooks", "parameters", "device"} <= set(run)
    assert run["versions"]["torch"] and set(run["data"]) == {"cohort_diagnosis.csv", "cohort_segmentation.csv"}
    facts = run["notebooks"]["02_backbone_study"]
    assert facts["time_s"] > 0 and facts["peak_memory_mb"] > 100 and "commit" in facts
    # 02 and 04 ran again by themselves; what the first run said of the others is still there
    assert list(run["notebooks"]) == [path.stem for path in notebooks()]
    assert facts["computed"] == 0 and run["notebooks"]["03_supervised"]["computed"] > 0


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(small_run):
    folder, _, tables, second = small_run
    assert second.returncode == 0, second.stderr
    assert second.stdout.count(" 0 steps computed") == 2
    for name, content in tables.items():
        assert (folder / "figures/synthetic" / name).read_bytes() == content


def test_list(tmp_path):
    done = reproduce(tmp_path, "--list")
    assert done.stdout.split() == [path.stem for path in notebooks()]


@pytest.mark.parametrize(
    ("arguments", "complaints"),
    [
        (["--profile", "papper"], ["'papper'", "synthetic, open, paper"]),
        (["-p", "epoch", "3"], ["epoch", "epochs"]),
        (["-p", "encoders", "resnet19"], ["resnet19", "densenet201"]),
        (["--only", "09"], ["'09'", "06_pca"]),
        (["-p", "epochs", "0"], ["epochs", "0"]),
    ],
)
def test_unknown_names_and_values_are_refused_before_anything_runs(tmp_path, arguments, complaints):
    done = reproduce(tmp_path, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
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
    assert parse_value(text) == value
