"""Tables 1 and 2: which encoder finds which lesion, by which protocol, and the masks that the chosen ones find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from ruranet_utils import published
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import LESIONS, Profile
from ruranet_utils.segmentation import model_file
from ruranet_utils.segmentation.scores import COUNTS, segmentation_scores
from ruranet_utils.segmentation.segmenter import PROTOCOLS, LesionSegmenter
from ruranet_utils.statistics.intervals import ratio_interval
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import Arrays, Store


def encoder_study(segmenter: LesionSegmenter, pairs: Sequence[tuple[str, str]] | None = None) -> pd.DataFrame:
    """Every encoder of the profile on every lesion (Table 1), or some pairs of both, with all seeds.

    Returns
    -------
    DataFrame
        ``lesion``, ``encoder``; ``iou``, ``accuracy``, ``precision``, ``recall``, ``dice``, ``aupr``, pooled over
        the pixels of the test images, mean over the seeds; ``iou_sd`` over ``n_seeds`` seeds; ``iou_first`` of the
        first seed with ``iou_low``, ``iou_high`` (95 %, bootstrap over patients); ``iou_mean`` and ``aupr_mean``
        over images; ``n`` test images, ``n_with`` of them with the lesion; ``threshold`` of the probability, chosen
        on the validation images; ``validation_iou`` (first seed) and ``chosen`` by it; ``parameters``; ``weights``;
        ``note``: what the masks show where that is not the lesion itself; ``patches``, ``time_s`` and ``waited_s``
        (for data) of the first seed's training.
    """
    pairs = pairs or list(product(segmenter.cohort.annotated, segmenter.profile.encoders))
    seeds = range(segmenter.profile.seed, segmenter.profile.seed + segmenter.profile.n_seeds)
    scores = [segmenter.with_seed(seed).scores(pairs) for seed in seeds]
    table = pd.DataFrame([_row(segmenter, *pair, [of_seed[pair] for of_seed in scores]) for pair in pairs])
    best = table["validation_iou"].fillna(-1).groupby(table["lesion"]).idxmax()
    table["chosen"] = table.index.isin(best)
    return table


def _row(segmenter: LesionSegmenter, lesion: str, encoder: str, of_seeds: list[Arrays]) -> dict:
    first = of_seeds[0]
    validation, test = (pd.DataFrame(first[part], columns=COUNTS) for part in ("val", "test"))
    pooled = pd.DataFrame([segmentation_scores(pd.DataFrame(x["test"], columns=COUNTS)) for x in of_seeds])
    pooled["aupr"] = [x["aupr"][0] for x in of_seeds]
    each = [segmentation_scores(pd.DataFrame(x["test"], columns=COUNTS), "mean")["iou"] for x in of_seeds]
    patients = segmenter.cohort.split(PROTOCOLS[segmenter.protocol][2]).patients
    low, high = ratio_interval(
        test["tp"], test[["tp", "fp", "fn"]].sum(axis=1), patients, np.random.default_rng(segmenter.profile.seed)
    )
    return {
        "lesion": lesion,
        "encoder": encoder,
        **pooled.mean().to_dict(),
        "iou_first": pooled["iou"].iloc[0],
        "iou_sd": pooled["iou"].std(),
        "n_seeds": len(of_seeds),
        "iou_low": low,
        "iou_high": high,
        "iou_mean": np.mean(each),
        "aupr_mean": np.mean([x["aupr"][1] for x in of_seeds]),
        "n": len(test),
        "n_with": int((test["tp"] + test["fn"] > 0).sum()),
        "threshold": float(first["threshold"][0]),
        "validation_iou": segmentation_scores(validation)["iou"],
        "parameters": int(first["parameters"][0]),
        "weights": find_weights(encoder, segmenter.profile).origin,
        "note": segmenter.cohort.lesion_notes.get(lesion, ""),
        **dict(zip(("patches", "time_s", "waited_s"), first["speed"], strict=True)),
    }


def compare_protocols(segmenter: LesionSegmenter, study: pd.DataFrame) -> pd.DataFrame:
    """The chosen encoder of each of the paper's lesions, trained and scored by every protocol, first seed.

    Parameters
    ----------
    segmenter : LesionSegmenter
    study : DataFrame
        From :func:`encoder_study`.

    Returns
    -------
    DataFrame
        ``lesion``, ``encoder``, ``protocol``; ``iou paper`` (Table 1's row of this encoder, or Table 2's of the
        lesion); ``iou``, ``iou_low``, ``iou_high``; ``nearer``: whether this protocol's IoU is nearer to the paper's;
        ``n train``, ``n val`` and ``n`` images; ``note``.
    """
    pairs = [(lesion, encoder) for lesion, encoder in best_encoders(study).items() if lesion in LESIONS]
    first = replace(segmenter, profile=replace(segmenter.profile, n_seeds=1))
    sizes = segmenter.cohort.table["split"].value_counts()
    parts = []
    for name, (train, validation, _) in PROTOCOLS.items():
        scored = encoder_study(replace(first, protocol=name), pairs)
        parts.append(scored.assign(protocol=name, **{"n train": sizes[train], "n val": sizes[validation]}))
    table = pd.concat(parts).sort_values("lesion", key=lambda names: names.map(LESIONS.index), kind="stable")
    printed = published.table_1().set_index(["lesion", "encoder"])["iou"].to_dict()
    chosen = published.table_2().set_index("lesion")["iou"]
    table["iou paper"] = [printed.get((row.lesion, row.encoder), chosen[row.lesion]) for row in table.itertuples()]
    distance = (table["iou"] - table["iou paper"]).abs()
    table["nearer"] = distance == distance.groupby(table["lesion"]).transform("min")
    columns = ["lesion", "encoder", "protocol", "iou paper", "iou", "iou_low", "iou_high", "nearer"]
    return table[[*columns, "n train", "n val", "n", "note"]].reset_index(drop=True)


def lesion_masks(
    segmentation: Cohort, images: np.ndarray, profile: Profile, store: Store, attention: str | None = "scse"
) -> np.ndarray:
    """Masks of all four lesions: by the models trained on a cohort, and for lesions it does not show by kept ones.

    The models trained here are kept, too; see :meth:`LesionSegmenter.keep`.

    Parameters
    ----------
    segmentation : Cohort
    images : ndarray of uint8, shape (n, 3, h, w)
    profile : Profile
        Its ``models`` names the profile whose kept models are taken.
    store : Store
    attention : {"scse", None}
        ``None``: without SCSE, and with the encoders that were chosen with it (Table 5b).

    Returns
    -------
    ndarray of bool, shape (n, n_lesions, h, w)
        In the order of ``profiles.LESIONS``.

    Raises
    ------
    FileNotFoundError
        If there is no model for a lesion; see :func:`ruranet_utils.segmentation.model_file.load_all`.
    ValueError
        If a model was trained on photographs that were cut in another way.
    """
    missing = [lesion for lesion in LESIONS if lesion not in segmentation.annotated]
    kept = model_file.load_all(paths.models(profile.models), missing, attention)
    for lesion, model in kept.items():
        if model.card["crop_field"] != profile.crop_field:
            seen = "cut to their field of view" if model.card["crop_field"] else "scaled whole"
            raise ValueError(f"the model of {lesion} was trained on photographs {seen}: set crop_field accordingly")
    masks = {
        lesion: model.masks(images, profile, store)[:, model.lesions.index(lesion)] for lesion, model in kept.items()
    }
    if segmentation.annotated:
        study = encoder_study(LesionSegmenter(segmentation, profile, store))
        segmenter = LesionSegmenter(segmentation, profile, store, attention)
        encoder_of = {lesion: encoder for lesion, encoder in best_encoders(study).items() if lesion in LESIONS}
        masks |= dict(zip(encoder_of, segmenter.masks(images, encoder_of).swapaxes(0, 1), strict=True))
        segmenter.keep(study[study["lesion"].isin(encoder_of)])
    return np.stack([masks[lesion] for lesion in LESIONS], axis=1)


def best_encoders(study: pd.DataFrame) -> dict[str, str]:
    """Encoder of each lesion with the highest validation IoU (Section 2.1, backbone selection): the rows of Table 2."""
    chosen = study[study["chosen"]]
    return dict(zip(chosen["lesion"], chosen["encoder"], strict=True))
