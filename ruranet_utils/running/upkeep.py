"""The size of the store, and how much of it will never be read again: ``ruranet store``."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pandas as pd

import ruranet_utils
from ruranet_utils.storage import paths
from ruranet_utils.storage.steps import Step

RECORDS = "[!.]*.json"  # of finished results; hidden ones are half written
SUFFIXES = (".safetensors", ".json", ".ckpt", ".lock")


def older_layout(root: Path) -> list[Path]:
    """Folders of steps that an earlier version of the project left in the store; runs do not read or remove them."""
    known = {paths.steps().name, "models", "found", "slurm"}
    folders = [entry for entry in sorted(root.glob("*/")) if entry.name not in known]
    return [folder for folder in folders if _is_of_a_step(folder)]


def _is_of_a_step(folder: Path) -> bool:
    """Whether a folder holds results with their records, and nothing else: what is not ours is left alone."""
    files = list(folder.iterdir())
    recorded = any(file.with_suffix(".json").exists() for file in files if file.suffix == ".safetensors")
    return recorded and all(file.suffix in SUFFIXES for file in files)


def size_mb(*entries: Path) -> float:
    """Disk space of files, and of folders with everything in them, in megabytes (1e6 bytes).

    What another run removes meanwhile, such as a lock, counts nothing.
    """
    files = {file for entry in entries if entry.exists() for file in [entry, *entry.rglob("*")]}
    return 512 * sum(map(_blocks, files)) / 1e6


def _blocks(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.lstat().st_blocks
    return 0


def survey() -> pd.DataFrame:
    """What the store holds.

    Returns
    -------
    DataFrame
        For each step ``results`` (number), ``size_mb``, and ``outdated_mb``: results of another version of the step,
        or with other constants or libraries than the current ones, and leftovers of interrupted runs. The last row is
        an older layout of the store, if there is one.
    """
    rows = []
    for folder in sorted(paths.steps().glob("*")):
        outdated = _outdated(folder)
        results = len(list(folder.glob(RECORDS)))
        rows.append((folder.name, results, size_mb(folder), size_mb(*outdated) if outdated else 0.0))
    if old := older_layout(paths.store()):
        rows.append(("(older layout)", len(old), size_mb(*old), size_mb(*old)))
    return pd.DataFrame(rows, columns=["step", "results", "size_mb", "outdated_mb"])


def prune(networks: bool = False) -> float:
    """Remove an older layout and outdated results; returns the megabytes freed.

    Parameters
    ----------
    networks : bool
        Also remove the trained networks of single lesions. Their scores stay; to apply them to other photographs, they
        would have to be trained again.
    """
    doomed = older_layout(paths.store())
    for folder in paths.steps().glob("*"):
        trained = networks and folder.name == "segmentation_model"
        doomed += list(folder.iterdir()) if trained else _outdated(folder)
    freed = size_mb(*doomed) if doomed else 0.0
    for entry in doomed:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    return freed


def _outdated(folder: Path) -> list[Path]:
    """Files of one step that no run of the current project and environment asks for."""
    step = _steps().get(folder.name)
    kept = set()
    for record in folder.glob(RECORDS):
        try:
            key = json.loads(record.read_text())["key"]
        except (ValueError, KeyError):  # damaged: the step will be computed again
            continue
        if step and all(key.get(name) == value for name, value in step.dependencies.items()):
            kept.add(record.stem)
    return [file for file in sorted(folder.iterdir()) if file.name.split(".")[0] not in kept]


def _steps() -> dict[str, Step]:
    """Every step of the package by its name."""
    modules = walk_packages(ruranet_utils.__path__, "ruranet_utils.")
    found = [value for module in modules for value in vars(import_module(module.name)).values()]
    return {value.name: value for value in found if isinstance(value, Step)}
