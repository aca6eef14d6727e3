"""Scores of segmentations, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

COUNTS = ["tp", "fp", "fn", "tn"]


def pixel_counts(predicted: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Count the pixels of each image by truth and prediction.

    Parameters
    ----------
    predicted, truth : ndarray of bool, shape (n_images, height, width)
        Masks of one lesion.

    Returns
    -------
    DataFrame of int, n_images rows
        ``tp``, ``fp``, ``fn``, ``tn``, in pixels.

    Raises
    ------
    ValueError
        If the shapes differ, are not three-dimensional or are empty, or the masks are not bool.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}: expected the same")
    if predicted.ndim != 3 or predicted.size == 0:
        raise ValueError(f"expected masks of shape (n_images, height, width), none 0, got {predicted.shape}")
    if predicted.dtype != bool or truth.dtype != bool:
        raise ValueError(f"expected bool masks, got {predicted.dtype} (predicted) and {truth.dtype} (truth)")
    tp, fp, fn = (np.sum(m, axis=(1, 2)) for m in (predicted & truth, predicted & ~truth, ~predicted & truth))
    return pd.DataFrame({"tp": tp, "fp": fp, "fn": fn, "tn": truth[0].size - tp - fp - fn})


def segmentation_scores(counts: pd.DataFrame, reduction: str = "pooled") -> dict[str, float]:
    """IoU, accuracy, precision, recall and Dice of one lesion.

    Parameters
    ----------
    counts : DataFrame
        As :func:`pixel_counts` returns them.
    reduction : {"pooled", "mean"}
        ``"pooled"`` adds up the pixels of all images first; ``"mean"`` scores each image and averages.

    Returns
    -------
    dict of float
        ``iou``, ``accuracy``, ``precision``, ``recall``, ``dice`` in [0, 1]. A score whose denominator is 0 is
        undefined (IoU and Dice: neither truth nor prediction; precision: no prediction; recall: no truth):
        ``"mean"`` leaves out such images, and the result is NaN if none is left.

    Raises
    ------
    ValueError
        If there is no image or the reduction is unknown.
    """
    if len(counts) == 0:
        raise ValueError("counts is empty: expected at least one image")
    if reduction not in ("pooled", "mean"):
        raise ValueError(f"reduction must be 'pooled' or 'mean', got {reduction!r}")
    if reduction == "pooled":
        counts = counts.sum().to_frame().T
    tp, fp, fn, tn = (counts[name] for name in ("tp", "fp", "fn", "tn"))
    scores = {  # pandas gives NaN for 0/0, and its means skip NaN
        "iou": tp / (tp + fp + fn),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "dice": 2 * tp / (2 * tp + fp + fn),
    }
    return {name: float(score.mean()) for name, score in scores.items()}


def best_threshold(probability: np.ndarray, truth: np.ndarray) -> float:
    """The threshold from 0.05 to 0.95, in steps of 0.05, with the largest pooled IoU; 0.5 if none finds a lesion pixel.

    Parameters
    ----------
    probability : ndarray of float, shape (n_images, height, width)
    truth : ndarray of bool, shape (n_images, height, width)
    """
    levels = np.arange(1, 20) / 20
    each = [segmentation_scores(pixel_counts(probability > level, truth))["iou"] for level in levels]
    return float(levels[np.argmax(each)]) if np.nanmax([0, *each]) > 0 else 0.5


def average_precision(probability: np.ndarray, truth: np.ndarray, reduction: str = "pooled") -> float:
    """Area under the precision-recall curve over pixels (AUPR, as average precision): the score of IDRiD's challenge.

    Parameters
    ----------
    probability : ndarray of float, shape (n_images, height, width)
    truth : ndarray of bool, shape (n_images, height, width)
    reduction : {"pooled", "mean"}
        ``"pooled"`` ranks the pixels of all images together; ``"mean"`` scores each image that shows the lesion and
        averages.

    Returns
    -------
    float
        In [0, 1]; NaN if there is no lesion pixel.

    References
    ----------
    Porwal et al. (2020), IDRiD: Diabetic retinopathy, segmentation and grading challenge, Medical Image Analysis 59.
    doi:10.1016/j.media.2019.101561
    """
    if reduction == "mean":
        shown = truth.any(axis=(1, 2))
        scores = [average_precision(p[None], t[None]) for p, t in zip(probability[shown], truth[shown], strict=True)]
        return float(np.mean(scores)) if scores else np.nan
    if not truth.any():
        return np.nan
    from torchmetrics.functional.classification import binary_average_precision  # seconds, with torchvision's operators

    score = binary_average_precision(torch.tensor(probability).ravel(), torch.tensor(truth).ravel().long())
    return float(score)
