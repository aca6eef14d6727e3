"""What features, heads, weight search and clusterings cost, and how they grow: ``make bench``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from measure import RESULTS, measure, save

from ruranet_utils.clustering.dmh import DMH, train_heads
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.weighting import WEIGHT_GRID, aggregate, search_weights
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.profiles import DISPLAY, LESIONS, METHODS, get_profile
from ruranet_utils.reporting import figures
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import Store

N_PAPER, SIZES, N_COMPONENTS = 302, (300, 3_000, 10_000), 50
BACKBONES = ("mobilenet_v2", "googlenet")


def main() -> None:
    """Measure the steps of Table 4 at the paper's size, and every method on up to 10,000 images."""
    steps = [{"step": "features, two backbones side by side", **measure(_features)}]
    steps += [{"step": f"81 weightings, {DISPLAY[method]}", **measure(_search, method)} for method in METHODS[:3]]
    steps.append({"step": "training of the heads (DMH)", **measure(_heads)})
    for step in steps:
        step["rate"] = step.pop("items") / step["time_s"]
    save(
        pd.DataFrame(steps),
        "clustering_steps",
        f"{N_PAPER} images, 4 lesions; rate: images x lesions, weightings or trainings per s",
    )
    save(_against_recomputing(steps), "clustering_reuse", "Table 4's weight search, features computed once or 81 times")
    rows = [{"method": m, "images": n, **measure(_cluster, m, n)} for m in METHODS for n in SIZES]
    growth = pd.DataFrame(rows)
    save(growth, "clustering_growth", "One clustering of 4 x 50 synthetic features per image")
    _draw(growth)


def synthetic_features(n_images: int) -> np.ndarray:
    """Two overlapping groups: float64, shape (n_images, 4, 50)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_images, len(LESIONS), N_COMPONENTS)) + rng.integers(2, size=(n_images, 1, 1))


def _features() -> dict:
    """Random images at the profile's 224 px; every mask holds a lesion."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(N_PAPER, 3, 224, 224), dtype=np.uint8)
    masks = np.ones((N_PAPER, len(LESIONS), 224, 224), dtype=bool)
    profile = get_profile("open")
    with tempfile.TemporaryDirectory(dir=paths.store().parent) as folder:
        lesion_features(images, masks, BACKBONES, profile, Store(Path(folder)))
    return {"items": masks.shape[0] * masks.shape[1] * len(BACKBONES)}


def _search(method: str) -> dict:
    search_weights(synthetic_features(N_PAPER), method)
    return {"items": len(WEIGHT_GRID)}


def _heads() -> dict:
    train_heads(synthetic_features(N_PAPER), epochs=get_profile("open").dmh_epochs, lam=0.3, seed=0)
    return {"items": 1}


def _cluster(method: str, n_images: int) -> None:
    features = synthetic_features(n_images)
    if method == "dmh":
        DMH().fit(features)
    else:
        Clustering(method).fit(aggregate(features, np.ones(len(LESIONS))))


def _against_recomputing(steps: list[dict]) -> pd.DataFrame:
    """From the measured times: the released code recomputes all features for every weighting."""
    features_s = steps[0]["time_s"] / len(BACKBONES)
    search_s = next(step["time_s"] for step in steps if step["step"].endswith(DISPLAY["kmedoids"]))
    once, each = features_s + search_s, len(WEIGHT_GRID) * features_s + search_s
    ways = pd.DataFrame({"features": ["computed once", "for every weighting (calculated)"], "time_s": [once, each]})
    return ways.assign(**{"times slower": ways["time_s"] / once})


def _draw(growth: pd.DataFrame) -> None:
    figures.style()
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, column, label in ((axes[0], "time_s", "time (s)"), (axes[1], "peak_mb", "peak memory (MB)")):
        for method, rows in growth.groupby("method", sort=False):
            ax.plot(rows["images"], rows[column], "o-", label=DISPLAY[method])
        ax.set(xscale="log", yscale="log", ylabel=label, xlabel="images", xticks=SIZES)
        ax.set_xticklabels([f"{n:,}" for n in SIZES])
        ax.minorticks_off()
    axes[1].axhline(2048, linestyle="--", color="gray")
    axes[1].text(SIZES[0], 2150, "2 GB", color="gray", va="bottom")
    axes[1].set_ylim(100, 4000)
    axes[1].legend(loc="lower left", ncol=2)
    fig.tight_layout()
    figures.save_figure(fig, "fig_clustering_growth", RESULTS)


if __name__ == "__main__":
    main()
