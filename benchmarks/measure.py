"""What the benchmarks share: a fresh process for every measurement, and where the results go."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from ruranet_utils.reporting.tables import save_table

RESULTS = Path(__file__).parent / "results"
os.environ["TQDM_DISABLE"] = "1"


def measure(function: Callable, *arguments) -> dict:
    """Run a function in a process of its own, after its module's imports.

    Returns
    -------
    dict
        ``time_s``, ``peak_mb`` (highest resident memory of the process, interpreter, libraries and mapped files
        included) and what the function returned.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_timed, function, *arguments).result()


def _timed(function: Callable, *arguments) -> dict:
    start = time.perf_counter()
    result = function(*arguments) or {}
    return {"time_s": time.perf_counter() - start, "peak_mb": _peak_mb(), **result}


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def save(frame: pd.DataFrame, name: str, caption: str, digits: int = 2) -> None:
    """Print a table and write it to ``benchmarks/results``, with its commit, machine and versions in ``run.json``."""
    save_table(frame, name, RESULTS, digits)
    print(f"\n{caption}\n{(RESULTS / f'{name}.md').read_text()}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    versions = {package: version(package) for package in ("numpy", "pillow", "imagehash", "torch")}
    file = RESULTS / "run.json"
    about = {**json.loads(file.read_text()), name: {"commit": commit or None, "machine": machine, "versions": versions}}
    file.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
