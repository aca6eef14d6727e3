"""Runs of the whole project, each in its own folder, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from ruranet_utils.storage import paths

RESULTS = Path(__file__).parent / "results"
ELSEWHERE = Path(__file__).parent / "elsewhere"
LONGEST_S = 3600
TIMINGS = ("time_1.csv", "time_1.md", "run.json")
# One network of each kind: every notebook and every kind of step in a few minutes.
SMALL = {"epochs": 2, "encoders": "mobilenet_v2", "classifiers": "mobilenet_v2", "extractors": "mobilenet_v2"}


def copy_project(target: Path) -> Path:
    """Copy what git tracks or would add, except results: a clone with the changes of the working tree."""
    listed = ["git", "-C", paths.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    target = target.resolve()
    for name in filter(None, names):
        if not name.startswith("figures/") and (paths.ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.ROOT / name, target / name)
    return target


def reproduce(folder: Path, arguments: Sequence[str] = (), prefix: Sequence[str] = (), **variables: str):
    """Start ``make reproduce`` on a copy of the project, with almost nothing of this process's environment.

    Parameters
    ----------
    folder : Path
        From :func:`copy_project`; store and figures go there.
    arguments : sequence of str
        For ``ruranet_utils.running.reproduce``.
    prefix : sequence of str
        Command that starts it, such as ``unshare``.
    **variables : str
        Environment.

    Returns
    -------
    subprocess.Popen
        In its own session; its output goes to ``output.txt`` beside the folder.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
    with (folder.parent / "output.txt").open("a") as output:
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "ruranet_utils.running.reproduce", *arguments],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(folder), **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )


def _hear_interrupts() -> None:
    """Let Ctrl-C interrupt it: what a shell runs in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a run that must succeed."""
    try:
        process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    if process.wait():
        output = (folder.parent / "output.txt").read_text()
        raise RuntimeError(f"the run in {folder} ended with {process.returncode}:\n{output[-3000:]}")


def outcome(figures: Path) -> dict[str, str]:
    """SHA-256 of every table, manifest and figure and of the outputs of every executed notebook, except timings."""
    files = (path for path in sorted(figures.iterdir()) if path.is_file() and path.name not in TIMINGS)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for path in sorted((figures / "notebooks").glob("*.ipynb")):
        digests[path.name] = hashlib.sha256(json.dumps(_outputs(path)).encode()).hexdigest()
    return digests


def _outputs(notebook: Path) -> list:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.outputs for cell in cells if cell.cell_type == "code" and "nbval-ignore-output" not in _tags(cell)]


def _tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def kind(name: str) -> str:
    """The kind of a results file."""
    if name.startswith("cohort_"):
        return "manifests"
    return {".csv": "tables", ".md": "tables", ".ipynb": "notebook outputs"}.get(Path(name).suffix, "figures")


def pairs(parameters: dict) -> list[str]:
    """Notebook parameters as arguments of the command line."""
    return [part for name, value in parameters.items() for part in ("-p", name, str(value))]
