from math import sqrt

import numpy as np
import pytest
import torch

from ruranet_utils.clustering.heads import (
    ProjectionHeads,
    clustering_loss,
    diversity_loss,
    inter_head_similarity,
    soft_clusters,
    total_loss,
    update_threshold,
)


@pytest.fixture
def outputs():
    """Five images, four lesions, three dimensions, not of length 1: the losses may not count on it."""
    return torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def medoids(outputs):
    return outputs[[0, 3]].transpose(0, 1).clone()


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / sqrt(sum(x * x for x in a)) / sqrt(sum(y * y for y in b))


def slow_pair_terms(outputs):
    """The bracket of Eq. 4 without T, for every i < j."""
    f = outputs.tolist()
    n_images, n_lesions = len(f), len(f[0])
    terms = []
    for i in range(n_lesions):
        for j in range(i + 1, n_lesions):
            total = 0.0
            for n in range(n_images):
                total += max(cosine(f[n][i], f[m][j]) for m in range(n_images))
                total += max(cosine(f[n][j], f[m][i]) for m in range(n_images))
            terms.append(total / (2 * n_images))
    return terms


def slow_clustering_loss(outputs, medoids):
    total = 0.0
    for i in range(outputs.shape[1]):
        expectation = 0.0
        for n in range(len(outputs)):
            to_first, to_second = (
                sqrt(sum((a - b) ** 2 for a, b in zip(outputs[n, i].tolist(), medoid, strict=True)))
                for medoid in medoids[i].tolist()
            )
            expectation += min(to_first, to_second) / len(outputs)
        total += expectation / outputs.shape[1]
    return total


def test_diversity_loss_is_equation_4(outputs):
    terms = slow_pair_terms(outputs)
    assert len(terms) == 6
    threshold = float(np.median(terms))  # so that ReLU cuts some pairs and not others
    expected = sum(max(term - threshold, 0) for term in terms) / 6
    assert diversity_loss(outputs, threshold).item() == pytest.approx(expected)
    assert inter_head_similarity(outputs).item() == pytest.approx(np.mean(terms))


def test_clustering_loss_is_equation_5(outputs, medoids):
    expected = slow_clustering_loss(outputs, medoids)
    assert clustering_loss(outputs, medoids).item() == pytest.approx(expected)


def test_total_loss_is_equation_3(outputs, medoids):
    expected = sum(max(t - 0.4, 0) for t in slow_pair_terms(outputs)) / 6
    expected += 0.3 * slow_clustering_loss(outputs, medoids)
    assert combined(outputs, medoids, 0.4) == pytest.approx(expected)


def combined(outputs, medoids, threshold):
    return total_loss(diversity_loss(outputs, threshold), clustering_loss(outputs, medoids)).item()


def test_soft_clusters_and_their_diversity_by_a_loop(outputs, medoids):
    """DivClust's reading of Eq. 4: the columns of K x N memberships are compared, not the images."""
    columns = np.empty((2, 4, 5))
    for i in range(4):
        for n in range(5):
            weights = [np.exp(-np.linalg.norm(outputs[n, i].numpy() - medoids[i, k].numpy())) for k in range(2)]
            columns[:, i, n] = np.array(weights) / sum(weights)
    np.testing.assert_allclose(soft_clusters(outputs, medoids), columns)
    terms = slow_pair_terms(torch.tensor(columns))
    expected = sum(max(term - 0.9, 0) for term in terms) / 6
    assert diversity_loss(soft_clusters(outputs, medoids), 0.9).item() == pytest.approx(expected)


