"""The command ``ruranet``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ruranet_utils import published
from ruranet_utils.cli import main

RURANET = Path(sys.executable).with_name("ruranet")


def ruranet(*arguments, stdin=None, **variables) -> Result:
    """What the command does, in this process: starting python and loading torch takes seconds."""
    runner = CliRunner(env={name: str(value) for name, value in variables.items()})
    return runner.invoke(main, [str(part) for part in arguments], input=stdin, catch_exceptions=False)


def shell(*arguments, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        [RURANET, *map(str, arguments)],
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["reproduce", "segment", "cluster", "audit", "data"])
def test_every_command_explains_itself(command):
    done = ruranet(command, "--help")
    assert done.exit_code == 0
    assert f"Usage: main {command}" in done.stdout and "--json" in done.stdout
    assert command in ruranet("--help").stdout


def test_wrong_usage_is_exit_code_2(tmp_path):
    for arguments in (["paint"], ["segment"], ["segment", tmp_path / "nothing"], ["data", "--source", "imagenet"]):
        assert ruranet(*arguments).exit_code == 2, arguments
    done = ruranet("segment", tmp_path, "--lesion", "drusen")
    assert done.exit_code == 2 and "hard_exudates" in done.stderr
    done = ruranet("segment", tmp_path, "--model", "opne")
    assert done.exit_code == 2 and "'opne'" in done.stderr and "open, paper, folder" in done.stderr
    done = ruranet("cluster", tmp_path, "--models", "opne")
    assert done.exit_code == 2 and "'opne'" in done.stderr


def test_help_loads_no_heavy_library():
    """It should be there at once: neither networks nor notebooks are loaded to print a few lines."""
    code = "import sys, ruranet_utils.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "click" in loaded and not {"torch", "papermill", "nbformat", "kagglehub", "matplotlib"}.intersection(loaded)


def test_ctrl_c_is_exit_code_130(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("ruranet_utils.segmentation.apply.photographs", interrupted)
    monkeypatch.setattr("ruranet_utils.segmentation.apply.Finder.of", lambda *given: None)
    done = CliRunner().invoke(main, ["segment", __file__])
    assert done.exit_code == 130 and done.stderr == "stopped\n"


def test_notebooks_as_json():
    listed = json.loads(ruranet("reproduce", "--list", "--json").stdout)
    assert listed[0] == "01_data_merge" and len(listed) == 10


def test_a_run_as_json(tmp_path):
    places = {"RURANET_FIGURES": tmp_path / "figures", "RURANET_STORE": tmp_path / "store"}
    done = shell("reproduce", "--only", "07", "--json", **places)
    assert done.returncode == 0 and "[1/1] 07_paper_audit" in done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "figures/synthetic/run.json").read_text())


def test_audit_of_a_table():
    """50 images, half of each class; 20 true and 5 false positives: accuracy 0.8, precision 0.8, recall 0.8."""
    right, wrong = "0.8,0.8,0.8,0.8", "0.8,0.8,0.9,0.8"
    done = ruranet("audit", "-", "--json", stdin=f"accuracy,precision,recall,f1\n{right}\n")
    assert done.exit_code == 0 and json.loads(done.stdout)[0]["verdict"] == "consistent"
    done = ruranet("audit", "-", "--decimals", 4, stdin=f"name,accuracy,precision,recall,f1\nX,{right}\nY,{wrong}\n")
    assert done.exit_code == 1 and done.stdout.splitlines()[2].split()[0] == "Y"
    assert done.stdout.count("impossible") == 1
    done = ruranet("audit", "-", stdin="iou,precision\n0.9,0.7\n")
    assert done.exit_code == 1 and "IoU above precision" in done.stdout


@pytest.mark.parametrize("option", ["--positive-share", "--max-images"])
def test_a_wrong_option_of_audit_is_named(option):
    done = ruranet("audit", "-", option, "1", stdin="accuracy\n0.8\n")
    assert done.exit_code == 2 and f"'{option}'" in done.stderr


def test_a_table_as_people_write_it():
    """Blanks, capitals and other names of F1 do not hide a score; the row is impossible by its recall or its F1."""
    for head, row in (("Accuracy, Precision, Recall", "0.8, 0.8, 0.9"), ("accuracy,precision,F1 score", "0.8,0.8,0.2")):
        done = ruranet("audit", "-", "--decimals", 4, stdin=f"Method, {head}\nY, {row}\n")
        assert done.exit_code == 1 and "impossible" in done.stdout, head


def test_audit_says_what_it_tried_and_what_it_did_not_check():
    """A true row of 2000 images is impossible for 400 of them; a score of an unknown name is not passed over."""
    table = "n,accuracy,precision,recall,f1,specificity\n2000,0.8205,0.8290,0.8205,0.8193,0.9\n"
    done = ruranet("audit", "-", "--decimals", 4, stdin=table)
    assert done.exit_code == 1 and "tried: 2 to 400 images" in done.stderr
    assert "not checked: n, specificity" in done.stderr
    done = ruranet("audit", "-", "--decimals", 4, "--max-images", 2000, stdin=table.replace(",f1", ",F1score"))
    assert done.exit_code == 0 and "tried: 2 to 2000 images" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "accuracy;recall\n0,8;0,7\n",
        "a,b\n1,2\n",
        "accuracy,recall\n84,79\n",
        "method,iou,accuracy\nA,0.9,0.7,0.95\n",
        "accuracy,recall,verdict\n0.8,0.8,good\n",
    ],
)
def test_a_table_that_cannot_be_audited_is_wrong_usage(text):
    done = ruranet("audit", "-", stdin=text)
    assert done.exit_code == 2 and "Invalid value for TABLE" in done.stderr


def test_the_papers_own_table_is_found_out(tmp_path):
    published.table_4().to_csv(tmp_path / "table_4.csv", index=False)
    done = ruranet("audit", tmp_path / "table_4.csv", "--decimals", 4, "--json")
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)) == len(published.table_4())


def test_segment_writes_masks_and_prints_areas(untrained, phantoms, tmp_path):
    photograph, out = tmp_path / "eye 1.png", tmp_path / "found"
    Image.fromarray(phantoms.images[0].transpose(1, 2, 0)).save(photograph)
    model = untrained / "models/synthetic/hemorrhages.safetensors"
    arguments = ["segment", photograph, "--lesion", "hemorrhages", "--model", model, "--out", out]
    done = ruranet(*arguments, "--json", RURANET_STORE=untrained)
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["image"], row["lesion"]) == ("eye 1", "hemorrhages")
    mask = np.asarray(Image.open(out / "eye 1_hemorrhages.png"))
    field = (phantoms.images[0].max(axis=0) > 20).mean()
    assert row["area_percent"] == pytest.approx(100 * (mask > 0).mean() / field)
    assert (out / "eye 1_overlay.jpg").exists() and (out / "lesions.csv").exists()


def test_segment_names_a_bad_file_at_the_end_and_does_the_others(untrained, phantoms, tmp_path):
    for name in ("a", "c"):
        Image.fromarray(phantoms.images[0].transpose(1, 2, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no photograph")
    model = untrained / "models/synthetic/hemorrhages.safetensors"
    done = shell("segment", tmp_path, "--model", model, "--out", tmp_path / "found", "--json")
    assert done.returncode == 1 and [row["image"] for row in json.loads(done.stdout)] == ["a", "c"]
    assert "left out" in done.stderr.splitlines()[-1] and "b.png" in done.stderr.splitlines()[-1]


def test_segment_of_bad_files_alone_is_still_json(untrained, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no photograph")
    model = untrained / "models/synthetic/hemorrhages.safetensors"
    done = ruranet("segment", tmp_path, "--model", model, "--out", tmp_path / "found", "--json")
    assert done.exit_code == 1 and json.loads(done.stdout) == []


def test_segment_refuses_a_folder_it_cannot_write_to_before_it_computes(tmp_path):
    done = ruranet("segment", __file__, "--out", "/proc/found")
    assert done.exit_code == 2 and "for --out" in done.stderr and "/proc/found" in done.stderr


def test_segment_without_a_model_says_how_to_train_one(tmp_path):
    photograph = tmp_path / "eye.png"
    Image.new("RGB", (96, 96)).save(photograph)
    done = ruranet("segment", photograph, "--model", "open", RURANET_STORE=tmp_path)
    assert done.exit_code == 1 and "make reproduce PROFILE=open ARGS='--only 02'" in done.stderr


def test_data_as_json(tmp_path):
    (tmp_path / "idrid").mkdir()
    listed = pd.DataFrame(json.loads(ruranet("data", "--json", RURANET_DATA_ROOT=tmp_path).stdout)).set_index("source")
    expected = {name: "incomplete" if name == "idrid" else "missing" for name in listed.index}
    assert listed["state"].to_dict() == expected and "A. Segmentation" in listed["problem"]["idrid"]
