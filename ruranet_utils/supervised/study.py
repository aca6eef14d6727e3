"""Supervised baselines: a backbone fine-tuned for DME yes or no (Section 3.3, Table 3).

Scored in two ways. ``hold-out``: once, on as many test images as the paper's Table 3 at least implies (notebook 07).
``cross-validation``: every image once, by the model of the fold that has not seen its patient. In both, other patients
choose the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ruranet_utils.data.cohort import Cohort
from ruranet_utils.data.splits import CLASSES, assign_splits
from ruranet_utils.features.reduction import one_thread
from ruranet_utils.networks.device import device_settings, plan
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import CLASSIFIERS, Profile
from ruranet_utils.statistics.intervals import accuracy_interval, auc_interval, ratio_interval
from ruranet_utils.statistics.metrics import classification_scores
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store

TRAINING = Step(
    "classifier",
    3,
    (
        "networks.backbones",
        "networks.googlenet_bvlc",
        "networks.device",
        "networks.training",
        "features.extract",
        "supervised.classifier",
    ),
)
PROTOCOLS = ("hold-out", "cross-validation")
N_TEST = 62  # images, or a multiple of it, that give the paper's Table 3 if half are positive


def deal(cohort: Cohort, profile: Profile) -> dict[str, list[Cohort]]:
    """Split a cohort by patient for each protocol: the same images, another column ``split``.

    Parameters
    ----------
    cohort : Cohort
        With labels.
    profile : Profile
        Its ``seed``, ``n_folds`` and ``split``: the share of the validation images, and of the test images of a cohort
        with fewer than twice ``N_TEST`` images.

    Returns
    -------
    dict of str to list of Cohort
        ``"hold-out"``: one, with about ``N_TEST`` test images, since patients stay whole; ``"cross-validation"``:
        ``n_folds``; each image is in the test set of one and in the validation set of another.

    Raises
    ------
    ValueError
        If a part lacks a class.
    """
    fold, n_folds = np.empty(len(cohort), dtype=int), profile.n_folds
    for number, (_, chosen) in enumerate(patient_folds(profile).split(fold, cohort.labels, cohort.patients)):
        fold[chosen] = number
    counts = pd.crosstab(fold, cohort.labels).reindex(index=range(n_folds), columns=CLASSES, fill_value=0)
    if not counts.to_numpy().all():
        raise ValueError(f"{n_folds} folds need both classes in each, got {counts.to_dict('list')} (class: images)")
    sides = [np.select([fold == k, fold == (k + 1) % n_folds], ["test", "val"], "train") for k in range(n_folds)]
    splits = {"hold-out": [_hold_out(cohort, profile, profile.seed)], "cross-validation": sides}
    return {
        protocol: [replace(cohort, table=cohort.table.assign(split=split)) for split in splits[protocol]]
        for protocol in PROTOCOLS
    }


def predict(trainings: Mapping[tuple[str, str, int], Cohort], profile: Profile, store: Store) -> pd.DataFrame:
    """Probability of DME of each test image, from the epoch of each classifier with the best validation AUC.

    Parameters
    ----------
    trainings : mapping to Cohort
        By backbone, protocol and fold: a part from :func:`deal`. The backbone should vary fastest: two workers then
        seldom train two AlexNets at once, which takes the most memory.
    profile : Profile
    store : Store
        Keeps every finished training, and the last epoch of one that was killed.

    Returns
    -------
    DataFrame
        One row for each training and test image: ``backbone``, ``protocol``, ``fold``, ``image_id``, ``patient_id``,
        ``label``, ``probability`` in [0, 1]; ``epoch`` that was kept and its ``validation_auc``.
    """
    fields = ("seed", "feature_size_px", "classifier_epochs", "patience")
    shared = profile.settings(*fields, "batch_size", "classifier_learning_rate")
    shared |= device_settings(profile, with_precision=True)
    jobs = {}
    for (backbone, protocol, fold), part in trainings.items():
        settings = {**shared, "data": part.digest, "backbone": backbone}
        settings["weights"] = find_weights(backbone, profile).digest
        checkpoint = store.checkpoint(TRAINING, settings)
        jobs[backbone, protocol, fold] = settings, partial(_fit, part, backbone, profile, checkpoint)
    found, rows = store.fetch_all(TRAINING, jobs, plan(profile).workers), []
    for backbone, protocol, fold in sorted(trainings, key=lambda key: CLASSIFIERS.index(key[0])):
        arrays = found[backbone, protocol, fold]
        part = trainings[backbone, protocol, fold].split("test")
        epoch, _, validation_auc = max(arrays["history"].tolist(), key=lambda row: row[2])
        about = {"backbone": backbone, "protocol": protocol, "fold": fold, "epoch": int(epoch)}
        about |= {"validation_auc": validation_auc, "probability": arrays["probability"]}
        rows.append(part.table[["image_id", "patient_id", "label"]].assign(**about))
    return pd.concat(rows, ignore_index=True).astype({"label": int})


def _fit(cohort: Cohort, backbone: str, profile: Profile, checkpoint: Path) -> Arrays:
    from ruranet_utils.supervised import classifier  # Lightning takes seconds: only where something is trained

    return classifier.fit(cohort, backbone, profile, checkpoint)


def table_3(predictions: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Scores of every classifier in both protocols.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`predict`.
    profile : Profile

    Returns
    -------
    DataFrame
        ``backbone``, ``protocol``; ``accuracy``, ``precision``, ``recall``, ``f1`` (of the positive class, at a
        probability of one half); ``auc`` within folds; ``balanced_accuracy``, the mean recall of both classes, which
        does not depend on how many images each has; ``brier``, the mean squared error of the probability; for
        ``accuracy`` and ``auc`` ``_low`` and ``_high`` (95 %, over patients); ``n``; the ``epoch`` that was
        kept and its ``validation_auc``, both averaged over the folds; ``weights``.
    """
    rows = []
    for (backbone, protocol), part in predictions.groupby(["backbone", "protocol"], sort=False):
        truth, probability, patients = (part[name].to_numpy() for name in ("label", "probability", "patient_id"))
        predicted = (probability > 0.5).astype(int)
        auc, auc_low, auc_high = auc_interval(
            truth, probability, patients, np.random.default_rng(profile.seed), part["fold"].to_numpy()
        )
        rows.append(
            {
                "backbone": backbone,
                "protocol": protocol,
                **classification_scores(truth, predicted),
                "auc": auc,
                "auc_low": auc_low,
                "auc_high": auc_high,
                "balanced_accuracy": balanced_accuracy_score(truth, predicted),
                "brier": brier_score_loss(truth, probability),
                **accuracy_interval(predicted == truth, patients),
                **part.groupby("fold")[["epoch", "validation_auc"]].first().mean().to_dict(),
                "weights": find_weights(backbone, profile).origin,
            }
        )
    return pd.DataFrame(rows)


