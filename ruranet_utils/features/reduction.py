"""Standardization and PCA of deep features, and the two measures for choosing the number of components."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

# The last bits of a matrix product depend on the number of threads, which differs between machines.
one_thread = threadpool_limits.wrap(limits=1)


@one_thread
def reduce(features: np.ndarray, n_components: int) -> np.ndarray:
    """Standardize every feature and keep the first principal components.

    All leading axes are stacked into rows: the lesions of all images share one basis, so Eq. 2 can add them.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, n_lesions, d) or (n_images, d)
    n_components : int
        Components to keep, >= 1; fewer if there are fewer dimensions, or rows minus one.

    Returns
    -------
    ndarray of float64, shape (..., min(n_components, n_rows - 1, d))
        The leading axes are those of ``features``. Each column has mean 0 over all rows.

    Raises
    ------
    ValueError
        If ``features`` has fewer than two axes, holds NaN or infinity, or does not vary; if ``n_components``
        is below 1.
    """
    rows = _standardized_rows(features)
    kept = min(n_components, len(rows) - 1)
    _check_n_components(kept, len(rows))
    return _pca(rows, kept).transform(rows).reshape(*np.shape(features)[:-1], -1)


def standardize(features: np.ndarray) -> np.ndarray:
    """Standardize as :func:`reduce` does but keep all dimensions (Table 5e); float64, same shape, same errors."""
    return _standardized_rows(features).reshape(np.shape(features))


@one_thread
def reconstruction_error(features: np.ndarray, n_components: int) -> float:
    """Mean squared distance between the standardized rows and their projection onto ``n_components`` (Eq. 6).

    Parameters
    ----------
    features, n_components
        As for :func:`reduce`.

    Returns
    -------
    float
        Squared standard deviations, summed over the d features: in [0, d].

    Raises
    ------
    ValueError
        As for :func:`reduce`.

    References
    ----------
    RURANET++, Eq. 6.
    """
    rows = _standardized_rows(features)
    _check_n_components(n_components, len(rows))
    pca = _pca(rows, n_components)
    residual = rows - pca.inverse_transform(pca.transform(rows))
    return float(np.mean(np.sum(residual**2, axis=1)))


@one_thread
def variance_curve(features: np.ndarray, k_max: int = 100) -> pd.DataFrame:
    """Explained variance and reconstruction error for every number of components up to ``k_max``.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, n_lesions, d) or (n_images, d)
    k_max : int
        Most components, >= 1; capped at what the data can give, ``min(n_rows - 1, d)``.

    Returns
    -------
    DataFrame, one row per k
        ``k``; ``explained_ratio``, cumulative, in [0, 1]; ``reconstruction_error``, Eq. 6 taken literally, in [0, d];
        ``reconstruction_error_per_feature``, the same divided by the number of features that vary, in [0, 1].

    Raises
    ------
    ValueError
        As for :func:`reduce`.

    Notes
    -----
    Standardized features have variance 1 each, so the error per feature is 1 - ``explained_ratio``. The paper
    prints 94.32 % and 0.0568 = 1 - 0.9432: its "reconstruction error" is this one, not the sum of Eq. 6.

    References
    ----------
    RURANET++, section 2.2 and Eq. 6.
    """
    rows = _standardized_rows(features)
    if k_max < 1:
        raise ValueError(f"k_max must be >= 1, got {k_max}")
    k = np.arange(1, min(k_max, len(rows) - 1, rows.shape[1]) + 1)
    pca = _pca(rows, min(rows.shape))
    variance = pca.singular_values_**2 / len(rows)
    # Summed from the smallest up, so that the last errors are not the difference of two large numbers.
    error = np.append(np.cumsum(variance[::-1])[::-1], 0.0)[k]
    return pd.DataFrame(
        {
            "k": k,
            "explained_ratio": np.cumsum(pca.explained_variance_ratio_)[k - 1],
            "reconstruction_error": error,
            "reconstruction_error_per_feature": error / _n_varying(rows),
        }
    )


def smallest_k(curve: pd.DataFrame, targets: Sequence[float] = (0.90, 0.95, 0.99)) -> pd.DataFrame:
    """Fewest components that explain each target share of the variance.

    Parameters
    ----------
    curve : DataFrame
        From :func:`variance_curve`.
    targets : sequence of float
        Shares of the variance, in (0, 1].

    Returns
    -------
    DataFrame, one row per target
        ``target``, ``k`` (missing if the curve ends below the target), ``explained_ratio`` at that k.

    Raises
    ------
    ValueError
        If a target is outside (0, 1].
    """
    rows = []
    for target in targets:
        if not 0 < target <= 1:
            raise ValueError(f"targets must lie in (0, 1], got {target}")
        reached = curve[curve["explained_ratio"] >= target - 1e-12]
        k, ratio = reached.iloc[0][["k", "explained_ratio"]] if len(reached) else (pd.NA, np.nan)
        rows.append({"target": target, "k": k, "explained_ratio": ratio})
    return pd.DataFrame(rows).astype({"k": "Int64"})


@one_thread
def planes(features: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Features projected to 2-D for a figure: ``"PCA"`` and ``"t-SNE"``, each of shape (n_images, 2).

    Parameters
    ----------
    features : ndarray of float, shape (n_images, d)
        At least four images.
    seed : int

    References
    ----------
    van der Maaten & Hinton (2008), Journal of Machine Learning Research 9, 2579-2605 (t-SNE).
    """
    require_finite(features)
    tsne = TSNE(init="pca", perplexity=min(30, len(features) / 4), random_state=seed)
    return {"PCA": _pca(features, 2).transform(features), "t-SNE": tsne.fit_transform(np.asarray(features, np.float32))}


def require_finite(features: np.ndarray) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    ValueError
        The message says how many values are not finite.
    """
    n_bad = np.count_nonzero(~np.isfinite(features))
    if n_bad:
        raise ValueError(f"features hold {n_bad} NaN or infinite values of {np.size(features)}")


def _standardized_rows(features: np.ndarray) -> np.ndarray:
    """All leading axes stacked; every column has mean 0 and variance 1, or is all 0."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim < 2 or features.size == 0:
        raise ValueError(f"features must have shape (n_images, [n_lesions,] d), got {features.shape}")
    require_finite(features)
    rows = StandardScaler().fit_transform(features.reshape(-1, features.shape[-1]))
    if not _n_varying(rows):
        raise ValueError(
            f"all {rows.shape[1]} features are constant over {len(rows)} rows: are the images equal or the masks empty?"
        )
    return rows


def _n_varying(standardized: np.ndarray) -> int:
    """Columns that vary: after standardization a column's deviation is either 1 or, if it is constant, 0."""
    return np.count_nonzero(standardized.std(axis=0) > 0.5)


def _check_n_components(n_components: int, n_rows: int) -> None:
    if n_components < 1:
        raise ValueError(f"n_components must be >= 1, got {n_components}")
    if n_components > n_rows - 1:
        raise ValueError(f"n_components is {n_components}, but {n_rows} rows give at most {n_rows - 1}")


def _pca(rows: np.ndarray, n_components: int) -> PCA:
    """Full SVD: exact and, with scikit-learn's sign convention, the same on every call."""
    return PCA(n_components=min(n_components, rows.shape[1]), svd_solver="full").fit(rows)
