"""The released protocol, ingredient by ingredient, each against its definition."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.evidence import ladder
from ruranet_utils.evidence.ladder import INGREDIENTS, RELEASED, Protocol, climb, diagnose_by
from ruranet_utils.features.extract import lesion_features
from ruranet_utils.features.reduction import reduce
from ruranet_utils.profiles import LESIONS
from ruranet_utils.statistics.metrics import matched_accuracy

BACKBONE = "mobilenet_v2"


@pytest.fixture
def masks(phantoms):
    return phantoms.masks[:, : len(LESIONS)].copy()


@pytest.fixture
def features(phantoms, masks, tiny, store):
    return lesion_features(phantoms.images, masks, [BACKBONE], tiny, store)[BACKBONE]


def accuracy(protocol, phantoms, masks, tiny, store):
    rows, predicted = diagnose_by(protocol, phantoms, masks, BACKBONE, tiny, store)
    return np.mean(predicted == phantoms.labels[rows], axis=1)


def test_without_ingredients_it_is_this_project(phantoms, masks, features, tiny, store):
    clusters = Clustering("kmedoids").fit_predict(reduce(features, tiny.n_components).mean(axis=1))
    assert accuracy(Protocol(), phantoms, masks, tiny, store) == [matched_accuracy(phantoms.labels, clusters)]


def test_masks_are_inverted_and_small_parts_dropped(phantoms, masks, tiny, store, monkeypatch):
    seen = []
    monkeypatch.setattr(ladder, "lesion_features", lambda images, masks, *_: seen.append(masks) or {BACKBONE: FEATURES})
    FEATURES = np.random.default_rng(0).normal(size=(*masks.shape[:2], 6))
    masks[:, 0] = False
    masks[:, 0, 2:4, 2:7] = masks[:, 0, 20:24, 20:24] = True  # of 10 and of 16 pixels
    diagnose_by(Protocol(inverted_disc=True), phantoms, masks, BACKBONE, tiny, store)
    diagnose_by(Protocol(small_dropped=True), phantoms, masks, BACKBONE, tiny, store)
    inverted, dropped = seen
    np.testing.assert_array_equal(inverted[:, -1], ~masks[:, -1])
    np.testing.assert_array_equal(inverted[:, :-1], masks[:, :-1])
    assert (dropped[:, 0].sum(axis=(1, 2)) == 16).all() and dropped[:, 0, 20:24, 20:24].all()


def test_pca_last_adds_up_first(phantoms, masks, features, tiny, store):
    last = reduce(features.astype(float).mean(axis=1), min(tiny.n_components, len(features) - 1))
    expected = matched_accuracy(phantoms.labels, Clustering("kmedoids").fit_predict(last))
    assert accuracy(Protocol(pca_last=True), phantoms, masks, tiny, store) == [expected]


def test_half_of_the_images_are_the_first_of_each_class(phantoms, masks, tiny, store):
    rows, predicted = diagnose_by(Protocol(half_of_images=True), phantoms, masks, BACKBONE, tiny, store)
    assert predicted.shape == (1, len(rows)) and len(rows) == len(phantoms) // 2
    for label in (0, 1):
        names = phantoms.table["image_id"][phantoms.labels == label].sort_values()
        assert set(names[: len(names) // 2]) == set(phantoms.table["image_id"][rows][phantoms.labels[rows] == label])


def test_labels_choose_weights_and_random_starts_are_repeated(phantoms, masks, tiny, store):
    ours, chosen = (accuracy(Protocol(weights_by_labels=on), phantoms, masks, tiny, store) for on in (False, True))
    assert chosen >= ours
    assert len(accuracy(Protocol(random_start=True), phantoms, masks, tiny, store)) == ladder.N_STARTS


def test_a_third_cluster_has_no_class(phantoms, masks, tiny, store):
    _, predicted = diagnose_by(Protocol(agglomerative_three_clusters=True), phantoms, masks, BACKBONE, tiny, store)
    assert set(predicted[0]) == {-1, 0, 1}


def test_the_ladder_has_every_ingredient_alone_and_all_together(phantoms, masks, tiny, store, monkeypatch):
    monkeypatch.setattr(ladder, "RELEASED_GRID", ladder.RELEASED_GRID[::20])
    other = np.roll(masks, 3, axis=-1)
    tied = replace(phantoms, table=phantoms.table.assign(patient_id=phantoms.table["patient_id"] + "x")), other
    table = climb(phantoms, masks, other, tied, BACKBONE, tiny, store).set_index("protocol")
    assert len(table) == 1 + len(INGREDIENTS) - 1 + 5 and "input not transformed" not in table.index
    ours = table.loc["ours"]
    assert ours["accuracy"] == accuracy(Protocol(), phantoms, masks, tiny, store)[0] and np.isnan(ours["p"])
    tested = table["p"].notna()
    assert (table["p adjusted"].notna() == tested).all() and table.loc["pca last", "verdict"] == "no difference shown"
    assert not tested["weights by labels"] and np.isfinite(table.loc["weights by labels", "difference_low"])
    compared = table["difference"].notna()
    np.testing.assert_allclose(table["difference"][compared], table["accuracy"][compared] - ours["accuracy"])
    assert table["n"].min() == len(phantoms) // 2 and not compared["classes from two sources"]
    assert RELEASED.random_start and not RELEASED.agglomerative_three_clusters
    assert isinstance(table, pd.DataFrame) and (table["weights"] == "random").all()
