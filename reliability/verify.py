"""Do two runs give the same bytes, and what does another processor change? ``make verify``."""

from __future__ import annotations

import locale
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path

import click
import pandas as pd

from reliability.runs import ELSEWHERE, RESULTS, SMALL, copy_project, finish, kind, outcome, pairs, reproduce
from ruranet_utils.running.provenance import git, save_measurement
from ruranet_utils.storage import paths

OTHER_USER = ("unshare", "--user", "--map-user=1234")
SURVIVES_ALL = 4  # decimals of a table


@click.command()
@click.option("--small", is_flag=True, help="One network of each kind: minutes instead of most of an hour.")
@click.option("--only", multiple=True, help="Only these notebooks, as for make reproduce.")
@click.option("--keep", type=click.Path(path_type=Path, resolve_path=True), help="New folder for the runs.")
def main(small: bool, only: tuple[str, ...], keep: Path | None) -> None:
    """Run everything cold three times, compare every byte, and say what differs.

    The first run is also compared with the committed results. The second has another folder, time zone, locale, user,
    number of OpenMP threads and order of directory entries, and no network. The third may use every instruction of
    this processor, which stands in for another processor.
    """
    arguments = [part for name in only for part in ("--only", name)] + (pairs(SMALL) if small else [])
    complete = not small and not only
    if complete and git("status", "--porcelain", "--", "figures/synthetic"):
        raise SystemExit("error: figures/synthetic is compared as committed, but was changed: commit or restore it")
    with tempfile.TemporaryDirectory(prefix="verify-") as temporary:
        root = keep or Path(temporary)
        if root.exists() and any(root.iterdir()):
            raise SystemExit(f"error: {root} is not empty: these runs would not be cold")
        first = _run(root / "first/ruranet", arguments, OMP_NUM_THREADS="1")
        elsewhere = _run(root / "elsewhere/anderer Ordner ä", arguments, as_other_user(), **_elsewhere(root))
        rows = _compare("elsewhere", outcome(first), outcome(elsewhere))
        if complete:
            made = [outcome(place) for place in (first, paths.figures("synthetic"))]
            made = [{name: part[name] for name in part if not name.endswith(".ipynb")} for part in made]
            rows += _compare("the committed results", *made)
        native = _run(root / "native/ruranet", arguments, RURANET_INSTRUCTIONS="native")
        rows += _compare("instructions not fixed", outcome(first), outcome(native))
        digits = _digits(first, native)
        contacts = root / "contacts.txt"
        contacted = contacts.read_text().split() if contacts.exists() else []
    summary = pd.DataFrame(rows).groupby(["compared with", "what"], sort=False, as_index=False)
    table = summary.agg(files=("same", "size"), differing=("same", lambda same: int((~same).sum())))
    click.echo(table.to_string(index=False))
    click.echo(digits.to_string(index=False))
    if complete:
        save_measurement(table, "verify", RESULTS)
        save_measurement(digits, "verify_digits", RESULTS)
    if contacted:
        raise SystemExit(f"error: a run without a network tried to reach {contacted}")
    wrong = [row for row in rows if not row["same"] and row["compared with"] != "instructions not fixed"]
    if wrong:
        raise SystemExit(
            "\n".join(["error: these differ:", *(f"{row['compared with']}: {row['file']}" for row in wrong)])
        )


def _run(folder: Path, arguments: list[str], prefix: tuple[str, ...] = (), **variables: str) -> Path:
    start = time.perf_counter()
    click.echo(f"{folder.parent.name} … (output: {folder.parent / 'output.txt'})")
    copy_project(folder)
    finish(reproduce(folder, arguments, prefix, **variables), folder)
    click.echo(f"{folder.parent.name}: {time.perf_counter() - start:.0f} s")
    return folder / "figures/synthetic"


def _elsewhere(root: Path) -> dict[str, str]:
    """Environment of the second run; ``PYTHONPATH`` loads ``sitecustomize.py``."""
    folder, home = root / "elsewhere/anderer Ordner ä", root / "elsewhere/home"
    home.mkdir(parents=True)
    return {
        "OMP_NUM_THREADS": "2",
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": _other_locale(),
        "HOME": str(home),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "PYTHONHASHSEED": "12345",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ELSEWHERE)]),
        "ELSEWHERE_CONTACTS": str(root / "contacts.txt"),
    }


def _other_locale() -> str:
    """An installed locale other than the common ones, or plain C if there is none."""
    installed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    used = {locale.getlocale()[0], "C", "POSIX", "C.utf8", "en_US.utf8"}
    return next((name for name in installed if name not in used), "C")


def as_other_user() -> tuple[str, ...]:
    """Command prefix that gives another user ID, if the system allows it."""
    try:
        allowed = subprocess.run([*OTHER_USER, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        click.echo("this system does not let a process take another user ID: that part is skipped")
    return OTHER_USER if allowed else ()


def _compare(name: str, one: dict[str, str], two: dict[str, str]) -> list[dict]:
    """One row for each file of two outcomes."""
    return [
        {"compared with": name, "what": kind(file), "file": file, "same": one.get(file) == two.get(file)}
        for file in sorted({*one, *two})
    ]


def _digits(first: Path, second: Path) -> pd.DataFrame:
    """How far apart the numbers of each table are.

    Returns
    -------
    DataFrame
        ``table``; its ``numbers`` and how many are ``differing``; for its scores, the columns within [-1, 1], the
        ``largest difference`` and how many ``decimals that survive`` it.
    """
    rows = []
    for path in sorted(first.glob("*.csv")):
        if path.name.startswith("time_"):
            continue
        one, two = pd.read_csv(path), pd.read_csv(second / path.name)
        columns = [c for c in one.select_dtypes("number") if c in two.select_dtypes("number")]
        gaps = (one[columns] - two[columns]).abs().mask(one[columns].isna() & two[columns].isna(), 0.0).fillna(1.0)
        scores = [c for c in columns if one[c].abs().max() <= 1 and two[c].abs().max() <= 1]
        largest = gaps[scores].to_numpy().max(initial=0.0)
        rows.append(
            {
                "table": path.stem,
                "numbers": gaps.size,
                "differing": int((gaps > 0).to_numpy().sum()),
                "largest difference": largest,
                "decimals that survive": _decimals(largest),
            }
        )
    return pd.DataFrame(rows)


def _decimals(difference: float) -> int:
    """Decimals that agree to within half a unit of the last: 2 for a difference of 0.004, none for 0.2."""
    return SURVIVES_ALL if difference == 0 else max(0, min(SURVIVES_ALL, math.floor(-math.log10(2 * difference))))


if __name__ == "__main__":
    main()
