"""Settings for every test run, kernels included."""

import os

import pytest

from ruranet_utils.storage.machine import prepare_process

# Torch keeps the instructions of its first computation for the life of the process. They are fixed here, before a test
# imports numpy, and stay fixed when a test runs a command with another default.
os.environ.setdefault("RURANET_INSTRUCTIONS", "avx2")
prepare_process()

# Progress bars are for people; nbval compares what a cell prints.
os.environ["TQDM_DISABLE"] = "1"


@pytest.fixture(autouse=True)
def unchanged_environment():
    """Undo what a test sets in the environment, such as other instructions; kernels inherit the rest."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
