"""Where independent steps run: in this process, in worker processes, or on a cluster (``RURANET_DASK``)."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from ruranet_utils.storage import machine, paths

TIMEOUT_S = 20  # for a scheduler to respond
JOINING_S, WITHOUT_S = 60, 600  # for a first worker to join a cluster, and for another one after the last has left


def is_parallel(n_calls: int, workers: int) -> bool:
    """Whether work leaves this process: a cluster is requested, or there is work for several processes."""
    return bool(n_calls and os.environ.get("RURANET_DASK")) or min(n_calls, workers) > 1


def run(calls: Sequence[Callable[[], object]], workers: int) -> Iterator[None]:
    """Make the calls in worker processes; their return values stay there.

    Parameters
    ----------
    calls : sequence of callable
        Each keeps its result in the store.
    workers : int
        Processes on this machine. Ignored on a cluster, where each worker makes one call at a time.

    Yields
    ------
    None
        After each call, in order of completion.

    Raises
    ------
    ConnectionError
        If there is no scheduler at ``RURANET_DASK``, or it has no workers.
    RuntimeError
        If a worker would not give the same bytes: its versions, instructions or code differ. dask's ``KilledWorker``,
        if a call has killed several workers.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith("RURANET_")}
    variables.pop("RURANET_DASK", None)  # no cluster within the cluster
    if address := os.environ.get("RURANET_DASK"):
        yield from _on_cluster(address, calls, variables)
        return
    # loky replaces workers that have grown by 300 MB, which is expected, and gives their jobs to new ones.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
    with parallel_config("loky", n_jobs=min(workers, len(calls)), inner_max_num_threads=1):
        tasks = (delayed(_work)(call, variables, parent=os.getpid()) for call in calls)
        yield from Parallel(return_as="generator_unordered")(tasks)


def _on_cluster(address: str, calls: Sequence[Callable[[], object]], variables: dict[str, str]) -> Iterator[None]:
    """Make the calls on a cluster. joblib's backend for dask would wait forever for one that dask has given up."""
    with connect(address) as client:
        from distributed import wait

        _check_workers(client, address)
        work = partial(_work, variables=variables, expected={**fingerprint(), **_weights()})
        waiting, seen = {client.submit(partial(work, call), pure=False) for call in calls}, time.monotonic()
        while waiting:
            seen = time.monotonic() if client.nthreads() else seen
            if time.monotonic() - seen > WITHOUT_S:
                raise ConnectionError(f"the workers at {address} are gone: start others, then the same command")
            try:
                done, waiting = wait(waiting, timeout=TIMEOUT_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                continue
            for call in done:
                yield call.result()


def _check_workers(client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=JOINING_S)
    except TimeoutError:
        raise ConnectionError(f"the scheduler at {address} has no workers (docs/cluster.md)") from None
    if set(client.nthreads().values()) != {1}:
        raise RuntimeError(f"expected workers with one thread each (--nthreads 1), got {dict(client.nthreads())}")
    client.run_on_scheduler(fingerprint)  # it must be able to import what it passes on
    for worker, found in client.run(fingerprint, on_error="ignore").items():  # one may be leaving; _work checks again
        _check_fingerprint(worker, found, fingerprint())


def connect(address: str):
    """The ``distributed.Client`` of a cluster; use it in a ``with`` statement.

    Raises
    ------
    ConnectionError
        If the extra ``cluster`` is not installed or no scheduler answers.
    """
    try:
        from distributed import Client  # an optional extra
    except ImportError:
        raise ConnectionError("a cluster needs the extra `cluster`: uv sync --all-extras") from None
    try:
        return Client(address, timeout=TIMEOUT_S)
    except (OSError, TypeError, ValueError) as error:
        raise ConnectionError(f"no dask scheduler answers at {address}: {error}") from None


def _work(
    call: Callable[[], object], variables: dict[str, str], parent: int | None = None, expected: dict | None = None
) -> None:
    """One call in a worker process."""
    if parent:
        _follow(parent)
        machine.keep_memory()
    for name in [name for name in os.environ if name.startswith("RURANET_")]:
        del os.environ[name]
    os.environ.update(variables, TQDM_DISABLE="1")  # bars of several processes would overwrite each other
    if expected:  # this worker may have joined after the others were checked
        _check_fingerprint(platform.node(), {**fingerprint(), **_weights()}, expected)
    gc.freeze()  # or every collection would scan the libraries' million objects, for a third of a second
    with threadpool_limits(1):
        call()
    machine.release_memory()  # loky replaces a worker that keeps more than 300 MB, which repeats its imports


def _check_fingerprint(process: str, found: dict[str, str], expected: dict[str, str]) -> None:
    differs = [f"{name} {found[name]}, not {expected[name]}" for name in expected if found[name] != expected[name]]
    if differs:
        raise RuntimeError(f"{process} would give other bytes: {'; '.join(differs)} (docs/cluster.md)")


@cache
def _follow(parent: int) -> None:
    """End this process with the one that started it; loky's workers outlive a killed parent by five minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def fingerprint() -> dict[str, str]:
    """What must match in two processes for them to give the same bytes."""
    import torch  # large, and the command line must start without it

    code = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(file.read_bytes())
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "instructions": machine.instructions(),
        "code": code.hexdigest()[:12],
    }


def _weights() -> dict[str, str]:
    """Available weights; a worker without them would start from random ones if the profile allows it."""
    import torch

    folders = {paths.weights_dir(), Path(torch.hub.get_dir(), "checkpoints")} - {None}
    files = {f"{file.name} ({file.stat().st_size} bytes)" for folder in folders for file in folder.glob("*.pth")}
    return {"weights": ", ".join(sorted(files))}
