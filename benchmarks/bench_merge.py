"""How long a merge takes, how much memory it needs, and how both grow: ``make bench``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from measure import RESULTS, measure, save
from PIL import Image

from ruranet_utils.data.cohort import load_cohorts
from ruranet_utils.data.phantoms.eye import make_patient
from ruranet_utils.profiles import get_profile
from ruranet_utils.reporting import figures
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import Store

SIZES = (1_250, 2_500, 5_000, 10_000)
TURNS = 24  # by 15 degrees each; to the duplicate search they are different photographs


def main() -> None:
    """Measure the open cohort, if its files are available, and 10,000 synthetic photographs."""
    with tempfile.TemporaryDirectory(dir=paths.store().parent) as folder:
        if (paths.data_root() / "srahim").is_dir():
            save(
                _cold_and_warm(Path(folder) / "open"),
                "merge_open",
                "IDRiD, part A with masks (81), and the graded photographs of SRahim (396 of 402)",
            )
        else:
            print("IDRiD and SRahim not found (RURANET_DATA_ROOT): their merge is not measured")
        _photographs(Path(folder) / "all", max(SIZES))
        growth = pd.concat([_grow(Path(folder), n) for n in SIZES], ignore_index=True)
    growth["ms per photograph"] = 1000 * growth["time_s"] / growth["photographs"]
    save(growth, "merge_growth", "Synthetic photographs of 512 px in a user's own folder")
    _draw(growth)


def _cold_and_warm(store: Path, **profile) -> pd.DataFrame:
    runs = {run: measure(_merge, store, profile or {"name": "open"}) for run in ("cold", "warm")}
    rows = pd.DataFrame([{"store": run, **facts} for run, facts in runs.items()])
    return rows.assign(**{"times faster": rows["time_s"][0] / rows["time_s"]})


def _merge(store: Path, profile: dict) -> dict:
    """Both cohorts with their manifests and digests."""
    cohorts = load_cohorts(get_profile(**profile), Store(store))
    for cohort in cohorts:
        cohort.manifest(), cohort.digest
    audits = {id(cohort.audit): cohort.audit for cohort in cohorts}.values()
    return {"photographs": sum(map(len, audits)), "left out": sum((a["dropped"] != "").sum() for a in audits)}


def _photographs(folder: Path, n: int) -> None:
    (folder / "images").mkdir(parents=True)
    patients = range(1, n // (2 * TURNS) + 2)
    Parallel(os.cpu_count())(delayed(_turned)(patient, folder / "images") for patient in patients)


def _turned(patient: int, folder: Path) -> None:
    for phantom in make_patient(patient, 512, seed=0):
        image = Image.fromarray(phantom.image)
        for turn in range(TURNS):
            path = folder / f"{patient:05d}_{phantom.eye}_{turn:02d}.jpg"
            image.rotate(turn * 360 / TURNS).save(path, quality=90)


def _grow(folder: Path, n: int) -> pd.DataFrame:
    """The first n photographs, as hard links, merged twice."""
    some = folder / str(n)
    (some / "images").mkdir(parents=True)
    for path in sorted((folder / "all" / "images").iterdir())[:n]:
        os.link(path, some / "images" / path.name)
    store = folder / f"store_{n}"
    rows = _cold_and_warm(store, name="folder", data_dir=str(some))
    for file in store.rglob("*.*"):
        file.unlink()
    return rows


def _draw(growth: pd.DataFrame) -> None:
    figures.style()
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, column, label, limits in (
        (axes[0], "time_s", "time (s)", (1, 3_000)),
        (axes[1], "peak_mb", "peak memory (MB)", (100, 20_000)),
    ):
        for name, rows in growth.groupby("store"):
            slope = np.polyfit(np.log(rows["photographs"]), np.log(rows[column]), 1)[0]
            ax.plot(rows["photographs"], rows[column], "o-", label=f"{name}, slope {slope:.2f}")
        ax.set(xscale="log", yscale="log", ylim=limits, ylabel=label, xlabel="photographs of 512 px", xticks=SIZES)
        ax.set_xticklabels([f"{n:,}" for n in SIZES])
        ax.minorticks_off()
        ax.legend(loc="upper left")
    images_mb = np.array(SIZES) * 3 * 512**2 / 2**20
    axes[1].plot(SIZES, images_mb, "--", color="gray", label="pixels alone")
    axes[1].legend(loc="lower right", bbox_to_anchor=(1, 0.27))
    fig.tight_layout()
    figures.save_figure(fig, "fig_merge_growth", RESULTS)


if __name__ == "__main__":
    main()
