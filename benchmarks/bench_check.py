"""The cost of checking a folder before anything is computed: time and memory by number of photographs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pandas as pd
from measure import measure, save
from PIL import Image

from ruranet_utils.data.check import check
from ruranet_utils.data.phantoms.eye import make_patient
from ruranet_utils.profiles import get_profile

SIZES = (100, 1000, 10_000)
SHAPE_PX = (2144, 1424)
N_EYES = 20


def main() -> None:
    """Check folders of synthetic photographs at half the size of IDRiD's."""
    with tempfile.TemporaryDirectory() as folder:
        eyes = _make_eyes(Path(folder) / "eyes")
        rows = []
        for n in SIZES:
            root = _link(eyes, Path(folder) / str(n), n)
            rows.append({"photographs": n, **measure(_check, root)})
    table = pd.DataFrame(rows)
    table["ms per photograph"] = 1000 * table["time_s"] / table["photographs"]
    save(table, "check", "ruranet check: photographs, read by two threads; above 500 only their headers")


def _make_eyes(folder: Path) -> list[Path]:
    folder.mkdir()
    files = []
    for number in range(N_EYES):
        eye = make_patient(number, 256, seed=0)[0].image
        files.append(folder / f"{number}.jpg")
        Image.fromarray(eye).resize(SHAPE_PX).save(files[-1], quality=90)
    return files


def _link(eyes: list[Path], root: Path, n: int) -> Path:
    (root / "images").mkdir(parents=True)
    for number in range(n):
        os.link(eyes[number % len(eyes)], root / "images" / f"eye {number:05d}.jpg")
    return root


def _check(root: Path) -> dict:
    checked = check(root, get_profile("folder", data_dir=str(root)))
    return {"usable": checked.usable, "read": checked.reads["photographs"]}


if __name__ == "__main__":
    main()
