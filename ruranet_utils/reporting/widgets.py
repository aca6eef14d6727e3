"""Figures with sliders in a live JupyterLab; static figures elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import Dropdown, FloatSlider, IntSlider, Widget, interact
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.weighting import WeightSearch, aggregate, by_silhouette, oracle
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import ANNOTATIONS, DISPLAY, LESIONS, Profile
from ruranet_utils.reporting.figures import PALETTE
from ruranet_utils.segmentation.model_file import Model
from ruranet_utils.statistics.metrics import matched_accuracy

WIDE = {"style": {"description_width": "9em"}, "layout": {"width": "32em"}}


def is_live() -> bool:
    """Whether this kernel was started by a Jupyter server for an open notebook.

    ``RURANET_WIDGETS=1`` forces a yes, for editors where this cannot be detected, ``0`` a no. papermill, nbval and
    nbconvert start their kernels without a server.
    """
    chosen = os.environ.get("RURANET_WIDGETS")
    return chosen == "1" if chosen else "JPY_SESSION_NAME" in os.environ


def browse_lesions(cohort: Cohort, models: Sequence[Model], profile: Profile) -> None:
    """Browse photographs and compare what a network finds above a threshold with what the graders drew.

    Parameters
    ----------
    cohort : Cohort
        With masks of the lesions that the models find.
    models : sequence of Model
        Their cards hold the thresholds to start from, which were chosen on validation images.
    profile : Profile
        Its device and threads.
    """
    by_lesion = {lesion: (model, row) for model in models for row, lesion in enumerate(model.lesions)}

    @cache
    def probability(lesion: str, number: int) -> np.ndarray:
        model, row = by_lesion[lesion]
        return next(model.probabilities(cohort.images[number : number + 1], profile))[0, row]

    def draw(lesion: str, photograph: int, threshold: float) -> None:
        image = cohort.images[photograph].transpose(1, 2, 0)
        truth = cohort.masks[photograph, ANNOTATIONS.index(lesion)]
        chances = probability(lesion, photograph)
        found = chances > threshold
        union = (truth | found).sum()
        iou = f"{(truth & found).sum() / union:.2f}" if union else "undefined, nothing to find and nothing found"
        fig, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
        for ax, mask, title in ((left, truth, "truth"), (right, found, f"found, IoU {iou}")):
            ax.imshow(image, interpolation="bicubic")
            ax.set_title(title)
            ax.axis("off")
            if mask.any():
                ax.contour(mask, levels=[0.5], colors="cyan", linewidths=1)
        fig.suptitle(f"{DISPLAY[lesion].capitalize()} · {cohort.table['image_id'].iloc[photograph]}")
        plt.show()

    first = next(iter(by_lesion))
    largest = int(cohort.masks[:, ANNOTATIONS.index(first)].sum(axis=(1, 2)).argmax())
    model, row = by_lesion[first]
    threshold = {"value": model.card["thresholds"][row], "min": 0.05, "max": 0.95, "step": 0.05}
    _explore(
        draw,
        lesion=(Dropdown, {"value": first, "options": [(DISPLAY[lesion], lesion) for lesion in by_lesion]}),
        photograph=(IntSlider, {"value": largest, "min": 0, "max": len(cohort) - 1}),
        threshold=(FloatSlider, threshold),
    )


def weigh_lesions(
    spaces: Mapping[tuple[str, str], np.ndarray],
    searches: Mapping[tuple[str, str], WeightSearch],
    labels: np.ndarray,
    seed: int,
) -> None:
    """Weight the four lesions (Eq. 2) and see how the clusters and their scores change.

    Parameters
    ----------
    spaces : mapping
        By backbone and method: the features to cluster, shape (n_images, 4, d).
    searches : mapping
        By the same keys: all 81 weightings, for comparison.
    labels : ndarray of int64, shape (n_images,)
        Diagnoses; they score the clusters but do not shape them.
    seed : int
    """

    def draw(features: tuple[str, str], **weights: float) -> None:
        search = searches[features]
        every = [matched_accuracy(labels, found) for found in search.labels]
        weighted = aggregate(spaces[features], list(weights.values()))
        method = "kmedoids" if features[1] == "dmh" else features[1]
        clusters = Clustering(method, random_state=seed).fit_predict(weighted)
        accuracy, silhouette = matched_accuracy(labels, clusters), silhouette_score(weighted, clusters)
        _, (left, right) = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
        plane = PCA(n_components=2, svd_solver="full").fit_transform(weighted)
        for cluster in (0, 1):
            for label, marker in ((0, "o"), (1, "^")):
                chosen = (clusters == cluster) & (labels == label)
                name = f"cluster {cluster}, diagnosis {label}"
                left.scatter(*plane[chosen].T, color=PALETTE[cluster], marker=marker, alpha=0.7, label=name)
        left.set(xlabel="first component", ylabel="second component", title=_title(features))
        left.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2)
        right.scatter(search.criteria["silhouette"], every, s=14, color="0.7", label="81 weightings")
        for name, index, color in (("silhouette", by_silhouette(search), 2), ("oracle", oracle(search, labels), 1)):
            place = search.criteria["silhouette"][index], every[index]
            right.scatter(*place, s=110, facecolor="none", edgecolor=PALETTE[color], linewidth=2, label=name)
        right.scatter(silhouette, accuracy, s=70, color=PALETTE[3], marker="D", label="these weights")
        right.set(xlabel="silhouette", ylabel=f"accuracy (n = {len(labels)})", ylim=(0.45, 1.02))
        right.set_title(f"accuracy {accuracy:.3f}, silhouette {silhouette:.3f}")
        right.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2)
        plt.show()

    options = [(_title(key), key) for key in spaces]
    weight = (IntSlider, {"value": 1, "min": 1, "max": 10})
    _explore(draw, features=(Dropdown, {"value": options[0][1], "options": options}), **dict.fromkeys(LESIONS, weight))


def _title(features: tuple[str, str]) -> str:
    backbone, method = features
    return f"{DISPLAY[method]}, {DISPLAY[backbone]}"


def _explore(draw: Callable[..., None], **controls: tuple[type[Widget], dict]) -> None:
    """Draw the figure for the controls' initial values; in a live notebook, with the controls."""
    if is_live():
        named = {name: {"description": DISPLAY.get(name, name), **WIDE} for name in controls}
        interact(draw, **{name: kind(**options, **named[name]) for name, (kind, options) in controls.items()})
    else:  # without a widget, which papermill would store
        draw(**{name: options["value"] for name, (_, options) in controls.items()})
