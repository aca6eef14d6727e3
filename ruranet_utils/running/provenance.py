"""Where results come from: the content of ``run.json``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ruranet_utils import paths
from ruranet_utils.config import Profile
from ruranet_utils.store import digest_file

LIBRARIES = (
    "numpy",
    "pandas",
    "scikit-learn",
    "scikit-learn-extra",
    "segmentation-models-pytorch",
    "torch",
    "torchvision",
)


def describe_run(profile: Profile, parameters: dict, ran: dict[str, dict], before: dict) -> dict:
    """Everything needed to tell where a table came from: the content of ``run.json``.

    Parameters
    ----------
    profile : Profile
    parameters : dict
        Which the notebooks made the profile of.
    ran : dict
        What :func:`ruranet_utils.headless.run_notebook` returned, by notebook.
    before : dict
        The ``run.json`` that is replaced, or nothing. What it says of notebooks that did not run now stays if they
        had the same parameters: their tables are still there. A notebook's ``costliest`` run stays, too: the one that
        computed the most steps, which a run that finds them all in the store says nothing about.
    """
    earlier = before.get("notebooks", {}) if before.get("parameters") == parameters else {}
    for name, facts in ran.items():
        costliest = earlier.get(name, {}).get("costliest", facts)
        facts["costliest"] = max({**facts}, costliest, key=lambda run: run["computed"])
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
        "profile": profile.settings(*profile.__dataclass_fields__),
        "device": _device(profile.device),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "disk_mb": {"store": _size_mb(paths.store()), "environment": _size_mb(Path(sys.prefix))},
        "instructions": os.environ.get("RURANET_INSTRUCTIONS", profile.instructions),
        "data": _digests(paths.figures(profile.results)),
        "weights": _weights(),
        "notebooks": dict(sorted({**earlier, **ran}.items())),
    }


def _device(device: str) -> str:
    import torch  # large, and needed here alone

    used = device != "cpu" and torch.cuda.is_available()
    return torch.cuda.get_device_name() if used else "cpu"


def _digests(results: Path) -> dict[str, str]:
    """SHA-256 of the manifests written by notebook 01, which hold the SHA-256 of every image."""
    return {file.name: digest_file(file) for file in sorted(results.glob("cohort_*.csv"))}


def _weights() -> dict[str, str]:
    place = paths.weights_dir()
    return {file.name: digest_file(file) for file in sorted(place.glob("*.pth"))} if place else {}


def _size_mb(folder: Path) -> int:
    return round(512 * sum(file.lstat().st_blocks for file in folder.rglob("*")) / 1e6)


def describe_code() -> dict:
    """``commit`` and whether there are ``uncommitted_changes`` in what results depend on."""
    status = git("status", "--porcelain", "--", "ruranet_utils", "notebooks/text", "uv.lock")
    return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": bool(status)}


def git(*arguments: str) -> str | None:
    """What git prints about this repository, or None if it fails."""
    done = subprocess.run(["git", "-C", paths.ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
