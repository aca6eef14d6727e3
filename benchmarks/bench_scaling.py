"""Two workers against one, what the store costs, and what 10^4 to 10^8 photographs would need: ``make bench``."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib.externals.loky import get_reusable_executor
from measure import RESULTS, measure, save
from torch.utils.flop_counter import FlopCounterMode

from ruranet_utils.clustering import study
from ruranet_utils.clustering.study import diagnose, project
from ruranet_utils.data.cohort import load_cohorts
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.reduction import reduce
from ruranet_utils.networks.backbones import feature_extractor
from ruranet_utils.profiles import LESIONS, METHODS, get_profile
from ruranet_utils.segmentation import segmenter, unet
from ruranet_utils.segmentation.model_file import MIRRORS
from ruranet_utils.segmentation.segmenter import LesionSegmenter
from ruranet_utils.storage import store as store_module
from ruranet_utils.storage.store import Store

SIZES = (10**4, 10**6, 10**8)
N_LESIONS = len(LESIONS)
GPU_FLOPS = 1e14  # assumed, not measured: a tenth of the dense bfloat16 peak given in the H200's data sheet


def main() -> None:
    """Measure workers, store and unit costs; calculate the plan from the unit costs."""
    ways = [{"workers": name, **measure(_spread, name)} for name in ("one", "two processes", "two on dask")]
    spread = pd.DataFrame(ways).drop(columns=["time_s"]).rename(columns={"seconds": "time_s"})
    spread["times faster"] = spread["time_s"].iloc[0] / spread["time_s"]
    save(spread, "scale_out", "The same eight U-Net trainings, synthetic profile; workers already started")
    cost = pd.DataFrame([measure(_store_cost)])
    save(cost, "store_cost", "Segmentation, features and diagnosis, synthetic profile, one process, cold", digits=4)
    costs = pd.DataFrame([_merge_cost(), *(measure(_unit_cost, *stage) for stage in STAGES)])
    costs = costs[["stage", "core_s", "gflop", "bytes"]]
    save(costs, "unit_costs", "One photograph, one core of this machine, 512 px", digits=4)
    save(_plan(costs), "scaling_plan", "Calculated from unit_costs and clustering_growth", digits=3)


def _spread(way: str) -> dict:
    profile = get_profile("synthetic", encoders="mobilenet_v2,resnet18", workers=1 if way == "one" else 2)
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        store = Store(Path(folder))
        cluster = None
        if way == "two on dask":
            from distributed import LocalCluster

            cluster = LocalCluster(2, threads_per_worker=1, dashboard_address=None)
            os.environ["RURANET_DASK"] = cluster.scheduler_address
        cohort = load_cohorts(profile, store)[0]
        pairs = [(lesion, encoder) for encoder in profile.encoders for lesion in LESIONS]
        LesionSegmenter(cohort, replace(profile, seed=1), store).scores(pairs[:2])  # starts the workers
        start = time.perf_counter()
        LesionSegmenter(cohort, profile, store).scores(pairs)
        seconds = time.perf_counter() - start
        if cluster:
            cluster.close()
        get_reusable_executor().shutdown()  # idle workers would keep this process alive for five minutes
    return {"trainings": len(pairs), "seconds": seconds}


SPENT = {"store": 0.0}


@dataclass(frozen=True)
class TimedStore(Store):
    """Counts the seconds spent in the store itself, not in what it computes."""

    def fetch(self, step, settings, compute):
        """As in :class:`Store`."""
        computing = []

        def timed():
            start = time.perf_counter()
            try:
                return compute()
            finally:
                computing.append(time.perf_counter() - start)

        start = time.perf_counter()
        try:
            return super().fetch(step, settings, timed)
        finally:
            SPENT["store"] += time.perf_counter() - start - sum(computing)


def _timed(function: Callable) -> Callable:
    @wraps(function)
    def timed(*arguments):
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            SPENT["store"] += time.perf_counter() - start

    return timed


def _store_cost() -> dict:
    for module in (store_module, segmenter, study):
        module.digest_arrays = _timed(module.digest_arrays)
    names = {name: "mobilenet_v2,resnet18" for name in ("encoders", "extractors")}
    profile = get_profile("synthetic", workers=1, **names)
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        store = TimedStore(Path(folder))
        cohort = load_cohorts(profile, store)[0]
        start, SPENT["store"] = time.perf_counter(), 0.0
        LesionSegmenter(cohort, profile, store).scores([(x, e) for x in LESIONS for e in profile.encoders])
        found = lesion_features(cohort.images, cohort.masks[:, :N_LESIONS], profile.extractors, profile, store)
        for vectors in found.values():
            reduced = reduce(vectors, profile.n_components)
            for method in METHODS:
                space = project(reduced, profile, store).embedding if method == "dmh" else reduced
                diagnose(space, method, cohort, profile, store)
        seconds = time.perf_counter() - start
        steps = len(list(Path(folder).glob("*/*.json")))
    return {"steps": steps, "run (s)": seconds, "store (s)": SPENT["store"], "share": SPENT["store"] / seconds}


def _merge_cost() -> dict:
    """Decoding and scaling, from the committed growth of the merge; the array of one photograph is kept."""
    growth = pd.read_csv(RESULTS / "merge_growth.csv")
    per_photograph = growth.loc[growth["store"] == "cold", "ms per photograph"].iloc[-1] / 1000
    return {"stage": "merge: decode, hash, scale", "core_s": per_photograph, "gflop": 0.0, "bytes": 3 * 512 * 512}


def _unit_cost(stage: str, inputs: tuple[int, ...], passes: int, kept: int) -> dict:
    torch.set_num_threads(1)
    profile = replace(get_profile("open"), weights="random", device="cpu")
    if "features" in stage:
        network = feature_extractor("mobilenet_v2", None, 0)
    else:
        network = unet.build("mobilenet_v2", "scse", profile)
    network.eval()
    batch = torch.rand(inputs)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as flops:
            network(batch)
        repeats = 5
        start = time.perf_counter()
        for _ in range(repeats):
            network(batch)
    core_s = (time.perf_counter() - start) / repeats / len(batch) * passes
    return {
        "stage": stage,
        "core_s": core_s,
        "gflop": flops.get_total_flops() / 1e9 / len(batch) * passes,
        "bytes": kept,
    }


STAGES = (
    ("lesion masks: 4 U-Nets, 4 mirror images", (2, 3, 512, 512), N_LESIONS * len(MIRRORS), N_LESIONS * 512 * 512 // 8),
    ("features: MobileNet of 4 masked images", (8, 3, 224, 224), N_LESIONS, N_LESIONS * 1280 * 4),
)


def _plan(costs: pd.DataFrame) -> pd.DataFrame:
    """Core-hours, GPU-hours and storage of the stages that scale with photographs, and of one clustering."""
    rows = []
    for n in SIZES:
        for stage in costs.to_dict("records"):
            gpu = stage["gflop"] * 1e9 * n / GPU_FLOPS / 3600
            rows.append(_row(n, stage["stage"], stage["core_s"] * n / 3600, gpu or np.nan, stage["bytes"] * n))
    growth = pd.read_csv(RESULTS / "clustering_growth.csv").query("images == 10000").set_index("method")
    for n in SIZES:
        times = n / 10_000
        for method, power in (("kmedoids", 1), ("kmeans", 1), ("dmh", 1), ("agglomerative", 2)):
            hours = growth.loc[method, "time_s"] * times**power / 3600
            kept = 8 * n**2 // 2 if method == "agglomerative" else 8 * n * N_LESIONS * 50
            rows.append(_row(n, f"one clustering, {method}", hours, np.nan, kept))
    return pd.DataFrame(rows).sort_values("photographs", kind="stable", ignore_index=True)


def _row(n: int, stage: str, core_h: float, gpu_h: float, n_bytes: float) -> dict:
    return {"photographs": n, "stage": stage, "core-hours": core_h, "GPU-hours": gpu_h, "TB": n_bytes / 1e12}


if __name__ == "__main__":
    main()
