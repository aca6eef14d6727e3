"""Can an accuracy of 0.84 be explained? The protocol of the code released with the paper, one ingredient at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from skimage.morphology import remove_small_objects
from sklearn.metrics import f1_score

from ruranet_utils.clustering.estimators import Clustering, unchecked
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.reduction import one_thread, reduce
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import LESIONS, Profile
from ruranet_utils.statistics.comparisons import adjust, compare
from ruranet_utils.statistics.intervals import accuracy_interval
from ruranet_utils.statistics.metrics import CLASSES, match_clusters
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.store import Store

RELEASED_GRID = np.array(list(product((0.1, 1.0, 10.0), repeat=len(LESIONS))))  # the paper says 1, 5 and 10
SMALL_PX = 10
N_STARTS = 10  # for the clustering with a random start


@dataclass(frozen=True)
class Protocol:
    """How images are diagnosed: each field is an ingredient of the released code; with none, it is our protocol.

    Attributes
    ----------
    inverted_disc : bool
        "Edema" is everything except what was found as edema, which in ``open`` is the optic disc.
    small_dropped : bool
        Parts of a mask with at most 10 pixels are dropped.
    input_not_transformed : bool
        GoogLeNet without torchvision's ``transform_input``; changes nothing with other weights than torchvision's.
    pca_last : bool
        Standardize and reduce after the lesions are added up, not before.
    random_start : bool
        K-medoids as an alternating iteration from a random start, instead of PAM.
    agglomerative_three_clusters : bool
        Agglomerative clustering into three clusters instead of k-medoids into two; images in the one without a class
        count as errors.
    half_of_images : bool
        Only the first half of each class, in order of file names.
    weights_by_labels : bool
        Weights from {0.1, 1, 10}, all combinations of four, keeping those with the highest accuracy; otherwise all 1.
    """

    inverted_disc: bool = False
    small_dropped: bool = False
    input_not_transformed: bool = False
    pca_last: bool = False
    random_start: bool = False
    agglomerative_three_clusters: bool = False
    half_of_images: bool = False
    weights_by_labels: bool = False


INGREDIENTS = tuple(field.name for field in fields(Protocol))
RELEASED = Protocol(**{name: name != "agglomerative_three_clusters" for name in INGREDIENTS})


@unchecked
def climb(
    cohort: Cohort,
    masks: np.ndarray,
    masks_of_test: np.ndarray | None,
    tied: tuple[Cohort, np.ndarray],
    backbone: str,
    profile: Profile,
    store: Store,
) -> pd.DataFrame:
    """Our protocol, each ingredient of the released one alone, and all of them together.

    Parameters
    ----------
    cohort : Cohort
        With labels.
    masks : ndarray of bool, shape (n_images, n_lesions, h, w)
        Found by this project's networks.
    masks_of_test : ndarray of bool, shape (n_images, n_lesions, h, w), or None
        Found by networks trained on the test images, one more ingredient; ``None`` leaves it out.
    tied : tuple of Cohort and ndarray
        Images for which each class comes from its own source, with their masks; one more ingredient.
    backbone : str
    profile : Profile
    store : Store

    Returns
    -------
    DataFrame
        ``protocol``; ``accuracy`` (mean over ``n_seeds`` random starts) with the 95 % interval ``accuracy_low`` to
        ``accuracy_high`` (over patients and starts); ``f1_macro``; ``difference`` from our protocol on the same
        images with its interval, only where all images take part; what
        :func:`ruranet_utils.statistics.comparisons.adjust` adds, unless labels chose the weights; ``n``; ``weights``.
        An ingredient that cannot change anything with this backbone has no row, nor has the released code's sum over
        the lesions in place of their mean: it scales all distances alike.
    """
    weights = find_weights(backbone, profile).origin
    idle = {"input_not_transformed"} if backbone != "googlenet" or weights != "ImageNet" else set()
    ours, released = Protocol(), replace(RELEASED, **dict.fromkeys(idle, False))
    agglomerative = replace(released, random_start=False, agglomerative_three_clusters=True)
    tried = {"ours": (ours, cohort, masks)}
    for name in INGREDIENTS:
        if name not in idle:
            tried[name.replace("_", " ")] = replace(ours, **{name: True}), cohort, masks
    last = masks if masks_of_test is None else masks_of_test
    if masks_of_test is not None:
        tried["segmentation trained on test images"] = ours, cohort, masks_of_test
    tried["classes from two sources"] = ours, *tied
    tried["all but the sources, k-medoids"] = released, cohort, last
    tried["all but the sources, agglomerative"] = agglomerative, cohort, last
    tried["all, k-medoids"] = released, *tied
    right, rows = {}, []
    for name, (protocol, images, seen) in progress(tried.items(), desc="ladder", unit="protocol"):
        chosen, predicted = diagnose_by(protocol, images, seen, backbone, profile, store)
        truth, patients = images.labels[chosen], images.patients[chosen]
        right[name] = predicted == truth
        scores = {"accuracy": right[name].mean(), **accuracy_interval(right[name], patients)}
        scores["f1_macro"] = np.mean([f1_score(truth, one, labels=CLASSES, average="macro") for one in predicted])
        if name != "ours" and images is cohort and len(chosen) == len(cohort):
            scores |= compare(right[name], right["ours"], patients)
        rows.append({"protocol": name, **scores, "n_seeds": len(predicted)})
    chosen = [protocol.weights_by_labels for protocol, *_ in tried.values()]
    return adjust(pd.DataFrame(rows), chosen=chosen).assign(weights=weights)


@one_thread
def diagnose_by(
    protocol: Protocol, cohort: Cohort, masks: np.ndarray, backbone: str, profile: Profile, store: Store
) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters by a protocol, each assigned the class that it fits best.

    Returns
    -------
    rows : ndarray of int, shape (n,)
        The images that take part.
    predicted : ndarray of int, shape (n_starts, n)
        Class of each, -1 in a cluster without a class.
    """
    masks = masks.copy()
    if protocol.inverted_disc:
        masks[:, LESIONS.index("edema")] ^= True
    if protocol.small_dropped:
        masks = _without_small(masks)
    variant = "released" if protocol.input_not_transformed else "default"
    features = lesion_features(cohort.images, masks, [backbone], profile, store, variant)[backbone]
    rows = _first_half(cohort) if protocol.half_of_images else np.arange(len(cohort))
    truth = cohort.labels[rows]
    spaces = _spaces(protocol, features[rows].astype(np.float64), profile.n_components)
    method = "agglomerative" if protocol.agglomerative_three_clusters else "kmedoids"
    kind = "released" if protocol.random_start or protocol.agglomerative_three_clusters else "default"
    predicted = []
    for seed in range(profile.seed, profile.seed + (N_STARTS if protocol.random_start else 1)):
        found = [
            match_clusters(truth, Clustering(method, variant=kind, random_state=seed).fit_predict(space))
            for space in spaces
        ]
        predicted.append(max(found, key=lambda classes: np.mean(classes == truth)))
    return rows, np.stack(predicted)


def _spaces(protocol: Protocol, features: np.ndarray, n_components: int) -> list[np.ndarray]:
    """What is clustered, for each weighting tried."""
    grid = RELEASED_GRID if protocol.weights_by_labels else np.ones((1, len(LESIONS)))
    before = features if protocol.pca_last else reduce(features, n_components)
    weighted = np.einsum("wl,nld->wnd", grid, before) / len(LESIONS)
    return [reduce(one, n_components) for one in weighted] if protocol.pca_last else list(weighted)


def _without_small(masks: np.ndarray) -> np.ndarray:
    drop = partial(remove_small_objects, max_size=SMALL_PX, connectivity=2)
    return np.stack([[drop(mask) for mask in of_image] for of_image in masks])


def _first_half(cohort: Cohort) -> np.ndarray:
    order = cohort.table.reset_index(drop=True).sort_values("image_id", kind="stable")
    halves = [group.index[: len(group) // 2] for _, group in order.groupby("label")]
    return np.sort(np.concatenate(halves))
