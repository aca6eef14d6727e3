"""Dynamic multi-projection head clustering (DMH): one head per lesion, Eq. 3-5, and the threshold controller.

The outputs of the heads go on to Eq. 2 (:mod:`ruranet_utils.weighting`) and k-medoids, like any features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from ruranet_utils.clustering import Clustering
from ruranet_utils.reduction import require_finite
from ruranet_utils.weighting import aggregate

RULES = ("dynamic", "fixed")
READINGS = ("images", "clusters")
# Most images whose similarities are looked at together: their matrix has the square of this number of entries.
BATCH_SIZE = 1024
N_CLUSTERS = 2
HISTORY = ("epoch", "loss_diversity", "loss_cluster", "threshold", "similarity")


class ProjectionHeads(nn.Module):
    """One two-layer perceptron per lesion, its output scaled to length 1.

    Without the scaling Eq. 5 has a trivial minimum: every output shrinks to 0. All heads start from the same
    parameters, so what tells them apart is learned, not drawn: on features of IDRiD their similarity starts
    at 0.7, that of heads drawn one by one at 0.3, where with T = 0.5 Eq. 4 would never act.

    Parameters
    ----------
    n_lesions, in_dim, hidden_dim, head_dim : int
    generator : torch.Generator
        Draws the initial parameters, uniform in +-1/sqrt(fan-in).
    """

    def __init__(
        self,
        n_lesions: int,
        in_dim: int,
        hidden_dim: int,
        head_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()

        def parameter(fan_in: int, *shape: int) -> nn.Parameter:
            bound = fan_in**-0.5
            initial = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            return nn.Parameter(initial.repeat(n_lesions, *[1] * len(shape)))

        self.hidden_weight = parameter(in_dim, in_dim, hidden_dim)
        self.hidden_bias = parameter(in_dim, hidden_dim)
        self.head_weight = parameter(hidden_dim, hidden_dim, head_dim)
        self.head_bias = parameter(hidden_dim, head_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Project features of shape (n_images, n_lesions, in_dim) to (n_images, n_lesions, head_dim)."""
        hidden = torch.einsum("nlk,lkh->nlh", features, self.hidden_weight) + self.hidden_bias
        outputs = torch.einsum("nlk,lkh->nlh", hidden.relu(), self.head_weight) + self.head_bias
        return functional.normalize(outputs, dim=-1)


def diversity_loss(outputs: Tensor, threshold: float) -> Tensor:
    """Penalty on pairs of heads that are more similar than the threshold (Eq. 4).

    ``S_ij`` is read as the matrix of cosines between the outputs of heads i and j over all images,
    ``S_ij^(n)`` as its row n; its maximum says how much image n, seen by head i, resembles the most similar
    image seen by head j. With :func:`soft_clusters` for ``outputs`` it is DivClust's: rows are clusters then.

    Parameters
    ----------
    outputs : Tensor, shape (n_images, n_lesions, head_dim), or (n_clusters, n_lesions, n_images)
    threshold : float
        T, in [0, 1].

    Returns
    -------
    Tensor, shape ()
        In [0, 1].

    References
    ----------
    RURANET++, Eq. 4. Metaxas, Tzimiropoulos & Patras (2023), DivClust, CVPR.
    arXiv:2304.01042
    """
    return (_pair_similarities(outputs) - threshold).relu().mean()


def inter_head_similarity(outputs: Tensor) -> Tensor:
    """The similarity that Eq. 4 compares with T, averaged over the pairs of heads; in [-1, 1]."""
    return _pair_similarities(outputs).mean()


def soft_clusters(outputs: Tensor, medoids: Tensor) -> Tensor:
    """How much each image belongs to each cluster of each head, as DivClust compares heads.

    Parameters
    ----------
    outputs, medoids
        As for :func:`clustering_loss`.

    Returns
    -------
    Tensor, shape (n_clusters, n_lesions, n_images)
        In [0, 1], with sum 1 over the clusters: softmax of the negative distances to the medoids.
    """
    return _distances(outputs, medoids).neg().softmax(dim=-1).permute(2, 1, 0)


def clustering_loss(outputs: Tensor, medoids: Tensor) -> Tensor:
    """Mean distance of every output to the nearer medoid of its lesion (Eq. 5).

    Parameters
    ----------
    outputs : Tensor, shape (n_images, n_lesions, head_dim)
    medoids : Tensor, shape (n_lesions, 2, head_dim)

    Returns
    -------
    Tensor, shape ()
        In [0, 2] for outputs of length 1. The gradient of an image that is its own medoid is 0.

    References
    ----------
    RURANET++, Eq. 5.
    """
    return _distances(outputs, medoids).amin(dim=-1).mean()


