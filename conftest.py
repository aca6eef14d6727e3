"""Settings of every test run, kernels included."""

import os

import pytest

from ruranet_utils.storage.machine import prepare_process

prepare_process()  # before a test imports numpy

# Progress bars are for people; nbval compares what a cell prints.
os.environ["TQDM_DISABLE"] = "1"


@pytest.fixture(autouse=True)
def unchanged_environment():
    """What a test sets in the environment, such as other instructions, ends with it; kernels inherit the rest."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
