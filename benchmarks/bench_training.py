"""Images per second in U-Net training, against a plain loop that decodes every image in every epoch."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from measure import save

from ruranet_utils.data.field import shrink_mask
from ruranet_utils.data.masks import read_mask
from ruranet_utils.data.reading import read_image
from ruranet_utils.data.sources import idrid
from ruranet_utils.profiles import get_profile
from ruranet_utils.segmentation.patches import Annotated
from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import AVX2, prepare_process

EPOCHS = 3  # the first, a warm-up, does not count


def main() -> None:
    """Measure at the released code's 256 px and at the paper's 512 px."""
    weights = paths.weights_dir() and paths.weights_dir() / "mobilenet_v2.pth"
    if not (paths.data_root() / "idrid").is_dir() or not weights or not weights.is_file():
        print("IDRiD or mobilenet_v2.pth not found: training is not measured")
        return
    records = [r for r in idrid.records(paths.data_root() / "idrid", parts="A") if r.split == "train"]
    rows = _compare(records, 256, weights) + _compare(records[::3], 512, weights)
    save(pd.DataFrame(rows), "training", "Training of MobileNetV2 with SCSE on IDRiD's training images, hard exudates")


def _compare(records: list, side_px: int, weights: Path) -> list[dict]:
    data = _decode(records, side_px)
    plain = _plain(records, side_px, weights)
    about = {"side (px)": side_px, "images": len(records)}
    rows = [{**about, "loop": "plain: decodes in every epoch, float32, batches of 4", "images/s": plain}]
    for instructions, processes, threads in (("avx2", 1, 2), ("native", 1, 2), ("native", 2, 1)):
        os.environ["RURANET_INSTRUCTIONS"] = instructions
        if instructions == "native":
            for name in AVX2:
                os.environ.pop(name, None)
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            measured = list(pool.map(_train, [data] * processes, [side_px] * processes, [threads] * processes))
        way = "one model, two threads" if processes == 1 else "two models side by side, as notebook 02 trains them"
        rows.append(
            {
                **about,
                "loop": f"this project, {way}, {measured[0]['precision']}",
                "images/s": sum(one["images/s"] for one in measured),
                "waiting for data": np.mean([one["waiting"] for one in measured]),
            }
        )
    return [{**row, "times faster": row["images/s"] / plain} for row in rows]


def _decode(records: list, side_px: int) -> Annotated:
    read = [read_image(record.image_path, side_px) for record in records]
    masks = [
        shrink_mask(read_mask(record.mask_paths["hard_exudates"]), frame, side_px)[0]
        for record, (_, frame) in zip(records, read, strict=True)
    ]
    images = np.stack([image for image, _ in read])
    return Annotated(images, np.stack(masks)[:, None], np.ones(len(images)))


def _plain(records: list, side_px: int, weights: Path) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in AVX2}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "photographs.tsv"
        listed.write_text("\n".join(f"{r.image_path}\t{r.mask_paths['hard_exudates']}" for r in records))
        script = Path(__file__).with_name("plain_loop.py")
        command = [sys.executable, script, listed, str(side_px), str(EPOCHS), weights]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _train(data: Annotated, side_px: int, threads: int) -> dict:
    """Images per second over all epochs except the first."""
    prepare_process(os.environ["RURANET_INSTRUCTIONS"])
    from ruranet_utils.networks import training as loop
    from ruranet_utils.networks.device import plan
    from ruranet_utils.segmentation import training

    paper = {"masks": "per_lesion", "decoder_width": 256}  # as in the plain loop
    sizes = {"image_size_px": side_px, "patch_size_px": side_px, "patches_per_image": 1}
    profile = get_profile("open", **paper, **sizes, threads=threads)
    one = Annotated(data.images[:1], data.masks[:1], data.aspect[:1])
    rows = []
    record_end = loop.Record.on_train_epoch_end

    def remember(record, trainer, module):
        rows.append((record.ready_s - record.epoch_start_s, record.waited_s))
        record_end(record, trainer, module)

    loop.Record.on_train_epoch_end = remember
    training.fit(data, one, "mobilenet_v2", "scse", replace(profile, epochs=EPOCHS))
    time_s, waited_s = np.sum(rows[1:], axis=0)
    return {
        "images/s": (EPOCHS - 1) * len(data.images) / time_s,
        "waiting": waited_s / time_s,
        "precision": plan(profile).precision,
    }


if __name__ == "__main__":
    main()