def calibration_bins(predictions: pd.DataFrame, profile: Profile, n_bins: int = 5) -> pd.DataFrame:
    """Share of positive images among those of about equal predicted probability.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`predict`, of one protocol.
    profile : Profile
    n_bins : int
        Bins with about as many images each; equal probabilities share a bin, so there may be fewer.

    Returns
    -------
    DataFrame
        For each backbone and bin, lowest probability first: ``backbone``; ``predicted``, the mean probability; the
        ``share`` with DME, ``low`` and ``high`` (95 %, bootstrap over patients).
    """
    rows = []
    for backbone, part in predictions.groupby("backbone", sort=False):
        edges = part["probability"].quantile(np.linspace(0, 1, n_bins + 1)[1:-1])
        for _, group in part.groupby(np.searchsorted(edges, part["probability"])):
            seeded = np.random.default_rng(profile.seed)
            low, high = ratio_interval(group["label"], np.ones(len(group)), group["patient_id"], seeded)
            share = {"share": group["label"].mean(), "low": low, "high": high}
            rows.append({"backbone": backbone, "predicted": group["probability"].mean(), **share})
    return pd.DataFrame(rows)


def contradicted(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Labels that models contradict with confidence: bool, shape (n,).

    The other class is at least as probable as it is on average for the images that bear its label, and more probable
    than the image's own.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        0 or 1.
    probability : ndarray of float, shape (n,)
        Of class 1, by models that have not seen the image.

    References
    ----------
    Northcutt, Jiang & Chuang (2021), Confident Learning, J. Artif. Intell. Res. 70. doi:10.1613/jair.1.12125
    """
    of_class = np.stack([1 - probability, probability])
    usual = np.array([of_class[label][labels == label].mean() for label in CLASSES])
    own, other = (of_class[which, np.arange(len(labels))] for which in (labels, 1 - labels))
    return (other >= usual[1 - labels]) & (other > own)


def hold_out_draws(features: np.ndarray, cohort: Cohort, profile: Profile, n_draws: int = 20) -> pd.DataFrame:
    """How much the score of a hold-out depends on who is in it: a logistic regression in many drawn hold-outs.

    Parameters
    ----------
    features : ndarray of float, shape (n_images, d)
        Of whole images, such as from :func:`ruranet_utils.features.extract.image_features`.
    cohort : Cohort
        With labels.
    profile : Profile
    n_draws : int
        The hold-outs of the seeds 0, 1, ... and of the profile's seed, which is the one of :func:`deal`. They share
        images, so they vary less than hold-outs of new patients would.

    Returns
    -------
    DataFrame
        ``seed``, ``accuracy`` and ``auc`` of the test images, ``n``; fitted on all others.
    """
    rows = []
    for seed in dict.fromkeys([profile.seed, *range(n_draws)]):
        test = (_hold_out(cohort, profile, seed) == "test").to_numpy()
        score = linear_probe(features[~test], cohort.labels[~test]).decision_function(features[test])
        truth = cohort.labels[test]
        scores = {"accuracy": np.mean((score > 0) == truth), "auc": roc_auc_score(truth, score)}
        rows.append({"seed": seed, **scores, "n": len(truth)})
    return pd.DataFrame(rows)


def patient_folds(profile: Profile) -> StratifiedGroupKFold:
    """``n_folds`` folds, seeded by the profile; ``split`` takes the patients as groups."""
    return StratifiedGroupKFold(profile.n_folds, shuffle=True, random_state=profile.seed)


@one_thread
def linear_probe(x: np.ndarray, y: np.ndarray) -> Pipeline:
    """Logistic regression on standardized features, fitted.

    Parameters
    ----------
    x : ndarray of float, shape (n_images, d)
    y : ndarray of int, shape (n_images,)
        Of two classes.
    """
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x.astype(np.float64), y)


def _hold_out(cohort: Cohort, profile: Profile, seed: int) -> pd.Series:
    _, validation, test = profile.split
    test = N_TEST / len(cohort) if len(cohort) >= 2 * N_TEST else test
    return assign_splits(cohort.table, (1 - validation - test, validation, test), seed)
