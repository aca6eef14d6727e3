"""Scores at the photographs' own size, as the field reports them for IDRiD, beside those at the network's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import auc

from ruranet_utils import published
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.data.decoding import read_mask_of
from ruranet_utils.data.field import FRAME, Frame
from ruranet_utils.data.sources.base import Record
from ruranet_utils.profiles import ANNOTATIONS
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store, digest_arrays

_READING = ("data.field", "data.refusal", "data.reading", "data.masks")
STEP = Step("full_size_histograms", 1, (*_READING, "segmentation.full_size"))
BINS = 1000  # of a probability; 0.5 is the lower edge of one
N_RESAMPLES = 1000
OWN_SIZE = "the photographs' own size"


def histograms(
    probability: np.ndarray, lesions: Sequence[str], test: Cohort, records: Mapping[str, Record], store: Store
) -> dict[str, np.ndarray]:
    """Histograms of the probabilities on and off each lesion, image by image.

    Parameters
    ----------
    probability : ndarray of float, shape (n, n_lesions, h, w)
        Such as :meth:`ruranet_utils.segmentation.joint.JointSegmenter.probabilities` returns.
    lesions : sequence of str
        Of the channels.
    test : Cohort
        The images, with masks.
    records : mapping of str to Record
        By image id: where the mask files are.
    store : Store

    Returns
    -------
    dict
        ``network`` at the network's size and ``own`` at the photographs': ndarray of int64, shape
        (n, n_lesions, 2, BINS + 1); the third axis is off the lesion, on it.
    """

    def compute() -> Arrays:
        own = [
            _own(of_image, records[about["image_id"]], lesions, Frame(*(about[name] for name in FRAME)))
            for of_image, about in zip(probability, bar, strict=True)
        ]
        return {"own": np.stack(own)}

    bar = progress(test.table.to_dict("records"), desc="own size", unit="image")
    settings = {"data": test.digest, "lesions": list(lesions), "probability": digest_arrays(probability)}
    truth = test.masks[:, [ANNOTATIONS.index(lesion) for lesion in lesions]]
    pairs = zip(probability, truth, strict=True)
    network = [[_histogram(*channel) for channel in zip(*pair, strict=True)] for pair in pairs]
    return {"network": np.array(network), "own": store.fetch(STEP, settings, compute)["own"]}


def _own(probability: np.ndarray, record: Record, lesions: Sequence[str], frame: Frame) -> np.ndarray:
    """For one image: probabilities are scaled up bilinearly, masks are read from their files."""
    shape = frame.height_px, frame.width_px
    found = []
    for channel, lesion in zip(probability, lesions, strict=True):
        path = record.mask_paths.get(lesion)
        truth = np.zeros(shape, bool) if path is None else read_mask_of(record.image_path, shape, path, record.unjudged)
        found.append(_histogram(frame.restore(channel.astype(np.float32), Image.Resampling.BILINEAR), truth))
    return np.stack(found)


def _histogram(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count pixels by probability, off and on a lesion: shape (2, BINS + 1)."""
    level = (probability.astype(np.float32) * BINS).astype(np.int32)
    every, on = (np.bincount(x.ravel(), minlength=BINS + 1) for x in (level, level[truth]))
    return np.stack([every - on, on])


