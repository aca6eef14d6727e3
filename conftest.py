"""Settings of every test run, kernels included."""

import os

from ruranet_utils.storage.machine import prepare_process

prepare_process()  # before a test imports numpy

# Progress bars are for people; nbval compares what a cell prints.
os.environ["TQDM_DISABLE"] = "1"
