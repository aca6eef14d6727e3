"""Tables 1 and 2: which encoder finds which lesion, under which protocol, and the masks of the chosen encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ruranet_utils import published
from ruranet_utils.data.cohort import Cohort
from ruranet_utils.data.sources import SOURCES
from ruranet_utils.data.splits import SPLITS
from ruranet_utils.networks.device import plan
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import LESIONS, Profile
from ruranet_utils.segmentation.joint import JointSegmenter
from ruranet_utils.segmentation.model_file import Model, load, load_all
from ruranet_utils.segmentation.scores import COUNTS, segmentation_scores
from ruranet_utils.segmentation.segmenter import PROTOCOLS, LesionSegmenter
from ruranet_utils.statistics.intervals import ratio_interval
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import Arrays, Store

Segmenter = LesionSegmenter | JointSegmenter


def segmenter_of(cohort: Cohort, profile: Profile, store: Store, attention: str | None = "scse") -> Segmenter:
    """The networks that a profile's ``masks`` asks for: one for each lesion, or a joint one.

    A joint network is cross-validated if there are several encoders to choose from.
    """
    if profile.masks == "joint":
        return JointSegmenter(cohort, profile, store, attention, validated=len(profile.encoders) > 1)
    return LesionSegmenter(cohort, profile, store, attention)


def encoder_study(segmenter: Segmenter, pairs: Sequence[tuple[str, str]] | None = None) -> pd.DataFrame:
    """:func:`encoder_table` of every encoder of the profile on every lesion, or of some pairs, with all seeds."""
    pairs = pairs or list(product(segmenter.cohort.annotated, segmenter.profile.encoders))
    seeds = range(segmenter.profile.seed, segmenter.profile.seed + segmenter.profile.n_seeds)
    return encoder_table(segmenter, [segmenter.with_seed(seed).scores(pairs) for seed in seeds])


def train_ahead(segmenter: Segmenter) -> None:
    """Train a joint segmenter's networks side by side, so that no worker waits for the last one of each table.

    They are those of :func:`encoder_study` and, if there is one encoder, those without SCSE (Table 5b) and those of
    :func:`compare_protocols`. Single-lesion networks are many, and trained when they are scored.
    """
    if not isinstance(segmenter, JointSegmenter):
        return
    profile, variants = segmenter.profile, [segmenter]
    if len(profile.encoders) == 1:
        variants += [replace(segmenter, attention=None), replace(segmenter, protocol="released")]
    seeds = range(profile.seed, profile.seed + profile.n_seeds)
    networks = product(variants, profile.encoders, seeds)
    jobs = [job for variant, encoder, seed in networks for job in variant.with_seed(seed).trainings(encoder)]
    segmenter.store.prepare(jobs, plan(profile).workers)


def encoder_table(segmenter: Segmenter, scores: Sequence[Mapping[tuple[str, str], Arrays]]) -> pd.DataFrame:
    """Scores of encoders on lesions (Table 1).

    Parameters
    ----------
    segmenter : LesionSegmenter or JointSegmenter
    scores : sequence of mapping
        What its ``scores`` returned for each seed, by lesion and encoder.

    Returns
    -------
    DataFrame
        ``lesion``, ``encoder``; ``iou``, ``accuracy``, ``precision``, ``recall``, ``dice``, ``aupr``, pooled over
        the pixels of the test images, mean over the seeds; ``iou_low``, ``iou_high`` (95 %, bootstrap over patients
        and seeds), ``iou_sd`` over ``n_seeds`` seeds; ``iou_first``, ``iou_first_low``, ``iou_first_high`` of the first
        seed alone, for the card of its network; ``iou_mean`` and ``aupr_mean``
        over images; ``n`` test images, ``n_with`` of them with the lesion; ``threshold`` of the probability, chosen
        on the validation images (of a joint network, out of fold, once and for all; ``released``, on the test images);
        ``validation_iou`` (first seed;
        out of fold in a joint network, missing if it is not cross-validated) and ``chosen`` by it; ``parameters``;
        ``weights``; ``note``: what the masks show if that is not the lesion itself; ``patches``, ``time_s`` and
        ``waited_s`` (for data) of the first seed's training, and the ``machine`` it ran on.
    """
    table = pd.DataFrame([_row(segmenter, *pair, [of_seed[pair] for of_seed in scores]) for pair in scores[0]])
    validation = table["validation_iou"].fillna(-1)
    if isinstance(segmenter, JointSegmenter):  # one network for all lesions
        table["chosen"] = table["encoder"] == validation.groupby(table["encoder"], sort=False).mean().idxmax()
    else:
        table["chosen"] = table.index.isin(validation.groupby(table["lesion"]).idxmax())
    return table


def _row(segmenter: LesionSegmenter, lesion: str, encoder: str, of_seeds: list[Arrays]) -> dict:
    first = of_seeds[0]
    validation, test = (pd.DataFrame(first[part], columns=COUNTS) for part in ("val", "test"))
    pooled = pd.DataFrame([segmentation_scores(pd.DataFrame(x["test"], columns=COUNTS)) for x in of_seeds])
    pooled["aupr"] = [x["aupr"][0] for x in of_seeds]
    each = [segmentation_scores(pd.DataFrame(x["test"], columns=COUNTS), "mean")["iou"] for x in of_seeds]
    patients = segmenter.cohort.split(PROTOCOLS[segmenter.protocol][2]).patients
    hits, unions = np.array([[x["test"][:, 0], x["test"][:, :3].sum(axis=1)] for x in of_seeds]).swapaxes(0, 1)
    (low, high), (first_low, first_high) = (
        ratio_interval(hits[seeds], unions[seeds], patients, np.random.default_rng(segmenter.profile.seed))
        for seeds in (slice(None), slice(1))
    )
    return {
        "lesion": lesion,
        "encoder": encoder,
        **pooled.mean().to_dict(),
        "iou_first": pooled["iou"].iloc[0],
        "iou_first_low": first_low,
        "iou_first_high": first_high,
        "iou_sd": pooled["iou"].std(),
        "n_seeds": len(of_seeds),
        "iou_low": low,
        "iou_high": high,
        "iou_mean": np.mean(each),
        "aupr_mean": np.mean([x["aupr"][1] for x in of_seeds]),
        "n": len(test),
        "n_with": int((test["tp"] + test["fn"] > 0).sum()),
        "threshold": float(first["threshold"][0]),
        "validation_iou": segmentation_scores(validation)["iou"] if len(validation) else np.nan,
        "parameters": int(first["parameters"][0]),
        "weights": find_weights(encoder, segmenter.profile).origin,
        "note": segmenter.cohort.lesion_notes.get(lesion, ""),
        **dict(zip(("patches", "time_s", "waited_s"), first["speed"], strict=True)),
        "machine": bytes(first["machine"]).decode(),
    }


def compare_protocols(segmenter: Segmenter, study: pd.DataFrame) -> pd.DataFrame:
    """The chosen encoder of each of the paper's lesions, trained and scored under every protocol, without healthy eyes.

    Parameters
    ----------
    segmenter : LesionSegmenter or JointSegmenter
    study : DataFrame
        From :func:`encoder_study`.

    Returns
    -------
    DataFrame
        ``lesion``, ``encoder``, ``protocol``; ``iou paper`` (Table 1's row of this encoder, or Table 2's of the
        lesion); ``iou``, ``iou_low``, ``iou_high``, ``iou_sd`` and ``n_seeds`` as in :func:`encoder_table`;
        ``nearer``: whether this protocol's IoU is the closer to the paper's;
        ``n train`` images, ``n choosing`` that choose epoch or threshold, and ``n`` that are scored; ``note``.
    """
    pairs = [(lesion, encoder) for lesion, encoder in best_encoders(study).items() if lesion in LESIONS]
    segmenter = replace(segmenter, cohort=replace(segmenter.cohort, healthy=None))
    if isinstance(segmenter, JointSegmenter):
        segmenter = replace(segmenter, validated=False)  # nothing is chosen here
    parts = []
    for name in PROTOCOLS:
        under = replace(segmenter, protocol=name)
        sizes = dict(zip(("n train", "n choosing"), under.sizes, strict=True))
        parts.append(encoder_study(under, pairs).assign(protocol=name, **sizes))
    table = pd.concat(parts).sort_values("lesion", key=lambda names: names.map(LESIONS.index), kind="stable")
    printed = published.table_1().set_index(["lesion", "encoder"])["iou"].to_dict()
    chosen = published.table_2().set_index("lesion")["iou"]
    table["iou paper"] = [printed.get((row.lesion, row.encoder), chosen[row.lesion]) for row in table.itertuples()]
    distance = (table["iou"] - table["iou paper"]).abs()
    table["nearer"] = distance == distance.groupby(table["lesion"]).transform("min")
    columns = ["lesion", "encoder", "protocol", "iou paper", "iou", "iou_sd", "n_seeds", "iou_low", "iou_high"]
    return table[[*columns, "nearer", "n train", "n choosing", "n", "note"]].reset_index(drop=True)


def invert_edema(chosen: pd.DataFrame) -> pd.DataFrame:
    """The edema row of Table 2 with our mask inverted, as the released code inverts its own, and with all pixels set.

    A share h of all pixels is hit and a share e is wrong: e = 1 - accuracy and IoU = h / (h + e), so
    h = IoU e / (1 - IoU). The inverted mask has the same errors and hits the rest; the region's share is h / recall.

    Parameters
    ----------
    chosen : DataFrame
        Rows of :func:`encoder_study`, one of them of edema.

    Returns
    -------
    DataFrame
        ``mask``, ``iou paper``, ``iou ours``, ``n``, ``weights``.
    """
    row = chosen.set_index("lesion").loc["edema"]
    wrong = 1 - row["accuracy"]
    hit = row["iou"] * wrong / (1 - row["iou"])
    printed = published.table_2().set_index("lesion").loc["edema", "iou"]
    iou = {"as drawn": row["iou"], "inverted": (1 - wrong - hit) / (1 - hit)}
    iou["inverted, every pixel painted"] = 1 - hit / row["recall"]
    table = pd.DataFrame({"mask": list(iou), "iou paper": printed, "iou ours": list(iou.values())})
    return table.assign(n=row["n"], weights=row["weights"])


def lesion_masks(
    segmentation: Cohort,
    images: np.ndarray,
    profile: Profile,
    store: Store,
    attention: str | None = "scse",
    keeps: bool = True,
    protocol: str = "held_out",
    lesions: Sequence[str] = LESIONS,
    unseen: bool = False,
) -> np.ndarray:
    """Masks of lesions, by models trained on a cohort, or by kept models for lesions that it does not show.

    Parameters
    ----------
    segmentation : Cohort
    images : ndarray of uint8, shape (n, 3, h, w)
    profile : Profile
        Its ``models`` names the profile whose kept models are used.
    store : Store
    attention : {"scse", None}
        ``None``: without SCSE, and with the encoders that were chosen with it (Table 5b).
    keeps : bool
        Whether models that are trained here are kept as files; see :func:`keep`.
    protocol : {"held_out", "released"}
        ``"released"``: models trained on the test images of the cohort, which are not kept.
    lesions : sequence of str
        Of ``profiles.ANNOTATIONS``.
    unseen : bool
        Whether joint networks segment the cohort's own images, which ``images`` are then, out of fold.

    Returns
    -------
    ndarray of bool, shape (n, n_lesions, h, w)
        In the order of ``lesions``.

    Raises
    ------
    FileNotFoundError
        If there is no model for a lesion; see :func:`ruranet_utils.segmentation.model_file.load_all`.
    ValueError
        If a model was trained on photographs that were cropped differently.
    """
    missing = [lesion for lesion in lesions if lesion not in segmentation.annotated]
    kept = load_all(paths.models(profile.models), missing, attention)
    for lesion, model in kept.items():
        if model.card["crop_field"] != profile.crop_field:
            seen = "cut to their field of view" if model.card["crop_field"] else "scaled whole"
            raise ValueError(f"the model of {lesion} was trained on photographs {seen}: set crop_field accordingly")
    masks = {
        lesion: model.masks(images, profile, store)[:, model.lesions.index(lesion)] for lesion, model in kept.items()
    }
    if segmentation.annotated:
        study = _choice(segmenter_of(segmentation, profile, store))
        segmenter = replace(segmenter_of(segmentation, profile, store, attention), protocol=protocol)
        encoder_of = {lesion: encoder for lesion, encoder in best_encoders(study).items() if lesion in lesions}
        out_of_fold = unseen and isinstance(segmenter, JointSegmenter)
        found = segmenter.unseen_masks(encoder_of) if out_of_fold else segmenter.masks(images, encoder_of)
        masks |= dict(zip(encoder_of, found.swapaxes(0, 1), strict=True))
        if keeps and protocol == "held_out":
            keep(segmenter, study if profile.masks == "joint" else study[study["lesion"].isin(encoder_of)])
    return np.stack([masks[lesion] for lesion in lesions], axis=1)


def finds_disc(segmentation: Cohort, profile: Profile) -> bool:
    """Whether what :func:`lesion_masks` calls edema is the optic disc; arguments as there."""
    if "edema" in segmentation.annotated:
        return "edema" in segmentation.lesion_notes
    return bool(load_all(paths.models(profile.models), ["edema"])["edema"].card.get("disc"))


def _choice(segmenter: Segmenter) -> pd.DataFrame:
    """The study that chooses the encoder; without a choice, one joint network is enough."""
    if isinstance(segmenter, JointSegmenter) and len(segmenter.profile.encoders) == 1:
        segmenter = replace(segmenter, profile=replace(segmenter.profile, n_seeds=1))
    return encoder_study(segmenter)


def keep(segmenter: Segmenter, study: pd.DataFrame) -> list[Model]:
    """Write the chosen networks, with cards, to ``models/<profile>`` in the store, unless they are there already.

    Parameters
    ----------
    segmenter : LesionSegmenter or JointSegmenter
    study : DataFrame
        From :func:`encoder_study`.
    """
    chosen, cohort = study[study["chosen"]], segmenter.cohort
    healthy = cohort.healthy if isinstance(segmenter, JointSegmenter) and segmenter.profile.healthy_patches else None
    trained_on = sorted({*cohort.table["source"], *(() if healthy is None else healthy.table["source"])})
    shared = {
        "data": cohort.digest,
        "trained_on": trained_on,
        "licenses": [SOURCES[name].license for name in trained_on if name in SOURCES],
        **cohort.table["split"].value_counts().reindex(SPLITS, fill_value=0).add_prefix("n_").to_dict(),
        "n_healthy": 0 if healthy is None else len(healthy),
        "intended_use": "research; no diagnosis, no treatment",
    }
    if isinstance(segmenter, JointSegmenter):
        encoder = chosen["encoder"].iloc[0]
        models = [segmenter.model(encoder, **shared, **_about(segmenter, chosen))]
    else:
        models = [
            segmenter.model(*pair, **shared, **_about(segmenter, rows))
            for pair, rows in chosen.groupby(["lesion", "encoder"], sort=False)
        ]
    folder = paths.models(segmenter.profile.name)
    for model in models:
        if not any(_is_kept(file, model) for file in folder.glob(f"{model.name}*")):
            model.save(folder)
    return models


def _about(segmenter: Segmenter, rows: pd.DataFrame) -> dict:
    """A card's entries about a network's lesions; it has scores only if the network has SCSE."""
    of_first = rows.set_index("lesion")[["iou_first", "iou_first_low", "iou_first_high"]]
    scores = of_first.set_axis(["iou_first", "iou_low", "iou_high"], axis=1).T.to_dict()
    notes = dict(zip(rows["lesion"], rows["note"], strict=True))
    first = rows[["weights", "machine"]].iloc[0].to_dict()
    return {**first, "notes": notes, "scores": scores if segmenter.attention else {}}


def _is_kept(file: Path, model: Model) -> bool:
    """Whether a file is this model with this card, so that a read-only store can serve it."""
    try:
        kept = load(file)
    except ValueError:  # damaged, or not a model
        return False
    cards = [json.dumps({**one.card, "sha256": ""}, sort_keys=True) for one in (kept, model)]  # NaN is equal as text
    same = kept.state.keys() == model.state.keys()
    return same and cards[0] == cards[1] and all(np.array_equal(kept.state[x], model.state[x]) for x in model.state)


def best_encoders(study: pd.DataFrame) -> dict[str, str]:
    """Encoder of each lesion with the highest validation IoU (Section 2.1, backbone selection): the rows of Table 2."""
    chosen = study[study["chosen"]]
    return dict(zip(chosen["lesion"], chosen["encoder"], strict=True))
