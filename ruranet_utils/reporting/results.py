"""The measured numbers of the README and of ``docs/results.md``, from the committed files (``make readme``)."""

from __future__ import annotations

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ruranet_utils import published
from ruranet_utils.profiles import DISPLAY, LESIONS, METHODS
from ruranet_utils.reporting.figures import PALETTE, save_figure, style
from ruranet_utils.reporting.pages import publish
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import write_atomically

PAGES = ("README.md", "docs/results.md")
MARKED = re.compile(r"(<!-- (\w+): written by `make readme` -->\n).*?(\n<!-- end -->)", re.DOTALL)
PROFILES = ("synthetic", "open")
BROKEN = ("impossible", "contradicted")  # verdicts of notebook 07
SOURCES = "classes from two sources"  # notebook 08: a guess about the paper's data, not a choice of its code

_ORACLE, _EQUAL = {"selection": "oracle"}, {"selection": "equal"}
_SEEDS = _EQUAL, "difference", "05"
_MOBILENET, _GOOGLENET = ({"backbone": backbone} for backbone in ("mobilenet_v2", "googlenet"))
_DMH, _KMEDOIDS = ({"method": method, **_GOOGLENET} for method in ("dmh", "kmedoids"))
_HOLD_OUT, _FOLDS = ({**_MOBILENET, "protocol": protocol} for protocol in ("hold-out", "cross-validation"))
_GOOGLENET_HOLD_OUT, _GOOGLENET_FOLDS = ({**_GOOGLENET, "protocol": one["protocol"]} for one in (_HOLD_OUT, _FOLDS))
_VARIANCE, _ERROR = "cumulative explained variance", "reconstruction error per feature"
_UNTIED, _TIED = ({"method": "dmh", "seen": "lesions", "cohort": cohort} for cohort in ("untied", "fully tied"))
_BLIND = {"method": "kmedoids", "seen": "lesions removed", "cohort": "fully tied"}
_EXUDATES = {"lesion": "hard_exudates", "encoder": "mobilenet_v2"}
_AREAS, _INVERTED = {"clustered": "lesions, areas"}, {"mask": "inverted"}
# exhibit, claim, table, row, score, notebook
CLAIMS = (
    ("Abstract", "DMH and GoogLeNet, lesion weights chosen by the labels", "table_4", _DMH | _ORACLE, "accuracy", "04"),
    ("Abstract", "the same without any label", "table_4", _DMH | _EQUAL, "accuracy", "04"),
    *(
        ("Table 1", f"{name}, MobileNetV2: IoU", "table_1", {"lesion": lesion, "encoder": "mobilenet_v2"}, "iou", "02")
        for lesion, name in zip(LESIONS[:2], ("Hard exudates", "Microaneurysms"), strict=True)
    ),
    *(
        ("Table 2", f"{name}, best encoder (paper: {best}): IoU", "table_2", {"lesion": lesion}, "iou", "02")
        for lesion, name, best in zip(
            LESIONS,
            ("Hard exudates", "Microaneurysms", "Hemorrhages", "Edema (`open`: optic disc)"),
            ("VGG16", "VGG16", "ResNet34", "ResNet50"),
            strict=True,
        )
    ),
    ("Table 2", "Edema, mask inverted as the released code does", "table_2_inverted", _INVERTED, "iou", "02"),
    ("–", "Soft exudates: IoU", "table_2", {"lesion": "soft_exudates"}, "iou", "02"),
    ("Table 3", "Supervised MobileNet, hold-out: accuracy", "table_3", _HOLD_OUT, "accuracy", "03"),
    ("Table 3", "the same, cross-validation", "table_3", _FOLDS, "accuracy", "03"),
    ("Table 3", "Supervised GoogLeNet, hold-out: accuracy", "table_3", _GOOGLENET_HOLD_OUT, "accuracy", "03"),
    ("Table 3", "the same, cross-validation", "table_3", _GOOGLENET_FOLDS, "accuracy", "03"),
    (
        "Table 4",
        "K-medoids and GoogLeNet, weights chosen by the labels",
        "table_4",
        _KMEDOIDS | _ORACLE,
        "accuracy",
        "04",
    ),
    ("Table 4", "the same without any label", "table_4", _KMEDOIDS | _EQUAL, "accuracy", "04"),
    *(
        (
            exhibit,
            f"{gain}, weights {weights}",
            "table_5_steps",
            {"before": before, "after": "b"} | rows,
            "difference",
            "05",
        )
        for exhibit, gain, before in (
            ("Table 5", "Gain from segmenting lesions (b - a)", "a"),
            ("–", "the same against features of the whole image (b - a+)", "a+"),
        )
        for weights, rows in (("chosen by the labels", _ORACLE), ("all 1", _EQUAL))
    ),
    *(
        (
            "Table 5",
            f"Gain from {step}, weights {weights}",
            "table_5_steps",
            {"after": after} | rows,
            "difference",
            "05",
        )
        for after, step in (("c", "SCSE (c - b)"), ("d", "DMH (d - c)"))
        for weights, rows in (("chosen by the labels", _ORACLE), ("all 1", _EQUAL))
    ),
    ("Table 5", "Gain from SCSE, three networks with and without it, weights all 1", "table_5_seeds", *_SEEDS),
    ("Section 2.2", "Variance in 50 components", "table_pca_versus_paper", {"quantity": _VARIANCE}, "", "06"),
    ("Section 2.2", "Reconstruction error at 50", "table_pca_versus_paper", {"quantity": _ERROR}, "", "06"),
    ("Control", "DMH on lesions, class independent of the camera", "table_confound", _UNTIED, "accuracy", "08"),
    ("Control", "DMH on lesions, one camera for each class", "table_confound", _TIED, "accuracy", "08"),
    ("Control", "K-medoids, *lesions removed*, one camera for each class", "table_confound", _BLIND, "accuracy", "08"),
    ("Control", "K-medoids on areas of the lesions alone, no label", "table_lesion_channel", _AREAS, "accuracy", "10"),
)
# what cannot be measured or is a drawing: exhibit, claim, the paper's, ours, verdict, notebook
OTHERS = (
    (
        "Section 3.1",
        "Cohort: six public sources, split 8:1:1",
        "302 patients",
        "`paper` merges the six; their files need a Kaggle account. `open`: {n_images} photographs of one camera",
        "cannot be checked",
        "01",
    ),
    (
        "Figure 1",
        "Segmentation with SCSE",
        "diagram",
        "drawn from the layers of the trained network",
        "reproduced",
        "02",
    ),
    (
        "Figure 2",
        "Projection heads and their losses",
        "diagram",
        "drawn from the heads, with their course",
        "reproduced",
        "04",
    ),
)
# in the README: finding, table, row, score, notebook
SUMMARY = (
    ("The paper's pipeline, weights chosen by labels", "table_4", _DMH | _ORACLE, "accuracy", "04"),
    ("The same, no label", "table_4", _DMH | _EQUAL, "accuracy", "04"),
    ("The same without projection heads (k-medoids), no label", "table_4", _KMEDOIDS | _EQUAL, "accuracy", "04"),
    ("K-medoids on lesion areas, no label", "table_lesion_channel", _AREAS, "accuracy", "10"),
    ("K-medoids, lesions painted over, class 1 from another camera", "table_confound", _BLIND, "accuracy", "08"),
    ("Hard exudates, MobileNetV2, held out: IoU", "table_1", _EXUDATES, "iou", "02"),
)
FINDINGS = """\
- **Segmentation** with MobileNetV2, held out: hard exudates reach an IoU of {exudates[iou ours]:.2f}, where the paper's
  MobileNet row says {exudates[iou paper]:.2f}; microaneurysms {aneurysms[iou ours]:.2f}, where it says
  {aneurysms[iou paper]:.2f}. The mean with hemorrhages and soft exudates is {mean_iou:.2f}, and {own_iou:.2f} at the
  photographs' own size and threshold 0.5, where the best published ones that we found are {field}: one chosen on the
  test images, one the best of three runs ([table](../figures/open/table_field.md)).
- **Training on the test images**, as the code released with the paper does, gives hard exudates
  {released[hard_exudates]:.2f} (held out {held_out[hard_exudates]:.2f}, the paper's best encoder
  {printed[hard_exudates]:.2f}), microaneurysms {released[microaneurysms]:.2f} (held out
  {held_out[microaneurysms]:.2f}, the paper's {printed[microaneurysms]:.2f}) and hemorrhages {released[hemorrhages]:.2f}
  (held out {held_out[hemorrhages]:.2f}, the paper's {printed[hemorrhages]:.2f}). The networks of both protocols took
  equally many steps and saw no healthy eyes.
- **Healthy eyes**: in eyes without retinopathy the networks of `open` find hard exudates in
  {healthy[hard_exudates]:.0%}, microaneurysms in {healthy[microaneurysms]:.0%}, hemorrhages in
  {healthy[hemorrhages]:.0%} and soft exudates in {healthy[soft_exudates]:.0%} (N = {n_healthy}). The network in
  `models/`, trained for longer, finds them in {shipped[hard_exudates]:.0%}, {shipped[microaneurysms]:.0%},
  {shipped[hemorrhages]:.0%} and {shipped[soft_exudates]:.0%}, and fewer in eyes with DME ([card](../models/README.md)).
- **With labels**, {best} reaches an AUC of {best_folds} in cross-validation, MobileNet {folds}, and {hold_out} on one
  hold-out of {hold_out_row[n]:.0f} images, where it finds DME in {recall:.0%} of the eyes with it. These networks see
  the whole photograph at 224 px, without lesion masks, which may be why the clusterings have higher accuracies; that
  difference was not tested. How little one hold-out says: over {n_draws} draws of it the AUC of a logistic regression
  goes from {draws[min]:.2f} to {draws[max]:.2f}.
- **Lesions against the whole image**: k-medoids on features of the whole image has an accuracy of {whole}, on lesion
  features {lesions}, on the areas of the lesions alone {areas} (N = {n:.0f}). The gain of lesion features over the
  whole image is {gain[difference]:+.2f} here (adjusted p = {gain[p adjusted]:.3f}) and {step[difference ours]:+.2f} in
  Table 5 with networks without SCSE (adjusted p = {step[p adjusted]:.2f}: {step[verdict]}). This is mostly detection of
  retinopathy, not of edema: {n_healthy} of {n_negative} negatives have none. The areas together (`severity`) rank eyes
  with edema above all others with an AUC of {severity[auc]:.2f}, above eyes with retinopathy and no maculopathy with
  {severity[dr_auc]:.2f} [{severity[dr_auc_low]:.2f}, {severity[dr_auc_high]:.2f}]
  ([table](../figures/open/table_zones.md)). The lesion network was shown photographs that were graded free of
  retinopathy, so grades entered the training, although the clustering uses no label. With a network that saw none of
  them, areas reach {unaware}.
- **Another lesion network**: the intervals do not include its training. Over {seeds[n_seeds]:.0f} trainings k-medoids,
  without a label, has a mean accuracy of {seeds[c]:.2f} (sd {seeds[c sd]:.3f}), and without SCSE {seeds[b]:.2f}
  (sd {seeds[b sd]:.3f}).
- **Adding the projection heads**: {heads}, {heads_verdict} (adjusted p = {heads_p:.2f}). In the paper's own Table 5
  the accuracy is {paper_heads:.4f} with them and {paper_lesions:.4f} without.
- **Choosing the lesion weights by the labels**, as the paper does, changes the mean accuracy of k-medoids from
  {kmedoids}, of k-means from {kmeans}, of agglomerative clustering from {agglomerative} and of DMH from {dmh}. Weights
  chosen by the labels of other patients reach {others}, in this order. These are means over the backbones with ImageNet
  weights ([table](../figures/open/table_4_summary.md)).
- **Random weights find the wrong thing**: on features of the backbones without ImageNet weights, k-medoids, all lesion
  weights 1, has a mean accuracy of {random[mean]:.2f} for the diagnosis and of {random[eye]:.2f} for telling left eyes
  from right ones; on those with ImageNet weights {pretrained[mean]:.2f} and {pretrained[eye]:.2f}.
- **Camera and class**: DMH has a mean accuracy of {untied} if both classes come from SRahim, and of {tied} if class 1
  comes from IDRiD, whose photographs all show lesions but have no grade of edema. From images *whose lesions were
  removed* the label-free clusterings get {blind_untied} with one camera and {blind_tied} with one camera for each class
  (N = {untied_row[n]:.0f}): that much is camera, hospital, case mix, and what inpainting leaves.
- **What would explain {paper_heads:.2f}?** Of {n_choices} choices of the code released with the paper, each added to
  our protocol, those that reach it: {reaches}; all together reach {most_without:.2f}. Classes from two sources, which
  the paper neither states nor rules out, reach {sources}, and with the other choices, but lesions found by networks
  that have not seen the test images, {everything} (N = {n_everything:.0f}). Our two sources differ in camera and case
  mix, and the lesion networks were trained on other photographs of one of them
  ([08](../notebooks/open/08_source_confound.ipynb)).
- **50 components** keep {variance[ours]:.0%} of the variance, in the paper {variance[paper]:.0%}. The paper's
  reconstruction error repeats its explained variance.
- **The printed tables** cannot all be of the same images: of {n_claims} claims that arithmetic can check, {n_broken}
  are impossible or contradicted by another table ([07](../notebooks/open/07_paper_audit.ipynb))."""


