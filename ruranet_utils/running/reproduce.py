"""Run the notebooks headless: ``ruranet reproduce``, which ``make reproduce`` calls."""

from __future__ import annotations

import ast
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from ruranet_utils.data.check import check
from ruranet_utils.data.refusal import Unusable
from ruranet_utils.data.sources.base import expect_folder
from ruranet_utils.profiles import LESIONS, PROFILES, Profile, get_profile
from ruranet_utils.running.provenance import describe_run
from ruranet_utils.running.upkeep import older_layout, size_mb
from ruranet_utils.storage import paths, workers
from ruranet_utils.storage.artefacts import write_atomically
from ruranet_utils.storage.machine import prepare_process

if TYPE_CHECKING:
    from concurrent.futures import Future

WORDS = ("profile", "data_dir", "encoders", "classifiers", "extractors", "models")  # a folder may be named 2024_11


def notebooks(only: Sequence[str] = ()) -> list[Path]:
    """The numbered notebooks in order, or those whose names start with one of ``only``.

    Raises
    ------
    ValueError
        If a prefix matches no notebook; lists the notebooks.
    """
    found = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    for prefix in only:
        if not any(path.stem.startswith(prefix) for path in found):
            raise ValueError(f"no notebook starts with {prefix!r}; there are: {', '.join(path.stem for path in found)}")
    return [path for path in found if not only or path.stem.startswith(tuple(only))]


def profile_of(parameters: dict) -> Profile:
    """The profile that every notebook makes from these parameters.

    Raises
    ------
    ValueError
        If a name or value is not valid for the profile; lists the valid ones, before anything runs.
    """
    return get_profile(parameters["profile"], **{k: v for k, v in parameters.items() if k != "profile"})


def applicable(chosen: list[Path], profile: Profile) -> list[Path]:
    """Leave out, with a message, notebooks that need masks or labels that the reader's own photographs lack.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    Unusable
        If the folder cannot be used, with a table of everything that is wrong.
    """
    if profile.name != "folder":
        return chosen
    root = paths.from_root(profile.data_dir)
    if not root.is_dir():
        expect_folder(root / "images")
    checked = check(root, profile)
    if not checked.usable:
        raise Unusable(f"nothing was computed\n{checked}")
    print(checked, flush=True)
    shown = {lesion for lesion, facts in checked.reads["masks"].items() if facts["masks"] > facts["empty"]}
    has = {
        "masks": bool(shown),
        "labels": checked.reads["labels"] is not None,
        "networks without SCSE": profile.models != "shipped" or set(LESIONS) <= shown,
    }
    needs = {"02": ("masks",), "05": ("labels", "networks without SCSE")}
    needs |= dict.fromkeys(("03", "04", "08", "10"), ("labels",))
    lacks = {path: [name for name in needs.get(path.stem[:2], ()) if not has[name]] for path in chosen}
    left_out = [path for path in chosen if lacks[path]]
    for path in left_out:
        print(f"{path.stem} is left out: there are no {lacks[path][0]}", flush=True)
    return [path for path in chosen if path not in left_out]


def read_run(results: Path) -> dict:
    """The ``run.json`` of a folder of results, or an empty dict."""
    file = results / "run.json"
    return json.loads(file.read_text()) if file.exists() else {}


def estimate(chosen: list[Path], profile: Profile) -> dict[str, str]:
    """Time of each notebook's costliest run, by its name, and a sentence about all of them under ``""``.

    From the ``run.json`` that the run will update, or from the committed one.
    """
    run = read_run(paths.figures(paths.results(profile))) or read_run(paths.ROOT / "figures" / paths.results(profile))
    times_s = {name: facts["costliest"]["time_s"] for name, facts in run.get("notebooks", {}).items()}
    known = {path.stem: times_s[path.stem] for path in chosen if path.stem in times_s}
    if not known:
        return {"": "no earlier run to estimate the time from"}
    where = f"{run['machine']['cores']} cores on {run['finished'][:10]}"
    whole = f"expected: {tqdm.format_interval(sum(known.values()))} with an empty store ({where}), less otherwise"
    return {"": whole, **{name: f"about {tqdm.format_interval(time_s)} " for name, time_s in known.items()}}


def parse_value(name: str, text: str):
    """A command-line value as Python reads it, or a string if it is not a literal or the parameter is in ``WORDS``."""
    if name in WORDS and text != "None":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@click.command()
