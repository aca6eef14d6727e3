"""Two groups of photographs by the area of their lesions alone: no backbone, no weights, no label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, silhouette_samples

from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.study import diagnose_images
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.features.reduction import one_thread
from ruranet_utils.profiles import LESIONS, Profile
from ruranet_utils.statistics.comparisons import adjust, compare
from ruranet_utils.statistics.intervals import accuracy_interval, auc_interval
from ruranet_utils.statistics.metrics import match_clusters

SORTED_BY = ("hard_exudates", "microaneurysms", "hemorrhages")  # the disc says nothing about how diseased an eye is
# Added before the logarithm: one pixel of 512 x 512, as a share of the image and, roughly, in disc areas.
FLOOR, FLOOR_IN_DISCS = 1 / 512**2, 2e-4
LEAST_IN_DISCS = 3.5e-3  # 20 such pixels; the rule ignores anything smaller


@dataclass(frozen=True)
class Groups:
    """Photographs in two groups.

    Attributes
    ----------
    more : ndarray of bool, shape (n,)
        Whether each photograph is in the group with more lesions.
    certainty : ndarray of float, shape (n,)
        Its silhouette, in [-1, 1]: 1 deep in its group, 0 between the two, below 0 nearer to the other group.
    severity : ndarray of float, shape (n,)
        Mean of the standardized log areas, in standard deviations; it orders the photographs.
    """

    more: np.ndarray
    certainty: np.ndarray
    severity: np.ndarray


def log_areas(masks: np.ndarray) -> np.ndarray:
    """Logarithm of the share of the image that each lesion of ``SORTED_BY`` covers, standardized over the images.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, n_lesions, h, w)
        In the order of ``profiles.LESIONS``.

    Returns
    -------
    ndarray of float64, shape (n, 3)
        Mean 0 and standard deviation 1, or 0 for a lesion that covers the same area of every image.
    """
    chosen = [LESIONS.index(lesion) for lesion in SORTED_BY]
    return standardized(np.log10(masks[:, chosen].mean(axis=(2, 3)) + FLOOR))


def standardized(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1, or all 0 where they do not vary."""
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1)


@one_thread
def group_by_areas(area: np.ndarray) -> Groups:
    """K-medoids on the log areas of the lesions; the group with the larger mean is the one with more lesions.

    Parameters
    ----------
    area : ndarray of float, shape (n, n_lesions)
        From :func:`log_areas`. If no area varies, all photographs go to the group with fewer lesions.
    """
    if not area.any():
        return Groups(np.zeros(len(area), bool), np.full(len(area), np.nan), np.zeros(len(area)))
    clusters, severity = Clustering("kmedoids").fit_predict(area), area.mean(axis=1)
    more = clusters == np.argmax([severity[clusters == cluster].mean() for cluster in (0, 1)])
    several = 1 < len(np.unique(clusters)) < len(clusters)
    certainty = silhouette_samples(area, clusters) if several else np.full(len(area), np.nan)
    return Groups(more, certainty, severity)


def lesion_channel(
    whole: np.ndarray, predicted: np.ndarray, masks: np.ndarray, zones: pd.DataFrame, cohort: Cohort, profile: Profile
) -> pd.DataFrame:
    """What lesion features add over whole-image features, and what lesion areas alone achieve; no label is used.

    Parameters
    ----------
    whole : ndarray of float, shape (n_images, k)
        Reduced features of the unmasked images.
    predicted : ndarray of int, shape (n_images,)
        Classes by the features of the lesions, from :func:`ruranet_utils.clustering.study.diagnose`.
    masks : ndarray of bool, shape (n_images, n_lesions, h, w)
        In the order of ``profiles.LESIONS``.
    zones : DataFrame
        From :func:`ruranet_utils.features.macula.zone_table`.
    cohort : Cohort
        The images' labels, used only for scoring, and patients.
    profile : Profile

    Returns
    -------
    DataFrame
        ``clustered``: what k-medoids saw; then the clinical rule, which clusters nothing, and, if there are more
        images of one class, giving this class to all. ``accuracy``, ``accuracy_low``, ``accuracy_high`` (95 %, over
        patients); ``balanced_accuracy``, the mean of both classes' own; its difference from the whole image, as
        :func:`ruranet_utils.statistics.comparisons.compare` and ``adjust`` return it; ``n``. Areas that do not vary get
        no row.
    """
    classes = {"whole image, features": diagnose_images(whole, cohort, profile)["predicted"][0]}
    classes["lesions, features"] = predicted
    area = log_areas(masks)
    by_zone = standardized(np.log10(zones[_zone_columns(zones)].fillna(0).to_numpy() + FLOOR_IN_DISCS))
    for name, values in (
        ("lesions, areas", area),
        ("hard exudates, area", area[:, :1]),
        ("lesions, areas by zone", by_zone),
    ):
        if values.any():
            more = group_by_areas(values).more
            classes[name] = match_clusters(cohort.labels, more.astype(int))
    classes["rule: exudate within 1 DD"] = rule(zones).astype(int)
    sizes = np.bincount(cohort.labels)
    if sizes[0] != sizes[-1]:
        classes["nothing: the larger class for all"] = np.full(len(cohort), sizes.argmax())
    baseline = _balanced(classes["whole image, features"] == cohort.labels, cohort.labels)
    rows = []
    for name, found in classes.items():
        right = found == cohort.labels
        row = {"clustered": name, "accuracy": right.mean(), **accuracy_interval(right, cohort.patients)}
        row["balanced_accuracy"] = balanced_accuracy_score(cohort.labels, found)
        rows.append(row | (compare(_balanced(right, cohort.labels), baseline, cohort.patients) if rows else {}))
    return adjust(pd.DataFrame(rows))


