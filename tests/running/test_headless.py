"""Notebooks executed without a browser."""

import subprocess
import sys
from contextlib import closing

import click
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ruranet_utils.running.headless import Kernels
from ruranet_utils.running.reproduce import _facts_or_exit
from ruranet_utils.storage import paths

SUICIDE = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
METADATA = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
RUN = """
import sys
from pathlib import Path
from ruranet_utils.running.headless import Kernels
notebook = Path(sys.argv[1])
kernels = Kernels([notebook], notebook.parent / "executed", print)
if "early" in sys.argv:
    kernels.spare = kernels._take()
    kernels.spare.manager.provisioner.process.kill()
print("it ended with", repr(next(kernels.run({}))[1].exception()))
"""


@pytest.fixture
def notebook(tmp_path):
    """A function that writes a notebook of one cell."""

    def write(source):
        path = tmp_path / "01_cell.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source)], metadata=METADATA), path)
        return path

    return write


def test_lines_printed_slowly_are_one_output(notebook):
    """So that the executed notebook is the same on a busy machine."""
    path = notebook("import time\nprint(1, flush=True)\ntime.sleep(0.5)\nprint(2)")
    with closing(Kernels([path], path.parent / "executed", print).run({})) as ended:
        assert [end.exception() for _, end in ended] == [None]
    executed = nbformat.read(path.parent / "executed" / path.name, as_version=4)
    assert [output.text for output in executed.cells[-1].outputs] == ["1\n2\n"]


@pytest.mark.parametrize(("source", "when"), [(SUICIDE, "in a cell"), ("1", "early")])
def test_a_kernel_that_dies_ends_the_run(notebook, source, when):
    """In a process of its own: one that waits for the dead would never end."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, notebook(source), when],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "it ended with DeadKernelError('Kernel died')" in done.stdout or "Kernel died before" in done.stdout


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Kernel died", "died, killed or out of memory; the same command continues"),
        ("Kernel died before replying to kernel_info", "died, killed or out of memory; the same command continues"),
        ("Kernel didn't respond in 600 seconds", "does not answer; the same command continues"),
    ],
)
def test_a_kernel_that_is_gone_is_one_sentence(tmp_path, error, said):
    class End:
        def result(self):
            raise RuntimeError(error)

    with pytest.raises(click.ClickException, match=f"^the kernel of 02_cell {said}$"):
        _facts_or_exit(End(), tmp_path / "02_cell.ipynb")
