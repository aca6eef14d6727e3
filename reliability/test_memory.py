"""Many runs in one process: memory must not grow with their number."""

import matplotlib.pyplot as plt
import numpy as np
import psutil

from ruranet_utils.clustering.study import diagnose, project
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.reduction import reduce
from ruranet_utils.profiles import LESIONS
from ruranet_utils.reporting import figures
from ruranet_utils.segmentation.segmenter import LesionSegmenter
from ruranet_utils.storage.machine import release_memory
from ruranet_utils.storage.store import Store
from ruranet_utils.supervised import classifier

N_RUNS, WARM_UP, LIMIT_MB = 50, 10, 25


def one_run(cohort, profile, folder):
    """Train a U-Net and a classifier, extract, project, cluster and draw, with an empty store."""
    store = Store(folder)
    LesionSegmenter(cohort, profile, store).scores([("hemorrhages", "mobilenet_v2")])
    classifier.fit(cohort, "mobilenet_v2", profile, None)
    masks = cohort.masks[:, : len(LESIONS)]
    features = lesion_features(cohort.images, masks, profile.extractors, profile, store)["mobilenet_v2"]
    embedding = project(reduce(features, 5), profile, store).embedding
    rows = diagnose(embedding, "dmh", cohort, profile, store)
    fig, ax = plt.subplots()
    ax.plot([row["accuracy"] for row in rows])
    figures.save_figure(fig, "fig", folder)
    plt.close(fig)


def resident_mb() -> float:
    release_memory()
    return psutil.Process().memory_info().rss / 2**20


def growth_mb(run) -> float:
    """Memory after all runs, minus that after the first ones, in which libraries fill their caches."""
    memory = []
    for number in range(N_RUNS):
        run(number)
        memory.append(resident_mb())
    print(f"MB after each run: {[round(value) for value in memory]}")  # shown when the test fails
    return memory[-1] - memory[WARM_UP - 1]


def test_memory_is_flat_over_fifty_runs_in_one_process(phantoms, tiny, tmp_path):
    assert growth_mb(lambda number: one_run(phantoms, tiny, tmp_path / str(number))) < LIMIT_MB


def test_a_leak_of_one_megabyte_a_run_is_seen():
    kept = []
    assert growth_mb(lambda number: kept.append(np.ones(2**17))) > LIMIT_MB