def total_loss(diversity: Tensor, distance: Tensor, lam: float = 0.3) -> Tensor:
    """``L_div + lam * L_cluster`` (Eq. 3), from :func:`diversity_loss` and :func:`clustering_loss`."""
    return diversity + lam * distance


def update_threshold(threshold: float, similarity: float, target: float, rule: str = "dynamic") -> float:
    """The next T: 1 % stricter while the heads are more similar than the target, else 1 % looser.

    Parameters
    ----------
    threshold : float
        T, in [0, 1].
    similarity : float
        :func:`inter_head_similarity` of the current outputs.
    target : float
    rule : str
        ``"dynamic"``, or ``"fixed"`` to leave T alone. The paper gives no rule; this is DivClust's.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        For an unknown rule, listing the valid ones.

    References
    ----------
    Metaxas, Tzimiropoulos & Patras (2023), DivClust, CVPR. arXiv:2304.01042
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; valid rules: {', '.join(RULES)}")
    if rule == "fixed":
        return threshold
    factor = 0.99 if similarity > target else 1.01
    return min(max(factor * threshold, 0.0), 1.0)


def estimate_medoids(outputs: Tensor) -> Tensor:
    """Two medoids per lesion by k-medoids, as constants: (n_images, n_lesions, h) -> (n_lesions, 2, h)."""
    engine = Clustering("kmedoids", N_CLUSTERS).engine(len(outputs))
    lesions = outputs.detach().numpy().transpose(1, 0, 2)
    return torch.from_numpy(np.stack([engine.fit(points).cluster_centers_ for points in lesions]))


@dataclass(frozen=True)
class HeadsResult:
    """What training the heads gives.

    Attributes
    ----------
    embedding : ndarray of float32, shape (n_images, n_lesions, head_dim)
        Outputs of the trained heads, each of length 1.
    history : DataFrame, one row per epoch
        ``epoch`` from 1, ``loss_diversity`` (Eq. 4), ``loss_cluster`` (Eq. 5, before lambda), ``threshold``
        (T used in that epoch), ``similarity`` (:func:`inter_head_similarity`), all before that epoch's step; means
        over its batches where there is more than one.
    """

    embedding: np.ndarray
    history: pd.DataFrame


# Threads would only slow down so few images, and make the last bits depend on the number of cores.
@threadpool_limits.wrap(limits=1)
def train_heads(
    features: np.ndarray,
    *,
    epochs: int,
    lam: float,
    seed: int,
    head_dim: int = 32,
    hidden_dim: int = 64,
    learning_rate: float = 1e-3,
    target_similarity: float = 0.5,
    rule: str = "dynamic",
    reading: str = "images",
) -> HeadsResult:
    """Train one projection head per lesion on all images at once; no label is seen.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, n_lesions, k)
        Reduced features (:func:`ruranet_utils.reduction.reduce`).
    epochs : int
        Each with newly estimated medoids and one step of Adam on all images, or on each random batch of at most
        ``BATCH_SIZE``.
    lam : float
        Lambda of Eq. 3; the paper's is 0.3.
    seed : int
        Of the initial parameters and the batches.
    head_dim, hidden_dim : int
        Widths of the heads; by default the 50 components pass through 64 units into fewer dimensions than
        there are components.
    learning_rate : float
        Adam's own default.
    target_similarity : float
        What the controller steers to, and T at the start. 0.5, a cosine of 60 degrees, lies halfway between
        unrelated and equal heads.
    rule : str
        As for :func:`update_threshold`.
    reading : {"images", "clusters"}
        What Eq. 4 compares: the heads' outputs, image by image, or their :func:`soft_clusters`.

    Raises
    ------
    ValueError
        If ``features`` does not have three axes, holds NaN or infinity, does not vary between images, or has
        fewer images than clusters or fewer than two lesions; for an unknown rule or reading.

    References
    ----------
    RURANET++, section 2.2, Eq. 3-5.
    """
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; valid readings: {', '.join(READINGS)}")
    inputs = torch.from_numpy(_scaled(features))
    generator = torch.Generator().manual_seed(seed)
    heads = ProjectionHeads(*inputs.shape[1:], hidden_dim, head_dim, generator)
    optimizer = torch.optim.Adam(heads.parameters(), lr=learning_rate)
    threshold, history = target_similarity, []
    for epoch in range(1, epochs + 1):
        with torch.no_grad():
            medoids = estimate_medoids(heads(inputs))
        steps = []
        for rows in _batches(len(inputs), generator):
            outputs = heads(inputs[rows])
            compared = outputs if reading == "images" else soft_clusters(outputs, medoids)
            diversity, distance = diversity_loss(compared, threshold), clustering_loss(outputs, medoids)
            optimizer.zero_grad()
            total_loss(diversity, distance, lam).backward()
            optimizer.step()
            steps.append((diversity.item(), distance.item(), inter_head_similarity(compared.detach()).item()))
        diversity, distance, similarity = np.mean(steps, axis=0).tolist()
        history.append((epoch, diversity, distance, threshold, similarity))
        threshold = update_threshold(threshold, similarity, target_similarity, rule)
    with torch.no_grad():
        embedding = heads(inputs).numpy()
    return HeadsResult(embedding=embedding, history=pd.DataFrame(history, columns=HISTORY))


class DMH(ClusterMixin, BaseEstimator):
    """The whole of Section 2.2 after PCA: heads (Eq. 3 to 5), weighted mean (Eq. 2), k-medoids.

    Parameters
    ----------
    weights : sequence of float, optional
        Of the lesions, each in [1, 10]; all 1 by default.
    epochs, lam, rule, reading
        As for :func:`train_heads`.
    random_state : int

    Attributes
    ----------
    labels_ : ndarray of int64, shape (n_images,)
        0 or 1; which cluster gets which number means nothing.
    embedding_ : ndarray of float32, shape (n_images, n_lesions, 32)
        Outputs of the heads.
    history_ : DataFrame
        As in :class:`HeadsResult`.
    """

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        epochs: int = 60,
        lam: float = 0.3,
        rule: str = "dynamic",
        reading: str = "images",
        random_state: int = 0,
    ) -> None:
        self.weights = weights
        self.epochs = epochs
        self.lam = lam
        self.rule = rule
        self.reading = reading
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: None = None) -> DMH:
        """Train the heads and cluster.

        Parameters
        ----------
        X : ndarray of float, shape (n_images, n_lesions, k)
            Reduced features (:func:`ruranet_utils.reduction.reduce`).
        y : ignored

        Raises
        ------
        ValueError
            As for :func:`train_heads` and :func:`ruranet_utils.weighting.aggregate`.
        """
        settings = {name: getattr(self, name) for name in ("epochs", "lam", "rule", "reading")}
        result = train_heads(X, **settings, seed=self.random_state)
        weights = np.ones(np.shape(X)[1]) if self.weights is None else self.weights
        self.embedding_, self.history_ = result.embedding, result.history
        clustering = Clustering("kmedoids", N_CLUSTERS, random_state=self.random_state)
        self.labels_ = clustering.fit_predict(aggregate(self.embedding_, weights))
        return self


def _batches(n_images: int, generator: torch.Generator) -> Sequence[Tensor | slice]:
    """All images in their order, or in random batches where they are too many."""
    n_batches = -(-n_images // BATCH_SIZE)
    if n_batches == 1:
        return [slice(None)]
    return torch.randperm(n_images, generator=generator).tensor_split(n_batches)


def _distances(outputs: Tensor, medoids: Tensor) -> Tensor:
    """From every output to the medoids of its lesion: shape (n_images, n_lesions, n_clusters)."""
    return torch.linalg.vector_norm(outputs[:, :, None] - medoids, dim=-1)


def _pair_similarities(outputs: Tensor) -> Tensor:
    """The bracket of Eq. 4 without T, for every pair of heads i < j: shape (n_pairs,)."""
    directions = functional.normalize(outputs, dim=-1)
    similarities = []
    for i, j in combinations(range(outputs.shape[1]), 2):
        cosines = directions[:, i] @ directions[:, j].T
        # S_ji is the transpose of S_ij, so its row maxima are the column maxima.
        similarities.append((cosines.amax(dim=1) + cosines.amax(dim=0)).mean() / 2)
    return torch.stack(similarities)


def _scaled(features: np.ndarray) -> np.ndarray:
    """Centered per lesion, then brought to a standard deviation of 1 by one common factor, as float32.

    What a lesion's images have in common would otherwise fill the outputs of its head: after the scaling to
    length 1 all images would look alike. Eq. 2 without heads loses that offset in the clustering anyway.
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
