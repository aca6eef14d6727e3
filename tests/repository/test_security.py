"""What is read from elsewhere cannot run code, what is published names no machine, and photographs stay here."""

import json
import os
import re
import subprocess
import sys
import tomllib

import nbformat
import numpy as np
import pytest
from PIL import Image

from reliability.runs import ELSEWHERE
from ruranet_utils.running.reproduce import notebooks
from ruranet_utils.storage import paths

DANGEROUS = {
    "pickle": "import pickle\npickle.load(open('a', 'rb'))\n",
    "eval": "eval(input())\n",
    "pandas": "import pandas as pd\npd.read_pickle('a')\n",
    "tar": "import tarfile\ntarfile.open('a').extractall()\n",
    "yaml": "import yaml\nyaml.load('a')\n",
}


@pytest.mark.parametrize("code", DANGEROUS.values(), ids=DANGEROUS)
def test_the_linter_refuses_code_that_runs_what_it_reads(code):
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "ruranet_utils/example.py", "-"]
    done = subprocess.run(command, cwd=paths.ROOT, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.search(r"\bS\d{3}\b", done.stdout)


def test_no_file_of_the_package_escapes_the_linter():
    for file in (paths.ROOT / "ruranet_utils").rglob("*.py"):
        assert not ESCAPES.search(file.read_text()), file


@pytest.mark.parametrize(
    "code",
    ["joblib.load('a')", "np.load('a', allow_pickle=True)", "pickle.loads(a)  # noqa", "eval(a)  # noqa: B1, S307"],
)
def test_what_the_linter_does_not_see_is_seen(code):
    assert ESCAPES.search(code)


def test_every_file_of_the_lock_has_a_hash_and_comes_from_the_public_index():
    lock = tomllib.loads((paths.ROOT / "uv.lock").read_text())
    packages = [package for package in lock["package"] if "registry" in package["source"]]
    assert len(packages) == len(lock["package"]) - 1  # this project itself
    for package in packages:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files and all(file["hash"].startswith("sha256:") for file in files), package["name"]
        assert package["source"]["registry"] == "https://pypi.org/simple"


ESCAPES = re.compile(r"joblib\.load|allow_pickle=True|weights_only=False|noqa(?!: [A-RT-Z]\d+ )|noqa:.*\bS\d")
PRIVATE = re.compile(
    r"(?:/home/|/root/|/Users/|/mnt/|/tmp/|/work/|/scratch/|/opt/|/srv/|[A-Z]:\\\\)\w"  # paths
    r"|\b(?:AKIA|ghp_|github_pat_|hf_|sk-)[\w-]{10,}"  # tokens
    r"|[\w.+-]+@[\w-]+\.\w+"  # addresses of people
    r"|\b(?:10|127|172|192)\.\d+\.\d+\.\d+\b"  # addresses of machines
)
TELLING = ["/home/anna/x.jpg", "/work/main", "ghp_0123456789abcdef", "anna@example.org", "C:\\\\Users", "192.168.0.3"]


PUBLISHED = (*notebooks(), *sorted((paths.NOTEBOOKS / "open").glob("*.ipynb")))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_notebooks_name_no_path_person_machine_or_token(path):
    notebook = nbformat.read(path, as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
            del output.data[kind]
    text = json.dumps(notebook, ensure_ascii=False)
    assert not PRIVATE.search(text) and str(paths.ROOT) not in text and sys.prefix not in text
    names = {os.environ.get("USER"), os.environ.get("LOGNAME"), os.uname().nodename} - {None, "", "root", "vm"}
    assert not any(re.search(rf"\b{re.escape(name)}\b", text) for name in names)


@pytest.mark.parametrize("text", TELLING)
def test_what_must_not_be_published_is_seen(text):
    assert PRIVATE.search(text)


SEGMENT = """
import sys, torch
from ruranet_utils.segmentation.apply import segment
from ruranet_utils.segmentation import unet
from ruranet_utils.profiles import get_profile
from ruranet_utils.segmentation.model_file import Model
profile = get_profile("synthetic", encoder_depth=3)
network = unet.build("mobilenet_v2", "scse", profile)
state = {f"state.{name}": value.numpy() for name, value in network.state_dict().items()}
card = dict(lesions=["hard_exudates"], encoder="mobilenet_v2", attention="scse", encoder_depth=3, image_size_px=96)
card.update(decoder_width=256, crop_field=True, thresholds=[0.5], seed=0, trained_on=["synthetic"], licenses=[])
print(len(segment(sys.argv[1], model=Model(state, card)).findings))
"""
CONTACT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


def run_without_a_network(code, folder, *arguments):
    variables = {
        "PYTHONPATH": os.pathsep.join([str(paths.ROOT), str(ELSEWHERE)]),
        "ELSEWHERE_CONTACTS": str(folder / "contacts.txt"),
        "RURANET_STORE": str(folder / "store"),
    }
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def test_photographs_are_segmented_without_a_connection(tmp_path):
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "images/eye.png")
    done = run_without_a_network(SEGMENT, tmp_path, tmp_path / "images")
    assert done.returncode == 0 and done.stdout.strip() == "1", done.stderr
    assert not (tmp_path / "contacts.txt").exists()


def test_a_connection_would_be_seen(tmp_path):
    done = run_without_a_network(CONTACT, tmp_path)
    assert done.returncode == 1 and "nothing outside this machine can be reached" in done.stderr
    assert (tmp_path / "contacts.txt").read_text() == "192.0.2.1\n"
