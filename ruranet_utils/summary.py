"""The README's measured numbers, from the committed files: ``python -m ruranet_utils.summary`` (``make readme``)."""

from __future__ import annotations

import json

import pandas as pd

from ruranet_utils import paths, published
from ruranet_utils.config import LESIONS, METHODS
from ruranet_utils.store import write_atomically

START, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
PROFILES = ("synthetic", "open")

_ORACLE, _LABEL_FREE = ({"selection": selection} for selection in ("oracle", "label_free"))
# claim, table, row, score
CLAIMS = (
    ("Table 2, hard exudates, IoU", "table_2", {"lesion": "hard_exudates"}, "iou"),
    ("Table 2, microaneurysms, IoU", "table_2", {"lesion": "microaneurysms"}, "iou"),
    ("Table 2, hemorrhages, IoU", "table_2", {"lesion": "hemorrhages"}, "iou"),
    ("Table 2, edema (open: the optic disc), IoU", "table_2", {"lesion": "edema"}, "iou"),
    ("soft exudates, IoU", "table_2", {"lesion": "soft_exudates"}, "iou"),
    ("Table 3, supervised MobileNet, accuracy", "table_3", {"backbone": "mobilenet_v2"}, "accuracy"),
    (
        "Table 4, DMH + GoogLeNet, accuracy, `oracle`",
        "table_4",
        {"method": "dmh", "backbone": "googlenet", **_ORACLE},
        "accuracy",
    ),
    ("the same, `label_free`", "table_4", {"method": "dmh", "backbone": "googlenet", **_LABEL_FREE}, "accuracy"),
    (
        "Table 4, DMH + MobileNet, accuracy, `oracle`",
        "table_4",
        {"method": "dmh", "backbone": "mobilenet_v2", **_ORACLE},
        "accuracy",
    ),
    ("the same, `label_free`", "table_4", {"method": "dmh", "backbone": "mobilenet_v2", **_LABEL_FREE}, "accuracy"),
    ("Table 5b, segmentation without SCSE, accuracy, `oracle`", "table_5", {"variant": "b", **_ORACLE}, "accuracy"),
    ("Table 5c, with SCSE, accuracy, `oracle`", "table_5", {"variant": "c", **_ORACLE}, "accuracy"),
    ("Variance in 50 components", "table_pca_versus_paper", {"quantity": "cumulative explained variance"}, ""),
)
FINDINGS = """\
- **Segmentation** with MobileNetV2, held out: hard exudates reach an IoU of {exudates[iou ours]:.2f}, where the paper's
  MobileNet row says {exudates[iou paper]:.2f}; microaneurysms {aneurysms[iou ours]:.2f}, where it says
  {aneurysms[iou paper]:.2f}. The mean with hemorrhages and soft exudates is {mean_iou:.2f}; the best published one that
  we found is {field:.2f}.
- **Training on the test images**, as the code released beside the paper does, lifts hard exudates to
  {released[hard_exudates]:.2f} and microaneurysms to {released[microaneurysms]:.2f}.
- **Looking at lesions**: K-Medoids on features of the whole image has an accuracy of {whole}, on lesion
  features with weights chosen without labels {lesions}, on the areas of the lesions alone {areas} (N = {n:.0f}).
  The latter finds retinopathy: most of the negatives have none.
- **The projection heads** after that: {heads}. In the paper's own Table 5 it is {paper_heads:.4f} with them and
  {paper_lesions:.4f} without.
- **Choosing the lesion weights on the labels**, as the paper does, lifts the mean accuracy of k-medoids from
  {kmedoids}, of k-means from {kmeans}, of agglomerative clustering from {agglomerative} and of DMH from {dmh}.
- **50 components** keep {variance[ours]:.0%} of the variance, in the paper {variance[paper]:.0%}. The paper's
  reconstruction error is that number once more.
- **The printed tables** cannot all be of the same images: of {n_claims} claims that arithmetic can check, {n_broken}
  are impossible or contradicted by another table ([07](notebooks/07_paper_audit.ipynb))."""


def results() -> str:
    """Markdown table: claim, the paper's number, ours of each profile with interval, N and weights."""
    rows = []
    for claim, table, row, score in CLAIMS:
        found = [_find(profile, table, row) for profile in PROFILES]
        paper = next(one[f"{score} paper".strip()] for one in found if one is not None)
        rows.append([claim, "–" if pd.isna(paper) else f"{paper:.4f}", *(_cell(one, score) for one in found)])
    columns = ["", "paper", "ours, synthetic images", "ours, real images (`open`)"]
    return pd.DataFrame(rows, columns=columns).to_markdown(index=False, disable_numparse=True)