def exhibits() -> str:
    """Markdown table of every exhibit and claim: the paper's number, ours with interval, N and weights, verdict.

    The verdict is on the real images if the claim is measured there, otherwise on the synthetic ones.
    """
    n_images = len(pd.read_csv(paths.figures("open") / "cohort_diagnosis.csv"))
    rows = [
        [exhibit, claim, paper, ours.format(n_images=n_images), "–", said, _minutes(notebook), _link(notebook)]
        for exhibit, claim, paper, ours, said, notebook in OTHERS
    ]
    for exhibit, claim, table, row, score, notebook in CLAIMS:
        found = [_with_weights(_find(profile, table, row)) for profile in PROFILES]
        measured = [one for one in found if one is not None and not pd.isna(one[f"{score} ours".strip()])]
        paper = measured[-1].get(f"{score} paper".strip(), np.nan)
        synthetic, real = (_cell(one, score) for one in found)
        said = verdict(paper, measured[-1], score)
        if exhibit == "Control":  # the paper does not report it
            paper, said = np.nan, "not in the paper"
        rows.append([exhibit, claim, _number(paper, score), real, synthetic, said, _minutes(notebook), _link(notebook)])
    audit = pd.read_csv(paths.figures("open") / "table_audit.csv")["verdict"]
    broken = f"{audit.isin(BROKEN).sum()} impossible or contradicted"
    rows.append(["Tables 1–5", "The printed numbers fit each other", f"{len(audit)} claims", broken, broken, "no"])
    rows[-1] += [_minutes("07"), _link("07")]
    columns = ["exhibit", "claim", "paper", "ours, real images (`open`)", "ours, synthetic", "verdict", "minutes"]
    return pd.DataFrame(rows, columns=[*columns, "notebook"]).to_markdown(index=False, disable_numparse=True)


