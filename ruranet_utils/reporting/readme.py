"""The README's measured numbers, from the committed files (``make readme``)."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from ruranet_utils import published
from ruranet_utils.profiles import LESIONS, METHODS
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import write_atomically

START, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
PROFILES = ("synthetic", "open")
BROKEN = ("impossible", "contradicted")  # verdicts of notebook 07

# Runs before equal weights were the default have the silhouette's choice in their place, "label_free".
_EQUAL = ("equal", "label_free")
_ORACLE, _LABEL_FREE = {"selection": "oracle"}, {"selection": _EQUAL}
_MOBILENET, _GOOGLENET = ({"backbone": backbone} for backbone in ("mobilenet_v2", "googlenet"))
_VARIANCE = "cumulative explained variance"
_UNTIED, _TIED = ({"method": "dmh", "seen": "lesions", "cohort": cohort} for cohort in ("untied", "fully tied"))
_BLIND = {"method": "kmedoids", "seen": "lesions removed", "cohort": "fully tied"}
# claim, table, row, score, notebook
CLAIMS = (
    ("Hard exudates: IoU", "table_2", {"lesion": "hard_exudates"}, "iou", "02"),
    ("Microaneurysms: IoU", "table_2", {"lesion": "microaneurysms"}, "iou", "02"),
    ("Hemorrhages: IoU", "table_2", {"lesion": "hemorrhages"}, "iou", "02"),
    ("Edema (open: the optic disc): IoU", "table_2", {"lesion": "edema"}, "iou", "02"),
    ("Soft exudates: IoU", "table_2", {"lesion": "soft_exudates"}, "iou", "02"),
    ("Supervised MobileNet: accuracy, hold-out", "table_3", {**_MOBILENET, "protocol": "hold-out"}, "accuracy", "03"),
    ("the same, cross-validation", "table_3", {**_MOBILENET, "protocol": "cross-validation"}, "accuracy", "03"),
    ("DMH + GoogLeNet: accuracy, `oracle`", "table_4", {"method": "dmh", **_GOOGLENET, **_ORACLE}, "accuracy", "04"),
    ("the same, `equal`", "table_4", {"method": "dmh", **_GOOGLENET, **_LABEL_FREE}, "accuracy", "04"),
    ("DMH + MobileNet: accuracy, `oracle`", "table_4", {"method": "dmh", **_MOBILENET, **_ORACLE}, "accuracy", "04"),
    ("the same, `equal`", "table_4", {"method": "dmh", **_MOBILENET, **_LABEL_FREE}, "accuracy", "04"),
    ("DMH minus k-medoids, GoogLeNet, `equal`", "table_4_paired", _GOOGLENET, "difference", "04"),
    (
        "Segmentation: b minus a (ours a+), `equal`",
        "table_5_steps",
        {"after": "b", **_LABEL_FREE},
        "difference",
        "05",
    ),
    ("SCSE: c minus b, `equal`", "table_5_steps", {"after": "c", **_LABEL_FREE}, "difference", "05"),
    ("DMH: d minus c, `equal`", "table_5_steps", {"after": "d", **_LABEL_FREE}, "difference", "05"),
    ("Variance in 50 components", "table_pca_versus_paper", {"quantity": _VARIANCE}, "", "06"),
    ("DMH on lesions, class and camera untied", "table_confound", _UNTIED, "accuracy", "08"),
    ("the same, class tied to the camera", "table_confound", _TIED, "accuracy", "08"),
    ("k-medoids *without lesions*, class tied to it", "table_confound", _BLIND, "accuracy", "08"),
)
FINDINGS = """\
- **Segmentation** with MobileNetV2, held out: hard exudates reach an IoU of {exudates[iou ours]:.2f}, where the paper's
  MobileNet row says {exudates[iou paper]:.2f}; microaneurysms {aneurysms[iou ours]:.2f}, where it says
  {aneurysms[iou paper]:.2f}. The mean with hemorrhages and soft exudates is {mean_iou:.2f}; the best published one that
  we found is {field:.2f}.
- **Training on the test images**, as the code released beside the paper does, lifts hard exudates to
  {released[hard_exudates]:.2f} and microaneurysms to {released[microaneurysms]:.2f}.
- **With labels**, MobileNet reaches an AUC of {folds} in cross-validation and {hold_out} on one
  hold-out of {hold_out_row[n]:.0f} images. How little one hold-out says: over {n_draws} draws of it the AUC of a
  logistic regression goes from {draws[min]:.2f} to {draws[max]:.2f}.
