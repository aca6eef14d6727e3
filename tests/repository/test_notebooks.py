"""What every notebook must keep to; their outputs are checked by ``pytest --nbval notebooks``."""

import ast
import re
import subprocess
import sys
from itertools import pairwise
from statistics import median

import jupytext
import nbformat
import pytest

from ruranet_utils.running.reproduce import notebooks
from ruranet_utils.storage import paths

NOTEBOOKS = notebooks()
PARAMETERS = ["profile", "seed", "data_dir"]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_lines(path):
    return sum(bool(line.strip()) for cell in code_cells(path) for line in cell.source.splitlines())


def test_half_of_the_notebooks_have_at_most_90_lines_of_code():
    assert median(map(code_lines, NOTEBOOKS)) <= 90


def test_all_notebooks_are_there():
    names = ["01_data_merge", "02_backbone_study", "03_supervised", "04_clustering", "05_ablation", "06_pca"]
    names += ["07_paper_audit", "08_source_confound", "09_own_images", "10_lesions_alone"]
    assert [path.stem for path in NOTEBOOKS] == names


@each_notebook
def test_text_and_notebook_are_a_pair(path):
    text = paths.NOTEBOOKS / "text" / f"{path.stem}.py"
    for one, other in zip(nbformat.read(path, as_version=4).cells, jupytext.read(text).cells, strict=True):
        assert (one.cell_type, one.source, one.metadata) == (other.cell_type, other.source, other.metadata)


@each_notebook
def test_every_figure_is_described_for_those_who_cannot_see_it(path):
    for cell in code_cells(path):
        figures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(figures) == ("alt" in cell.metadata), cell.source
        assert len(cell.metadata.get("alt", "one two three four five six seven eight").split()) >= 8, cell.source


@each_notebook
def test_every_figure_has_a_heading_and_a_sentence_that_says_what_to_see(path):
    cells = nbformat.read(path, as_version=4).cells
    for before, cell in pairwise(cells):
        if "alt" in cell.metadata:
            heading, _, caption = before.source.partition("\n")
            assert before.cell_type == "markdown" and heading.startswith("## Figure"), cell.source
            assert len(caption.split()) >= 8, cell.source


@each_notebook
def test_cells_ran_in_order_without_errors(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)


@each_notebook
def test_anatomy(path):
    cells = code_cells(path)
    assert cells[0].metadata.tags == ["parameters"]
    assigned = {node.targets[0].id: node.value for node in ast.parse(cells[0].source).body}
    assert list(assigned) == PARAMETERS
    assert all(isinstance(value, ast.Constant) for value in assigned.values())
    tree = ast.parse("\n".join(cell.source for cell in cells))
    assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
    assert len(cells) <= 30
    lengths = [len(cell.source.splitlines()) for cell in cells]
    assert max(lengths) <= 30
    assert code_lines(path) <= 150
    markdown = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert markdown[0].startswith(f"# {path.stem[:2]} ·") and "**Question.**" in markdown[0]
    assert any(re.search("paper versus ours", source, re.IGNORECASE) for source in markdown)
    assert "## Checks" in "\n".join(markdown) and "assert" in cells[-1].source
    assert any("**Limits" in source for source in markdown)
    assert markdown[-1].startswith("Next: [" if path != NOTEBOOKS[-1] else "This was the last")


@each_notebook
def test_nothing_of_a_machine_is_stored(path):
    stored = "\n".join(str(cell.outputs) for cell in code_cells(path))
    assert not re.search(r"(/tmp|/root|/home|/work|/mnt|/Users|[A-Z]:\\)[/\\]\w", stored)
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in nbformat.read(path, as_version=4).metadata  # progress bars


@each_notebook
def test_notebooks_call_nothing_forbidden(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert not re.search(r"pip install|sys\.path|os\.chdir|^[%!]", source, re.MULTILINE)


def test_few_cells_are_exempt_from_nbval_and_each_says_why():
    cells = [cell for path in NOTEBOOKS for cell in code_cells(path)]
    exempt = [cell for cell in cells if any(tag.startswith("nbval") for tag in cell.metadata.get("tags", []))]
    assert len(exempt) <= 0.1 * len(cells)
    assert all(cell.source.startswith("# not compared: ") for cell in exempt)


def test_drift_between_the_pair_is_seen(tmp_path):
    text = (paths.NOTEBOOKS / "text" / "06_pca.py").read_text().replace("k_max=100", "k_max=99")
    changed = [cell.source for cell in jupytext.reads(text, fmt="py:percent").cells]
    assert changed != [cell.source for cell in nbformat.read(paths.NOTEBOOKS / "06_pca.ipynb", as_version=4).cells]


def test_nbval_fails_when_a_number_is_changed(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from ruranet_utils.published import table_5\nprint(table_5()['accuracy'].tolist())",
                execution_count=1,
                outputs=[nbformat.v4.new_output("stream", name="stdout", text="[0.543, 0.84, 0.86, 0.8411, 0.8377]\n")],
            )
        ]
    )
    path = tmp_path / "check.ipynb"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    for text, expected in ((None, 0), ("[0.543, 0.84, 0.86, 0.8412, 0.8377]\n", 1)):
        notebook.cells[0].outputs[0].text = text or notebook.cells[0].outputs[0].text
        nbformat.write(notebook, path)
        done = subprocess.run(
            [*command, "-c", "/dev/null", path], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stdout
