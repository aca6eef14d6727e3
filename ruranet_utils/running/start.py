"""What the setup cell of every notebook calls: ``run = start(profile=profile, seed=seed, ...)``."""

from __future__ import annotations

import ast
import gc
import os
from dataclasses import dataclass
from functools import cached_property
from sys import stderr

import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from ruranet_utils.data.cohort import Cohort, load_cohorts
from ruranet_utils.networks.device import prepare
from ruranet_utils.profiles import PROFILES, Profile, get_profile
from ruranet_utils.reporting import figures, tables
from ruranet_utils.running.provenance import describe_process
from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import FIXED, prepare_process
from ruranet_utils.storage.store import Store, note


@dataclass(frozen=True)
class Run:
    """One profile with its cohorts, its store and its output folder.

    Attributes
    ----------
    profile : Profile
    store : Store
    """

    profile: Profile
    store: Store

    @cached_property
    def cohorts(self) -> tuple[Cohort, Cohort]:
        """Cohort with lesion masks, cohort with labels; the same one in the synthetic profile."""
        return load_cohorts(self.profile, self.store)

    def answer(self, text: str) -> None:
        """State what the notebook found, before it shows how."""
        display(Markdown(f"**Answer.** {text}"))

    def save_table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write ``<name>.csv`` and ``.md`` to the profile's folder."""
        return tables.save_table(frame, name, paths.figures(paths.results(self.profile)))

    def save_figure(self, fig: Figure, name: str, shows_images: bool = False) -> None:
        """Write ``<name>.png`` and ``.pdf``; images of patients go to a folder that git ignores."""
        photographs = shows_images and self.profile.name != "synthetic"
        figures.save_figure(fig, name, paths.figures(paths.results(self.profile)), photographs=photographs)


def start(profile: str = "synthetic", **parameters) -> Run:
    """Validate a notebook's parameters, fix threads and style, and print what runs.

    Parameters
    ----------
    profile : str
        One of ``profiles.PROFILES``.
    **parameters
        Fields of :class:`Profile`; ``None`` keeps the profile's own value. What papermill injects (``-p epochs 3``)
        is added to them, whether the notebook names it or not.

    Raises
    ------
    ValueError
        For an unknown profile, parameter or value, listing the valid ones.
    """
    parameters = {**parameters, **{name: value for name, value in _injected().items() if name != "profile"}}
    chosen = get_profile(profile, **parameters)
    prepare_process(chosen.instructions)
    device = prepare(chosen)
    threadpool_limits(chosen.threads)
    if hasattr(shell := get_ipython(), "kernel"):
        shell.run_line_magic("matplotlib", "inline")  # whatever MPLBACKEND says: a figure belongs below its cell
    figures.style()
    pd.set_option("display.max_columns", 40, "display.width", 200)
    changed = {
        name: value for name, value in parameters.items() if value not in (None, getattr(PROFILES[profile], name))
    }
    extra = "".join(f" · {name} {value}" for name, value in changed.items())
    about = describe_process(device)
    versions = [f"{name} {about['versions'][name].split('+')[0]}" for name in ("torch", "numpy")]
    machine = " · ".join([about["device"], about["instructions"], *versions])
    print(f"profile {chosen.name} · seed {chosen.seed}{extra}\n{machine}")  # at once: two prints may be two outputs
    note(started=about)
    gc.freeze()  # the libraries' objects, which every collection would scan
    if chosen.instructions == "avx2" and about["instructions"] != FIXED:
        print(
            f"instructions not fixed ({FIXED}), the last digits may differ: start Jupyter with `make lab`", file=stderr
        )
    return Run(chosen, Store(paths.steps(), since_s=float(os.environ.get("RURANET_SINCE", 0))))


def _injected() -> dict[str, object]:
    """The assignments in the cell that papermill inserted, if papermill runs this notebook."""
    shell = get_ipython()
    cells = shell.user_ns.get("In", []) if shell else []
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    assignments = (node for cell in injected for node in ast.parse(cell).body if isinstance(node, ast.Assign))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}
