"""The store: what counts as the same step, and what it does when it was interrupted or its files are damaged."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from ruranet_utils import config, paths
from ruranet_utils import store as store_module
from ruranet_utils.store import Store, digest_arrays, digest_file, write_atomically

SETTINGS = {"seed": 0, "data": "abc"}


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


@pytest.fixture
def module(tmp_path):
    """A function that imports a source text as a module."""

    def load(source: str):
        folder = tmp_path / f"module_{len(list(tmp_path.glob('module_*')))}"
        folder.mkdir()
        (folder / "step.py").write_text(source)
        spec = importlib.util.spec_from_file_location("step", folder / "step.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


def files(store: Store) -> list[str]:
    return sorted(path.suffix for path in store.root.rglob("*") if path.is_file())


def test_a_step_is_computed_once_and_found_by_another_store_in_the_same_folder(store, compute):
    first = store.fetch("step", SETTINGS, compute, [config])
    second = Store(store.root).fetch("step", SETTINGS, compute, [config])
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
        back = store.fetch("step", {}, lambda: {"x": array}, [])["x"]
        assert back.dtype == array.dtype and back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_step_settings_and_code_are_part_of_the_key(store, module):
    one, other = module("x = 1"), module("x = 2")
    keys = [
        store.path("step", SETTINGS, [one]),
        store.path("other", SETTINGS, [one]),
        store.path("step", {**SETTINGS, "seed": 1}, [one]),
        store.path("step", {**SETTINGS, "more": None}, [one]),
        store.path("step", SETTINGS, [other]),
        store.path("step", SETTINGS, [one, other]),
        store.path("step", SETTINGS, []),
    ]
    assert len(set(keys)) == len(keys)
    assert store.path("step", dict(reversed(SETTINGS.items())), [module("x = 1")]) == keys[0]


def test_prose_is_no_code(store, module):
    plain = module("class A:\n    def f(self):\n        return 'text'\n")
    described = module(
        '"""Doc."""\n\nclass A:\n    """Doc."""\n\n    def f(self):\n        "Doc."\n        # Why.\n'
        '        return ("text")\n'
    )
    changed = module("class A:\n    def f(self):\n        return 'other text'\n")
    path = store.path("step", SETTINGS, [plain])
    assert store.path("step", SETTINGS, [described]) == path
    assert store.path("step", SETTINGS, [changed]) != path


def test_a_computation_that_fails_leaves_nothing(store, compute):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.fetch("step", SETTINGS, fail, [])
    assert files(store) == []
    store.fetch("step", SETTINGS, compute, [])
    assert compute.calls == 1


def test_a_full_disk_leaves_nothing(store, compute, monkeypatch):
    def half(arrays, file):
        file.write_bytes(b"half")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "save_file", half)
        with pytest.raises(OSError, match="no space left"):
            store.fetch("step", SETTINGS, compute, [])
    assert files(store) == []
    store.fetch("step", SETTINGS, compute, [])
    assert compute.calls == 2 and files(store) == [".json", ".safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_killed_process_leaves_nothing_that_counts(store, compute, suffix):
    """It dies in the middle of writing the arrays, or after them in the middle of writing the record."""
    script = f"""
import os, pathlib, numpy
from ruranet_utils import store
def replace(source, target):
    if str(target).endswith({suffix!r}):
        source.write_bytes(source.read_bytes()[:20])
        os._exit(9)
    rename(source, target)
rename, os.replace = os.replace, replace
store.Store(pathlib.Path({str(store.root)!r})).fetch("step", {SETTINGS}, lambda: {{"x": numpy.zeros((2, 3))}}, [])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            arrays = store.fetch("step", SETTINGS, compute, [])
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
    store.fetch("step", SETTINGS, compute, [])
    path = store.path("step", SETTINGS, [])
    damage(path, path.with_suffix(".json"))
    with pytest.warns(UserWarning, match=f"step/{path.name} in the store is damaged: it is computed again"):
        arrays = store.fetch("step", SETTINGS, compute, [])
    np.testing.assert_array_equal(arrays["x"], compute.arrays["x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.fetch("step", SETTINGS, compute, [])
    assert compute.calls == 2


def test_the_record_says_what_the_arrays_are(store, compute):
    store.fetch("step", SETTINGS, compute, [])
    path = store.path("step", SETTINGS, [])
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["step"] == "step" and record["settings"] == SETTINGS
    assert record["sha256"] == digest_file(path)


def test_what_is_older_than_since_is_computed_again_once(store, compute):
    store.fetch("step", SETTINGS, compute, [])
    os.utime(store.path("step", SETTINGS, []).with_suffix(".json"), (1000, 1000))
    Store(store.root, since_s=999).fetch("step", SETTINGS, compute, [])
    assert compute.calls == 1
    for _ in range(2):
        Store(store.root, since_s=1001).fetch("step", SETTINGS, compute, [])
    assert compute.calls == 2


def test_discard_removes_one_artefact_and_may_be_repeated(store, compute):
    store.fetch("step", SETTINGS, compute, [])
    store.fetch("step", {}, compute, [])
    for _ in range(2):
        store.discard("step", SETTINGS, [])
    assert files(store) == [".json", ".safetensors"]
    store.fetch("step", {}, compute, [])
    assert compute.calls == 2
    store.fetch("step", SETTINGS, compute, [])
    assert compute.calls == 3


def test_many_jobs_are_done_by_processes_side_by_side_and_come_back_in_order(store, journal):
    jobs = {
        number: ({"n": number}, lambda number=number: {"x": np.array([number, os.getpid()])}) for number in range(6)
    }
    store.fetch("step", *jobs[4], [])
    found = store.fetch_all("step", jobs, [], workers=2)
    assert list(found) == list(range(6)) and [int(arrays["x"][0]) for arrays in found.values()] == list(range(6))
    processes = {int(arrays["x"][1]) for number, arrays in found.items() if number != 4}
    assert os.getpid() not in processes and 1 <= len(processes) <= 2 and found[4]["x"][1] == os.getpid()
    assert sum(not event["found"] for event in journal()) == 6
    again = store.fetch_all("step", jobs, [], workers=2)
    assert all(np.array_equal(found[number]["x"], again[number]["x"]) for number in jobs)
    assert all(event["found"] for event in journal())


def test_one_worker_is_this_process(store):
    jobs = {number: ({"n": number}, lambda: {"x": np.array(os.getpid())}) for number in range(2)}
    assert all(arrays["x"] == os.getpid() for arrays in store.fetch_all("step", jobs, []).values())


def test_an_error_in_a_process_arrives_here_and_what_was_finished_stays(store):
    def fail():
        raise ValueError("the image eye.png is broken")

    jobs = {"a": ({"n": 0}, lambda: {"x": np.zeros(1)}), "b": ({"n": 1}, fail), "c": ({"n": 2}, fail)}
    with pytest.raises(ValueError, match=r"the image eye\.png is broken"):
        store.fetch_all("step", jobs, [], workers=2)
    assert files(store) in ([".json", ".safetensors"], [])


def test_the_journal_says_what_was_computed_and_what_found(store, compute, journal):
    for step in ("one", "two", "one"):
        store.fetch(step, SETTINGS, compute, [])
    events = journal()
    assert [(event["step"], event["found"]) for event in events] == [("one", False), ("two", False), ("one", True)]
    assert all(store.path(event["step"], SETTINGS, []).name.startswith(event["key"]) for event in events)
    assert all(event["time_s"] >= 0 for event in events)


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
