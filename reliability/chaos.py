"""Kill a run at random moments and resume it: ``make chaos``."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import pandas as pd
import psutil

from reliability.runs import RESULTS, SMALL, copy_project, finish, outcome, pairs, reproduce
from ruranet_utils.running.provenance import save_measurement

VICTIMS = ("everything", "command", "kernel", "worker")
PATIENCE_S = 20  # for a run to notice that its kernel or worker is dead


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--only", multiple=True, help="Only these notebooks, as for make reproduce.")
@click.option("--seed", default=0, show_default=True)
def main(kills: int, only: tuple[str, ...], seed: int) -> None:
    """Run once undisturbed and once killed (SIGKILL) at random moments, and compare.

    A moment is a random time within a random step. The victim is random, too: all processes at once, as in a power
    cut, or only the command, the notebook's kernel or one of its workers, while the others live on.
    """
    arguments = [part for name in only for part in ("--only", name)] + pairs(SMALL)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        calm = copy_project(Path(folder, "calm/ruranet"))
        start = time.perf_counter()
        finish(reproduce(calm, arguments), calm)
        calm_s = time.perf_counter() - start
        n_steps = len(finished(calm))
        click.echo(f"undisturbed: {calm_s:.0f} s, {n_steps} steps")
        wild = copy_project(Path(folder, "wild/ruranet"))
        table = disturb(wild, arguments, moments(kills, n_steps, calm_s / n_steps, np.random.default_rng(seed)))
        before = finished(wild)
        finish(reproduce(wild, arguments), wild)
        repeated = table["repeated"].sum() + n_repeated(before, finished(wild))
        one, two = (outcome(place / "figures/synthetic") for place in (calm, wild))
        differing = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
        time.sleep(3)
        left_over = sorted(process.pid for process in processes_of(wild))
    summary = {
        "kills survived": f"{(table['killed'] != 'nothing').sum()}/{kills}",
        "steps": n_steps,
        "finished steps repeated": repeated,
        "not noticed": table["killed"].str.contains("later").sum(),
        "files compared": len(one),
        "files differing": len(differing),
        "processes left over": len(left_over),
    }
    click.echo(table.to_string(index=False))
    click.echo("\n".join(f"{name}: {value}" for name, value in summary.items()))
    if not only:
        save_measurement(table, "chaos", RESULTS, digits=1)
        save_measurement(pd.DataFrame([summary]), "chaos_summary", RESULTS)
    missed = summary["not noticed"]
    if repeated or missed or differing or left_over or "nothing" in set(table["killed"]):
        raise SystemExit(f"error: {repeated} steps repeated, {missed} kills not noticed; {differing=}; {left_over=}")


def moments(kills: int, n_steps: int, step_s: float, rng: np.random.Generator) -> list[tuple[int, float, str]]:
    """When to kill and whom: steps finished by then, seconds after that, and the victim; in the order of the steps."""
    after = np.sort(rng.integers(n_steps, size=kills))
    return list(zip(after.tolist(), rng.uniform(0, 2 * step_s, kills), rng.choice(VICTIMS, kills), strict=True))


def disturb(folder: Path, arguments: list[str], plan: list[tuple[int, float, str]]) -> pd.DataFrame:
    """Start the run once for each entry of the plan and kill it; the store is kept.

    Returns
    -------
    DataFrame
        For each kill ``after steps``, ``after (s)`` since that run started, ``killed``, the ``exit`` code of the
        command, and how many finished steps the run ``repeated``.
    """
    rows = []
    for n_done, delay_s, victim in plan:
        before, start = finished(folder), time.perf_counter()
        process = reproduce(folder, arguments)
        while process.poll() is None and (len(finished(folder)) < n_done or not children_of(process)["kernel"]):
            time.sleep(0.05)
        time.sleep(delay_s)
        if process.poll() is not None:  # too late: it has ended
            rows.append({"after steps": len(finished(folder)), "killed": "nothing", "exit": process.returncode})
            continue
        killed = kill(process, str(victim))
        row = {"after steps": len(finished(folder)), "after (s)": time.perf_counter() - start, "killed": killed}
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            went_on = len(finished(folder)) > row["after steps"] and victim == "worker"  # an idle one is not missed
            row["killed"] += f", {'then' if went_on else f'{PATIENCE_S} s later'} {kill(process, 'everything')}"
        rows.append({**row, "exit": process.wait(), "repeated": n_repeated(before, finished(folder))})
        click.echo(f"{len(rows)}/{len(plan)} {rows[-1]}")
    return pd.DataFrame(rows).fillna({"repeated": 0}).astype({"repeated": int})


def kill(process: subprocess.Popen, victim: str) -> str:
    """Send SIGKILL to one of a run's processes or to all of them; returns the victim."""
    found = children_of(process)
    hit = {"kernel": found["kernel"][:1], "worker": found["worker"][-1:], "command": found["command"]}.get(victim)
    if not hit:
        victim, hit = "everything", found["everything"]
    for one in hit:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    return victim


def children_of(process: subprocess.Popen) -> dict[str, list[psutil.Process]]:
    """A run's processes by kind, and ``everything``."""
    command = psutil.Process(process.pid)
    children = command.children(recursive=True)
    kernels = [child for child in children if "ipykernel_launcher" in _command(child)]
    workers = [child for child in children if "LokyProcess" in _command(child)]
    return {"command": [command], "kernel": kernels, "worker": workers, "everything": [command, *children]}


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def finished(folder: Path) -> dict[str, int]:
    """The steps in the store and when each was finished (ns); hidden files are still being written."""
    return {str(record): record.stat().st_mtime_ns for record in (folder / "data/store").glob("2/*/[!.]*.json")}


def n_repeated(before: dict[str, int], after: dict[str, int]) -> int:
    """Finished steps that have been computed, or at least written, again."""
    return sum(after.get(step) != time_ns for step, time_ns in before.items())


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes still running in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # zombies, too
            if process.environ().get("PYTHONPATH") == str(folder):
                found.append(process)
    return found


if __name__ == "__main__":
    main()
