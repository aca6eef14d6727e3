"""The command line with real kernels: ``python -m ruranet_utils.running.reproduce`` and plain papermill."""

import json

import click
import nbformat
import pandas as pd
import papermill
import pytest
from click.testing import CliRunner

from reliability.runs import pairs
from ruranet_utils.profiles import ENCODERS, get_profile
from ruranet_utils.running import headless
from ruranet_utils.running.reproduce import estimate, main, notebooks, parse_value
from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import FIXED
from tests.running.command import reproduce

# What the notebooks' outputs were computed with, too, so that little of it is computed again.
FEW = {"classifiers": "mobilenet_v2", "extractors": "googlenet"}


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
    first = reproduce(folder, *pairs(FEW), **shared)
    tables = {path.name: path.read_bytes() for path in (folder / "figures/synthetic").glob("*.csv")}
    second = reproduce(folder, "--only", "04", *pairs(FEW), **shared)
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
    one = pairs({"encoders": "mobilenet_v2"})
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
    assert headless.progress_of([*noted, {"waiting": "waiting for step/a"}]) == "waiting for step/a"


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
