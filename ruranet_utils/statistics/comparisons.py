"""Is one method better than another, on the same images? And does a clustering repeat?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ruranet_utils.statistics.intervals import ratio_interval

N_PERMUTATIONS = 9999


def compare(correct: np.ndarray, other: np.ndarray, patients: np.ndarray, seed: int) -> dict[str, float]:
    """Difference of two accuracies on the same images, by patient.

    Parameters
    ----------
    correct, other : ndarray of bool, shape (n_images,)
        Whether each image was classified correctly by the one and by the other method.
    patients : ndarray, shape (n_images,)
    seed : int

    Returns
    -------
    dict of float
        ``difference`` of the accuracies, in [-1, 1]; ``difference_low``, ``difference_high`` (95 %, bootstrap over
        patients); ``p``: two-sided, by exchanging the two methods within patients.

    Raises
    ------
    ValueError
        If the lengths differ, the inputs are empty or there is one patient only.

    References
    ----------
    Good (2005), Permutation, Parametric and Bootstrap Tests of Hypotheses, chapter 3. doi:10.1007/b138696
    """
    difference = np.asarray(correct, dtype=int) - np.asarray(other, dtype=int)
    low, high = ratio_interval(difference, np.ones(len(difference)), patients, np.random.default_rng(seed))
    if len(np.unique(patients)) == 1:
        raise ValueError(f"{len(difference)} images of one patient alone cannot be compared")
    per_patient = np.bincount(np.unique(patients, return_inverse=True)[1], difference)
    from scipy.stats import permutation_test  # half a second, and needed here alone

    test = permutation_test(
        (per_patient, np.zeros(len(per_patient))),
        lambda one, two, axis: np.sum(one - two, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=N_PERMUTATIONS,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return {
        "difference": float(np.mean(difference)),
        "difference_low": low,
        "difference_high": high,
        "p": float(test.pvalue),
    }


def compare_seeds(
    correct: np.ndarray, other: np.ndarray, patients: np.ndarray, seed: int, n_resamples: int = 1000
) -> dict[str, float]:
    """Difference of two accuracies, each the mean over several trainings of a method on the same images.

    Parameters
    ----------
    correct, other : ndarray of bool, shape (n_seeds, n_images)
    patients : ndarray, shape (n_images,)
    seed : int
        Of the bootstrap.
    n_resamples : int

    Returns
    -------
    dict of float
        ``difference``, in [-1, 1]; ``difference_low``, ``difference_high`` (95 %): a percentile bootstrap that draws
        patients, and trainings of each method, so that the interval holds for other images and for other seeds.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapters 8 and 13. doi:10.1201/9780429246593
    """
    rng = np.random.default_rng(seed)
    _, index = np.unique(patients, return_inverse=True)
    n_images = np.bincount(index)
    right = [np.stack([np.bincount(index, row) for row in method]) for method in (correct, other)]
    differences = []
    for _ in range(n_resamples):
        drawn = rng.integers(len(n_images), size=len(n_images))
        one, two = (
            method[rng.integers(len(method), size=len(method))][:, drawn].mean(axis=0).sum() for method in right
        )
        differences.append((one - two) / n_images[drawn].sum())
    low, high = np.quantile(differences, (0.025, 0.975))
    return {
        "difference": float(np.mean(correct) - np.mean(other)),
        "difference_low": float(low),
        "difference_high": float(high),
    }


def mean_pairwise_ari(clusterings: Sequence[np.ndarray]) -> float:
    """Mean adjusted Rand index over all pairs of clusterings of the same images: 1 if all are equal, 0 by chance.

    Raises
    ------
    ValueError
        If there are fewer than two.

    References
    ----------
    Hubert & Arabie (1985), Journal of Classification 2, 193-218. doi:10.1007/BF01908075
    """
    if len(clusterings) < 2:
        raise ValueError(f"a pair needs two clusterings, got {len(clusterings)}")
    return float(np.mean([adjusted_rand_score(*pair) for pair in combinations(clusterings, 2)]))
