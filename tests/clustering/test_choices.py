"""Ways of choosing weights: each against its definition, and none sees a label."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from ruranet_utils.clustering.choices import choose, compare_choices
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.study import weight_search_all, weight_stability
from ruranet_utils.clustering.weighting import WEIGHT_GRID, WeightSearch, aggregate
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.profiles import LESIONS
from ruranet_utils.statistics.comparisons import adjust
from ruranet_utils.statistics.metrics import matched_accuracy

N = 20


@pytest.fixture
def cohort():
    table = pd.DataFrame({"label": pd.array(np.arange(N) % 2, "Int64"), "patient_id": [f"p{i // 2}" for i in range(N)]})
    return Cohort(table, np.zeros((N, 3, 1, 1), np.uint8), None)


@pytest.fixture
def reduced(cohort):
    rng = np.random.default_rng(0)
    reduced = rng.normal(size=(N, len(LESIONS), 4))
    reduced[:, 1, 0] += 3 * cohort.labels
    reduced[:, 0, 1] += 6 * (np.arange(N) < N // 3)
    return reduced


@pytest.fixture
def searches(reduced, tiny, store):
    methods = ("kmedoids", "kmeans", "agglomerative")
    found = weight_search_all({("", method, 0): reduced for method in methods}, tiny, store)
    return {method: found["", method, 0] for method in methods}


def test_each_way_chooses_by_its_criterion(searches):
    stability = np.linspace(0, 1, 81)
    chosen = choose(searches, stability)
    criteria = searches["kmedoids"].criteria
    assert chosen["equal"] == 0 and chosen["stability"] == 80
    assert criteria["silhouette"][chosen["silhouette"]] == pytest.approx(criteria["silhouette"].max())
    assert criteria["davies_bouldin"][chosen["davies_bouldin"]] == pytest.approx(criteria["davies_bouldin"].min())
    index = criteria["calinski_harabasz"]
    assert index[chosen["calinski_harabasz"]] == pytest.approx(index.max())
    labels = [search.labels for search in searches.values()]
    agreed = [
        np.mean(
            [
                adjusted_rand_score(one[i], two[i])
                for one, two in ((labels[0], labels[1]), (labels[0], labels[2]), (labels[1], labels[2]))
            ]
        )
        for i in range(81)
    ]
    assert agreed[chosen["agreement"]] == pytest.approx(max(agreed))


def test_no_criterion_chooses_a_lone_image(searches):
    """Weighting 40 leaves one image of twenty-five alone, and every criterion likes it best."""
    turned = np.arange(81)[:, None] % 24 == np.arange(25) % 24
    labels = turned.astype(int) + (np.arange(25) < 12)
    labels = np.minimum(labels, 1)
    labels[40] = np.arange(25) == 0
    liked = (np.arange(81) == 40).astype(float)
    criteria = {"silhouette": liked, "calinski_harabasz": liked, "davies_bouldin": -liked}
    alike = {method: WeightSearch(labels, criteria) for method in searches}
    chosen = choose(alike, liked)
    assert chosen["equal"] == 0 and 40 not in chosen.values()
    labels[40] = np.arange(25) < 2
    assert set(choose(alike, liked).values()) >= {0, 40}, "two of twenty-five are enough"


def test_stability_is_the_agreement_with_parts_of_the_patients(reduced, searches, cohort, tiny, store, journal):
    found = weight_stability(reduced, searches["kmedoids"], cohort.patients, tiny, store)
    assert found.shape == (81,) and found.max() <= 1
    rng, names, row = np.random.default_rng(tiny.seed), np.unique(cohort.patients), 5
    features, labels, agreed = aggregate(reduced, WEIGHT_GRID[row]), searches["kmedoids"].labels[row], []
    for _ in range(10):
        part = np.isin(cohort.patients, rng.choice(names, 8, replace=False))
        agreed.append(adjusted_rand_score(labels[part], Clustering("kmedoids").fit_predict(features[part])))
    assert found[row] == pytest.approx(np.mean(agreed))
    journal()
    weight_stability(reduced, searches["kmedoids"], cohort.patients, tiny, store)
    assert [event["found"] for event in journal()] == [True]


def test_the_table_scores_each_choice_and_only_the_oracle_sees_labels(reduced, searches, cohort, tiny, store):
    table = compare_choices(reduced, cohort, tiny, store).set_index("choice")
    for name, row in table.iterrows():
        weights = [float(weight) for weight in row["lesion_weights"].split()]
        index = WEIGHT_GRID.tolist().index(weights)
        assert row["accuracy"] == matched_accuracy(cohort.labels, searches["kmedoids"].labels[index]), name
    assert table["accuracy"].max() == table.loc["oracle", "accuracy"]
    assert table.loc["equal", ["difference", "p", "p adjusted", "verdict"]].isna().all()
    assert table["p adjusted"].equals(adjust(table[table["p"].notna()])["p adjusted"].reindex(table.index))
    turned = replace(cohort, table=cohort.table.assign(label=pd.array(np.roll(cohort.labels, 1), "Int64")))
    again = compare_choices(reduced, turned, tiny, store).set_index("choice")
    assert (again["lesion_weights"] == table["lesion_weights"])[:-1].all()