@click.option("--profile", default="synthetic", show_default=True, help=f"One of: {', '.join(PROFILES)}.")
@click.option("--only", multiple=True, help="Run only notebooks whose names start with this, such as 04. Repeatable.")
@click.option("--list", "show_list", is_flag=True, help="List the notebooks and stop.")
@click.option("--force", is_flag=True, help="Recompute every step, whatever the store holds.")
@click.option(
    "--dask", metavar="ADDRESS", help="Scheduler of a dask cluster, such as tcp://host:8786 (docs/cluster.md)."
)
@click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Notebook parameter. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print run.json at the end, and everything else to stderr.")
def main(
    profile: str,
    only: tuple[str, ...],
    show_list: bool,
    force: bool,
    dask: str | None,
    pairs: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Regenerate every table and figure of RURANET++."""
    output = sys.stdout
    if as_json:
        click.get_current_context().with_resource(redirect_stdout(sys.stderr))
    parameters = {"profile": profile, **{name: parse_value(name, value) for name, value in pairs}}
    try:
        chosen = notebooks(only)
        if show_list:
            names = [path.stem for path in chosen]
            print(json.dumps(names) if as_json else "\n".join(names), file=output)
            return
        if parameters.get("data_dir"):
            parameters["data_dir"] = str(Path(str(parameters["data_dir"])).expanduser().resolve())
        used = profile_of(parameters)
        chosen = applicable(chosen, used)
        if not chosen:
            raise ValueError("no notebook is left to run")
        if dask is not None:
            with workers.connect(dask) as client:
                if not client.nthreads():
                    raise ConnectionError(f"the scheduler at {dask} has no workers (docs/cluster.md)")
                print(f"{len(client.nthreads())} workers at {dask}", flush=True)
            os.environ["RURANET_DASK"] = dask
    except Unusable as error:
        raise click.ClickException(str(error)) from None
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
    if force:
        os.environ["RURANET_SINCE"] = str(time.time())
    prepare_process(used.instructions, computes=False)  # for the kernels, which inherit it
    results = paths.figures(paths.results(used))
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"results cannot be written (RURANET_FIGURES): {error}") from None
    if old := older_layout(paths.store()):
        size = f"{size_mb(*old):,.0f} MB"
        print(f"{paths.store()}: {size} have an older layout, which is not read; `ruranet store --prune` removes them")
    expected = estimate(chosen, used)
    print(expected[""], flush=True)
    start, cold = time.perf_counter(), force or not any(paths.steps().glob("*/*.json"))
    file, before, ran = results / "run.json", read_run(results), {}
    for name, facts in _run_all(chosen, parameters, results / "notebooks", expected):
        ran[name] = facts
        described = json.dumps(describe_run(used, parameters, ran, before, cold), indent=1)
        write_atomically(file, lambda file, text=described: file.write_text(text + "\n"))  # a later one may fail
    print(f"done in {tqdm.format_interval(time.perf_counter() - start)}: {results}", flush=True)
    if as_json:
        print(described, file=output)


def _run_all(
    chosen: Sequence[Path], parameters: dict, executed: Path, expected: dict[str, str]
) -> Iterator[tuple[str, dict]]:
    """Yield the name of each notebook that has ended, and the facts of its run."""
    from ruranet_utils.running.headless import Kernels  # imports papermill, which a refused run need not load

    def say(path: Path) -> None:
        print(f"[{chosen.index(path) + 1}/{len(chosen)}] {path.stem}  {expected.get(path.stem, '')}…", flush=True)

    with closing(Kernels(chosen, executed, say).run(parameters)) as ended:
        for path, end in _until_interrupted(ended):
            facts = _facts_or_exit(end, executed / path.name)
            print(
                f"\r[{chosen.index(path) + 1}/{len(chosen)}] {path.stem}  {tqdm.format_interval(facts['time_s'])}  "
                f"{facts['peak_memory_mb']} MB  {facts['computed']} steps computed, {facts['found']} found".ljust(100),
                flush=True,
            )
            yield path.stem, facts


def _until_interrupted(ended: Iterator) -> Iterator:
    """Pass on the notebooks that end; Ctrl-C ends the command with a message and no traceback."""
    try:
        yield from ended
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # else it prints where the kernel was interrupted
        print("\nstopped; the same command continues where it was", flush=True)
        raise SystemExit(130) from None


def _facts_or_exit(end: Future, executed: Path) -> dict:
    """What a notebook's run returned; if it failed, the command ends with a message and no traceback."""
    from papermill import PapermillExecutionError

    try:
        return end.result()
    except PapermillExecutionError as error:
        said = f"{error.ename}: {error.evalue}"
        last = click.unstyle("\n".join(error.traceback[-1].splitlines()[-12:]))
        more = f"{last}\n" if last.strip() != said else ""
        where = f"The notebook so far: {executed}"
        raise click.ClickException(f"{executed.stem}, cell {error.exec_count} failed: {said}\n{more}{where}") from None
    except RuntimeError as error:  # nbclient's DeadKernelError, or that of a kernel that never answered
        if not str(error).startswith("Kernel "):
            raise
        said = "died, killed or out of memory" if "died" in str(error) else "does not answer"
        raise click.ClickException(f"the kernel of {executed.stem} {said}; the same command continues") from None


if __name__ == "__main__":
    main()
