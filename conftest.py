"""Settings of every test run, kernels included."""

import os

import ruranet_utils  # noqa: F401  fixes the processor's instructions before a test imports numpy

# Progress bars are for people; nbval compares what a cell prints.
os.environ["TQDM_DISABLE"] = "1"
