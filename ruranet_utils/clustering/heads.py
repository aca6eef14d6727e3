"""Projection heads of DMH, one per lesion, their losses (Eq. 3-5) and the threshold of Eq. 4."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

RULES = ("dynamic", "fixed")
STARTS = ("shared", "drawn", "identity")


class ProjectionHeads(nn.Module):
    """One two-layer perceptron per lesion, its output scaled to length 1.

    Without the scaling Eq. 5 has a trivial minimum: every output shrinks to 0.

    Parameters
    ----------
    n_lesions, in_dim, hidden_dim, head_dim : int
    generator : torch.Generator
        Draws the initial parameters, uniform in +-1/sqrt(fan-in).
    start : {"shared", "drawn", "identity"}
        ``"shared"``: all heads start from the same draw, so any difference between them is learned. On IDRiD's features
        their similarity starts at 0.7; with ``"drawn"``, where each head has its own draw, it starts at 0.3, where Eq.
        4 with T = 0.5 would never act. ``"identity"``: nothing is drawn, and the heads start by passing on their input,
        as its positive part minus its negative part; ``hidden_dim`` and ``head_dim`` are then 2 and 1 times ``in_dim``.

    Raises
    ------
    ValueError
        For an unknown start, listing the valid ones.
    """

    def __init__(
        self,
        n_lesions: int,
        in_dim: int,
        hidden_dim: int,
        head_dim: int,
        generator: torch.Generator,
        start: str = "shared",
    ) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}; valid starts: {', '.join(STARTS)}")
        if start == "identity":
            both = torch.cat([torch.eye(in_dim), -torch.eye(in_dim)], dim=1)
            layers = [(both, torch.zeros(2 * in_dim)), (both.T, torch.zeros(in_dim))]
            layers = [[value.expand(n_lesions, *value.shape) for value in layer] for layer in layers]
        else:

            def draw(fan_in: int, *shape: int) -> Tensor:
                bound = fan_in**-0.5
                shape = (1 if start == "shared" else n_lesions, *shape)
                drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                return drawn.expand(n_lesions, *shape[1:])

            layers = [
                (draw(before, before, after), draw(before, after))
                for before, after in ((in_dim, hidden_dim), (hidden_dim, head_dim))
            ]
        (self.hidden_weight, self.hidden_bias), (self.head_weight, self.head_bias) = (
            (nn.Parameter(weight.clone()), nn.Parameter(bias.clone())) for weight, bias in layers
        )

    def forward(self, features: Tensor) -> Tensor:
        """Project features of shape (n_images, n_lesions, in_dim) to (n_images, n_lesions, head_dim)."""
        hidden = torch.einsum("nlk,lkh->nlh", features, self.hidden_weight) + self.hidden_bias
        outputs = torch.einsum("nlk,lkh->nlh", hidden.relu(), self.head_weight) + self.head_bias
        return functional.normalize(outputs, dim=-1)


def diversity_loss(outputs: Tensor, threshold: float) -> Tensor:
    """Penalty on pairs of heads that are more similar than the threshold (Eq. 4).

    ``S_ij`` is read as the matrix of cosines between the outputs of heads i and j over all images, and ``S_ij^(n)`` as
    its row n; the row's maximum tells how much image n, seen by head i, resembles the most similar image seen by head
    j. With :func:`soft_clusters` as ``outputs``, this is DivClust's loss, and rows are clusters.

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
        In [0, 2] for outputs of length 1. The gradient is 0 for an image that is its own medoid.

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


def _distances(outputs: Tensor, medoids: Tensor) -> Tensor:
    """Distance from every output to the medoids of its lesion: shape (n_images, n_lesions, n_clusters)."""
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
