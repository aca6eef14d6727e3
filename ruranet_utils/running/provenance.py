"""Where results come from: the content of ``run.json``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ruranet_utils.profiles import Profile
from ruranet_utils.reporting.tables import save_table
from ruranet_utils.running.upkeep import size_mb
from ruranet_utils.storage import machine, paths
from ruranet_utils.storage.artefacts import digest_file, write_atomically
from ruranet_utils.storage.steps import LIBRARIES

if TYPE_CHECKING:
    import pandas as pd
    import torch

SOURCES = ("ruranet_utils", "notebooks/text", "uv.lock", "benchmarks/*.py", "reliability/*.py")


def describe_run(profile: Profile, parameters: dict, ran: dict[str, dict], before: dict, cold: bool = False) -> dict:
    """Everything needed to tell where a table comes from: the content of ``run.json``.

    Parameters
    ----------
    profile : Profile
    parameters : dict
        Those from which the notebooks made the profile.
    ran : dict
        What :func:`ruranet_utils.running.headless.run_notebook` returned, by notebook.
    before : dict
        The ``run.json`` to be replaced, or an empty dict. Its entries on notebooks that did not run this time are kept,
        since their tables are still there; ``other_settings`` are those that differed then. With equal settings each
        notebook's ``costliest`` run is kept, too, the one that computed the most steps: a run that finds everything in
        the store says nothing about the cost.
    cold : bool
        Whether every step was computed: what this run cost then holds, even if earlier code computed more.
    """
    settings = json.loads(json.dumps(asdict(profile)))  # tuples become lists, as in the file
    notebooks = {}
    for name, facts in before.get("notebooks", {}).items():
        then = {**before["profile"], **facts.get("other_settings", {})}
        others = {key: value for key, value in then.items() if settings.get(key) != value}
        kept = {key: value for key, value in facts.items() if key != "other_settings"}
        notebooks[name] = {**kept, "other_settings": others} if others else kept
    for name, facts in ran.items():
        earlier = notebooks.get(name, {})
        costliest = facts if cold or "other_settings" in earlier else earlier.get("costliest", facts)
        notebooks[name] = {**facts, "costliest": max({**facts}, costliest, key=lambda run: run["computed"])}
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
        "profile": settings,
        "machine": {"system": platform.system(), "processor": machine.processor(), "cores": os.cpu_count()},
        "disk_mb": {"store": round(size_mb(paths.store())), "environment": _environment_mb()},
        "data": _digests(paths.figures(paths.results(profile))),
        "notebooks": dict(sorted(notebooks.items())),
    }


def describe_process(device: torch.device) -> dict:
    """What the results of this process depend on besides the code: python, ``versions``, device and instructions."""
    import torch

    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "instructions": machine.instructions(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("pandas", *LIBRARIES.values())},
    }


def save_measurement(frame: pd.DataFrame, name: str, folder: Path, digits: int = 4) -> None:
    """Write a measured table, and its commit, machine and versions to ``run.json`` beside it.

    Parameters
    ----------
    frame, name, folder, digits
        As for :func:`ruranet_utils.reporting.tables.save_table`.
    """
    save_table(frame, name, folder, digits)
    file = folder / "run.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    versions = {library: version(library) for library in ("pandas", *LIBRARIES.values())}
    ran_on = {"processor": machine.processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    measured[name] = {**describe_code(), "machine": ran_on, "versions": versions}
    write_atomically(file, lambda file: file.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n"))


@cache
def _environment_mb() -> int:
    return round(size_mb(Path(sys.prefix)))


def _digests(results: Path) -> dict[str, str]:
    """SHA-256 of the manifests written by notebook 01, which hold the SHA-256 of every image."""
    return {file.name: digest_file(file) for file in sorted(results.glob("cohort_*.csv"))}


def describe_code() -> dict:
    """``commit`` and whether there are ``uncommitted_changes`` in what results depend on."""
    status = git("status", "--porcelain", "--", *SOURCES)
    return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": None if status is None else bool(status)}


def git(*arguments: str) -> str | None:
    """Output of git for this repository, or None if it fails."""
    done = subprocess.run(["git", "-C", paths.ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