def test_losses_by_hand():
    # Heads 0 and 1 agree on both images; head 2 is the first one turned by 90 degrees; head 3 its opposite.
    # Rows of S_01: (1, 0), (0, 1); S_02 and S_12: (0, 1), (-1, 0); S_03 and S_13: (-1, 0), (0, -1);
    # S_23: (0, -1), (1, 0). Maxima over rows, averaged over both directions: 1, 1/2, 0, 1/2, 0, 1/2.
    outputs = torch.tensor(
        [
            [[1.0, 0], [1, 0], [0, 1], [-1, 0]],
            [[0.0, 1], [0, 1], [-1, 0], [0, -1]],
        ]
    )
    assert inter_head_similarity(outputs).item() == pytest.approx(2.5 / 6)
    assert diversity_loss(outputs, 0.4).item() == pytest.approx((0.6 + 3 * 0.1) / 6)
    own = outputs.transpose(0, 1)
    assert clustering_loss(outputs, own).item() == 0
    twice = own[:, :1].expand(-1, 2, -1)  # both medoids are the first image: the second one is sqrt(2) away
    assert clustering_loss(outputs, twice).item() == pytest.approx(sqrt(2) / 2)


def test_equal_heads_have_similarity_1(outputs):
    equal = outputs[:, :1].expand(-1, 4, -1)
    assert inter_head_similarity(equal).item() == pytest.approx(1)
    assert diversity_loss(equal, 0.25).item() == pytest.approx(0.75)


def test_order_of_images_and_heads_does_not_matter(outputs, medoids):
    images, lesions = [3, 1, 4, 0, 2], [2, 0, 3, 1]
    moved = outputs[images][:, lesions]
    expected = combined(outputs, medoids, 0.4)
    assert combined(moved, medoids[lesions], 0.4) == pytest.approx(expected)


def test_gradients(outputs, medoids):
    outputs.requires_grad_()
    medoids = medoids + 0.1  # away from the outputs, where the distance has a derivative
    assert torch.autograd.gradcheck(lambda x: diversity_loss(x, 0.3), outputs)
    assert torch.autograd.gradcheck(lambda x: clustering_loss(x, medoids), outputs)
    assert torch.autograd.gradcheck(lambda x: diversity_loss(soft_clusters(x, medoids), 0.3), outputs)


def test_gradient_is_zero_for_an_image_that_is_its_own_medoid(outputs, medoids):
    outputs.requires_grad_()
    clustering_loss(outputs, medoids).backward()
    assert torch.isfinite(outputs.grad).all()
    assert (outputs.grad[[0, 3]] == 0).all()
    assert (outputs.grad[[1, 2, 4]] != 0).any()


def test_threshold_rule():
    assert update_threshold(0.5, similarity=0.8, target=0.6) == pytest.approx(0.495)
    assert update_threshold(0.5, similarity=0.6, target=0.6) == pytest.approx(0.505)
    assert update_threshold(0.999, similarity=0.1, target=0.6) == 1.0
    assert update_threshold(0.5, similarity=0.8, target=0.6, rule="fixed") == 0.5
    with pytest.raises(ValueError, match="unknown rule 'adaptive'; valid rules: dynamic, fixed"):
        update_threshold(0.5, 0.8, 0.6, rule="adaptive")


def test_heads_work_on_their_own_lesion_only():
    heads = ProjectionHeads(4, 6, 8, 3, torch.Generator().manual_seed(0))
    features = torch.randn(7, 4, 6, generator=torch.Generator().manual_seed(1))
    before = heads(features)
    assert before.shape == (7, 4, 3)
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(7, 4))
    features[:, 2] += 1
    with torch.no_grad():
        heads.head_bias[1] += 1
    unchanged = (heads(features) == before).flatten(2).all(dim=2).all(dim=0)
    assert unchanged.tolist() == [True, False, False, True]


def test_heads_start_alike_apart_or_as_the_identity():
    features = torch.randn(7, 4, 6, generator=torch.Generator().manual_seed(1))
    alike = features[:, :1].expand(7, 4, 6)

    def start(name):
        return ProjectionHeads(4, 6, 8, 3, torch.Generator().manual_seed(0), name)

    assert (start("shared")(alike) == start("shared")(alike)[:, :1]).all()
    drawn = start("drawn")(alike)
    assert not torch.isclose(drawn, drawn[:, :1])[:, 1:].any()
    torch.testing.assert_close(start("identity")(features), torch.nn.functional.normalize(features, dim=-1))
    with pytest.raises(ValueError, match="unknown start 'same'; valid starts: shared, drawn, identity"):
        start("same")
