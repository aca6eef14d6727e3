"""Settings of every test run, kernels included."""

import os

# Progress bars are for people; nbval compares what a cell prints.
os.environ["TQDM_DISABLE"] = "1"
