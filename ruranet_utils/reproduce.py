"""Run the notebooks headless: ``ruranet reproduce``, what ``make reproduce`` calls."""

from __future__ import annotations

import ast
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

import click
import papermill
import psutil
from nbclient.exceptions import DeadKernelError

from ruranet_utils import AVX2, engine, paths
from ruranet_utils.config import PROFILES, Profile, get_profile
from ruranet_utils.provenance import describe_code, describe_run
from ruranet_utils.sources import folder
from ruranet_utils.store import write_atomically


def notebooks(only: Sequence[str] = ()) -> list[Path]:
    """The numbered notebooks in order, or those whose names start with one of ``only``.

    Raises
    ------
    ValueError
        If a prefix fits no notebook; lists the notebooks.
    """
    found = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    for prefix in only:
        if not any(path.stem.startswith(prefix) for path in found):
            raise ValueError(f"no notebook starts with {prefix!r}; there are: {', '.join(path.stem for path in found)}")
    return [path for path in found if not only or path.stem.startswith(tuple(only))]


def check_parameters(chosen: list[Path], parameters: dict) -> None:
    """Refuse names that a notebook does not declare and values that no profile takes, before anything runs.

    Raises
    ------
    ValueError
        Naming the parameter and listing the valid ones.
    """
    for path in chosen:
        valid = list(papermill.inspect_notebook(str(path)))
        unknown = sorted(set(parameters) - set(valid))
        if unknown:
            raise ValueError(f"unknown parameter {', '.join(unknown)}; {path.stem} takes: {', '.join(valid)}")
    profile_of(parameters)


def profile_of(parameters: dict) -> Profile:
    """The profile that a notebook makes of these parameters; see :func:`ruranet_utils.config.get_profile`."""
    return get_profile(parameters["profile"], **{k: v for k, v in parameters.items() if k != "profile"})


def applicable(chosen: list[Path], parameters: dict) -> list[Path]:
    """Leave out, with a message, the notebooks that the reader's own photographs have no masks or no labels for.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not laid out as ``docs/own_images.md`` says.
    """
    if parameters["profile"] != "folder":
        return chosen
    records = folder.records(paths.from_root(parameters["data_dir"]))
    has = {"masks": any(record.mask_paths for record in records), "labels": records[0].label is not None}
    needs = {"02": "masks", "03": "labels", "04": "labels", "05": "labels", "08": "labels"}
    left_out = [path for path in chosen if not has.get(needs.get(path.stem[:2]), True)]
    for path in left_out:
        print(f"{path.stem} is left out: there are no {needs[path.stem[:2]]}", flush=True)
    return [path for path in chosen if path not in left_out]


class Watch(threading.Thread):
    """Prints how a notebook gets on and remembers the highest memory of this process and its children."""

    def __init__(self, title: str, journal: Path):
        super().__init__(daemon=True)
        self.title, self.journal = title, journal
        self.start_s, self.peak_bytes, self.steps = time.perf_counter(), 0, 0
        self.done = threading.Event()

    @property
    def time_s(self) -> float:
        """Seconds since the notebook started."""
        return time.perf_counter() - self.start_s

    def run(self):
        """Look once a second until ``done`` is set."""
        while not self.done.wait(1.0):
            self.look()
            if sys.stdout.isatty():
                print(f"\r{self.title}  {clock(self.time_s)}  {self.steps} steps", end="", flush=True)

    def look(self):
        """Count the steps in the journal and measure memory; pages that processes share count once (PSS)."""
        self.steps = len(events(self.journal))
        try:
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, processes)))
        except psutil.NoSuchProcess:
            pass


