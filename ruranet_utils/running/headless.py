"""Execute one notebook without a browser, by papermill, and watch its steps, seconds and memory."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import papermill
import psutil
from tqdm import tqdm

from ruranet_utils import paths
from ruranet_utils.provenance import describe_code


def run_notebook(path: Path, parameters: dict, executed: Path) -> dict:
    """Execute one notebook by papermill.

    Parameters
    ----------
    path : Path
    parameters : dict
        Injected into the notebook.
    executed : Path
        Folder that gets the executed notebook.

    Returns
    -------
    dict
        ``commit``, ``uncommitted_changes``, ``time_s``, ``peak_memory_mb``, and the numbers of steps ``computed``
        and ``found`` in the store.

    Raises
    ------
    papermill.PapermillExecutionError
        If a cell fails.
    """
    executed.mkdir(parents=True, exist_ok=True)
    journal = executed / f".{path.stem}.jsonl"
    journal.unlink(missing_ok=True)
    os.environ.update(RURANET_JOURNAL=str(journal), RURANET_WIDGETS="0", TQDM_DISABLE="1")
    watch = Watch(path.stem, journal)
    watch.start()
    try:
        papermill.execute_notebook(
            path,
            executed / path.name,
            parameters,
            cwd=paths.NOTEBOOKS,
            kernel_name="python3",
            progress_bar=False,
            # A kernel of this machine, for this process: its warning of an unencrypted port is noise, and so is what
            # it logs of a shutdown in the middle of a cell. Errors of cells arrive as such.
            extra_arguments=["--log-level=CRITICAL"],
        )
    finally:
        watch.done.set()
        watch.join()
        watch.look()
        steps = events(journal)
        journal.unlink(missing_ok=True)
    return {
        **describe_code(),
        "time_s": round(watch.time_s, 1),
        "peak_memory_mb": round(watch.peak_bytes / 2**20),
        "computed": sum(not step["found"] for step in steps),
        "found": sum(step["found"] for step in steps),
    }


class Watch(threading.Thread):
    """Prints how a notebook gets on and remembers the highest memory of this process and its children."""

    def __init__(self, title: str, journal: Path):
        super().__init__(daemon=True)
        self.title, self.journal = title, journal
        self.start_s, self.peak_bytes, self.steps = time.perf_counter(), 0, 0
        self.done = threading.Event()

    @property
    def time_s(self) -> float:
        """Seconds since the notebook started."""
        return time.perf_counter() - self.start_s

    def run(self):
        """Look once a second until ``done`` is set."""
        while not self.done.wait(1.0):
            self.look()
            if sys.stdout.isatty():
                print(f"\r{self.title}  {tqdm.format_interval(self.time_s)}  {self.steps} steps", end="", flush=True)

    def look(self):
        """Count the steps in the journal and measure memory; pages that processes share count once (PSS)."""
        self.steps = len(events(self.journal))
        try:
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, processes)))
        except psutil.NoSuchProcess:
            pass


def _memory(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return getattr(memory, "pss", memory.uss)


def events(journal: Path) -> list[dict]:
    """What the store did, line by line."""
    found = []
    for line in journal.read_text().splitlines() if journal.exists() else []:
        with suppress(json.JSONDecodeError):  # of a process that was killed while it wrote
            found.append(json.loads(line))
    return found
