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
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from ruranet_utils.storage import machine, paths

TIMEOUT_S = 20  # for a scheduler to respond


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
        If there is no scheduler at ``RURANET_DASK``.
    RuntimeError
        If a worker would not give the same bytes: its versions, instructions or code differ.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith("RURANET_")}
    variables.pop("RURANET_DASK", None)  # no cluster within the cluster
    with _backend(min(workers, len(calls))):
        on_cluster = bool(os.environ.get("RURANET_DASK"))
        here = {"expected": {**fingerprint(), **_weights()}} if on_cluster else {"parent": os.getpid()}
        tasks = (delayed(_work)(call, variables, **here) for call in calls)
        yield from Parallel(return_as="generator_unordered")(tasks)


@contextmanager
def _backend(workers: int) -> Iterator[None]:
    address = os.environ.get("RURANET_DASK")
    if not address:
        # loky replaces workers that have grown by 300 MB, which is expected, and gives their jobs to new ones.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
        with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
            yield
        return
    with connect(address) as client:
        if set(client.nthreads().values()) != {1}:
            raise RuntimeError(f"expected workers with one thread each (--nthreads 1), got {dict(client.nthreads())}")
        client.run_on_scheduler(fingerprint)  # joblib waits forever if what it sends cannot be imported
        for worker, found in client.run(fingerprint).items():
            _check_fingerprint(worker, found, fingerprint())
        with parallel_config("dask", wait_for_workers_timeout=60):
            yield


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
