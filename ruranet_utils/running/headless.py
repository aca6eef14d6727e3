"""Execute notebooks with papermill, without a browser, and watch their steps, time and memory."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from tqdm import tqdm

from ruranet_utils.running.provenance import describe_code
from ruranet_utils.storage import paths

LOOK_EVERY_S, SAY_EVERY_S = 2, 20  # reading the memory of all processes takes a tenth of a second
MOST_LANES, LANE_BYTES = 2, 6e9
START_S = 600  # for a kernel to import the libraries, which takes minutes from a slow disk
IMPORTS = ["import ruranet_utils.running.start, sklearn, seaborn", "del ruranet_utils, sklearn, seaborn"]


@dataclass(frozen=True)
class Kernel:
    """A notebook and the kernel that will run it.

    Attributes
    ----------
    path : Path
        The notebook.
    journal : Path
        Where the kernel's store logs its steps.
    manager : KernelManager
    """

    path: Path
    journal: Path
    manager: KernelManager


class Kernels:
    """Runs notebooks: one at a time while they compute, two at a time while they only read from the store.

    The second lane opens if ``LANE_BYTES`` of memory are free.

    A notebook that computes has both cores and their memory for its workers. During its second half, which only plots,
    the next kernel starts and imports the libraries.

    Parameters
    ----------
    notebooks : sequence of Path
    executed : Path
        Folder for the executed notebooks.
    on_start : callable
        Called with the path of each notebook that starts.
    """

    def __init__(self, notebooks: Sequence[Path], executed: Path, on_start: Callable[[Path], None]):
        executed.mkdir(parents=True, exist_ok=True)
        self.ahead, self.executed, self.on_start, self.lanes = list(notebooks), executed, on_start, 1
        self.started: list[Kernel] = []
        self.spare: Kernel | None = None

    def run(self, parameters: dict) -> Iterator[tuple[Path, Future]]:
        """Yield each notebook with a future of its run, whose result is that of :func:`run_notebook`."""
        running: dict[Future, Kernel] = {}
        with ThreadPoolExecutor(MOST_LANES) as pool:
            try:
                while self.ahead or self.spare or running:
                    while (self.ahead or self.spare) and len(running) < self.lanes:
                        kernel = self._take()
                        self.on_start(kernel.path)
                        running[pool.submit(self._run, kernel, parameters)] = kernel
                    for ended in wait(running, return_when=FIRST_COMPLETED).done:
                        kernel = running.pop(ended)
                        yield kernel.path, ended
                        self._stop(kernel)
                        reads = ended.result()["computed"] == 0
                        self.lanes = MOST_LANES if reads and psutil.virtual_memory().available > LANE_BYTES else 1
            finally:
                for kernel in list(self.started):
                    self._stop(kernel)

    def _run(self, kernel: Kernel, parameters: dict) -> dict:
        n_cells = len(nbformat.read(kernel.path, as_version=4).cells)

        def look(cell_index: int, **_) -> None:
            if cell_index > n_cells / 2 and self.lanes == 1 and self.ahead and not self.spare:
                self.spare = self._take()

        return run_notebook(kernel, parameters, self.executed, on_cell_start=look)

    def _take(self) -> Kernel:
        """The kernel of the next notebook, started unless it is running already."""
        kernel, self.spare = self.spare, None
        if kernel is None:
            kernel = _start(self.ahead.pop(0), self.executed)
            self.started.append(kernel)
        return kernel

    def _stop(self, kernel: Kernel) -> None:
        """End a kernel at once: everything is written, so there is no need to wait a second for a clean shutdown."""
        self.started.remove(kernel)
        kernel.manager.shutdown_kernel(now=True)
        kernel.journal.unlink(missing_ok=True)


def _start(path: Path, executed: Path) -> Kernel:
    journal = executed / f".{path.stem}.jsonl"
    journal.unlink(missing_ok=True)
    # this environment's own kernel, whatever others JUPYTER_PATH has under that name
    manager = KernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        # nbclient notices that a kernel is dead only between messages that it awaits; the blocking client waits forever
        client_class="jupyter_client.asynchronous.AsyncKernelClient",
    )
    manager.start_kernel(
        cwd=str(paths.NOTEBOOKS),
        env={**os.environ, "RURANET_JOURNAL": str(journal), "RURANET_WIDGETS": "0", "TQDM_DISABLE": "1"},
        extra_arguments=[
            # A local kernel, for this process only: its warning about an unencrypted port is noise, and so is what it
            # logs about a shutdown in the middle of a cell. Errors in cells are still raised.
            "--log-level=CRITICAL",
            "--HistoryManager.hist_file=:memory:",
            f"--IPKernelApp.exec_lines={IMPORTS}",
        ],
    )
    return Kernel(path, journal, manager)


def run_notebook(kernel: Kernel, parameters: dict, executed: Path, **hooks: Callable) -> dict:
    """Execute one notebook with papermill.

    Parameters
    ----------
    kernel : Kernel
        One of :class:`Kernels`.
    parameters : dict
        Injected into the notebook.
    executed : Path
        Folder for the executed notebook.
    **hooks
        Called by nbclient, such as ``on_cell_start``.

    Returns
    -------
    dict
        ``commit``, ``uncommitted_changes``, ``time_s``, ``peak_memory_mb``, the numbers of steps ``computed`` and
        ``found`` in the store, what :func:`ruranet_utils.running.provenance.describe_process` says about the kernel,
        and the ``weights`` it used, by backbone.

    Raises
    ------
    papermill.PapermillExecutionError
        If a cell fails.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns about parameters that `start` takes from its cell
    watch = Watch(kernel.path.stem, kernel.journal)
    watch.start()
    try:
        papermill.execute_notebook(
            kernel.path,
            executed / kernel.path.name,
            parameters,
            km=kernel.manager,
            progress_bar=False,
            start_timeout=START_S,
            request_save_on_cell_execute=False,
            coalesce_streams=True,  # or two lines printed slowly are two outputs
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
    """Prints a notebook's progress and records the peak memory of this process and its children."""

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
        """Look every ``LOOK_EVERY_S`` until ``done`` is set."""
        while not self.done.wait(LOOK_EVERY_S):
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
        """Print the time and the step, on one line of a terminal, or as a line every ``SAY_EVERY_S`` in a file."""
        line = f"{self.title}  {tqdm.format_interval(self.time_s)}  {progress_of(events(self.journal))}"
        if sys.stdout.isatty():
            print(f"\r{line:<100}", end="", flush=True)
        elif self.time_s - self.said_s >= SAY_EVERY_S:
            self.said_s = self.time_s
            print(line, flush=True)


def progress_of(noted: list[dict]) -> str:
    """How many of the jobs planned last a notebook has done, or for which step of another run it waits."""
    if noted and "waiting" in noted[-1]:
        return noted[-1]["waiting"]
    plans = [(number, event) for number, event in enumerate(noted) if "planned" in event]
    if not plans:
        return ""
    number, plan = plans[-1]
    done = {event["key"] for event in noted[number:] if event.get("found") is False}.intersection(plan["keys"])
    return f"{plan['planned']} {len(done)} of {len(plan['keys'])}"


def _memory(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return getattr(memory, "pss", memory.uss)


def events(journal: Path) -> list[dict]:
    """What the store did, event by event."""
    found = []
    for line in journal.read_text().splitlines() if journal.exists() else []:
        with suppress(json.JSONDecodeError):  # from a process killed while writing
            found.append(json.loads(line))
    return found
