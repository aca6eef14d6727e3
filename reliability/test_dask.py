"""A real dask cluster of two worker processes on this machine, and what happens when one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from reliability.chaos import finished
from reliability.runs import SMALL, copy_project, finish, outcome, pairs, reproduce
from ruranet_utils.storage import paths, workers
from ruranet_utils.storage.machine import AVX2
from ruranet_utils.storage.steps import Step

SOURCE = {"PYTHONPATH": os.pathsep.join([str(paths.ROOT), str(Path(__file__).parent)])}
STEP = Step("step", 1, ())
SCHEDULER = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
WORKER = [sys.executable, "-m", "ruranet_utils.storage.machine", sys.executable, "-m", "distributed.cli.dask_worker"]
WORKER += ["--nthreads", "1", "--no-dashboard"]


def start(command, folder, **variables):
    clean = {name: value for name, value in os.environ.items() if name not in AVX2}
    log = (folder / "log.txt").open("a")
    local = ["--local-directory", folder] if command[: len(WORKER)] == WORKER else []
    return subprocess.Popen([*command, *local], env={**clean, **SOURCE, **variables}, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a scheduler and its two workers, started as ``docs/cluster.md`` says."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    scheduler = [*SCHEDULER, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    processes = [start([*part, "--scheduler-file", file], folder) for part in (scheduler, WORKER, WORKER)]
    wait_for(file.exists)
    address = json.loads(file.read_text())["address"]
    with workers.connect(address) as client:
        client.wait_for_workers(2, timeout=60)
    yield address, processes[1:]
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        process.wait(30)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def kill(process):
    """A process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        command = psutil.Process(process.pid)
        for one in [command, *command.children(recursive=True)]:
            os.kill(one.pid, signal.SIGKILL)


def jobs(n, compute):
    return {number: ({"n": number}, partial(compute, number)) for number in range(n)}


def where(number):
    return {"x": np.array([number, os.getpid()])}


def test_steps_are_computed_by_the_workers_and_come_back_in_order(cluster, store, monkeypatch, journal):
    monkeypatch.setenv("RURANET_DASK", cluster[0])
    found = store.fetch_all(STEP, jobs(6, where))
    assert [int(arrays["x"][0]) for arrays in found.values()] == list(range(6))
    processes = {int(arrays["x"][1]) for arrays in found.values()}
    assert os.getpid() not in processes and processes <= {
        child.pid for nanny in cluster[1] for child in psutil.Process(nanny.pid).children(recursive=True)
    }
    assert sum(not event["found"] for event in journal()) == 6


def test_an_array_on_the_shared_disk_is_sent_by_its_name(cluster, store, monkeypatch):
    rows = ({"x": np.full(2**20, number, np.uint8)} for number in range(64))
    mapped = store.fetch_rows(Step("rows", 1, ()), {}, lambda: rows, 64)["x"]

    def kind_of(number, array):
        return {"x": np.array([isinstance(array, np.memmap), array[number, 0]])}

    monkeypatch.setenv("RURANET_DASK", cluster[0])
    for arrays in store.fetch_all(STEP, jobs(3, partial(kind_of, array=mapped))).values():
        assert arrays["x"][0] == 1
    parts = store.fetch_all(Step("part", 1, ()), jobs(3, partial(kind_of, array=mapped[1:4])))
    assert [arrays["x"].tolist() for arrays in parts.values()] == [[0, 1], [0, 2], [0, 3]], "a part of a file is copied"


def test_a_worker_that_would_give_other_bytes_is_refused(cluster, store, monkeypatch, tmp_path):
    """Here, one that may use all of its processor's instructions."""
    monkeypatch.setenv("RURANET_DASK", cluster[0])
    other = start([*WORKER, cluster[0]], tmp_path, RURANET_INSTRUCTIONS="native")
    try:
        with workers.connect(cluster[0]) as client:
            client.wait_for_workers(3, timeout=60)
            if len({tuple(found.items()) for found in client.run(workers.fingerprint).values()}) == 1:
                pytest.skip("this processor has no instructions beyond AVX2")
        with pytest.raises(RuntimeError, match=r"tcp://.* would give other bytes: instructions .*, not Haswell, AVX2"):
            store.fetch_all(STEP, jobs(2, where))
        assert not list(store.root.rglob("*.json"))
    finally:
        children = psutil.Process(other.pid).children(recursive=True)
        other.terminate()
        other.wait(30)
        for child in children:  # a worker may outlive its nanny
            with suppress(psutil.NoSuchProcess):
                child.kill()
        with workers.connect(cluster[0]) as client:
            wait_for(lambda: len(client.scheduler_info()["workers"]) == 2)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "no address"])
