"""Notebooks executed without a browser."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from ruranet_utils.running.headless import Kernels


@pytest.fixture
def execute(tmp_path):
    """Run a notebook of one cell; returns its exception, if any."""

    def run(source):
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[new_code_cell(source)], metadata=metadata), tmp_path / "01_cell.ipynb")
        with closing(Kernels([tmp_path / "01_cell.ipynb"], tmp_path / "executed", print).run({})) as ended:
            return next(ended)[1].exception()

    return run


def test_lines_printed_slowly_are_one_output(execute, tmp_path):
    """So that the executed notebook is the same on a busy machine."""
    assert execute("import time\nprint(1, flush=True)\ntime.sleep(0.5)\nprint(2)") is None
    notebook = nbformat.read(tmp_path / "executed/01_cell.ipynb", as_version=4)
    assert [output.text for output in notebook.cells[-1].outputs] == ["1\n2\n"]


def test_a_kernel_that_dies_ends_the_run(execute):
    pool = ThreadPoolExecutor(1)  # a run that waits for the dead forever must not hold the tests, too
    error = pool.submit(execute, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)").result(60)
    assert isinstance(error, DeadKernelError)