def summary() -> str:
    """Markdown table of six findings on real photographs, for the README."""
    rows = []
    for finding, table, row, score, notebook in SUMMARY:
        found = _find("open", table, row).rename({"accuracy": "accuracy ours"})
        interval = f"{found[f'{score} ours']:.2f} [{found[f'{score}_low']:.2f}, {found[f'{score}_high']:.2f}]"
        paper = np.nan if table == "table_confound" else found.get(f"{score} paper", np.nan)
        said = "–" if pd.isna(paper) else f"{paper:.2f}" + (" with labels" if row.get("selection") == "equal" else "")
        rows.append([finding, said, interval, f"{found['n']:.0f}", _link(notebook, "")])
    columns = ["accuracy unless stated", "paper", "ours [95 %]", "N", "notebook"]
    return pd.DataFrame(rows, columns=columns).to_markdown(index=False, disable_numparse=True)


def headline() -> Figure:
    """Bars on real photographs: the paper, its method with and without labels, areas alone, lesions painted over."""
    heads = [_find("open", "table_4", _DMH | selection) for selection in (_ORACLE, _EQUAL)]
    areas = _find("open", "table_lesion_channel", _AREAS).rename({"accuracy": "accuracy ours"})
    blind = _find("open", "table_confound", _BLIND)
    rows = pd.DataFrame([*heads, areas, blind])
    printed = heads[0]["accuracy paper"]
    values = [printed, *rows["accuracy ours"]]
    names = [
        "the paper\n(labels choose\nthe weights)",
        "its method,\nlabels choose\nthe weights",
        "its method,\nno label",
        "areas of the\nlesions alone,\nno label",
        "lesions painted over,\nclass 1 from another\ncamera, no label",
    ]
    fig, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    ax.bar(range(5), values, color=["silver", PALETTE[0], PALETTE[0], PALETTE[2], PALETTE[3]], width=0.6)
    error = np.abs(rows[["accuracy_low", "accuracy_high"]].to_numpy().T - rows["accuracy ours"].to_numpy())
    ax.errorbar(range(1, 5), rows["accuracy ours"], yerr=error, fmt="none", color="black", capsize=4)
    for place, (value, n) in enumerate(zip(values, ["", *(f"\nN = {n:.0f}" for n in rows["n"])], strict=True)):
        ax.text(place, 0.03, f"{value:.2f}{n}", ha="center", color="black" if place == 0 else "white", fontsize=11)
    ax.axhline(printed, color="gray", linestyle="--", linewidth=1, zorder=0)
    ax.axhline(0.5, color="black", linestyle=":", linewidth=1)
    ax.set(xticks=range(5), xticklabels=names, ylim=(0, 1), ylabel="accuracy")
    ax.set_title(
        f"With one camera per class, photographs with lesions painted over score {_range(_blind('fully tied'))}"
    )
    return fig


