"""Notebooks executed without a browser."""

from contextlib import closing

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from ruranet_utils.running.headless import Kernels


def test_lines_printed_slowly_are_one_output(tmp_path):
    """So that the executed notebook is the same on a busy machine."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cell = new_code_cell("import time\nprint(1, flush=True)\ntime.sleep(0.5)\nprint(2)")
    nbformat.write(new_notebook(cells=[cell], metadata=metadata), tmp_path / "01_slow.ipynb")
    (tmp_path / "executed").mkdir()
    with closing(Kernels([tmp_path / "01_slow.ipynb"], tmp_path / "executed", print).run({})) as ended:
        assert [end.exception() for _, end in ended] == [None]
    notebook = nbformat.read(tmp_path / "executed/01_slow.ipynb", as_version=4)
    assert [output.text for output in notebook.cells[-1].outputs] == ["1\n2\n"]