def test_without_a_scheduler_the_answer_names_the_address(tmp_path, address, monkeypatch):
    monkeypatch.setattr(workers, "TIMEOUT_S", 1)
    with pytest.raises(ConnectionError, match=f"no dask scheduler answers at {address}"):
        workers.connect(address)


def test_a_run_on_a_cluster_that_loses_a_worker_gives_the_bytes_of_a_serial_run(cluster, tmp_path):
    address, nannies = cluster
    arguments = ["--only", "01", "--only", "02", *pairs(SMALL)]
    serial, spread = (copy_project(tmp_path / name / "ruranet") for name in ("serial", "spread"))
    finish(reproduce(serial, [*arguments, "-p", "workers", "1"]), serial)
    run = reproduce(spread, [*arguments, "--dask", address])
    wait_for(lambda: len(finished(spread)) >= 3)
    kill(nannies[0])  # the nanny, too, or it would start another worker
    finish(run, spread)
    assert f"2 workers at {address}" in (spread.parent / "output.txt").read_text()
    with workers.connect(address) as client:
        assert len(client.scheduler_info()["workers"]) == 1
    one, two = (outcome(folder / "figures/synthetic") for folder in (serial, spread))
    for name in (name for name in one if not name.endswith(".ipynb")):  # these say "workers 1"
        assert one[name] == two[name], name
    assert len(finished(serial)) == len(finished(spread)), "no step was computed under another key"


def test_the_slurm_example_writes_a_job_that_a_shell_understands(tmp_path):
    job = subprocess.run(
        [sys.executable, paths.ROOT / "docs/slurm_cluster.py", "--show"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "job.sh").write_text(job)
    assert subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=False).returncode == 0
    python = paths.ROOT / ".venv/bin/python"
    worker = f"{python} -m ruranet_utils.storage.machine {python} -m distributed.cli.dask_worker tcp://"
    assert worker in job and "--nthreads 1" in job and "#SBATCH --gres=gpu:1" in job


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_step_that_kills_its_workers_is_an_error(cluster, store, monkeypatch):
    """Out of memory, for instance."""
    from distributed import KilledWorker

    monkeypatch.setenv("RURANET_DASK", cluster[0])
    with pytest.raises(KilledWorker):
        store.fetch_all(STEP, jobs(2, die))


def test_a_cluster_without_workers_is_an_error(tmp_path, store, monkeypatch):
    monkeypatch.setattr(workers, "JOINING_S", 2)
    file = tmp_path / "scheduler.json"
    command = [*SCHEDULER, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    scheduler = start(command, tmp_path)
    try:
        wait_for(file.exists)
        monkeypatch.setenv("RURANET_DASK", json.loads(file.read_text())["address"])
        with pytest.raises(ConnectionError, match="has no workers"):
            store.fetch_all(STEP, jobs(2, where))
    finally:
        scheduler.terminate()
        scheduler.wait(30)


def linger(number):
    time.sleep(600)


def test_workers_that_leave_for_good_are_an_error(tmp_path, store, monkeypatch):
    monkeypatch.setattr(workers, "TIMEOUT_S", 1)
    monkeypatch.setattr(workers, "WITHOUT_S", 3)
    file = tmp_path / "scheduler.json"
    scheduler = [*SCHEDULER, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    processes = [start([*part, "--scheduler-file", file], tmp_path) for part in (scheduler, WORKER)]
    try:
        wait_for(file.exists)
        monkeypatch.setenv("RURANET_DASK", json.loads(file.read_text())["address"])
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(store.fetch_all, STEP, jobs(1, linger))
            with workers.connect(os.environ["RURANET_DASK"]) as client:
                wait_for(lambda: any(client.processing().values()))
            kill(processes[1])
            with pytest.raises(ConnectionError, match="are gone"):
                run.result(60)
    finally:
        for process in reversed(processes):
            kill(process)
            process.wait(30)