def verdict(paper: float, row: pd.Series, score: str) -> str:
    """Whether the paper's number lies in our interval, or else which way ours differs.

    Parameters
    ----------
    paper : float
        NaN if it has none; the row's own verdict, if any, is then added.
    row : Series
        ``weights``, ``<score> ours`` and, if there is an interval, ``<score>_low`` and ``<score>_high``.
    score : str
        For a ``"difference"``, the row's own verdict decides whether any is shown; if that is missing, none was tested.
    """
    if pd.isna(paper):
        return "not in the paper" + (f"; ours: {row['verdict']}" if isinstance(row.get("verdict"), str) else "")
    if row["weights"] == "random":
        return "not comparable: random weights"
    ours = row[f"{score} ours".strip()]
    low, high = (row.get(f"{score}_{end}", np.nan) for end in ("low", "high"))
    if score == "difference" and row["verdict"] not in ("higher", "lower"):
        return "not tested: labels chose the weights" if pd.isna(row["verdict"]) else row["verdict"]
    if low <= paper <= high:
        return "reproduced (in our interval)"
    return f"differs: {'lower' if ours < paper else 'higher'}{' (no interval)' if pd.isna(low) else ''}"


def findings() -> str:
    """What the real images say: Markdown bullets with numbers from the tables."""
    exudates, aneurysms = (
        _find("open", "table_1", {"lesion": lesion, "encoder": "mobilenet_v2"}) for lesion in LESIONS[:2]
    )
    table_1 = pd.read_csv(paths.figures("open") / "table_1.csv").set_index(["encoder", "lesion"])["iou ours"]
    protocols = pd.read_csv(paths.figures("open") / "table_protocols.csv").set_index(["protocol", "lesion"])["iou"]
    whole, lesions, heads = (_find("open", "table_5", {"variant": row} | _EQUAL) for row in ("a+", "c", "d"))
    summary = pd.read_csv(paths.figures("open") / "table_4_summary.csv")
    means = summary.query("weights != 'random'").set_index(["method", "selection"])["mean"]
    sides = summary.query("method == 'kmedoids' and selection == 'equal'").set_index("weights")
    areas = _find("open", "table_lesion_channel", _AREAS)
    verdicts = pd.read_csv(paths.figures("open") / "table_audit.csv")["verdict"]
    variance = _find("open", "table_pca_versus_paper", {"quantity": _VARIANCE})
    hold_out, folds = (_find("open", "table_3", row) for row in (_HOLD_OUT, _FOLDS))
    draws = pd.read_csv(paths.figures("open") / "table_3_draws.csv")["auc"]
    untied, tied = (_find("open", "table_confound", row) for row in (_UNTIED, _TIED))
    own = _find("open", "table_field", {"scored at": "the photographs' own size", "threshold": 0.5})
    field = pd.read_csv(paths.figures("open") / "table_field.csv")
    others = field.loc[field["threshold"].isna(), "mean iou"].dropna()
    paired = _find("open", "table_4_paired", _GOOGLENET)
    supervised = pd.read_csv(paths.figures("open") / "table_3.csv").query("protocol == 'cross-validation'")
    best = supervised.loc[supervised["auc ours"].idxmax()]
    ladder = pd.read_csv(paths.figures("open") / "table_ladder.csv").rename(columns={"accuracy": "accuracy ours"})
    ladder = ladder.set_index("protocol")
    choices = ladder[~ladder.index.str.startswith("all") & ~ladder.index.isin(["ours", SOURCES])]
    reach = choices[choices["accuracy ours"] >= published.TEXT["accuracy"].value]
    healthy = pd.read_csv(paths.figures("open") / "table_healthy.csv").set_index("lesion")
    shipped = pd.read_csv(paths.ROOT / "models/table_healthy.csv").set_index("lesion")
    return FINDINGS.format(
        hold_out=_estimate(hold_out, "auc"),
        hold_out_row=hold_out,
        recall=hold_out["recall ours"],
        best=DISPLAY[best["backbone"]],
        best_folds=_estimate(best, "auc"),
        seeds=_find("open", "table_5_seeds", _EQUAL),
        n_choices=len(choices),
        reaches=", ".join(f"{name} ({_estimate(row)})" for name, row in reach.iterrows()) or "none",
        most_without=ladder.loc[ladder.index.str.startswith("all but"), "accuracy ours"].max(),
        sources=_estimate(ladder.loc[SOURCES]),
        everything=_estimate(ladder.loc["all, k-medoids"]),
        n_everything=ladder.loc["all, k-medoids", "n"],
        healthy=healthy["healthy"],
        n_healthy=healthy["healthy n"].iloc[0],
        n_negative=healthy[["healthy n", "others n"]].iloc[0].sum(),
        shipped=shipped["no retinopathy"],
        gain=_find("open", "table_lesion_channel", {"clustered": "lesions, features"}),
        step=_find("open", "table_5_steps", {"before": "a+", "after": "b"} | _EQUAL),
        severity=_find("open", "table_zones", {"feature": "severity"}),
        printed=published.table_2().set_index("lesion")["iou"],
        folds=_estimate(folds, "auc"),
        n_draws=len(draws),
        random=sides.loc["random"],
        pretrained=sides.loc["ImageNet"],
        draws=draws.agg(["min", "max"]),
        tied=_estimate(tied),
        untied=_estimate(untied),
        untied_row=untied,
        blind_tied=_range(_blind("fully tied")),
        blind_untied=_range(_blind("untied")),
        exudates=exudates,
        aneurysms=aneurysms,
        mean_iou=table_1["mobilenet_v2"][list(published.FIELD_LESIONS)].mean(),
        own_iou=own["mean iou"],
        field=" and ".join(f"{one:.2f}" for one in sorted(others)),
        released=protocols["released"],
        held_out=protocols["held_out"],
        whole=_estimate(whole),
        lesions=_estimate(lesions),
        areas=_estimate(areas.rename({"accuracy": "accuracy ours"})),
        n=lesions["n"],
        heads=_estimate(heads),
        heads_verdict=paired["verdict"],
        heads_p=paired["p adjusted"],
        unaware=_estimate(_find("open", "table_lesion_channel_unaware", _AREAS).rename({"accuracy": "accuracy ours"})),
        paper_heads=heads["accuracy paper"],
        paper_lesions=lesions["accuracy paper"],
        variance=variance,
        n_claims=len(verdicts),
        n_broken=verdicts.isin(BROKEN).sum(),
        others=", ".join(f"{means[name, 'held_out']:.2f}" for name in METHODS),
        **{name: f"{means[name, 'equal']:.2f} to {means[name, 'oracle']:.2f}" for name in METHODS},
    )


