"""Dynamic multi-projection head clustering (DMH): training the heads, and the whole method as one estimator.

The outputs of the heads go through Eq. 2 (:mod:`ruranet_utils.clustering.weighting`) and k-medoids, like any features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from threadpoolctl import threadpool_limits
from torch import Tensor

from ruranet_utils.clustering.estimators import Clustering, unchecked, without_limit_warnings
from ruranet_utils.clustering.heads import (
    ProjectionHeads,
    clustering_loss,
    diversity_loss,
    inter_head_similarity,
    soft_clusters,
    total_loss,
    update_threshold,
)
from ruranet_utils.clustering.weighting import aggregate
from ruranet_utils.features.reduction import require_finite

READINGS = ("images", "clusters")
# Most images whose similarities are compared at once: their matrix has the square of this number of entries.
BATCH_SIZE = 1024
N_CLUSTERS = 2
# If the number of epochs is not given, training stops once Eq. 3, averaged over WINDOW epochs, has fallen by less than
# LEAST_FALL of its first value since the previous WINDOW epochs, or after MOST_EPOCHS.
WINDOW, LEAST_FALL, MOST_EPOCHS = 20, 0.01, 1000
HISTORY = ("epoch", "loss_diversity", "loss_cluster", "threshold", "similarity")


def estimate_medoids(outputs: Tensor) -> Tensor:
    """Two medoids per lesion by k-medoids, detached from the graph: (n_images, n_lesions, h) -> (n_lesions, 2, h)."""
    engine = Clustering("kmedoids", N_CLUSTERS).engine(len(outputs))
    lesions = outputs.detach().numpy().transpose(1, 0, 2)
    with without_limit_warnings():
        return torch.from_numpy(np.stack([engine.fit(points).cluster_centers_ for points in lesions]))


@dataclass(frozen=True)
class HeadsResult:
    """The result of training the heads.

    Attributes
    ----------
    embedding : ndarray of float32, shape (n_images, n_lesions, head_dim)
        Outputs of the trained heads, each of length 1.
    history : DataFrame, one row per epoch
        ``epoch`` from 1, ``loss_diversity`` (Eq. 4), ``loss_cluster`` (Eq. 5, before lambda), ``threshold``
        (T used in that epoch), ``similarity`` (:func:`ruranet_utils.clustering.heads.inter_head_similarity`), all
        before that epoch's step, averaged over its batches if there are several.
    course : dict of int to ndarray
        The outputs after selected epochs, shaped like ``embedding``; 0: before the first.
    """

    embedding: np.ndarray
    history: pd.DataFrame
    course: dict[int, np.ndarray] = field(default_factory=dict)


# More threads would only slow down so few images, and make the last bits depend on the number of cores.
@threadpool_limits.wrap(limits=1)
@unchecked
def train_heads(
    features: np.ndarray,
    *,
    epochs: int | None,
    lam: float,
    seed: int,
    head_dim: int = 32,
    hidden_dim: int = 64,
    learning_rate: float = 1e-3,
    target_similarity: float = 0.5,
    rule: str = "dynamic",
    reading: str = "images",
    start: str = "shared",
    course: Collection[int] = (),
) -> HeadsResult:
    """Train one projection head per lesion on all images at once; no label is used.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, n_lesions, k)
        Reduced features (:func:`ruranet_utils.features.reduction.reduce`).
    epochs : int or None
        Each epoch re-estimates the medoids and takes one step of Adam on all images, or on each random batch of at most
        ``BATCH_SIZE``. ``None``: until Eq. 3 stops falling, that is, until its mean over 20 epochs is less than 1 % of
        its first value below that of the previous 20 epochs; at most 1000.
    lam : float
        Lambda of Eq. 3; the paper's is 0.3.
    seed : int
        For the initial parameters and the batches.
    head_dim, hidden_dim : int
        Widths of the heads; by default 50 components pass through 64 units and come out in fewer dimensions than there
        are components.
    learning_rate : float
        Adam's own default.
    target_similarity : float
        What the controller steers to, and the initial T. 0.5, a cosine of 60 degrees, lies halfway between unrelated
        and identical heads.
    rule : str
        As for :func:`ruranet_utils.clustering.heads.update_threshold`.
    reading : {"images", "clusters"}
        What Eq. 4 compares: the heads' outputs, image by image, or their
        :func:`ruranet_utils.clustering.heads.soft_clusters`.
    start : {"shared", "drawn", "identity"}
        As for :class:`ruranet_utils.clustering.heads.ProjectionHeads`; ``"identity"`` ignores the widths.
    course : collection of int
        Epochs after which to keep the outputs.

    Raises
    ------
    ValueError
        If ``features`` does not have three axes, holds NaN or infinity, does not vary between images, or has
        fewer images than clusters or fewer than two lesions; for an unknown rule, reading or start; if the loss
        becomes infinite or NaN.

    References
    ----------
    RURANET++, section 2.2, Eq. 3-5.
    """
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; valid readings: {', '.join(READINGS)}")
    inputs = torch.from_numpy(_scaled(features))
    generator = torch.Generator().manual_seed(seed)
    heads = ProjectionHeads(*inputs.shape[1:], hidden_dim, head_dim, generator, start)
    # fused: otherwise MKL takes the square roots, and their last bit depends on the processor's vendor
    optimizer = torch.optim.Adam(heads.parameters(), lr=learning_rate, fused=True)
    threshold, history, kept = target_similarity, [], {}
    for epoch in range(1, (epochs or MOST_EPOCHS) + 1):
        with torch.no_grad():
            whole = heads(inputs)
            medoids = estimate_medoids(whole)
        if epoch - 1 in course:
            kept[epoch - 1] = whole.numpy()
        steps = []
        for rows in _batches(len(inputs), generator):
            outputs = heads(inputs[rows])
            compared = outputs if reading == "images" else soft_clusters(outputs, medoids)
            diversity, distance = diversity_loss(compared, threshold), clustering_loss(outputs, medoids)
            loss = total_loss(diversity, distance, lam)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss of epoch {epoch} is {loss.item()}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append((diversity.item(), distance.item(), inter_head_similarity(compared.detach()).item()))
        diversity, distance, similarity = np.mean(steps, axis=0).tolist()
        history.append((epoch, diversity, distance, threshold, similarity))
        threshold = update_threshold(threshold, similarity, target_similarity, rule)
        if epochs is None and _has_settled([step[1] + lam * step[2] for step in history]):
            break
    with torch.no_grad():
        embedding = heads(inputs).numpy()
    if len(history) in course:
        kept[len(history)] = embedding
    return HeadsResult(embedding, pd.DataFrame(history, columns=HISTORY), kept)


def _has_settled(losses: Sequence[float]) -> bool:
    """Whether the loss has stopped falling; see ``WINDOW``."""
    if len(losses) < 2 * WINDOW:
        return False
    return np.mean(losses[-2 * WINDOW : -WINDOW]) - np.mean(losses[-WINDOW:]) < LEAST_FALL * losses[0]


class DMH(ClusterMixin, BaseEstimator):
    """The whole of Section 2.2 after PCA: heads (Eq. 3 to 5), weighted mean (Eq. 2), k-medoids.

    Parameters
    ----------
    weights : sequence of float, optional
        One per lesion, each in [1, 10]; all 1 by default.
    epochs, lam, rule, reading, start
        As for :func:`train_heads`.
    random_state : int

    Attributes
    ----------
    labels_ : ndarray of int64, shape (n_images,)
        0 or 1; the numbering of the clusters is arbitrary.
    embedding_ : ndarray of float32, shape (n_images, n_lesions, 32)
        Outputs of the heads.
    history_ : DataFrame
        As in :class:`HeadsResult`.
    """

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        epochs: int | None = 60,
        lam: float = 0.3,
        rule: str = "dynamic",
        reading: str = "images",
        start: str = "shared",
        random_state: int = 0,
    ) -> None:
        self.weights = weights
        self.epochs = epochs
        self.lam = lam
        self.rule = rule
        self.reading = reading
        self.start = start
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: None = None) -> DMH:
        """Train the heads and cluster.

        Parameters
        ----------
        X : ndarray of float, shape (n_images, n_lesions, k)
            Reduced features (:func:`ruranet_utils.features.reduction.reduce`).
        y : ignored

        Raises
        ------
        ValueError
            As for :func:`train_heads` and :func:`ruranet_utils.clustering.weighting.aggregate`.
        """
        settings = {name: getattr(self, name) for name in ("epochs", "lam", "rule", "reading", "start")}
        result = train_heads(X, **settings, seed=self.random_state)
        weights = np.ones(np.shape(X)[1]) if self.weights is None else self.weights
        self.embedding_, self.history_ = result.embedding, result.history
        clustering = Clustering("kmedoids", N_CLUSTERS, random_state=self.random_state)
        self.labels_ = clustering.fit_predict(aggregate(self.embedding_, weights))
        return self


def _batches(n_images: int, generator: torch.Generator) -> Sequence[Tensor | slice]:
    """All images in their order, or random batches if there are too many."""
    n_batches = -(-n_images // BATCH_SIZE)
    if n_batches == 1:
        return [slice(None)]
    return torch.randperm(n_images, generator=generator).tensor_split(n_batches)


def _scaled(features: np.ndarray) -> np.ndarray:
    """Features centered per lesion, then scaled by one common factor to a standard deviation of 1, as float32.

    What a lesion's images have in common would otherwise dominate the outputs of its head: once scaled to length 1, all
    images would look alike. In Eq. 2 without heads, clustering removes that offset anyway.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(f"features must have shape (n_images, n_lesions >= 2, k), got {features.shape}")
    require_finite(features)
    if len(features) < N_CLUSTERS:
        raise ValueError(f"{len(features)} images cannot form {N_CLUSTERS} clusters")
    centered = features - features.mean(axis=0)
    deviation = centered.std()
    if deviation == 0:
        raise ValueError(f"features do not vary between the {len(features)} images")
    return (centered / deviation).astype(np.float32)
