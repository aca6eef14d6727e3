"""What DMH depends on: seed, start, number of steps, and the readings of Eq. 4 that the paper leaves open."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_score

from ruranet_utils.clustering.dmh import HeadsResult
from ruranet_utils.clustering.estimators import Clustering
from ruranet_utils.clustering.study import N_SEEDS, project_all
from ruranet_utils.clustering.weighting import EQUAL, WEIGHT_GRID, aggregate
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.features.reduction import one_thread
from ruranet_utils.profiles import Profile
from ruranet_utils.statistics.comparisons import adjust, compare, mean_pairwise_ari
from ruranet_utils.statistics.intervals import accuracy_interval
from ruranet_utils.statistics.metrics import match_clusters
from ruranet_utils.storage.store import Store

STEPS = (0, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1000)  # after which the heads are evaluated
SETTLED = {"epochs": None, "course": STEPS}
VARIANTS = {
    "default": {},
    "until Eq. 3 stops falling": SETTLED,
    "heads drawn one by one": {"start": "drawn"},
    "heads start as the identity": {"start": "identity", "n_seeds": 1},  # nothing is drawn
    "Eq. 4 compares clusters": {"reading": "clusters"},
    "T fixed": {"rule": "fixed"},
}


def sensitivity(reduced: np.ndarray, cohort: Cohort, profile: Profile, store: Store) -> pd.DataFrame:
    """Several variants of DMH, all lesion weights 1, against k-medoids without heads; ten seeds if anything is drawn.

    Parameters
    ----------
    reduced : ndarray of float, shape (n_images, n_lesions, k)
        From :func:`ruranet_utils.features.reduction.reduce`.
    cohort : Cohort
        With labels, used only for scoring.
    profile : Profile
    store : Store

    Returns
    -------
    DataFrame
        ``variant``; ``epochs``, mean; ``accuracy``, mean over ``n_seeds`` seeds, with ``accuracy_sd`` over them,
        ``accuracy_low`` and ``accuracy_high`` (95 %, over patients and seeds); ``agreement``, mean adjusted Rand index
        between the seeds; what :func:`ruranet_utils.statistics.comparisons.compare` and ``adjust`` return against
        k-medoids; ``n``. The first row is k-medoids.
    """
    without = _right(_cluster(reduced), cohort)
    rows = [{"variant": "no heads: k-medoids", "accuracy": without.mean(), "n_seeds": 1}]
    rows[0] |= accuracy_interval(without, cohort.patients)
    for name, variant in VARIANTS.items():
        trained = project_all({"": reduced}, profile, store, **variant)[""]
        clusters = [_cluster(one.embedding) for one in trained]
        right = np.stack([_right(one, cohort) for one in clusters])
        row = {"variant": name, "epochs": np.mean([len(one.history) for one in trained]), "accuracy": right.mean()}
        row |= {"accuracy_sd": pd.Series(right.mean(axis=1)).std(), "n_seeds": len(right)}
        row |= accuracy_interval(right, cohort.patients)
        row |= {"agreement": mean_pairwise_ari(clusters) if len(clusters) > 1 else np.nan}
        rows.append(row | compare(right, without, cohort.patients))
    return adjust(pd.DataFrame(rows))


def course(reduced: np.ndarray, cohort: Cohort, profile: Profile, store: Store) -> pd.DataFrame:
    """The effect of longer training: accuracy, silhouette and both losses at more and more epochs, for each seed.

    The heads are those of :func:`sensitivity` that are trained until Eq. 3 stops falling.

    Returns
    -------
    DataFrame
        ``seed``, ``epoch`` (of ``STEPS``, as far as training went); ``accuracy`` of k-medoids, all weights 1;
        ``silhouette`` of its clusters, which needs no labels; ``loss_diversity`` (Eq. 4) and ``loss_cluster`` (Eq. 5)
        at that point, NaN after the last epoch.
    """
    rows = []
    for number, trained in enumerate(project_all({"": reduced}, profile, store, N_SEEDS, **SETTLED)[""]):
        rows += [{"seed": profile.seed + number, **row} for row in _looked_at(trained, cohort)]
    return pd.DataFrame(rows)


def _looked_at(trained: HeadsResult, cohort: Cohort) -> list[dict[str, float]]:
    losses = trained.history.set_index("epoch")[["loss_diversity", "loss_cluster"]]
    rows = []
    for epoch, outputs in sorted(trained.course.items()):
        clusters = _cluster(outputs)
        row = {"epoch": epoch, "accuracy": _right(clusters, cohort).mean()}
        row["silhouette"] = silhouette_score(_mean(outputs), clusters)
        rows.append(row | losses.reindex([epoch + 1]).iloc[0].to_dict())  # before the step of that epoch
    return rows


def _mean(outputs: np.ndarray) -> np.ndarray:
    return aggregate(outputs, WEIGHT_GRID[EQUAL])


@one_thread
def _cluster(outputs: np.ndarray) -> np.ndarray:
    return Clustering("kmedoids").fit_predict(_mean(outputs))


def _right(clusters: np.ndarray, cohort: Cohort) -> np.ndarray:
    return match_clusters(cohort.labels, clusters) == cohort.labels