def costs() -> str:
    """Where the committed runs ran, and the cost of the synthetic one, from their ``run.json``."""
    runs = {profile: json.loads((paths.figures(profile) / "run.json").read_text()) for profile in PROFILES}
    facts = {name: pd.DataFrame(one["costliest"] for one in run["notebooks"].values()) for name, run in runs.items()}
    memory_gb = {name: of_run["peak_memory_mb"].max() * 2**20 / 1e9 for name, of_run in facts.items()}
    run, of_run = runs["synthetic"], facts["synthetic"]
    disk_gb = {name: mb / 1e3 for name, mb in run["disk_mb"].items()}
    machines = pd.read_csv(paths.figures("open") / "time_1.csv")["machine"].unique()
    machine = {name: f"{one['machine']['processor']}, {one['machine']['cores']} cores" for name, one in runs.items()}
    elsewhere = sorted(set(machines) - {runs["open"]["machine"]["processor"]})
    without = f", without the trainings of notebook 02 ({', '.join(elsewhere)})" if elsewhere else ""
    return (
        f"Minutes are those of the notebook in the open run ({machine['open']}, at most {memory_gb['open']:.1f} GB of "
        f"memory){without}. The synthetic run computed "
        f"{of_run['computed'].sum()} steps in {of_run['time_s'].sum() / 60:.1f} minutes ({machine['synthetic']}) with "
        f"at most {memory_gb['synthetic']:.1f} GB of memory, {disk_gb['store']:.1f} GB of finished steps and "
        f"{disk_gb['environment']:.1f} GB of environment."
    )


