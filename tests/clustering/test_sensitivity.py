"""DMH by ten seeds in several variants, and the course of its training."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ruranet_utils.clustering import dmh, sensitivity
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import LESIONS
from ruranet_utils.statistics.metrics import matched_accuracy

N = 16


@pytest.fixture
def cohort():
    table = pd.DataFrame({"label": pd.array(np.arange(N) % 2, "Int64"), "patient_id": [f"p{i // 2}" for i in range(N)]})
    return Cohort(table, np.zeros((N, 3, 1, 1), np.uint8), None)


@pytest.fixture
def reduced(cohort):
    reduced = np.random.default_rng(0).normal(size=(N, len(LESIONS), 3))
    reduced[..., 0] += 1.5 * cohort.labels[:, None]
    return reduced


def accuracy_of(outputs, cohort):
    return matched_accuracy(cohort.labels, Clustering("kmedoids").fit_predict(outputs.mean(axis=1)))


def test_every_variant_is_ten_seeds_against_no_heads(reduced, cohort, tiny, store, monkeypatch):
    monkeypatch.setattr(dmh, "MOST_EPOCHS", 45)
    profile = replace(tiny, dmh_epochs=4)
    table = sensitivity.sensitivity(reduced, cohort, profile, store).set_index("variant")
    assert table.index.tolist() == ["no heads: k-medoids", *sensitivity.VARIANTS]
    without = accuracy_of(reduced, cohort)
    assert table["accuracy"].iloc[0] == without and np.isnan(table["p"].iloc[0])
    for name, arguments in {
        "default": {},
        "heads drawn one by one": {"start": "drawn"},
        "T fixed": {"rule": "fixed"},
    }.items():
        each = [
            accuracy_of(dmh.train_heads(reduced, epochs=4, lam=0.3, seed=seed, **arguments).embedding, cohort)
            for seed in range(10)
        ]
        row = table.loc[name]
        assert row["accuracy"] == pytest.approx(np.mean(each)) and row["n_seeds"] == 10 and row["epochs"] == 4
        assert row["accuracy_sd"] == pytest.approx(np.std(each, ddof=1))
        assert row["difference"] == pytest.approx(np.mean(each) - without)
    identity = table.loc["heads start as the identity"]
    assert identity["n_seeds"] == 1 and identity[["accuracy_sd", "agreement"]].isna().all(), "nothing is drawn"
    assert 40 <= table.loc["until Eq. 3 stops falling", "epochs"] <= 45


def test_the_course_looks_at_the_same_heads_on_the_way(reduced, cohort, tiny, store, monkeypatch):
    monkeypatch.setattr(dmh, "MOST_EPOCHS", 45)
    table = sensitivity.course(reduced, cohort, tiny, store)
    assert table["seed"].nunique() == 10
    one = table[table["seed"] == 3].set_index("epoch")
    assert one.index.tolist()[:5] == [0, 5, 10, 20, 40]
    trained = dmh.train_heads(reduced, epochs=10, lam=0.3, seed=3)
    assert one.loc[10, "accuracy"] == accuracy_of(trained.embedding, cohort)
    assert one.loc[5, "loss_cluster"] == pytest.approx(trained.history["loss_cluster"][5])
