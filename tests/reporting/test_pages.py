"""What is published of an executed notebook."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ruranet_utils.reporting.pages import publish, publishable
from ruranet_utils.storage import paths

PICTURE = {"image/png": "iVBORw0KGgo="}


def shown(source, *outputs):
    cell = publishable(new_notebook(cells=[new_code_cell(source, outputs=list(outputs))])).cells[0]
    return cell.outputs


def test_only_figures_saved_without_photographs_are_kept():
    picture = new_output("display_data", data=PICTURE)
    assert shown('run.save_figure(fig, "fig_roc")', picture) == [picture]
    for source in ('run.save_figure(fig, "fig_lesions", shows_images=True)', "browse_lesions(test, kept)"):
        (line,) = shown(source, picture)
        assert line.text == "(photographs of patients, not published)\n"


def test_messages_and_widgets_of_the_machine_are_left_out():
    table = new_output("execute_result", data={"text/html": "<table/>", "text/plain": "1"})
    widget = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "a"}})
    said, warned = (new_output("stream", name=name, text=name) for name in ("stdout", "stderr"))
    assert shown("x", warned, said, widget, table) == [said, table]


def test_a_notebook_that_failed_is_not_published():
    with pytest.raises(ValueError, match="ended with KeyError"):
        shown("x", new_output("error", ename="KeyError", evalue="", traceback=[]))


def test_a_folder_is_copied(tmp_path):
    cells = [new_markdown_cell("# 01\n\n[a](../docs/a.md)"), new_code_cell("1", metadata={"alt": "a", "papermill": {}})]
    (tmp_path / "executed").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "executed/01_x.ipynb")
    (tmp_path / "run.json").write_text('{"notebooks": {"01_x": {"commit": "0123456789"}}}')
    publish(tmp_path / "executed", tmp_path / "open")
    text, code = nbformat.read(tmp_path / "open/01_x.ipynb", as_version=4).cells
    assert text.source.startswith("# 01\n\n*A run of commit `0123456`;")
    assert text.source.endswith("\n\n[a](../../docs/a.md)")
    assert code.source == "1" and code.metadata == {"alt": "a"}


def test_what_is_committed_shows_no_photograph():
    for path in (paths.NOTEBOOKS / "open").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert publishable(notebook) == notebook, path.name