RESULTS = {"summary": summary, "exhibits": exhibits, "findings": findings, "costs": costs}


def renew(text: str) -> str:
    """A page with its results updated.

    Raises
    ------
    ValueError
        If it marks no place for a result.
    """
    if not MARKED.search(text):
        raise ValueError("the page lacks a marker such as '<!-- summary: written by `make readme` -->'")
    return MARKED.sub(lambda found: f"{found[1]}\n{RESULTS[found[2]]()}\n{found[3]}", text)


def _find(profile: str, table: str, row: dict[str, str]) -> pd.Series | None:
    file = paths.figures(profile) / f"{table}.csv"
    if not file.exists():  # of this profile
        return None
    frame = pd.read_csv(file)
    for column, value in row.items():
        frame = frame[frame[column] == value]
    return frame.iloc[0] if len(frame) else None


def _with_weights(row: pd.Series | None) -> pd.Series | None:
    """A row of a table without a paper's side, as one that has it."""
    return (
        row
        if row is None or "weights" in row
        else pd.Series({"weights": "", **row.rename({"accuracy": "accuracy ours"})})
    )


def _estimate(row: pd.Series, score: str = "accuracy") -> str:
    return f"{row[f'{score} ours']:.2f} [{row[f'{score}_low']:.2f}, {row[f'{score}_high']:.2f}]"


