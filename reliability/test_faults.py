"""Machine failures, inflicted on real runs of the real command; `make chaos` does more of it."""

import os
import signal
import time

import psutil
import pytest
from click.testing import CliRunner

from reliability import chaos
from reliability.runs import SMALL, copy_project, finish, pairs, reproduce
from reliability.verify import as_other_user

ARGUMENTS = ["--only", "02", *pairs(SMALL)]


@pytest.fixture
def project(tmp_path):
    return copy_project(tmp_path / "ruranet")


def output(project) -> str:
    return (project.parent / "output.txt").read_text()


def steps(project, n, run) -> None:
    """Wait until the run has finished some steps."""
    end = time.monotonic() + 300
    while len(chaos.finished(project)) < n:
        assert run.poll() is None and time.monotonic() < end, output(project)
        time.sleep(0.05)


def test_a_run_killed_at_random_moments_continues_to_the_same_bytes_and_repeats_nothing():
    """The short form of ``make chaos``, which ends with an error if a step is repeated, a file differs or a process is
    left over."""
    done = CliRunner().invoke(chaos.main, ["--kills", "3", "--only", "01", "--only", "02", "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert "kills survived: 3/3" in done.output and "finished steps repeated: 0" in done.output


def test_what_chaos_counts_is_seen(tmp_path):
    record = tmp_path / "data/store/2/step/key.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    before = chaos.finished(tmp_path)
    assert chaos.n_repeated(before, chaos.finished(tmp_path)) == 0
    os.utime(record, ns=(1, 1))
    assert chaos.n_repeated(before, chaos.finished(tmp_path)) == 1
    record.unlink()
    assert chaos.n_repeated(before, chaos.finished(tmp_path)) == 1


def all_gone(project, seconds=30) -> bool:
    """Whether nothing of a run is left after a while: a worker checks twice a second whether its kernel is alive."""
    end = time.monotonic() + seconds
    while chaos.processes_of(project) and time.monotonic() < end:
        time.sleep(0.2)
    return not chaos.processes_of(project)


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(project):
    run = reproduce(project, ARGUMENTS)
    steps(project, 2, run)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(180) == 130
    assert output(project).splitlines()[-1] == "stopped; the same command continues where it was"
    assert "Traceback" not in output(project)
    assert all_gone(project)


def test_a_dead_kernel_is_an_error_that_says_so(project):
    run = reproduce(project, ARGUMENTS)
    steps(project, 2, run)
    assert chaos.kill(run, "kernel") == "kernel"
    assert run.wait(180) == 1
    last = output(project).splitlines()[-1]
    assert last == "Error: the kernel of 02_backbone_study died, killed or out of memory; the same command continues"
    assert "Traceback" not in output(project)
    assert all_gone(project), "its workers end with it"


def test_a_worker_is_among_those_that_chaos_kills(project):
    run = reproduce(project, ARGUMENTS)
    steps(project, 2, run)
    workers = [child for child in psutil.Process(run.pid).children(recursive=True) if "LokyP" in str(child.cmdline())]
    assert workers and chaos.kill(run, "worker") == "worker"
    gone, _ = psutil.wait_procs(workers, timeout=5)
    assert gone
    chaos.kill(run, "everything")
    run.wait(180)


def test_a_store_that_cannot_be_written_serves_what_it_has_and_names_what_it_cannot_take(project):
    prefix = as_other_user() if os.getuid() == 0 else ()
    if os.getuid() == 0 and not prefix:
        pytest.skip("root may write anywhere, and this system does not let a process change its user")
    only = ["--only", "06", *pairs(SMALL)]
    finish(reproduce(project, only), project)
    store = project / "data/store"
    table = project / "figures/synthetic/table_pca.csv"
    first = table.read_bytes()
    table.unlink()
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        finish(reproduce(project, only, prefix), project)
        assert table.read_bytes() == first
        assert reproduce(project, [*only, "-p", "seed", "1"], prefix).wait(120) == 1
        assert f"Permission denied: '{store}" in output(project)
    finally:
        for folder in folders:
            folder.chmod(0o755)
