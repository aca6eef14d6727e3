"""Execute one notebook without a browser, by papermill, and watch its steps, seconds and memory."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
from jupyter_client import KernelManager
from tqdm import tqdm

from ruranet_utils.running.provenance import describe_code
from ruranet_utils.storage import paths

SAY_EVERY_S = 20
IMPORTS = ["import ruranet_utils.running.start, sklearn, seaborn", "del ruranet_utils, sklearn, seaborn"]


@dataclass(frozen=True)
class Kernel:
    """A notebook with the kernel that is to run it.

    Attributes
    ----------
    path : Path
        The notebook.
    journal : Path
        Where the kernel's store notes its steps.
    manager : KernelManager
    """

    path: Path
    journal: Path
    manager: KernelManager


class Kernels:
    """Kernels of the notebooks in turn; each starts and imports the libraries while the notebook before it runs.

    While notebooks only read from the store, the next kernel starts at once. In a run that computes, it waits until
    the notebook before it has executed half of its cells, the long ones: a waiting kernel holds 400 MB beside the
    workers.

    Parameters
    ----------
    notebooks : sequence of Path
    executed : Path
        Folder that gets the executed notebooks.
    """

    def __init__(self, notebooks: Sequence[Path], executed: Path):
        executed.mkdir(parents=True, exist_ok=True)
        self.ahead, self.executed, self.computes = list(notebooks), executed, False
        self.running: list[Kernel] = []

    def __iter__(self) -> Iterator[Kernel]:
        """Yield each kernel; it is shut down when the next one is asked for."""
        try:
            self.start_next()
            while self.running:
                if not self.computes:
                    self.start_next()
                yield self.running[0]
                self.start_next()
                _stop(self.running.pop(0))
        finally:
            for kernel in self.running:
                _stop(kernel)

    def start_next(self) -> None:
        """Start the kernel of the notebook after the running one, unless it has been started."""
        if self.ahead and len(self.running) < 2:
            self.running.append(_start(self.ahead.pop(0), self.executed))

    def run(self, parameters: dict) -> dict:
        """Run the notebook that was yielded last, as :func:`run_notebook` does, and start the next kernel in time."""
        kernel = self.running[0]
        n_cells = len(nbformat.read(kernel.path, as_version=4).cells)

        def look(cell_index: int, **_) -> None:
            if cell_index > n_cells / 2:
                self.start_next()

        facts = run_notebook(kernel, parameters, self.executed, on_cell_start=look)
        self.computes |= facts["computed"] > 0
        return facts


def _start(path: Path, executed: Path) -> Kernel:
    journal = executed / f".{path.stem}.jsonl"
    journal.unlink(missing_ok=True)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(
        cwd=str(paths.NOTEBOOKS),
        env={**os.environ, "RURANET_JOURNAL": str(journal), "RURANET_WIDGETS": "0", "TQDM_DISABLE": "1"},
        extra_arguments=[
            # A kernel of this machine, for this process: its warning of an unencrypted port is noise, and so is what
            # it logs of a shutdown in the middle of a cell. Errors of cells arrive as such.
            "--log-level=CRITICAL",
            "--HistoryManager.hist_file=:memory:",
            f"--IPKernelApp.exec_lines={IMPORTS}",
        ],
    )
    return Kernel(path, journal, manager)


def _stop(kernel: Kernel) -> None:
    """End a kernel at once: everything is written, there is no need to wait a second for its farewell."""
    kernel.manager.shutdown_kernel(now=True)
    kernel.journal.unlink(missing_ok=True)


def run_notebook(kernel: Kernel, parameters: dict, executed: Path, **hooks: Callable) -> dict:
    """Execute one notebook by papermill.

    Parameters
    ----------
    kernel : Kernel
        One of :class:`Kernels`.
    parameters : dict
        Injected into the notebook.
    executed : Path
        Folder that gets the executed notebook.
    **hooks
        Called by nbclient, such as ``on_cell_start``.

    Returns
    -------
    dict
        ``commit``, ``uncommitted_changes``, ``time_s``, ``peak_memory_mb``, the numbers of steps ``computed`` and
        ``found`` in the store, what :func:`ruranet_utils.running.provenance.describe_process` says of the kernel, and
        the ``weights`` that it used, by backbone.

    Raises
    ------
    papermill.PapermillExecutionError
        If a cell fails.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of settings that `start` takes from its cell
    watch = Watch(kernel.path.stem, kernel.journal)
    watch.start()
    try:
        papermill.execute_notebook(
            kernel.path,
            executed / kernel.path.name,
            parameters,
            km=kernel.manager,
            progress_bar=False,
            request_save_on_cell_execute=False,
            **hooks,
        )
    finally:
        watch.done.set()
        watch.join()
        watch.look()
    noted = events(kernel.journal)
    steps = [event for event in noted if "found" in event]
    weights = [event["weights"] for event in noted if "weights" in event]
    return {
        **describe_code(),
        "time_s": round(watch.time_s, 1),
        "peak_memory_mb": round(watch.peak_bytes / 2**20),
        "computed": sum(not step["found"] for step in steps),
        "found": sum(step["found"] for step in steps),
        **next((event["started"] for event in noted if "started" in event), {}),
        "weights": dict(sorted((name, used) for one in weights for name, used in one.items())),
    }


class Watch(threading.Thread):
    """Prints how a notebook gets on and remembers the highest memory of this process and its children."""

    def __init__(self, title: str, journal: Path):
        super().__init__(daemon=True)
        self.title, self.journal = title, journal
        self.start_s, self.peak_bytes, self.said_s = time.perf_counter(), 0, 0.0
        self.done = threading.Event()

    @property
    def time_s(self) -> float:
        """Seconds since the notebook started."""
        return time.perf_counter() - self.start_s

    def run(self):
        """Look once a second until ``done`` is set."""
        while not self.done.wait(1.0):
            self.look()
            self.say()

    def look(self):
        """Measure memory; pages that processes share count once (PSS)."""
        try:
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, processes)))
        except psutil.NoSuchProcess:
            pass

    def say(self):
        """Print the time and the step, on one line of a terminal, or a line every ``SAY_EVERY_S`` into a file."""
        line = f"{self.title}  {tqdm.format_interval(self.time_s)}  {progress_of(events(self.journal))}"
        if sys.stdout.isatty():
            print(f"\r{line:<100}", end="", flush=True)
        elif self.time_s - self.said_s >= SAY_EVERY_S:
            self.said_s = self.time_s
            print(line, flush=True)


def progress_of(noted: list[dict]) -> str:
    """Which of how many jobs a notebook has done, of the last kind of step that it has planned."""
    planned = [(number, event) for number, event in enumerate(noted) if "planned" in event]
    if not planned:
        return ""
    number, plan = planned[-1]
    done = [event for event in noted[number:] if event.get("step") == plan["step"] and event.get("found") is False]
    return f"{plan['step'].replace('_', ' ')} {len(done)} of {plan['planned']}"


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