def iou_at(counted: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """IoU of each lesion if a probability of at least ``threshold`` counts as lesion.

    Parameters
    ----------
    counted : ndarray, shape (..., 2, BINS + 1)
        Histograms, summed over the images that are pooled.
    threshold : float

    Returns
    -------
    ndarray of float, shape (...)
    """
    found = counted[..., round(threshold * BINS) :].sum(axis=-1)
    return found[..., 1] / (found[..., 0] + counted[..., 1, :].sum(axis=-1))


def precision_recall(counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of one lesion at every threshold, from 0 up; precision is 1 if nothing is found.

    Parameters
    ----------
    counted : ndarray, shape (2, BINS + 1)

    Returns
    -------
    precision, recall : ndarray of float, shape (BINS + 2,)
        The last threshold is above every probability.
    """
    off, on = (np.append(np.cumsum(part[::-1])[::-1], 0) for part in counted)
    found = off + on
    return np.where(found, on / np.maximum(found, 1), 1.0), on / on[0]


def average_precision_of(counted: np.ndarray) -> float:
    """Average precision of one lesion, up to the width of a bin: the sum of precision times the step in recall."""
    precision, recall = precision_recall(counted)
    return float(-(np.diff(recall) * precision[:-1]).sum())


def coarse_aupr(counted: np.ndarray) -> float:
    """Area under the precision-recall curve as others compute it: a trapezoid over the thresholds 0, 0.1, ..., 1, with
    nothing found at 1."""
    precision, recall = (np.append(curve[: BINS : BINS // 10], curve[-1]) for curve in precision_recall(counted))
    return float(auc(recall[::-1], precision[::-1]))


def field_table(
    counted: Sequence[Mapping[str, np.ndarray]], lesions: Sequence[str], threshold: float = 0.5, seed: int = 0
) -> pd.DataFrame:
    """Ours beside the published rows.

    Parameters
    ----------
    counted : sequence of dict
        What :func:`histograms` returns for each seed.
    lesions : sequence of str
        Of the channels.
    threshold : float
        The network's own; scored in addition to 0.5, the threshold of the published rows.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        ``model``, ``input``, ``scored at``, ``threshold``; ``mean iou`` with ``low`` and ``high`` (95 %, bootstrap over
        photographs and seeds) and ``sd`` over ``n_seeds`` seeds; ``mean ap`` (average precision), ``mean aupr`` (11
        thresholds); ``iou`` and ``aupr`` of each lesion; all of them means over the seeds; ``n``; ``note``.
    """
    channels = [list(lesions).index(lesion) for lesion in published.FIELD_LESIONS]
    sizes = {"network": "512 x 512", "own": OWN_SIZE}
    rows = [
        {"scored at": name, **_row([one[size][:, channels] for one in counted], level, seed)}
        for level in dict.fromkeys((0.5, threshold))
        for size, name in sizes.items()
    ]
    ours = {"model": "ours, one network", "input": "512 x 512, field of view", "note": "nothing chosen on these images"}
    n_test = len(counted[0]["own"])
    theirs = published.field().assign(**{"scored at": OWN_SIZE, "n": n_test})
    return pd.concat([pd.DataFrame(rows).assign(**ours), theirs], ignore_index=True)


def _row(of_seeds: Sequence[np.ndarray], threshold: float, seed: int) -> dict:
    n, rng = len(of_seeds[0]), np.random.default_rng(seed)
    pooled = [one.sum(axis=0) for one in of_seeds]
    each = np.array([iou_at(one, threshold) for one in pooled])
    auprs = np.mean([[coarse_aupr(lesion) for lesion in one] for one in pooled], axis=0)
    means = []
    for rows in rng.integers(n, size=(N_RESAMPLES, n)):
        drawn = rng.integers(len(of_seeds), size=len(of_seeds)) if len(of_seeds) > 1 else [0]
        means.append(np.mean([iou_at(of_seeds[number][rows].sum(axis=0), threshold) for number in drawn]))
    return {
        "threshold": threshold,
        "mean iou": each.mean(),
        "low": np.quantile(means, 0.025),
        "high": np.quantile(means, 0.975),
        "sd": np.std(each.mean(axis=1), ddof=1) if len(of_seeds) > 1 else np.nan,
        "n_seeds": len(of_seeds),
        "mean ap": np.mean([average_precision_of(lesion) for one in pooled for lesion in one]),
        "mean aupr": auprs.mean(),
        **{f"iou {lesion}": iou for lesion, iou in zip(published.FIELD_LESIONS, each.mean(axis=0), strict=True)},
        **{f"aupr {lesion}": aupr for lesion, aupr in zip(published.FIELD_LESIONS, auprs, strict=True)},
        "n": n,
    }
