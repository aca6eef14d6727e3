"""Executed notebooks as they may be published: without photographs of patients or messages of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ruranet_utils.storage.artefacts import write_atomically


def publishable(notebook: NotebookNode) -> NotebookNode:
    """A copy that keeps text, tables and the figures that were saved as showing no photographs.

    Parameters
    ----------
    notebook : NotebookNode
        As executed by papermill.

    Returns
    -------
    NotebookNode
        Images of all other cells are replaced by a line of text.
    """
    kept = nbformat.from_dict(notebook)
    kept.metadata = {name: kept.metadata[name] for name in ("kernelspec", "language_info") if name in kept.metadata}
    for cell in kept.cells:
        cell.metadata = {name: cell.metadata[name] for name in ("alt", "tags") if name in cell.metadata}
        if cell.cell_type == "code":
            shows = "run.save_figure(" in cell.source and "shows_images=True" not in cell.source
            found = (_publishable(output, shows) for output in cell.outputs)
            cell.outputs = [output for output in found if output is not None]
    return kept


def _publishable(output: NotebookNode, shows: bool) -> NotebookNode | None:
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if output.output_type == "error":
        raise ValueError(f"the notebook ended with {output.ename}: run it again")
    data = output.data
    if any(kind.endswith("widget-view+json") for kind in data):
        return None
    if any(kind.startswith("image/") for kind in data) and not shows:
        return nbformat.v4.new_output("stream", text="(photographs of patients, not published)\n")
    return output


def publish(executed: Path, folder: Path) -> None:
    """Write publishable copies of a run's executed notebooks to another folder; each names its commit.

    Parameters
    ----------
    executed : Path
        Next to the ``run.json`` of the run. Nothing is written if it holds no notebooks.
    folder : Path
        Created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(executed.glob("*.ipynb")):
        copy = publishable(nbformat.read(path, as_version=4))
        for cell in copy.cells:
            cell.source = cell.source.replace("](../", "](../../")  # one folder deeper
        ran = json.loads((executed.parent / "run.json").read_text())["notebooks"][path.stem]
        copy.cells[0].source = with_commit(copy.cells[0].source, ran["commit"])
        write_atomically(folder / path.name, lambda file, copy=copy: nbformat.write(copy, file))


def with_commit(title: str, commit: str) -> str:
    """A notebook's first cell with a line below its heading that says which code the notebook ran."""
    heading, _, rest = title.partition("\n")
    return f"{heading}\n\n*A run of commit `{commit[:7]}`; the notebook may have changed since.*\n{rest}"