def _blind(cohort: str) -> pd.Series:
    """Accuracies of the label-free clusterings of photographs without their lesions."""
    return _find("open", "table_confound_versus_paper", {"seen": _BLIND["seen"], "cohort": cohort})


def _range(row: pd.Series) -> str:
    ends = [f"{row[name]:.2f}" for name in ("lowest", "highest")]
    return " to ".join(dict.fromkeys(ends))


def _cell(row: pd.Series | None, score: str) -> str:
    if row is None or pd.isna(row[f"{score} ours".strip()]):
        return "–"
    interval = f" [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]" if f"{score}_low" in row else ""
    spread = f" ± {row[f'{score}_sd']:.3f} over {row['n_seeds']:.0f} seeds" if f"{score}_sd" in row else ""
    spread = spread if row.get("n_seeds", 1) > 1 else ""
    used = [DISPLAY.get(row.get("encoder ours"), ""), row["weights"]]
    used = "".join(f", {one}" for one in used if one)
    return f"{_number(row[f'{score} ours'.strip()], score)}{spread}{interval}, N = {row['n']:.0f}{used}"


def _number(value: float, score: str) -> str:
    return "–" if pd.isna(value) else f"{value:{'+' if score == 'difference' else ''}.4f}"


def _minutes(number: str) -> str:
    """Minutes of a notebook in the costliest open run."""
    notebooks = json.loads((paths.figures("open") / "run.json").read_text())["notebooks"]
    (name,) = (name for name in notebooks if name.startswith(number))
    return f"{notebooks[name]['costliest']['time_s'] / 60:.0f}"


def _link(number: str, page: str = "../") -> str:
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    return f"[{number}]({page}notebooks/open/{path.name})"


def main() -> None:
    """Update the pages, the figure in the README, and the notebooks of the open run, if it was run here."""
    for name in PAGES:
        page = paths.ROOT / name
        renewed = renew(page.read_text())
        write_atomically(page, lambda file, renewed=renewed: file.write_text(renewed))
    style()
    save_figure(headline(), "fig_headline", paths.figures("open"))
    publish(paths.figures("open") / "notebooks", paths.NOTEBOOKS / "open")


if __name__ == "__main__":
    main()
