"""What a process takes from its machine: set when asked, never by an import."""

import json
import os
import subprocess
import sys
from unittest import mock

import pytest

from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import AVX2, READ_BY_NUMPY, prepare_process

BARE = {name: value for name, value in os.environ.items() if name not in {*AVX2, "RURANET_INSTRUCTIONS"}}

IMPORT_ALL = """
import importlib, os, pkgutil
# libraries that set variables of their own
import lightning.pytorch, segmentation_models_pytorch, sklearn.cluster, torch, torchmetrics
import ruranet_utils

before = dict(os.environ), torch.get_num_threads()
for module in pkgutil.walk_packages(ruranet_utils.__path__, "ruranet_utils."):
    importlib.import_module(module.name)
after = dict(os.environ), torch.get_num_threads()
assert before == after, (set(before[0].items()) ^ set(after[0].items()), before[1], after[1])
"""
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], env={**BARE, **variables}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def prepare(monkeypatch):
    """A function that prepares this process as if its environment were another one; returns what it then says."""

    def prepared(instructions="avx2", *, with_numpy=False, **variables: str) -> dict[str, str]:
        with monkeypatch.context() as patch, mock.patch.dict(os.environ, {**BARE, **variables}, clear=True):
            if not with_numpy:
                patch.delitem(sys.modules, "numpy", raising=False)
            prepare_process(instructions)
            return {name: os.environ[name] for name in AVX2 if name in os.environ}

    return prepared


def test_importing_the_package_changes_nothing():
    done = python("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_fixed_instructions_are_those_of_every_processor(prepare):
    assert prepare() == prepare("avx2") == AVX2
    assert prepare(MKL_CBWR="AVX2") == {**AVX2, "MKL_CBWR": "AVX2"}, "what is set by hand stays"


def test_native_instructions_take_back_what_was_fixed_and_nothing_else(prepare):
    assert prepare("native") == prepare("native", **AVX2) == {}
    assert prepare("native", **{**AVX2, "MKL_CBWR": "AVX2"}) == {"MKL_CBWR": "AVX2"}


def test_the_variable_overrules_what_is_asked_for(prepare):
    assert prepare("avx2", RURANET_INSTRUCTIONS="native") == {}
    assert prepare("native", RURANET_INSTRUCTIONS="avx2") == AVX2
    assert prepare("avx2", RURANET_INSTRUCTIONS="") == AVX2


def test_another_word_is_refused(prepare):
    for arguments, variables in ((["sse"], {}), ([], {"RURANET_INSTRUCTIONS": "sse"})):
        with pytest.raises(ValueError, match="must be 'avx2' or 'native', got 'sse'"):
            prepare(*arguments, **variables)


def test_openblas_is_left_alone_once_numpy_is_loaded(prepare):
    """It has read its variable: a worker process that inherits another one would differ from this process."""
    assert prepare(with_numpy=True) == {name: value for name, value in AVX2.items() if name not in READ_BY_NUMPY}


def test_a_command_runs_with_the_instructions_fixed_and_its_exit_status_is_kept():
    machine = ("-m", "ruranet_utils.storage.machine", sys.executable, "-c")
    assert json.loads(python(*machine, SHOW).stdout).items() >= AVX2.items()
    native = json.loads(python(*machine, SHOW, RURANET_INSTRUCTIONS="native").stdout)
    assert not AVX2.keys() & native.keys()
    assert python(*machine, "raise SystemExit(7)").returncode == 7


def test_a_signal_reaches_the_command_itself():
    """A dask worker whose parent alone was ended would stay."""
    machine = [sys.executable, "-m", "ruranet_utils.storage.machine"]
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    with subprocess.Popen([*machine, *command], cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.read()) == process.pid