def _memory(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return getattr(memory, "pss", memory.uss)


def allow_instructions(profile: Profile) -> None:
    """Let the kernels started from here on use what the profile says, or the user's ``RURANET_INSTRUCTIONS``."""
    instructions = os.environ.setdefault("RURANET_INSTRUCTIONS", profile.instructions)
    for name, value in AVX2.items() if instructions == "native" else ():
        if os.environ.get(name) == value:
            del os.environ[name]


def run_notebook(path: Path, parameters: dict, executed: Path) -> dict:
    """Execute one notebook by papermill.

    Parameters
    ----------
    path : Path
    parameters : dict
        Injected into the notebook.
    executed : Path
        Folder that gets the executed notebook.

    Returns
    -------
    dict
        ``commit``, ``uncommitted_changes``, ``time_s``, ``peak_memory_mb``, and the numbers of steps ``computed``
        and ``found`` in the store.

    Raises
    ------
    papermill.PapermillExecutionError
        If a cell fails.
    """
    executed.mkdir(parents=True, exist_ok=True)
    journal = executed / f".{path.stem}.jsonl"
    journal.unlink(missing_ok=True)
    os.environ.update(RURANET_JOURNAL=str(journal), RURANET_WIDGETS="0", TQDM_DISABLE="1")
    watch = Watch(path.stem, journal)
    watch.start()
    try:
        papermill.execute_notebook(
            path,
            executed / path.name,
            parameters,
            cwd=paths.NOTEBOOKS,
            kernel_name="python3",
            progress_bar=False,
            # A kernel of this machine, for this process: its warning of an unencrypted port is noise.
            extra_arguments=["--log-level=ERROR"],
        )
    finally:
        watch.done.set()
        watch.join()
        watch.look()
        steps = events(journal)
        journal.unlink(missing_ok=True)
    return {
        **describe_code(),
        "time_s": round(watch.time_s, 1),
        "peak_memory_mb": round(watch.peak_bytes / 2**20),
        "computed": sum(not step["found"] for step in steps),
        "found": sum(step["found"] for step in steps),
    }


def events(journal: Path) -> list[dict]:
    """What the store did, line by line."""
    found = []
    for line in journal.read_text().splitlines() if journal.exists() else []:
        with suppress(json.JSONDecodeError):  # of a process that was killed while it wrote
            found.append(json.loads(line))
    return found


def clock(time_s: float) -> str:
    """Seconds as ``mm:ss``."""
    return f"{int(time_s) // 60:02d}:{int(time_s) % 60:02d}"


def parse_value(text: str):
    """A command-line value as Python reads it; what is no literal is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@click.command()
@click.option("--profile", default="synthetic", show_default=True, help=f"One of: {', '.join(PROFILES)}.")
@click.option("--only", multiple=True, help="Run only notebooks whose names start so, such as 04. Repeatable.")
@click.option("--list", "show_list", is_flag=True, help="List the notebooks and stop.")
@click.option("--force", is_flag=True, help="Compute every step again, whatever the store holds.")
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
    parameters = {"profile": profile, **{name: parse_value(value) for name, value in pairs}}
    try:
        chosen = notebooks(only)
        if show_list:
            names = [path.stem for path in chosen]
            print(json.dumps(names) if as_json else "\n".join(names), file=output)
            return
        if parameters.get("data_dir"):
            parameters["data_dir"] = str(Path(str(parameters["data_dir"])).expanduser().resolve())
        check_parameters(chosen, parameters)
        chosen = applicable(chosen, parameters)
        if dask is not None:
            with engine.connect(dask) as client:
                if not client.nthreads():
                    raise ConnectionError(f"the scheduler at {dask} has no workers (docs/cluster.md)")
                print(f"{len(client.nthreads())} workers at {dask}", flush=True)
            os.environ["RURANET_DASK"] = dask
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    if force:
        os.environ["RURANET_SINCE"] = str(time.time())
    used = profile_of(parameters)
    allow_instructions(used)
    results = paths.figures(used.results)
    ran, start = {}, time.perf_counter()
    for number, path in enumerate(chosen, start=1):
        title = f"[{number}/{len(chosen)}] {path.stem}"
        print(f"{title} …", flush=True)
        ran[path.stem] = facts = _run_or_exit(path, parameters, results / "notebooks")
        print(
            f"\r{title}  {clock(facts['time_s'])}  {facts['peak_memory_mb']} MB  "
            f"{facts['computed']} steps computed, {facts['found']} found",
            flush=True,
        )
    file = results / "run.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    described = json.dumps(describe_run(used, parameters, ran, before), indent=1)
    write_atomically(file, lambda file: file.write_text(described + "\n"))
    print(f"done in {clock(time.perf_counter() - start)}: {results}", flush=True)
    if as_json:
        print(described, file=output)


def _run_or_exit(path: Path, parameters: dict, executed: Path) -> dict:
    """:func:`run_notebook`; whatever ends it ends the command, with a message instead of a traceback."""
    try:
        return run_notebook(path, parameters, executed)
    except papermill.PapermillExecutionError as error:
        last = click.unstyle("\n".join(error.traceback[-1].splitlines()[-12:]))
        raise SystemExit(
            f"error: {path.stem}, cell {error.exec_count} failed: {error.ename}: {error.evalue}\n{last}\n"
            f"The notebook up to there: {executed / path.name}"
        ) from None
    except DeadKernelError:
        raise SystemExit(
            f"error: the kernel of {path.stem} died, killed or out of memory; the same command continues"
        ) from None
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # else it prints where the kernel was interrupted
        print("\nstopped; the same command continues where it was", flush=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
