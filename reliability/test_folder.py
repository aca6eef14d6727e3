"""Thousands of photographs with one command: flat memory, a kill in the middle, and one file that cannot be read."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from ruranet_utils.segmentation.apply import TABLE
from ruranet_utils.storage import paths

N_PHOTOGRAPHS, KILLED_AT, LIMIT_MB = 5000, 1500, 40
RURANET = Path(paths.ROOT) / ".venv/bin/ruranet"


@pytest.fixture
def folder(tmp_path, phantoms):
    """Photographs of 160 x 160 px, each a link to one of twenty, and a damaged one among them."""
    folder, eyes = tmp_path / "my eyes", tmp_path / "eyes"
    folder.mkdir()
    eyes.mkdir()
    for number, image in enumerate(phantoms.images):
        Image.fromarray(image.transpose(1, 2, 0)).resize((160, 160)).save(eyes / f"{number}.png")
    for number in range(N_PHOTOGRAPHS):
        os.link(eyes / f"{number % len(phantoms)}.png", folder / f"eye {number:04d}.png")
    bad = folder / f"eye {N_PHOTOGRAPHS // 2:04d}.png"
    bad.unlink()
    bad.write_bytes(b"no photograph")
    return folder


def segment(folder: Path, out: Path, model: Path) -> subprocess.Popen:
    command = [RURANET, "segment", folder, "--model", model, "--out", out]
    log = (out.parent / "log.txt").open("w")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def overlays(out: Path) -> dict[str, int]:
    """When each overlay was written; one that is being written still has another name, which starts with a dot."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("eye*_overlay.jpg")}


def watch(run: subprocess.Popen, out: Path, until: int) -> pd.DataFrame:
    """Photographs done and memory of the command, four times a second, until it ends or so many are done."""
    seen, process = [], psutil.Process(run.pid)
    while run.poll() is None and (not seen or seen[-1]["done"] < until):
        time.sleep(0.25)
        names = [entry.name for entry in os.scandir(out)] if out.exists() else []
        done = sum(name.startswith("eye") and name.endswith("_overlay.jpg") for name in names)
        try:
            seen.append({"done": done, "mb": process.memory_info().rss / 2**20})
        except psutil.NoSuchProcess:
            break
    return pd.DataFrame(seen)


def test_a_folder_of_thousands_takes_flat_memory_and_continues_after_a_kill(folder, untrained, tmp_path):
    out, model = tmp_path / "found", untrained / "models/synthetic/hemorrhages.safetensors"
    first = segment(folder, out, model)
    watch(first, out, KILLED_AT)
    first.kill()
    first.wait()
    written = overlays(out)
    assert KILLED_AT <= len(written) < N_PHOTOGRAPHS - 1

    second = segment(folder, out, model)
    seen = watch(second, out, N_PHOTOGRAPHS)
    assert second.wait() == 1, "one photograph was left out"
    said = (tmp_path / "log.txt").read_text()
    assert f"left out: {folder}/eye {N_PHOTOGRAPHS // 2:04d}.png" in said

    found = overlays(out)
    repeated = sum(found[name] != written[name] for name in written)
    assert len(found) == N_PHOTOGRAPHS - 1 and repeated <= 1, "at most the one that was being written"
    table = pd.read_csv(out / TABLE)
    assert len(table) == len(list(out.glob("*_hemorrhages.png"))) == N_PHOTOGRAPHS - 1
    computing = seen.loc[seen["done"] > len(written), "mb"].to_numpy()
    fifths = [np.median(part) for part in np.array_split(computing, 5)]
    print(f"MB in each fifth of the rest: {[round(value) for value in fifths]}")
    assert fifths[-1] - fifths[0] < LIMIT_MB, fifths
