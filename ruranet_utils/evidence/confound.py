"""How much of a diagnosis is the camera? The methods of Table 4 where class and camera are independent or tied.

The cohorts are drawn from one pool of photographs and differ in which camera photographed whom. Every photograph also
exists without its lesions: whatever finds the class in these does not find it by lesions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ruranet_utils.clustering.estimators import CLUSTERERS, Clustering
from ruranet_utils.clustering.study import N_SEEDS, label_free_clusters, project_all
from ruranet_utils.data.cohort import Cohort, load_cohorts, synthetic_cohort
from ruranet_utils.data.phantoms.painting import CAMERAS
from ruranet_utils.evidence.inpainting import lesion_holes, without_lesions
from ruranet_utils.features.extract import image_features, lesion_features
from ruranet_utils.features.reduction import one_thread, reduce
from ruranet_utils.profiles import LESIONS, METHODS, NEGATIVES, Profile
from ruranet_utils.segmentation.study import lesion_masks
from ruranet_utils.statistics.intervals import accuracy_interval, auc_interval
from ruranet_utils.statistics.metrics import match_clusters
from ruranet_utils.storage.store import Store
from ruranet_utils.supervised.study import linear_probe, patient_folds

N_EYES = 120
# Share of class 1 photographed by the second camera; it photographed the remaining share of class 0.
TIES = {"untied": 0.5, "partly tied": 0.75, "fully tied": 1.0}
# The same for two sources, one of which has no class 0: share of class 1 that comes from that one.
SOURCE_TIES = {"untied": 0.0, "partly tied": 0.5, "fully tied": 1.0}
SEEN = ("lesions", "whole image", "lesions removed")
SUPERVISED, TRANSFERRED = "logistic regression", "the same, on the untied"


@dataclass(frozen=True, eq=False)
class Pool:
    """Photographs, with and without their lesions, and the cohorts drawn from them.

    Attributes
    ----------
    photographs : Cohort
    masks : ndarray of bool, shape (n, n_lesions, h, w)
        Of ``profiles.LESIONS``: what the lesion features see.
    cleaned : ndarray of uint8, shape (n, 3, h, w)
        The same photographs without lesions.
    cohorts : dict of str to ndarray of int
        Rows of the photographs, by name of the cohort; in the first cohort the camera says least about the class.
    """

    photographs: Cohort
    masks: np.ndarray
    cleaned: np.ndarray
    cohorts: dict[str, np.ndarray]


def make_pool(segmentation: Cohort, diagnosis: Cohort, profile: Profile, store: Store) -> Pool:
    """The pool that a profile's images allow.

    Synthetic: the same eyes with both cameras. Real, with the masks and the labels from different sources (``open``):
    all images of the first source show lesions and stand for class 1; the second gives class 0 and the rest of class 1.
    ``paper``: the cohorts with graded and with assumed negatives. Otherwise the diagnosis cohort as it is. If two
    sources are mixed, each image of the one is also filled in where some image of the other was, so that the filling
    does not reveal the source. Lesions are found by networks that saw no healthy eyes; joint ones find them out of fold
    in the images that they were trained on.

    Parameters
    ----------
    segmentation, diagnosis : Cohort
        From :func:`ruranet_utils.data.cohort.load_cohorts`.
    profile : Profile
    store : Store
    """
    if profile.name == "synthetic":
        return synthetic_pool(profile, store)
    parts = [diagnosis]
    if profile.name == "paper":
        parts = [load_cohorts(replace(profile, negatives=name), store)[1] for name in NEGATIVES]
    elif set(segmentation.table["source"]).isdisjoint(diagnosis.table["source"]):
        table = segmentation.table.assign(label=pd.array([1] * len(segmentation), "Int64"))
        parts = [replace(segmentation, table=table), diagnosis]
    unaware = replace(segmentation, healthy=None)
    lesions = [*LESIONS, *(name for name in segmentation.annotated if name not in LESIONS)]
    keeps = segmentation.healthy is None
    found = [
        lesion_masks(
            unaware,
            part.images,
            profile,
            store,
            keeps=keeps,
            lesions=lesions,
            unseen=part.images is segmentation.images,
        )
        for part in parts
    ]
    holes = [lesion_holes(part, masks) for part, masks in zip(parts, found, strict=True)]
    two_sources = len(parts) == 2 and profile.name != "paper"
    if two_sources:
        rng = np.random.default_rng(profile.seed)
        lent = [theirs[rng.integers(len(theirs), size=len(ours))] for ours, theirs in (holes, reversed(holes))]
        holes = [ours | theirs for ours, theirs in zip(holes, lent, strict=True)]
    cleaned = [without_lesions(part.images, hole, store) for part, hole in zip(parts, holes, strict=True)]
    photographs = Cohort(
        pd.concat([part.table for part in parts], ignore_index=True),
        np.concatenate([part.images for part in parts]),
        None,
    )
    cohorts = {"as it is": np.arange(len(diagnosis))}
    if profile.name == "paper":
        graded, assumed = map(len, parts)
        cohorts = {"graded negatives": np.arange(graded), "assumed negatives": graded + np.arange(assumed)}
    if two_sources:
        cohorts = _from_two_sources(photographs.labels, len(segmentation), profile.seed)
    return Pool(photographs, np.concatenate(found)[:, : len(LESIONS)], np.concatenate(cleaned), cohorts)


def synthetic_pool(profile: Profile, store: Store, n_eyes: int = N_EYES) -> Pool:
    """``n_eyes`` eyes, half of each class, with both cameras; cohorts in which ``TIES`` assigns the cameras."""
    profile = replace(profile, n_images=n_eyes)
    shots = [synthetic_cohort(profile, store, camera) for camera in CAMERAS]
    photographs = Cohort(
        pd.concat([shot.table for shot in shots], ignore_index=True),
        np.concatenate([shot.images for shot in shots]),
        None,
    )
    masks = np.concatenate([shot.masks[:, : len(LESIONS)] for shot in shots])
    cleaned = [synthetic_cohort(profile, store, camera, lesions=False).images for camera in CAMERAS]
    second = {name: deal_cameras(shots[0].labels, share, profile.seed) for name, share in TIES.items()}
    cohorts = {name: np.arange(n_eyes) + n_eyes * by_second for name, by_second in second.items()}
    return Pool(photographs, masks, np.concatenate(cleaned), cohorts)


def deal_cameras(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Whether the second of two cameras photographs each eye: a share of class 1, and the rest of class 0.

    At one half, class and camera are independent; at 1, each determines the other. A larger share keeps the class 1
    eyes of a smaller one and adds more.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        0 or 1.
    share : float
        In [0, 1].
    seed : int

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share!r}")
    turn = pd.Series(np.random.default_rng(seed).random(len(labels)))
    rank = turn.groupby(labels).rank(pct=True).to_numpy()
    return np.where(labels == 1, rank <= share, rank > share)


def diagnose_cohort(
    features: np.ndarray, pool: Pool, cohort: str, profile: Profile, store: Store
) -> dict[str, dict[str, float]]:
    """Accuracy of every method in one cohort of the pool.

    The clusterings use no labels (lesion weights all 1); DMH needs lesions. The supervised method is logistic
    regression on the features: it is scored in folds of patients, and then the same models again on the first cohort's
    images of the same patients, where the camera does not help.

    Parameters
    ----------
    features : ndarray of float, shape (n, n_lesions, d) or (n, d)
        Of the whole pool, from :func:`pool_features`.
    pool : Pool
    cohort : str
        A key of ``pool.cohorts``.
    profile : Profile
    store : Store

    Returns
    -------
    dict of dict
        By method: ``accuracy``, mean over ``n_seeds`` seeds (DMH: ten), with ``accuracy_low`` and ``accuracy_high``
        (95 %, over patients and seeds); ``n``.
    """
    predicted = _predict(features, pool, pool.cohorts[cohort], next(iter(pool.cohorts.values())), profile, store)
    return {method: _score(classes, pool, rows) for method, (classes, rows) in predicted.items()}


def pool_features(pool: Pool, backbone: str, profile: Profile, store: Store) -> dict[str, np.ndarray]:
    """Features of the whole pool by ``SEEN``: shape (n, n_lesions, d) of the lesions, else (n, d)."""
    images = pool.photographs.images
    return {
        "lesions": lesion_features(images, pool.masks, [backbone], profile, store)[backbone],
        "whole image": image_features(images, backbone, profile, store),
        "lesions removed": image_features(pool.cleaned, backbone, profile, store),
    }


def camera_from_features(pool: Pool, features: dict[str, np.ndarray], profile: Profile) -> pd.DataFrame:
    """How well a logistic regression recognizes the camera, among images of class 1 only, so that class does not help
    it.

    Parameters
    ----------
    pool : Pool
    features : dict of str to ndarray
        From :func:`pool_features`.
    profile : Profile

    Returns
    -------
    DataFrame
        ``seen``; ``auc`` within ``n_folds`` folds of patients with ``auc_low`` and ``auc_high`` (95 %, bootstrap over
        patients), NaN if there is only one camera; ``n`` images, ``n_second`` of them not from the first camera by
        name.
    """
    rows = list(pool.cohorts.values())[min(1, len(pool.cohorts) - 1)]
    rows = rows[pool.photographs.labels[rows] == 1]
    camera, patients = pool.photographs.table["camera"].to_numpy()[rows], pool.photographs.patients[rows]
    second = (camera != np.sort(camera)[0]).astype(int)
    found = []
    for seen, values in features.items():
        auc = np.nan, np.nan, np.nan
        if 0 < second.sum() < len(second):
            x, score, fold = values[rows].reshape(len(rows), -1), np.empty(len(rows)), np.empty(len(rows), dtype=int)
            for number, (train, test) in enumerate(patient_folds(profile).split(x, second, patients)):
                score[test] = linear_probe(x[train], second[train]).decision_function(x[test])
                fold[test] = number
            auc = auc_interval(second, score, patients, np.random.default_rng(profile.seed), fold)
        scores = dict(zip(("auc", "auc_low", "auc_high"), auc, strict=True))
        found.append({"seen": seen, **scores, "n": len(rows), "n_second": int(second.sum())})
    return pd.DataFrame(found)


def _from_two_sources(labels: np.ndarray, n_foreign: int, seed: int) -> dict[str, np.ndarray]:
    """Cohorts with the same number of images of each class; the first ``n_foreign`` rows are from the source without
    class 0."""
    rng = np.random.default_rng(seed)
    foreign, rows = rng.permutation(n_foreign), np.arange(n_foreign, len(labels))
    positive, negative = (rng.permutation(rows[labels[rows] == label]) for label in (1, 0))
    n = min(len(foreign), len(positive), len(negative))
    counts = {name: round(share * n) for name, share in SOURCE_TIES.items()}
    return {
        name: np.sort(np.concatenate([foreign[:count], positive[: n - count], negative[:n]]))
        for name, count in counts.items()
    }


@one_thread
def _predict(
    features: np.ndarray, pool: Pool, chosen: np.ndarray, base: np.ndarray, profile: Profile, store: Store
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each method, the predicted classes, of DMH for each seed, and the rows they belong to."""
    labels, found = pool.photographs.labels, {}
    reduced = reduce(features[chosen], profile.n_components)
    for method in METHODS if features.ndim == 3 else CLUSTERERS:
        if features.ndim == 3:
            spaces = [reduced]
            if method == "dmh":
                spaces = [heads.embedding for heads in project_all({"": reduced}, profile, store, N_SEEDS)[""]]
            clusters = [label_free_clusters(space, method, profile)[0] for space in spaces]
        else:
            clusters = [Clustering(method, random_state=profile.seed).fit_predict(reduced)]
        found[method] = np.stack([match_clusters(labels[chosen], one) for one in clusters]), chosen
    # The first cohort's images of a patient go to the same fold, so that no patient is on both sides.
    rows, own = np.concatenate([chosen, base]), np.arange(len(chosen) + len(base)) < len(chosen)
    x, predicted = features[rows].reshape(len(rows), -1), np.empty(len(rows), dtype=int)
    for train, test in patient_folds(profile).split(x, labels[rows], pool.photographs.patients[rows]):
        train = train[own[train]]
        predicted[test] = linear_probe(x[train], labels[rows[train]]).predict(x[test])
    return {**found, SUPERVISED: (predicted[own], chosen), TRANSFERRED: (predicted[~own], base)}


def _score(predicted: np.ndarray, pool: Pool, rows: np.ndarray) -> dict[str, float]:
    correct = predicted == pool.photographs.labels[rows]
    interval = accuracy_interval(correct, pool.photographs.patients[rows])
    return {"accuracy": correct.mean(), **interval, "n_seeds": len(np.atleast_2d(correct))}