def findings() -> str:
    """What the real images say: Markdown bullets with numbers from the tables."""
    exudates, aneurysms = (
        _find("open", "table_1", {"lesion": lesion, "encoder": "mobilenet_v2"}) for lesion in LESIONS[:2]
    )
    table_1 = pd.read_csv(paths.figures("open") / "table_1.csv").set_index(["encoder", "lesion"])["iou ours"]
    protocols = pd.read_csv(paths.figures("open") / "table_protocols.csv").set_index(["protocol", "lesion"])["iou"]
    whole, lesions, heads = (_find("open", "table_5", {"variant": row, **_LABEL_FREE}) for row in ("a+", "c", "d"))
    means = pd.read_csv(paths.figures("open") / "table_4_summary.csv").set_index(["method", "selection"])["mean"]
    areas = _find("open", "table_lesion_channel", {"clustered": "lesions, areas"})
    verdicts = pd.read_csv(paths.figures("open") / "table_audit.csv")["verdict"]
    variance = _find("open", "table_pca_versus_paper", {"quantity": "cumulative explained variance"})
    return FINDINGS.format(
        exudates=exudates,
        aneurysms=aneurysms,
        mean_iou=table_1["mobilenet_v2"][list(published.FIELD_LESIONS)].mean(),
        field=published.FIELD_MEAN_IOU,
        released=protocols["released"],
        whole=_accuracy(whole),
        lesions=_accuracy(lesions),
        areas=_accuracy(areas.rename({"accuracy": "accuracy ours"})),
        n=lesions["n"],
        heads=_accuracy(heads),
        paper_heads=heads["accuracy paper"],
        paper_lesions=lesions["accuracy paper"],
        variance=variance,
        n_claims=len(verdicts),
        n_broken=verdicts.isin(["impossible", "contradicted"]).sum(),
        **{name: f"{means[name, 'label_free']:.2f} to {means[name, 'oracle']:.2f}" for name in METHODS},
    )


def costs() -> str:
    """Time, memory and steps of the committed synthetic run, from its ``run.json``; training times of the open one."""
    run = json.loads((paths.figures("synthetic") / "run.json").read_text())
    facts = pd.DataFrame(notebook["costliest"] for notebook in run["notebooks"].values())
    trained = pd.read_csv(paths.figures("open") / "time_1.csv")["time_s"]
    return (
        f"Computed by the committed runs on {run['machine']['cores']} CPU cores: `synthetic` {facts['computed'].sum()} "
        f"steps in {facts['time_s'].sum() / 60:.1f} minutes with at most "
        f"{facts['peak_memory_mb'].max() * 2**20 / 1e9:.1f} GB of memory; the {len(trained)} models of Table 1 in "
        f"`open` were trained for {trained.sum() / 60:.0f} minutes in all, each on one core."
    )


def readme(text: str) -> str:
    """The README with its results renewed.

    Raises
    ------
    ValueError
        If a marker is missing.
    """
    if START not in text or END not in text:
        raise ValueError(f"the README lacks {START!r} or {END!r}")
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n\n{results()}\n\nOn the real images:\n\n{findings()}\n\n{costs()}\n\n{END}{after}"


def _find(profile: str, table: str, row: dict[str, str]) -> pd.Series | None:
    frame = pd.read_csv(paths.figures(profile) / f"{table}.csv")
    for column, value in row.items():
        frame = frame[frame[column] == value]
    return frame.iloc[0] if len(frame) else None


def _accuracy(row: pd.Series) -> str:
    return f"{row['accuracy ours']:.2f} [{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}]"


def _cell(row: pd.Series | None, score: str) -> str:
    if row is None or pd.isna(row[f"{score} ours".strip()]):
        return "–"
    interval = f" [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]" if f"{score}_low" in row else ""
    return f"{row[f'{score} ours'.strip()]:.4f}{interval}, N = {row['n']:.0f}, {row['weights']}"


if __name__ == "__main__":
    path = paths.ROOT / "README.md"
    renewed = readme(path.read_text())
    write_atomically(path, lambda file: file.write_text(renewed))
