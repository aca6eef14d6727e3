"""Every notebook in JupyterLab, as a reader runs it: open, Run All Cells, look at tables, figures and sliders."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from ruranet_utils.running.reproduce import notebooks
from ruranet_utils.storage import paths

MINUTES = 60_000  # playwright counts milliseconds
SETTINGS = {  # no question on the first start, and all cells in the page, not only those in view
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
SLIDERS = {
    "02_backbone_study": {"threshold": "Home", "photograph": "ArrowRight"},
    "04_clustering": {"Edema": "End"},
}
FINISHED = """() => {
    const prompts = [...document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputPrompt")].map(p => p.innerText);
    return prompts.length > 0 && prompts.every(prompt => /\\[\\d+\\]/.test(prompt));
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab with copies of the notebooks; the store is the project's, so that steps are found."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(paths.NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns("text", ".*"))
    for path in folder.glob("notebooks/*.ipynb"):  # what is found below was not there before
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    for name, values in SETTINGS.items():
        file = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"ip": "127.0.0.1", "port": port, "root_dir": folder / "notebooks", "allow_root": True}
    options["disable_check_xsrf"] = True  # so that the tests can end kernels
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--IdentityProvider.token="]
    places = {"FIGURES": folder / "figures", "STORE": paths.store()}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [*command, *(f"--ServerApp.{name}={value}" for name, value in options.items())],
            env={
                **os.environ,
                **{f"RURANET_{name}": str(place) for name, place in places.items()},
                "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
                "JUPYTER_CONFIG_DIR": str(folder / "config"),
            },
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api")
            break
        except OSError:
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(30)


@pytest.fixture
def run_all(browser, lab):
    """Open a notebook, choose Run > Run All Cells, wait for the last one."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))

    def run(name):
        page.goto(f"{lab}/lab/tree/{name}.ipynb?reset")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=2 * MINUTES)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(FINISHED, timeout=20 * MINUTES)
        return page

    yield run
    for kernel in page.request.get(f"{lab}/api/kernels").json():  # each holds a gigabyte
        assert page.request.delete(f"{lab}/api/kernels/{kernel['id']}").ok
    page.close()
    assert not failures


def outputs(page, kind):
    return page.locator(f".jp-Notebook .jp-OutputArea-output {kind}")


@pytest.mark.parametrize("name", [path.stem for path in notebooks()])
def test_every_notebook_runs_and_its_sliders_move(run_all, name):
    page = run_all(name)
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    assert errors.count() == 0, errors.first.inner_text()
    stored = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    kinds = [kind for cell in stored for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert outputs(page, "table").count() == kinds.count("text/html") > 0
    page.wait_for_function("() => [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert outputs(page, "img").count() == kinds.count("image/png")
    equations = "".join(cell.source for cell in stored if cell.cell_type == "markdown").count("$$")
    assert page.locator('.jp-MarkdownOutput mjx-container[display="true"]').count() == equations // 2
    assert page.locator("mjx-merror").count() == 0
    for slider, key in SLIDERS.get(name, {}).items():
        move(page, slider, key)


def move(page, slider, key):
    """Press a key on a slider and wait until its figure is another one."""
    widget = page.locator(".widget-interact")
    before = widget.locator("img").get_attribute("src")
    handle = widget.locator(".widget-slider", has_text=slider).locator(".noUi-handle")
    handle.scroll_into_view_if_needed()
    handle.press(key)
    page.wait_for_function(
        "before => ![null, before].includes(document.querySelector('.widget-interact img')?.src ?? null)",
        arg=before,
        timeout=MINUTES,
    )
    assert page.locator('.widget-interact [data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
