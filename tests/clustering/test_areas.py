"""Photographs told apart by the areas of their lesions, and what the rule and the zones make of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from ruranet_utils.clustering import areas
from ruranet_utils.clustering.study import diagnose_images
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.features.macula import Macula, zone_table
from ruranet_utils.profiles import LESIONS

N, SIDE = 24, 64


@pytest.fixture
def labels():
    return np.arange(N) % 2


@pytest.fixture
def masks(labels):
    """Positive eyes have many exudates at the fovea (32, 32), negative ones a few at the border."""
    rng = np.random.default_rng(0)
    masks = np.zeros((N, len(LESIONS), SIDE, SIDE), bool)
    for image, label in zip(masks, labels, strict=True):
        for lesion in range(3):
            image[lesion, 30:32, 30 : 32 + rng.integers(2, 6)] = label
            image[lesion, 2, : 1 + rng.integers(0, 3)] = True
    return masks


@pytest.fixture
def zones(masks):
    return zone_table(masks, [Macula((32.0, 50.0), (32.0, 32.0), 12.0)] * N)


@pytest.fixture
def cohort(labels):
    table = pd.DataFrame(
        {"label": pd.array(labels, "Int64"), "patient_id": [f"p{i // 2}" for i in range(N)], "healthy": labels == 0}
    )
    table.loc[::6, "healthy"] = False  # negatives with retinopathy
    return Cohort(table, np.zeros((N, 3, SIDE, SIDE), np.uint8), None)


def test_log_areas_by_hand(masks):
    found = areas.log_areas(masks)
    for column, lesion in enumerate(areas.SORTED_BY):
        share = [np.log10(image[LESIONS.index(lesion)].sum() / SIDE**2 + 1 / 512**2) for image in masks]
        np.testing.assert_allclose(found[:, column], (share - np.mean(share)) / np.std(share))
    masks[:, 1] = False
    assert not areas.log_areas(masks)[:, 1].any(), "no lesion of a kind: nothing is divided by 0"


def test_the_group_with_more_lesions_is_named_and_ordered(masks, labels):
    groups = areas.group_by_areas(areas.log_areas(masks))
    np.testing.assert_array_equal(groups.more, labels == 1)
    assert groups.severity[labels == 1].min() > groups.severity[labels == 0].max()
    assert (groups.certainty > 0.5).all()


def test_without_any_lesion_nobody_has_more():
    groups = areas.group_by_areas(areas.log_areas(np.zeros((5, len(LESIONS), 8, 8), bool)))
    assert not groups.more.any() and np.isnan(groups.certainty).all() and not groups.severity.any()


def test_the_rule_asks_for_exudates_within_one_disc_diameter(masks, zones, labels):
    np.testing.assert_array_equal(areas.rule(zones), labels == 1)
    lost = zone_table(masks, [Macula((np.nan,) * 2, (np.nan,) * 2, np.nan)] * N)
    assert not areas.rule(lost).any(), "without a disc the rule finds nothing"


def diagnosed(whole, tiny, cohort):
    return diagnose_images(whole, cohort, tiny)["predicted"][0]


def test_the_channel_compares_with_the_whole_image(masks, zones, cohort, labels, tiny):
    whole = np.random.default_rng(1).normal(size=(N, 5))
    table = areas.lesion_channel(whole, 1 - labels, masks, zones, cohort, tiny).set_index("clustered")
    names = [
        "whole image, features",
        "lesions, features",
        "lesions, areas",
        "hard exudates, area",
        "lesions, areas by zone",
    ]
    assert table.index.tolist() == [*names, "rule: exudate within 1 DD"]
    assert table["accuracy"].iloc[1:].tolist() == table["balanced_accuracy"].iloc[1:].tolist() == [0, 1, 1, 1, 1]
    np.testing.assert_allclose(table["difference"].iloc[1:], table["accuracy"].iloc[1:] - table["accuracy"].iloc[0])
    assert np.isnan(table["p"].iloc[0]) and (table["n"] == N).all()
    uneven = replace(cohort, table=cohort.table.assign(label=pd.array([1] * 6 + [0] * (N - 6), "Int64")))
    found = areas.lesion_channel(whole, labels, masks, zones, uneven, tiny).set_index("clustered")
    assert found.loc["lesions, features", "balanced_accuracy"] == balanced_accuracy_score(uneven.labels, labels)
    balanced = found["balanced_accuracy"]
    np.testing.assert_allclose(found["difference"].iloc[1:], balanced.iloc[1:] - balanced.iloc[0])
    differs = (labels == uneven.labels).astype(float) - (diagnosed(whole, tiny, uneven) == uneven.labels)
    weights = np.where(uneven.labels == 1, N / 2 / 6, N / 2 / (N - 6))
    residual = weights * (differs - [differs[uneven.labels == label].mean() for label in uneven.labels])
    sums = [residual[uneven.patients == patient].sum() for patient in np.unique(uneven.patients)]
    variance = (N / 2) / (N / 2 - 1) / N**2 * np.dot(sums, sums)
    half = found.loc["lesions, features", ["difference_low", "difference_high"]].diff().iloc[-1] / 2
    assert half == pytest.approx(t.ppf(0.975, N / 2 - 1) * np.sqrt(variance)), "variance within the classes"
    guessed = found.loc["nothing: the larger class for all"]
    assert (guessed["accuracy"], guessed["balanced_accuracy"]) == (1 - 6 / N, 0.5)
    assert table.index[-1] == "rule: exudate within 1 DD", "equal classes need no such row"
    assert found["verdict"].iloc[1:].isin(["higher", "lower", "no difference shown"]).all()
    none = np.zeros_like(masks)
    lost = zone_table(none, [Macula((32.0, 50.0), (32.0, 32.0), 12.0)] * N)
    assert areas.lesion_channel(whole, labels, none, lost, cohort, tiny)["clustered"].tolist() == [
        *names[:2],
        table.index[-1],
    ]


def test_areas_rank_against_all_others_and_against_retinopathy_without_maculopathy(masks, zones, cohort, tiny):
    masks = masks & (np.random.default_rng(2).random(masks.shape) < 0.3)
    zones = zone_table(masks, [Macula((32.0, 50.0), (32.0, 32.0), 12.0)] * N)
    table = areas.feature_aucs(masks, zones, cohort, tiny).set_index("feature")
    area, ill = masks[:, 0].mean(axis=(1, 2)), ~cohort.table["healthy"].to_numpy()
    assert table.loc["hard_exudates area", "auc"] == pytest.approx(roc_auc_score(cohort.labels, area))
    assert table.loc["hard_exudates area", "dr_auc"] == pytest.approx(roc_auc_score(cohort.labels[ill], area[ill]))
    assert (table["n"] == N).all() and (table["dr_n"] == ill.sum()).all()
    nobody = replace(cohort, table=cohort.table.drop(columns="healthy"))
    assert areas.feature_aucs(masks, zones, nobody, tiny)["dr_auc"].isna().all()
