"""What the benchmarks share: a fresh process for every measurement, and where the results go."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from ruranet_utils.running.provenance import save_measurement

RESULTS = Path(__file__).parent / "results"
os.environ["TQDM_DISABLE"] = "1"


def measure(function: Callable, *arguments) -> dict:
    """Run a function in its own process, after its module's imports.

    Returns
    -------
    dict
        ``time_s``, ``peak_mb`` (peak resident memory of the process, interpreter, libraries and mapped files
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
    if status.exists():  # getrusage would count the parent process
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def save(frame: pd.DataFrame, name: str, caption: str, digits: int = 2) -> None:
    """Print a table and write it to ``benchmarks/results``, with its commit, machine and versions in ``run.json``."""
    save_measurement(frame, name, RESULTS, digits)
    print(f"\n{caption}\n{(RESULTS / f'{name}.md').read_text()}", flush=True)