- **Looking at lesions**: K-Medoids on features of the whole image has an accuracy of {whole}, on lesion
  features with weights chosen without labels {lesions}, on the areas of the lesions alone {areas} (N = {n:.0f}).
  The latter finds retinopathy: most of the negatives have none.
- **The projection heads** after that: {heads}. In the paper's own Table 5 it is {paper_heads:.4f} with them and
  {paper_lesions:.4f} without.
- **Choosing the lesion weights on the labels**, as the paper does, lifts the mean accuracy of k-medoids from
  {kmedoids}, of k-means from {kmeans}, of agglomerative clustering from {agglomerative} and of DMH from {dmh}.
  Not all of that is looking at the answer: chosen on the labels of other patients (`held_out`) they do nearly as well
  ([table](figures/open/table_4_summary.md)). Of the eight backbones seven are random.
- **The source alone**: DMH has an accuracy of {untied} if both classes come from SRahim, and of {tied} if class 1
  comes from IDRiD. From images *whose lesions were removed* the label-free clusterings get {blind_untied} and
  {blind_tied} (N = {untied_row[n]:.0f}): that much is camera, hospital and grading.
- **50 components** keep {variance[ours]:.0%} of the variance, in the paper {variance[paper]:.0%}. The paper's
  reconstruction error is that number once more.
