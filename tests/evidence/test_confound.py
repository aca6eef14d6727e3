"""The confound study on features whose secret is known: the camera, the class, or the patient."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ruranet_utils.clustering.estimators import CLUSTERERS
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.evidence import confound
from ruranet_utils.evidence.confound import (
    SEEN,
    SUPERVISED,
    TIES,
    TRANSFERRED,
    Pool,
    camera_from_features,
    deal_cameras,
    diagnose_cohort,
    make_pool,
    synthetic_pool,
)
from ruranet_utils.profiles import ANNOTATIONS, LESIONS, METHODS


@pytest.fixture(scope="module")
def pool(tiny, tmp_path_factory):
    """Forty eyes by both cameras."""
    return synthetic_pool(tiny, confound.Store(tmp_path_factory.mktemp("pool")), n_eyes=40)


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_cameras_are_dealt_in_exact_shares(share):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], 40))
    second = deal_cameras(labels, share, seed=1)
    assert second[labels == 1].sum() == 40 * share and second[labels == 0].sum() == 40 * (1 - share)
    assert (second == deal_cameras(labels, share, seed=1)).all()


def test_a_larger_share_keeps_who_was_photographed_by_the_second_camera():
    labels = np.repeat([0, 1], 20)
    some, more = (deal_cameras(labels, share, seed=3)[labels == 1] for share in (0.5, 0.75))
    assert more[some].all() and more.sum() > some.sum()
    with pytest.raises(ValueError, match="share must lie in"):
        deal_cameras(labels, 1.2, seed=3)


def test_synthetic_cohorts_are_the_same_eyes_by_other_cameras(pool):
    table = pool.photographs.table
    assert list(pool.cohorts) == list(TIES) and pool.masks.shape[1] == len(LESIONS)
    eyes = [table["image_id"].to_numpy()[rows].tolist() for rows in pool.cohorts.values()]
    assert eyes[0] == eyes[1] == eyes[2] and len(set(eyes[0])) == 40
    for name, rows in pool.cohorts.items():
        part = table.iloc[rows]
        share = (part["camera"] == "B").groupby(part["label"]).mean()
        assert share[1] == TIES[name] and share[0] == 1 - TIES[name]


def test_cleaned_photographs_differ_where_the_lesions_are(pool):
    changed = (pool.photographs.images != pool.cleaned).any(axis=1)
    lesions = pool.masks.any(axis=1)
    assert changed[lesions].mean() > 0.9 > 0.2 > changed[~lesions].mean()


@pytest.fixture
def told(pool, tiny, store, monkeypatch):
    """A function that scores the methods on features that tell one thing, with a little noise; two seeds of DMH."""
    monkeypatch.setattr(confound, "N_SEEDS", 2)

    def score(secret: np.ndarray, pool: Pool = pool) -> pd.DataFrame:
        noise = np.random.default_rng(0).normal(0, 0.05, (len(secret), len(LESIONS), secret.shape[1]))
        lesions = noise + secret.reshape(len(secret), 1, -1)
        whole = lesions.mean(axis=1)
        features = {"lesions": lesions, "whole image": whole, "lesions removed": whole}
        profile = replace(tiny, dmh_epochs=5, n_components=4)
        return pd.DataFrame(
            {"cohort": cohort, "seen": seen, "method": method, **scored}
            for cohort in pool.cohorts
            for seen, values in features.items()
            for method, scored in diagnose_cohort(values, pool, cohort, profile, store).items()
        )

    return score


def accuracy(table, cohort, method, seen="lesions removed"):
    return table.set_index(["cohort", "method", "seen"])["accuracy"][cohort, method, seen]


def test_features_of_the_camera_find_the_class_where_it_is_tied_and_nowhere_else(pool, told):
    table = told((pool.photographs.table["camera"] == "B").to_numpy(float)[:, None] * np.ones(6))
    for method in (*CLUSTERERS, SUPERVISED):
        assert accuracy(table, "fully tied", method) == 1
        assert accuracy(table, "partly tied", method) == 0.75
        assert accuracy(table, "untied", method) <= 0.6
    assert accuracy(table, "fully tied", "dmh", "lesions") == 1
    assert accuracy(table, "fully tied", TRANSFERRED) == 0.5
    assert set(table.loc[table["seen"] == "lesions", "method"]) == {*METHODS, SUPERVISED, TRANSFERRED}
    assert (table["accuracy_low"] <= table["accuracy"]).all() and (table["n"] == 40).all()
    assert table.groupby("method")["n_seeds"].unique().map(list).to_dict() == {
        method: [2 if method == "dmh" else 1] for method in (*METHODS, SUPERVISED, TRANSFERRED)
    }


def test_features_of_the_class_do_not_care_for_the_camera(pool, told):
    table = told(pool.photographs.labels[:, None] * np.ones(6))
    assert (table["accuracy"] == 1).all() and set(table["seen"]) == set(SEEN)


def test_no_model_is_scored_on_a_patient_it_has_seen(pool, told):
    """Features name the patient, both of whose eyes get one class: who has seen the fellow eye knows the answer."""
    patients, index = np.unique(pool.photographs.patients, return_inverse=True)
    rng, scores = np.random.default_rng(0), []
    for _ in range(4):
        label = rng.permutation(np.arange(len(patients)) % 2)[index]
        table = pool.photographs.table.assign(label=pd.array(label, "Int64"))
        named = replace(pool, photographs=replace(pool.photographs, table=table))
        scores.append(told(rng.normal(0, 3, (len(patients), 40))[index], named))
    for method in (SUPERVISED, TRANSFERRED):
        assert np.mean([accuracy(table, "untied", method) for table in scores]) < 0.65


def test_the_camera_is_told_by_its_features_alone(pool, tiny):
    camera = (pool.photographs.table["camera"] == "B").to_numpy(float)
    rng = np.random.default_rng(0)
    told = {"camera": camera[:, None] + rng.normal(0, 0.1, (80, 1))}
    told |= {f"noise {number}": rng.normal(size=(80, 4, 3)) for number in range(12)}
    found = camera_from_features(pool, told, tiny).set_index("seen")
    assert found.loc["camera", "auc"] == 1 and 0.3 < found["auc"].iloc[1:].mean() < 0.7
    assert (found["n"] == 20).all() and (found["n_second"] == 15).all()
    alone = Pool(pool.photographs, pool.masks, pool.cleaned, {"as it is": np.arange(40)})
    assert camera_from_features(alone, told, tiny)["auc"].isna().all()


def test_two_sources_are_mixed_in_the_shares_that_were_asked_for(pool, tiny, store, monkeypatch):
    """As on the profile ``open``: one source shows lesions in every image and has no other class."""
    home = pool.photographs.subset(np.arange(40))
    foreign_rows = np.arange(40, 52)
    foreign = pool.photographs.subset(foreign_rows)
    masks = np.zeros((12, len(ANNOTATIONS), *foreign.images.shape[2:]), bool)
    masks[:, : len(LESIONS)] = pool.masks[foreign_rows]
    foreign = Cohort(foreign.table.assign(source="abroad", label=pd.NA), foreign.images, masks)
    foreign = replace(foreign, healthy=home)
    asked = []

    def found(segmentation, images, *_, lesions, **settings):
        asked.append((segmentation.healthy, len(images), settings["unseen"], settings["keeps"]))
        masks = np.zeros((len(images), len(lesions), 64, 64), bool)
        masks[:, 1, 20:24, 30:34] = len(images) == 40
        return masks

    monkeypatch.setattr(confound, "lesion_masks", found)
    mixed = make_pool(foreign, home, replace(tiny, name="open"), store)
    assert len(mixed.photographs) == 52 == len(mixed.cleaned)
    for name, share in confound.SOURCE_TIES.items():
        part = mixed.photographs.table.iloc[mixed.cohorts[name]]
        assert part["label"].value_counts().to_dict() == {0: 12, 1: 12}
        assert (part["source"] == "abroad").sum() == round(12 * share) and part.index.is_unique
        assert (part.loc[part["source"] == "abroad", "label"] == 1).all()
    negatives = [set(rows[mixed.photographs.labels[rows] == 0]) for rows in mixed.cohorts.values()]
    assert negatives[0] == negatives[1] == negatives[2]
    drawn = masks[:, [0, 1, 2, 4]].any(axis=1)
    changed = (mixed.cleaned != mixed.photographs.images).any(axis=1)
    assert changed[:12][drawn].mean() > 0.9, "what graders have drawn is removed although no model found it"
    shown = drawn.any(axis=(1, 2)).mean()
    assert changed[12:].any(axis=(1, 2)).mean() > 0.5 * shown, "and filled in the other source, too"
    assert changed[:12, 20:24, 30:34].all(), "what was found there is filled in here, too"
    assert asked == [(None, 12, True, False), (None, 40, False, False)], "no network segments what it was trained on"
    same = make_pool(home, home, replace(tiny, name="folder"), store)
    assert list(same.cohorts) == ["as it is"] and len(same.photographs) == 40
