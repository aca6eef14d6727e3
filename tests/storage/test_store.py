"""The store: what counts as the same step, and what it does when it was interrupted or its files are damaged."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from ruranet_utils.storage import paths
from ruranet_utils.storage import store as store_module
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store, digest_arrays, digest_file, release, write_atomically

SETTINGS = {"seed": 0, "data": "abc"}
STEP = Step("step", 1, ())


class Compute:
    """Counts how often it was called."""

    def __init__(self, **arrays):
        self.arrays, self.calls = arrays, 0

    def __call__(self):
        self.calls += 1
        return self.arrays


@pytest.fixture
def compute():
    return Compute(x=np.arange(6.0).reshape(2, 3))


def files(store: Store) -> list[str]:
    return sorted(path.suffix for path in store.root.rglob("*") if path.is_file())


def test_a_step_is_computed_once_and_found_by_another_store_in_the_same_folder(store, compute):
    first = store.fetch(STEP, SETTINGS, compute)
    second = Store(store.root).fetch(STEP, SETTINGS, compute)
    assert compute.calls == 1
    np.testing.assert_array_equal(first["x"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(second["x"], first["x"])


@pytest.mark.parametrize(
    "array",
    [
        np.array([[True, False, True]]),
        np.arange(256, dtype=np.uint8),
        np.array([-0.0, np.nan, np.inf, 1e-310]),
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(10, dtype=np.int64)[::-3],
        np.empty((0, 5), dtype=np.float32),
    ],
    ids=["bool", "uint8", "float64", "transposed", "strided", "empty"],
)
def test_arrays_come_back_as_they_were(store, array):
    for _ in range(2):
        back = store.fetch(STEP, {}, lambda: {"x": array})["x"]
        assert back.dtype == array.dtype and back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_a_computation_that_fails_leaves_nothing(store, compute):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.fetch(STEP, SETTINGS, fail)
    assert files(store) == []
    store.fetch(STEP, SETTINGS, compute)
    assert compute.calls == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_killed_process_leaves_nothing_that_counts(store, compute, suffix):
    """It dies in the middle of writing the arrays, or after them in the middle of writing the record."""
    script = f"""
import os, pathlib, numpy
from ruranet_utils.storage import steps, store
def replace(source, target):
    if str(target).endswith({suffix!r}):
        source.write_bytes(source.read_bytes()[:20])
        os._exit(9)
    rename(source, target)
rename, os.replace = os.replace, replace
store.Store(pathlib.Path({str(store.root)!r})).fetch(
    steps.Step("step", 1, ()), {SETTINGS}, lambda: {{"x": numpy.zeros((2, 3))}}
)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            arrays = store.fetch(STEP, SETTINGS, compute)
            np.testing.assert_array_equal(arrays["x"], compute.arrays["x"])
    assert compute.calls == 1