- **The printed tables** cannot all be of the same images: of {n_claims} claims that arithmetic can check, {n_broken}
  are impossible or contradicted by another table ([07](notebooks/07_paper_audit.ipynb))."""


def results() -> str:
    """Markdown table: claim, the paper's number, ours of each profile with interval, N and weights, verdict, notebook.

    The verdict is of the real images where the claim is measured there, else of the synthetic ones.
    """
    rows = []
    for claim, table, row, score, notebook in CLAIMS:
        found = [_find(profile, table, row) for profile in PROFILES]
        paper = next(one[f"{score} paper".strip()] for one in found if one is not None)
        measured = [one for one in found if one is not None and not pd.isna(one[f"{score} ours".strip()])]
        cells = [_cell(one, score) for one in found]
        rows.append([claim, _number(paper, score), *cells, verdict(paper, measured[-1], score), _link(notebook)])
    audit = pd.read_csv(paths.figures("open") / "table_audit.csv")["verdict"]
    broken = f"{audit.isin(BROKEN).sum()} impossible or contradicted"
    rows.append(["The printed numbers fit each other", f"{len(audit)} claims", broken, broken, "no", _link("07")])
    columns = ["claim", "paper", "ours, synthetic images", "ours, real images (`open`)", "verdict", "notebook"]
    return pd.DataFrame(rows, columns=columns).to_markdown(index=False, disable_numparse=True)


def verdict(paper: float, row: pd.Series, score: str) -> str:
    """Where the paper's number lies: in our interval, or which way ours differs from it.

    Parameters
    ----------
    paper : float
        NaN where it has none.
    row : Series
        ``weights``, ``<score> ours`` and, if there is an interval, ``<score>_low`` and ``<score>_high``.
    score : str
        Of a ``"difference"`` an interval around 0 shows none.
    """
    if pd.isna(paper):
        return "not in the paper"
    if row["weights"] == "random":
        return "not comparable: random weights"
    ours = row[f"{score} ours".strip()]
    low, high = (row.get(f"{score}_{end}", np.nan) for end in ("low", "high"))
    if score == "difference" and low <= 0 <= high:
        return "no difference shown"
    return "within our interval" if low <= paper <= high else f"ours is {'lower' if ours < paper else 'higher'}"


def findings() -> str:
    """What the real images say: Markdown bullets with numbers from the tables."""
    exudates, aneurysms = (
        _find("open", "table_1", {"lesion": lesion, "encoder": "mobilenet_v2"}) for lesion in LESIONS[:2]
    )
    table_1 = pd.read_csv(paths.figures("open") / "table_1.csv").set_index(["encoder", "lesion"])["iou ours"]
    protocols = pd.read_csv(paths.figures("open") / "table_protocols.csv").set_index(["protocol", "lesion"])["iou"]
    whole, lesions, heads = (_find("open", "table_5", {"variant": row, **_LABEL_FREE}) for row in ("a+", "c", "d"))
    summary = pd.read_csv(paths.figures("open") / "table_4_summary.csv").replace({"selection": {"label_free": "equal"}})
    means = summary.drop_duplicates(["method", "selection"]).set_index(["method", "selection"])["mean"]
    areas = _find("open", "table_lesion_channel", {"clustered": "lesions, areas"})
    verdicts = pd.read_csv(paths.figures("open") / "table_audit.csv")["verdict"]
    variance = _find("open", "table_pca_versus_paper", {"quantity": _VARIANCE})
    hold_out, folds = (
        _find("open", "table_3", {**_MOBILENET, "protocol": protocol}) for protocol in ("hold-out", "cross-validation")
    )
    draws = pd.read_csv(paths.figures("open") / "table_3_draws.csv")["auc"]
    untied, tied = (_find("open", "table_confound", row) for row in (_UNTIED, _TIED))
    blind = pd.read_csv(paths.figures("open") / "table_confound_versus_paper.csv")
    blind = blind[blind["seen"] == _BLIND["seen"]].set_index("cohort")
    return FINDINGS.format(
        hold_out=_estimate(hold_out, "auc"),
        hold_out_row=hold_out,
        folds=_estimate(folds, "auc"),
        n_draws=len(draws),
        draws=draws.agg(["min", "max"]),
        tied=_estimate(tied),
        untied=_estimate(untied),
        untied_row=untied,
        blind_tied="{lowest:.2f} to {highest:.2f}".format(**blind.loc["fully tied"]),
        blind_untied="{lowest:.2f} to {highest:.2f}".format(**blind.loc["untied"]),
        exudates=exudates,
        aneurysms=aneurysms,
        mean_iou=table_1["mobilenet_v2"][list(published.FIELD_LESIONS)].mean(),
        field=published.FIELD_MEAN_IOU,
        released=protocols["released"],
        whole=_estimate(whole),
        lesions=_estimate(lesions),
        areas=_estimate(areas.rename({"accuracy": "accuracy ours"})),
        n=lesions["n"],
        heads=_estimate(heads),
        paper_heads=heads["accuracy paper"],
        paper_lesions=lesions["accuracy paper"],
        variance=variance,
        n_claims=len(verdicts),
        n_broken=verdicts.isin(BROKEN).sum(),
        **{name: f"{means[name, 'equal']:.2f} to {means[name, 'oracle']:.2f}" for name in METHODS},
    )


def costs() -> str:
    """Time, memory and steps of the committed synthetic run, from its ``run.json``; training times of the open one."""
    run = json.loads((paths.figures("synthetic") / "run.json").read_text())
    facts = pd.DataFrame(notebook["costliest"] for notebook in run["notebooks"].values())
    trained = pd.read_csv(paths.figures("open") / "time_1.csv")["time_s"]
    memory_gb, disk_gb = facts["peak_memory_mb"].max() * 2**20 / 1e9, {k: mb / 1e3 for k, mb in run["disk_mb"].items()}
    return (
        f"Computed by the committed runs on {run['machine']['cores']} CPU cores: `synthetic` {facts['computed'].sum()} "
        f"steps in {facts['time_s'].sum() / 60:.1f} minutes with at most {memory_gb:.1f} GB of memory, "
        f"{disk_gb['store']:.1f} GB of finished steps and {disk_gb['environment']:.1f} GB of environment; the "
        f"{len(trained)} models of Table 1 in `open` were trained for {trained.sum() / 60:.0f} minutes in all, each on "
        "one core."
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


def _find(profile: str, table: str, row: dict[str, str | tuple[str, ...]]) -> pd.Series | None:
    frame = pd.read_csv(paths.figures(profile) / f"{table}.csv")
    for column, value in row.items():
        frame = frame[frame[column].isin([value] if isinstance(value, str) else value)]
    return frame.iloc[0] if len(frame) else None


def _estimate(row: pd.Series, score: str = "accuracy") -> str:
    return f"{row[f'{score} ours']:.2f} [{row[f'{score}_low']:.2f}, {row[f'{score}_high']:.2f}]"


def _cell(row: pd.Series | None, score: str) -> str:
    if row is None or pd.isna(row[f"{score} ours".strip()]):
        return "–"
    interval = f" [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]" if f"{score}_low" in row else ""
    spread = f" ± {row['accuracy_sd']:.3f} over {row['n_seeds']:.0f} seeds" if row.get("n_seeds", 1) > 1 else ""
    spread = spread if score == "accuracy" else ""
    return f"{_number(row[f'{score} ours'.strip()], score)}{spread}{interval}, N = {row['n']:.0f}, {row['weights']}"


def _number(value: float, score: str) -> str:
    return "–" if pd.isna(value) else f"{value:{'+' if score == 'difference' else ''}.4f}"


def _link(number: str) -> str:
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    return f"[{number}]({path.relative_to(paths.ROOT)})"


if __name__ == "__main__":
    path = paths.ROOT / "README.md"
    renewed = readme(path.read_text())
    write_atomically(path, lambda file: file.write_text(renewed))
