"""Train the network that comes with this project, score it, and write it with its card and scores: ``make models``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from ruranet_utils import published
from ruranet_utils.data.cohort import Cohort, load_cohorts
from ruranet_utils.data.sources import idrid
from ruranet_utils.networks.device import prepare
from ruranet_utils.profiles import DISPLAY, get_profile
from ruranet_utils.reporting.tables import save_table
from ruranet_utils.running.provenance import describe_code, describe_process
from ruranet_utils.segmentation.full_size import field_table, histograms
from ruranet_utils.segmentation.healthy_eyes import found_table
from ruranet_utils.segmentation.joint import JointSegmenter
from ruranet_utils.segmentation.model_file import Model, load
from ruranet_utils.segmentation.study import encoder_study, keep
from ruranet_utils.storage import paths
from ruranet_utils.storage.machine import prepare_process
from ruranet_utils.storage.store import Store

TEMPLATE = Path(__file__).with_name("model_card.md")
FOLDS = paths.models("shipped") / "table_folds.csv"
# Longer, and on larger patches, than the networks of the tables: only one is shipped.
LONGER = {"epochs": 144, "revised_epochs": 72, "patch_size_px": 256}
MOST_CHANGE = 0.001  # of a score, by half precision
ATTRIBUTION = {
    "idrid": "Porwal et al. (2018), doi:10.3390/data3030025, CC BY 4.0",
    "srahim": "Rahim, S. S. (2025), https://github.com/SRahimDR/DR-image-dataset, for academic use with attribution",
    "weights": "MobileNetV2 trained on ImageNet, ONNX model zoo (mobilenetv2-7), Apache-2.0",
}


def main() -> None:
    """Train the network, unless the store holds it, and write ``models/``."""
    profile = replace(get_profile("open", n_seeds=1), **LONGER, weights="imagenet", allow_random_weights=False)
    prepare_process(profile.instructions)
    prepare(profile)
    store = Store(paths.steps())
    segmentation, diagnosis = load_cohorts(profile, store)
    segmenter = JointSegmenter(segmentation, profile, store, validated=False)
    study = encoder_study(segmenter)
    (model,) = keep(segmenter, study)
    file = model.save(paths.models("shipped"), half=True)
    shipped = load(file)
    exact, field = (_field(one, segmenter) for one in (model, shipped))
    scores = ["mean iou", "mean ap", *(f"iou {lesion}" for lesion in published.FIELD_LESIONS)]
    ours = field["model"] == field["model"].iloc[0]
    changed = (exact.loc[ours, scores] - field.loc[ours, scores]).abs().max(axis=None)
    if changed > MOST_CHANGE:
        raise ValueError(f"half precision changes a score by {changed:.4f}, expected at most {MOST_CHANGE}")
    found = _found(shipped, diagnosis)
    folder = file.parent
    card_of(shipped, field, found, file).save(folder / "README.md")
    save_table(field, "table_field", folder)
    save_table(found, "table_healthy", folder)
    about = {"profile": asdict(profile), **describe_code(), **describe_process(prepare(profile))}
    about |= {"sha256": shipped.card["sha256"], "half_precision_changes": float(changed)}
    (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB; half precision changes no score by more than {changed:.5f}")


def _field(model: Model, segmenter: JointSegmenter) -> pd.DataFrame:
    """Scores on the test images, published ones below."""
    test = segmenter.cohort.split("test")
    records = {record.image_id: record for record in idrid.records(paths.data_root() / "idrid", parts="A")}
    probability = np.concatenate(list(model.probabilities(test.images, segmenter.profile)))
    counted = histograms(probability, model.lesions, test, records, segmenter.store)
    return field_table([counted], model.lesions, model.card["thresholds"][0])


def _found(model: Model, diagnosis: Cohort) -> pd.DataFrame:
    """How often lesions are found in photographs not used in training."""
    masks = model.predict(diagnosis.images, get_profile("open"))
    edema, healthy = diagnosis.labels == 1, diagnosis.table["healthy"].to_numpy(dtype=bool)
    groups = {"no retinopathy": healthy, "retinopathy": ~healthy & ~edema, "macular edema": edema}
    return found_table(masks, model.shows, groups, diagnosis.patients)


def card_of(model: Model, field: pd.DataFrame, found: pd.DataFrame, file: Path) -> ModelCard:
    """The model card in Hugging Face format."""
    data = ModelCardData(
        license="other",
        license_name="research only, with the attributions below",
        library_name="segmentation-models-pytorch",
        tags=["fundus photography", "diabetic retinopathy", "segmentation"],
        datasets=model.card["trained_on"],
    )
    ours = field[field["model"] == field["model"].iloc[0]]
    folds = pd.read_csv(FOLDS).query("threshold in (0.3, 0.5)")
    each = [f"iou {lesion}" for lesion in published.FIELD_LESIONS]
    scores = ours[["scored at", "threshold", "mean iou", "low", "high", "mean ap", *each, "n"]]
    shares = found.set_index("lesion")[
        [name for name in found if name.split()[-1] not in ("low", "high", "n", "lesion")]
    ]
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        lesions=", ".join(DISPLAY[name].lower() for name in model.shows),
        sha256=model.card["sha256"],
        megabytes=f"{file.stat().st_size / 1e6:.1f}",
        n_train=model.card["n_train"] + model.card["n_val"],
        n_healthy=model.card["n_healthy"],
        machine=model.card["machine"],
        threshold=model.card["thresholds"][0],
        **LONGER,
        folds=folds[[name for name in folds if "fold" not in name]].to_markdown(index=False, floatfmt=".3g"),
        scores=scores.to_markdown(index=False, floatfmt=".3g"),
        shares=shares.to_markdown(floatfmt=".2f"),
        attribution="\n".join(f"- {text}" for text in ATTRIBUTION.values()),
        size_px=model.card["image_size_px"],
    )


if __name__ == "__main__":
    main()