def flip_a_bit(payload, record):
    content = bytearray(payload.read_bytes())
    content[-1] ^= 1
    payload.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda payload, record: payload.write_bytes(payload.read_bytes()[:-8]),
        lambda payload, record: payload.unlink(),
        lambda payload, record: record.write_text("{"),
        lambda payload, record: record.write_text("{}"),
    ],
    ids=["bit", "truncated", "gone", "no json", "no hash"],
)
def test_damage_is_noticed_reported_and_repaired(store, compute, damage):
    store.fetch(STEP, SETTINGS, compute)
    path = store.path(STEP, SETTINGS)
    damage(path, path.with_suffix(".json"))
    with pytest.warns(UserWarning, match=f"step/{path.name} in the store is damaged: recomputing it"):
        arrays = store.fetch(STEP, SETTINGS, compute)
    np.testing.assert_array_equal(arrays["x"], compute.arrays["x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.fetch(STEP, SETTINGS, compute)
    assert compute.calls == 2


def test_the_record_says_what_the_arrays_are(store, compute):
    store.fetch(STEP, SETTINGS, compute)
    path = store.path(STEP, SETTINGS)
    record = json.loads(path.with_suffix(".json").read_text())
    assert set(record) == {"key", "time_s", "sha256"} and record["time_s"] >= 0
    key = {"step": "step", "version": 1, "constants": {}, "libraries": {}, "settings": SETTINGS}
    assert record["key"] == key and record["sha256"] == digest_file(path)
    assert hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest() == path.stem


def test_what_is_older_than_since_is_computed_again_once(store, compute):
    store.fetch(STEP, SETTINGS, compute)
    os.utime(store.path(STEP, SETTINGS).with_suffix(".json"), (1000, 1000))
    Store(store.root, since_s=999).fetch(STEP, SETTINGS, compute)
    assert compute.calls == 1
    for _ in range(2):
        Store(store.root, since_s=1001).fetch(STEP, SETTINGS, compute)
    assert compute.calls == 2


def test_a_checkpoint_lies_beside_its_artefact_until_that_is_complete(store, compute):
    checkpoint = store.checkpoint(STEP, SETTINGS)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("half")
    assert store.checkpoint(STEP, SETTINGS).read_text() == "half"
    assert store.checkpoint(STEP, {"seed": 1}) != checkpoint
    store.fetch(STEP, SETTINGS, compute)
    assert not checkpoint.exists()
    checkpoint.write_text("half")
    assert not replace(store, since_s=time.time() + 1).checkpoint(STEP, SETTINGS).exists()


def test_many_jobs_are_done_by_processes_side_by_side_and_come_back_in_order(store, journal):
    jobs = {
        number: ({"n": number}, lambda number=number: {"x": np.array([number, os.getpid()])}) for number in range(6)
    }
    store.fetch(STEP, *jobs[4])
    found = store.fetch_all(STEP, jobs, workers=2)
    assert list(found) == list(range(6)) and [int(arrays["x"][0]) for arrays in found.values()] == list(range(6))
    processes = {int(arrays["x"][1]) for number, arrays in found.items() if number != 4}
    assert os.getpid() not in processes and 1 <= len(processes) <= 2 and found[4]["x"][1] == os.getpid()
    assert sum(not event["found"] for event in journal()) == 6
    again = store.fetch_all(STEP, jobs, workers=2)
    assert all(np.array_equal(found[number]["x"], again[number]["x"]) for number in jobs)
    assert all(event["found"] for event in journal())


def test_one_worker_is_this_process(store):
    jobs = {number: ({"n": number}, lambda: {"x": np.array(os.getpid())}) for number in range(2)}
    assert all(arrays["x"] == os.getpid() for arrays in store.fetch_all(STEP, jobs).values())


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_computed_in_parts_come_back_in_order_and_a_part_is_found_again(store, monkeypatch, journal, workers):
    monkeypatch.setattr(store_module, "PART_PX", 2 * 3 * 4)
    images, number = np.arange(60.0).reshape(5, 3, 4), np.arange(5)
    jobs = {name: ({"factor": factor}, partial(scaled, factor=factor)) for name, factor in (("a", 1), ("b", 10))}
    found = store.fetch_parts(STEP, jobs, images, number, workers=workers)
    for name, factor in (("a", 1), ("b", 10)):
        np.testing.assert_array_equal(found[name]["x"], factor * images.sum(axis=(1, 2)) + number)
    journal()
    store.fetch_parts(STEP, jobs, images[:4], number[:4])
    assert [event["found"] for event in journal() if "found" in event] == [True] * 4, "two parts of each"
    store.fetch_parts(STEP, {"a": jobs["a"]}, images[:2], number[:2] + 1)
    assert [event["found"] for event in journal() if "found" in event] == [False], "other data"


def scaled(images, number, factor):
    assert len(images) == len(number) <= 2
    return {"x": factor * images.sum(axis=(1, 2)) + number}


def test_an_error_in_a_process_arrives_here_and_what_was_finished_stays(store):
    def fail():
        raise ValueError("the image eye.png is broken")

    jobs = {"a": ({"n": 0}, lambda: {"x": np.zeros(1)}), "b": ({"n": 1}, fail), "c": ({"n": 2}, fail)}
    with pytest.raises(ValueError, match=r"the image eye\.png is broken"):
        store.fetch_all(STEP, jobs, workers=2)
    left = [suffix for suffix in files(store) if suffix != ".lock"]  # of a process that ended with the first one
    assert left in ([".json", ".safetensors"], [])


def test_the_journal_says_what_was_computed_and_what_found(store, compute, journal):
    steps = {name: Step(name, 1, ()) for name in ("one", "two")}
    for name in ("one", "two", "one"):
        store.fetch(steps[name], SETTINGS, compute)
    events = journal()
    assert [(event["step"], event["found"]) for event in events] == [("one", False), ("two", False), ("one", True)]
    assert all(store.path(steps[event["step"]], SETTINGS).name.startswith(event["key"]) for event in events)
    assert all(event["time_s"] >= 0 for event in events)


def test_the_journal_is_told_beforehand_how_many_jobs_are_missing(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RURANET_JOURNAL", str(tmp_path / "journal"))
    jobs = {number: ({"n": number}, lambda: {"x": np.zeros(1)}) for number in range(3)}
    store.fetch(STEP, *jobs[0])
    store.fetch_all(STEP, jobs)
    store.fetch_all(STEP, jobs)
    events = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    planned, *others = [event for event in events if "found" not in event]
    assert planned["planned"] == "step" and not others
    assert planned["keys"] == [event["key"] for event in events if event.get("found") is False][1:]
    assert [event.get("found") for event in events] == [False, None, True, False, False, True, True, True]


def test_digest_sees_type_shape_order_and_absence_but_not_memory_layout():
    zeros = np.zeros(4, dtype=np.float32)
    digests = [
        digest_arrays(zeros),
        digest_arrays(zeros.astype(np.int32)),
        digest_arrays(zeros.reshape(2, 2)),
        digest_arrays(np.array([0, 0, 0, 1], dtype=np.float32)),
        digest_arrays(np.array([1, 0, 0, 0], dtype=np.float32)),
        digest_arrays(zeros, None),
        digest_arrays(None, zeros),
        digest_arrays(zeros, zeros),
    ]
    assert len(set(digests)) == len(digests)
    grid = np.arange(12).reshape(3, 4)
    assert digest_arrays(grid.T) == digest_arrays(grid.T.copy()) != digest_arrays(grid)
    assert digest_arrays(grid[:, ::2]) == digest_arrays(grid[:, ::2].copy())


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "folder" / "run.json"
    write_atomically(path, lambda file: file.write_text("old"))

    def interrupted(file):
        file.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


# Arrays that may be larger than memory


def rows(n=5, error_at=None):
    for i in range(n):
        if i == error_at:
            raise ValueError("the image eye.png is broken")
        yield {"x": np.full((2, 3), i, np.uint8), "name": np.array(f"é{i}", "U9"), "area": np.array(0.5 * i)}


def test_rows_are_written_one_by_one_and_come_back_as_one_read_only_array(store, journal):
    first = store.fetch_rows(STEP, SETTINGS, rows, 5)
    second = store.fetch_rows(STEP, SETTINGS, lambda: pytest.fail("computed again"), 5)
    for arrays in (first, second):
        np.testing.assert_array_equal(arrays["x"], np.arange(5)[:, None, None] * np.ones((1, 2, 3)))
        assert arrays["x"].dtype == np.uint8 and arrays["name"].tolist() == [f"é{i}" for i in range(5)]
        assert arrays["area"].shape == (5,) and not arrays["x"].flags.writeable
    assert [event["found"] for event in journal()] == [False, True]


@pytest.mark.parametrize(
    ("compute", "n_rows", "message"),
    [
        (rows, 6, "expected 6 rows, got 5"),
        (rows, 4, "expected 4 rows, got 5"),
        (lambda: rows(error_at=3), 5, r"eye\.png is broken"),
        (lambda: iter([{"x": np.zeros(2)}, {"x": np.zeros(3)}]), 2, r"x: row 2 has shape \(3,\), not \(2,\)"),
    ],
)
def test_of_rows_that_do_not_fit_nothing_is_kept(store, compute, n_rows, message):
    with pytest.raises(ValueError, match=message):
        store.fetch_rows(STEP, SETTINGS, compute, n_rows)
    assert files(store) == []


@pytest.mark.parametrize("damage", [flip_a_bit, lambda payload, record: payload.unlink()], ids=["bit", "gone"])
def test_damaged_rows_are_noticed_and_repaired(store, damage):
    store.fetch_rows(STEP, SETTINGS, rows, 5)
    path = store.path(STEP, SETTINGS)
    damage(path.with_suffix(".x.npy"), path.with_suffix(".json"))
    with pytest.warns(UserWarning, match="is damaged"):
        arrays = store.fetch_rows(STEP, SETTINGS, rows, 5)
    np.testing.assert_array_equal(arrays["x"][:, 0, 0], range(5))


def test_the_memory_of_a_mapped_array_is_given_back_and_read_again(store):
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 255, (1, 2**20), dtype=np.uint8) for _ in range(200)]
    mapped = store.fetch_rows(STEP, SETTINGS, lambda: ({"x": block} for block in blocks), 200)["x"]
    expected = digest_arrays(np.stack(blocks))

    def resident_mb() -> float:
        return psutil.Process().memory_info().rss / 2**20

    before = resident_mb()
    total = int(mapped.sum(dtype=np.int64))
    assert resident_mb() - before > 150, "the test does not see mapped pages"
    release(mapped)
    assert resident_mb() - before < 50
    assert digest_arrays(mapped) == expected and resident_mb() - before < 150
    assert total == sum(int(block.sum(dtype=np.int64)) for block in blocks)


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store

STEP = Step("step", 1, ())
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
store, block = Store(Path(sys.argv[1])), np.zeros(2**18, np.uint8)
try:
    if sys.argv[2] == "rows":
        store.fetch_rows(STEP, {}, lambda: ({"x": block} for _ in range(20)), 20)
    else:
        store.fetch(STEP, {}, lambda: {"x": np.zeros(2**23, np.uint8)})
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit that stands in for a full disk is Linux's")
@pytest.mark.parametrize("kind", ["rows", "arrays"])
def test_a_disk_that_takes_no_more_is_named_and_nothing_stays(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "store", kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout and str(tmp_path / "store/step") in done.stdout
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_target_that_cannot_be_written_is_named(compute):
    with pytest.raises(OSError, match="/proc/store"):
        Store(Path("/proc/store")).fetch(STEP, SETTINGS, compute)
    with pytest.raises(OSError, match="/proc/store"):
        Store(Path("/proc/store")).fetch_rows(STEP, SETTINGS, rows, 5)


TWO_RUNS = """
import sys, time
from pathlib import Path
import numpy as np
from ruranet_utils.storage import artefacts, steps, store

artefacts.PATIENCE_S = 0.1

def compute():
    Path(sys.argv[2]).touch()
    time.sleep(float(sys.argv[3]))
    return {"x": np.full(3, 7.0)}

print(store.Store(Path(sys.argv[1])).fetch(steps.Step("step", 1, ()), {}, compute)["x"].tolist())
"""


def start(root: Path, flag: Path, seconds: float) -> subprocess.Popen:
    """Another process that says by a file that it has begun to compute."""
    command = [sys.executable, "-c", TWO_RUNS, root, flag, str(seconds)]
    return subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(flag: Path) -> None:
    for _ in range(600):
        if flag.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(flag)


def test_of_two_runs_at_once_one_computes_and_the_other_waits_and_says_so(store, tmp_path, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")  # it says so by a bar, and in the journal, which a headless run reads
    monkeypatch.setenv("RURANET_JOURNAL", str(tmp_path / "journal.jsonl"))
    first = start(store.root, tmp_path / "first", 4)
    wait_for(tmp_path / "first")
    second = start(store.root, tmp_path / "second", 0)
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [out for out, _ in outputs] == ["[7.0, 7.0, 7.0]\n"] * 2
    said = "waiting for step/.*, which another process is computing"
    assert re.search(said, outputs[1][1])
    noted = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert re.fullmatch(said, next(event["waiting"] for event in noted if "waiting" in event))
    assert not (tmp_path / "second").exists()
    assert files(store) == [".json", ".safetensors"]


def test_the_lock_of_a_dead_process_is_free(store, tmp_path):
    first = start(store.root, tmp_path / "first", 60)
    wait_for(tmp_path / "first")
    second = start(store.root, tmp_path / "second", 0)
    time.sleep(1)
    assert second.poll() is None, "it waits while the first one lives"
    first.kill()
    assert second.communicate(timeout=60)[0] == "[7.0, 7.0, 7.0]\n"
    assert (tmp_path / "second").exists() and files(store) == [".json", ".safetensors"]


def test_what_is_there_is_read_without_a_lock(store, compute, monkeypatch):
    """A store that cannot be written serves what it holds."""
    store.fetch(STEP, SETTINGS, compute)
    monkeypatch.setattr("ruranet_utils.storage.artefacts.FileLock", None)
    assert store.fetch(STEP, SETTINGS, compute)["x"].shape == (2, 3) and compute.calls == 1