def rule(zones: pd.DataFrame) -> np.ndarray:
    """The clinical rule: whether an exudate lies within one disc diameter of the fovea; bool, False without a disc.

    An area below ``LEAST_IN_DISCS`` counts as none.

    References
    ----------
    UK screening, M1. doi:10.1155/2015/310239
    """
    return (within_1_dd(zones, "hard_exudates") >= LEAST_IN_DISCS).to_numpy()


def within_1_dd(zones: pd.DataFrame, lesion: str) -> pd.Series:
    """Area of a lesion within one disc diameter of the fovea, in disc areas; NaN without a disc."""
    return zones[f"{lesion} 0.5 DD"] + zones[f"{lesion} 1 DD"]


def feature_aucs(masks: np.ndarray, zones: pd.DataFrame, cohort: Cohort, profile: Profile) -> pd.DataFrame:
    """How well each area ranks the images: edema against all others, and against retinopathy without maculopathy.

    Parameters
    ----------
    masks, zones, cohort, profile
        As for :func:`lesion_channel`.

    Returns
    -------
    DataFrame
        ``feature``; ``auc`` with ``auc_low`` and ``auc_high`` (95 %, bootstrap over patients) and ``n``, against all
        others; the same with the prefix ``dr_``, without the images graded free of retinopathy: NaN if there are none.
    """
    features = {f"{lesion} area": masks[:, LESIONS.index(lesion)].mean(axis=(1, 2)) for lesion in SORTED_BY}
    features |= {f"{lesion} within 1 DD": within_1_dd(zones, lesion).fillna(0).to_numpy() for lesion in SORTED_BY}
    nearest = zones["hard_exudates nearest"].fillna(np.inf).to_numpy()
    features["hard_exudates nearness"] = 1 / (1 + nearest)
    features["severity"] = log_areas(masks).mean(axis=1)
    every, rows = np.ones(len(cohort), bool), []
    ill = ~cohort.table["healthy"].to_numpy(bool) if "healthy" in cohort.table else every
    for name, values in features.items():
        row = {"feature": name}
        for prefix, chosen in (("", every), ("dr_", ill if not ill.all() else ~every)):
            found = (np.nan,) * 3
            if chosen.any():
                rng = np.random.default_rng(profile.seed)
                found = auc_interval(cohort.labels[chosen], values[chosen], cohort.patients[chosen], rng)
            row |= dict(zip((f"{prefix}auc", f"{prefix}auc_low", f"{prefix}auc_high"), found, strict=True))
            row[f"{prefix}n"] = int(chosen.sum())
        rows.append(row)
    return pd.DataFrame(rows)


def _balanced(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each image adds to the balanced accuracy: its mean over the images is that accuracy, and its variance that
    within the classes."""
    classes, of_image = np.unique(labels, return_inverse=True)
    sizes = np.bincount(of_image)
    means = np.bincount(of_image, right) / sizes
    return means.mean() + (right - means[of_image]) * (len(labels) / len(classes) / sizes)[of_image]


def _zone_columns(zones: pd.DataFrame) -> list[str]:
    return [column for column in zones if not column.endswith("nearest")]
