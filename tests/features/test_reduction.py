import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ruranet_utils.features.reduction import (
    planes,
    reconstruction_error,
    reduce,
    smallest_k,
    standardize,
    variance_curve,
)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(10, 4, 6)) @ rng.normal(size=(6, 8)) + rng.normal(size=8)


def slow_reconstruction_error(rows, k):
    """Eq. 6, term by term, with W_k from numpy's SVD."""
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    w = np.linalg.svd(rows)[2][:k].T
    total = 0.0
    for x in rows:
        residual = x - w @ (w.T @ x)
        total += sum(value**2 for value in residual)
    return total / len(rows)


def test_two_correlated_columns_by_hand():
    # Standardized, both columns are (1, -1, 1, -1) up to sign: one component, along the diagonal, holds all.
    features = np.array([[3.0, -10.0], [1.0, 10.0], [3.0, -10.0], [1.0, 10.0]])
    curve = variance_curve(features)
    assert np.abs(reduce(features, 1)).ravel() == pytest.approx([2**0.5] * 4)
    assert curve["explained_ratio"].tolist() == pytest.approx([1.0, 1.0])
    assert curve["reconstruction_error"].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_two_uncorrelated_columns_by_hand():
    features = np.array([[1.0, 5.0], [-1.0, 5.0], [1.0, -5.0], [-1.0, -5.0]])
    curve = variance_curve(features)
    assert curve["explained_ratio"].tolist() == pytest.approx([0.5, 1.0])
    assert curve["reconstruction_error"].tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    assert curve["reconstruction_error_per_feature"].tolist() == pytest.approx([0.5, 0.0], abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_reconstruction_error_is_equation_6(features, k):
    expected = slow_reconstruction_error(features.reshape(40, 8), k)
    assert expected > 1e-3
    assert reconstruction_error(features, k) == pytest.approx(expected)
    curve = variance_curve(features).set_index("k")
    assert curve.loc[k, "reconstruction_error"] == pytest.approx(expected)


def test_reconstruction_error_is_zero_when_all_components_are_kept():
    features = np.random.default_rng(0).normal(size=(20, 5))
    assert reconstruction_error(features, n_components=5) == pytest.approx(0.0, abs=1e-12)


def test_error_per_feature_is_the_unexplained_ratio_even_with_a_constant_column(features):
    features = np.concatenate([features, np.full((10, 4, 1), 0.1)], axis=2)
    curve = variance_curve(features)
    assert curve["reconstruction_error_per_feature"].to_numpy() == pytest.approx(
        1 - curve["explained_ratio"].to_numpy(), abs=1e-12
    )
    assert curve["reconstruction_error"].to_numpy() == pytest.approx(
        8 * curve["reconstruction_error_per_feature"].to_numpy()
    )


def test_curve_is_monotone_and_cut_to_the_data(features):
    curve = variance_curve(features)
    assert curve["k"].tolist() == list(range(1, 9))
    assert (np.diff(curve["explained_ratio"]) >= -1e-12).all()
    assert (np.diff(curve["reconstruction_error"]) <= 1e-12).all()
    assert variance_curve(features, k_max=3)["k"].tolist() == [1, 2, 3]
    assert variance_curve(features[:1])["k"].tolist() == [1, 2, 3]


def test_order_of_images_does_not_matter(features):
    order = np.random.default_rng(1).permutation(10)
    pd.testing.assert_frame_equal(variance_curve(features), variance_curve(features[order]))
    np.testing.assert_allclose(reduce(features, 3)[order], reduce(features[order], 3), atol=1e-10)


def test_unit_and_offset_of_a_feature_do_not_matter(features):
    other = features * np.arange(1, 9) - 100
    np.testing.assert_allclose(reduce(features, 3), reduce(other, 3), atol=1e-8)


def test_all_lesions_share_one_basis(features):
    assert reduce(features, 3).shape == (10, 4, 3)
    np.testing.assert_array_equal(reduce(features, 3).reshape(40, 3), reduce(features.reshape(40, 8), 3))
    assert reduce(features, 20).shape == (10, 4, 8)


def test_distances_survive_when_all_components_are_kept(features):
    rows = features.reshape(40, 8)
    standardized = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    reduced = reduce(rows, 8)
    np.testing.assert_allclose(pdist(reduced), pdist(standardized))


def test_smallest_k():
    curve = pd.DataFrame({"k": [1, 2, 3], "explained_ratio": [0.5, 0.9, 0.96]})
    table = smallest_k(curve)
    assert table["target"].tolist() == [0.90, 0.95, 0.99]
    assert table["k"].tolist()[:2] == [2, 3]
    assert table["k"].isna().tolist() == [False, False, True]
    assert table["explained_ratio"].tolist()[:2] == [0.9, 0.96]
    with pytest.raises(ValueError, match=r"\(0, 1\], got 95"):
        smallest_k(curve, targets=(95,))


def test_few_rows_give_as_many_components_as_they_can(features):
    assert reduce(features[:2], 50).shape == (*features[:2].shape[:2], 7)
    np.testing.assert_array_equal(reduce(features[:2], 50), reduce(features[:2], 7))


def test_too_few_rows_names_both_numbers(features):
    with pytest.raises(ValueError, match="n_components is 8, but 8 rows give at most 7"):
        reconstruction_error(features[:2], 8)
    with pytest.raises(ValueError, match="n_components must be >= 1, got 0"):
        reduce(features, 0)
    with pytest.raises(ValueError, match="k_max must be >= 1, got 0"):
        variance_curve(features, k_max=0)


def test_bad_features_are_refused(features):
    broken = features.copy()
    broken[0, 0, 0], broken[1, 2, 3] = np.nan, np.inf
    with pytest.raises(ValueError, match="features hold 2 NaN or infinite values of 320"):
        reduce(broken, 2)
    with pytest.raises(ValueError, match="all 3 features are constant over 10 rows"):
        reduce(np.full((10, 3), 0.1), 2)
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        reduce(np.arange(5.0), 2)


def test_it_is_scikit_learns_pipeline_on_all_rows(features):
    rows = features.reshape(-1, features.shape[-1])
    expected = make_pipeline(StandardScaler(), PCA(4, svd_solver="full")).fit_transform(rows)
    np.testing.assert_allclose(reduce(features, 4), expected.reshape(*features.shape[:-1], 4), atol=1e-9)
    np.testing.assert_allclose(standardize(features).reshape(rows.shape), StandardScaler().fit_transform(rows))


def test_planes_show_groups_apart_and_repeat():
    rng = np.random.default_rng(0)
    group = np.arange(60) % 2
    features = rng.normal(size=(60, 8)) + 12 * group[:, None]
    found, again = (planes(features, seed=0) for _ in range(2))
    for name in ("PCA", "t-SNE"):
        assert found[name].shape == (60, 2)
        np.testing.assert_array_equal(found[name], again[name])
        assert silhouette_score(found[name], group) > 0.6
    np.testing.assert_allclose(np.abs(found["PCA"]), np.abs(PCA(2).fit_transform(features)), atol=1e-6)
