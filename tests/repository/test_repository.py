"""What may be committed, and what has to be there for a reader who comes from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ruranet_utils.running.reproduce import notebooks
from ruranet_utils.storage import paths

PRE_COMMIT = [Path(sys.executable).with_name("pre-commit"), "run", "--all-files"]


def text(name):
    return (paths.ROOT / name).read_text()


@pytest.fixture
def repository(tmp_path):
    """An empty repository with this one's hooks."""
    shutil.copy(paths.ROOT / ".pre-commit-config.yaml", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("docs/eye.JPG", True),
        ("docs/eye.png", True),
        ("docs/eye", True),
        ("masks/eye 1.tif", True),
        ("model.safetensors", True),
        ("model.weights of mine", True),
        ("models/lesions.safetensors", False),
        ("models/mine.safetensors", True),
        ("figures/open/photographs/fig_examples.pdf", True),
        ("figures/open/photographs/fig_examples.png", True),
        ("figures/open/fig_segmentation.png", True),
        ("figures/open/fig_segmentation.pdf", True),
        ("figures/open/fig_pca.png", False),
        ("figures/open/fig_pca.pdf", False),
    ],
)
def test_photographs_masks_and_weights_are_refused(repository, name, refused):
    """Whatever their name is: a file is binary by its content where its suffix does not say so."""
    file = repository / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(range(256)))
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
    done = subprocess.run(
        [*PRE_COMMIT[:2], "data-guard", *PRE_COMMIT[2:]], cwd=repository, capture_output=True, text=True
    )
    assert (done.returncode != 0) is refused, done.stdout
    assert (name in done.stdout and "data/README.md" in done.stdout) is refused


def test_nothing_of_that_kind_is_committed():
    if not (paths.ROOT / ".git").exists():
        pytest.skip("no git repository")
    command = [*PRE_COMMIT[:2], "data-guard", *PRE_COMMIT[2:]]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_is_stored_in_a_megabyte(path):
    assert path.stat().st_size <= 1_000_000


def test_citation_names_software_and_paper():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "MIT"
    assert citation["references"][0]["title"].startswith("RURANET++: An Unsupervised Learning Method")
    assert f"## {citation['version']}" in text("CHANGELOG.md")
    assert f'version = "{citation["version"]}"' in text("pyproject.toml")


def test_the_workflow_runs_what_the_project_runs():
    steps = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"]["test"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    assert "make test" in text(".ci/run").splitlines()
    weekly = yaml.safe_load(text(".github/workflows/weekly.yml"))["jobs"]["reliability"]
    assert weekly["strategy"]["matrix"]["target"] == ["reproduce", "verify", "chaos"]


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_files_for_other_services_keep_to_their_published_schemas(schema, pattern, tmp_path):
    check = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", f"vendor.{schema}"]
    files = sorted(paths.ROOT.glob(pattern))
    done = subprocess.run([*check, *files], capture_output=True, text=True, check=False)
    assert files and done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(files[0].read_text() + "\nmisspelled: 1\n")
    assert subprocess.run([*check, broken], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    "path", sorted((paths.ROOT / "figures/synthetic").glob("fig_*.pdf")), ids=lambda path: path.stem
)
def test_figures_are_readable_at_half_a_pages_width(path):
    """No wider than 8 inches: letters of 9 points and more keep 4 points at 3.5 inches, those of 12 keep 5."""
    (width_pt,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", path.read_bytes())
    assert float(width_pt) / 72 <= 8.2  # margins, cut tightly, may add to the figure's own width
