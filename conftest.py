"""Settings of every test run, kernels included."""

import os

import pytest

from ruranet_utils.storage.machine import prepare_process

# Torch keeps the instructions of its first computation for as long as a process lives. They are fixed here, before a
# test imports numpy, and stay fixed when a test runs a command whose default is other instructions.
os.environ.setdefault("RURANET_INSTRUCTIONS", "avx2")
prepare_process()

# Progress bars are for people; nbval compares what a cell prints.
os.environ["TQDM_DISABLE"] = "1"


@pytest.fixture(autouse=True)
def unchanged_environment():
    """What a test sets in the environment, such as other instructions, ends with it; kernels inherit the rest."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
