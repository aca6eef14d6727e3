"""Figures whose plotting code would clutter a notebook: each function takes the numbers and returns a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from ruranet_utils.profiles import DISPLAY, METHODS
from ruranet_utils.reporting.figures import PALETTE, draw_outlines, outline_legend

if TYPE_CHECKING:
    from ruranet_utils.reporting.diagrams import Attention

ERRORS = {"found": (60, 220, 60), "false positive": (240, 60, 40), "missed": (70, 130, 255)}  # RGB


def encoder_scores(study: pd.DataFrame, printed: pd.Series, names: Mapping[str, str]) -> Figure:
    """IoU of every encoder with its interval and the paper's, one panel per lesion; a single encoder gets one panel.

    Parameters
    ----------
    study : DataFrame
        From :func:`ruranet_utils.segmentation.study.encoder_study`.
    printed : Series
        The paper's IoU by lesion and encoder.
    names : mapping of str to str
        Of the lesions, as titles.
    """
    titled = study.assign(lesion=study["lesion"].map(names), encoder=study["encoder"].map(DISPLAY))
    titled["paper"] = [printed.get((row.lesion, row.encoder), np.nan) for row in study.itertuples()]
    by, line = ("lesion", "encoder") if len(set(titled["encoder"])) > 1 else ("encoder", "lesion")
    panels, n_lines = titled[by].unique(), titled[line].nunique()
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    size = (4 * n_columns + 2 * (n_columns == 1), (1.2 + 0.25 * n_lines) * n_rows)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    axes, unused = np.split(axes.ravel(), [len(panels)])
    for ax, panel in zip(axes, panels, strict=True):
        rows = titled[titled[by] == panel].reset_index(drop=True)
        low, high = rows["iou"] - rows["iou_low"], rows["iou_high"] - rows["iou"]
        ax.errorbar(rows["iou"], rows.index, xerr=[low.clip(0), high.clip(0)], fmt="o", color=PALETTE[0], label="ours")
        ax.plot(rows["paper"], rows.index, "x", color=PALETTE[3], label="paper")
        ax.set(title=panel, xlabel="IoU", xlim=(-0.03, 1), yticks=rows.index, yticklabels=rows[line])
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_ylim(n_lines - 0.5, -0.5)
    for ax in unused:
        ax.axis("off")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=2)
    return fig


def learning_curves(histories: Mapping[str, np.ndarray]) -> Figure:
    """Training loss and, if there is one, validation Dice over the epochs, one line per history.

    Parameters
    ----------
    histories : mapping of str to ndarray, shape (n_epochs, 3)
        Epoch, loss and Dice, by label.
    """
    validated = any(np.isfinite(history[:, 2]).any() for history in histories.values())
    fig, axes = plt.subplots(1, 1 + validated, figsize=(8, 3.2), squeeze=False)
    for (name, history), color in zip(histories.items(), PALETTE, strict=False):
        for ax, values in zip(axes[0], history[:, 1:].T, strict=False):
            ax.plot(history[:, 0], values, color=color, label=name)
    axes[0, 0].set(xlabel="epoch", ylabel="training loss (Dice + Focal)")
    if validated:
        axes[0, 1].set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
    for ax in axes[0]:
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="upper center", ncol=2, bbox_to_anchor=(0.5, 0), fontsize=10)
    fig.tight_layout()
    return fig


def attention(image: np.ndarray, maps: Sequence[Attention], title: str) -> Figure:
    """An image and the spatial attention of some modules; below it their channel attention, sorted.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, h, w)
    maps : sequence of Attention
        From :func:`ruranet_utils.reporting.diagrams.attention_maps`.
    title : str
        Of the image.
    """
    size = (min(8, 2.3 * (1 + len(maps))), 4.4)
    fig, axes = plt.subplots(2, 1 + len(maps), figsize=size, squeeze=False, layout="constrained")
    axes[0, 0].imshow(image.transpose(1, 2, 0), interpolation="bicubic")
    axes[0, 0].set_title(title, fontsize=10)
    axes[1, 0].axis("off")
    for column, found in enumerate(maps, start=1):
        shown = axes[0, column].imshow(found.spatial, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
        axes[0, column].set_title(f"S, stage {column}\n{' x '.join(map(str, found.spatial.shape))}", fontsize=10)
        axes[1, column].plot(np.linspace(0, 100, len(found.channel)), np.sort(found.channel), color=PALETTE[0])
        axes[1, column].set(ylim=(0, 1), xlabel="channels (%)", title=f"C, {len(found.channel)} channels")
        axes[1, column].title.set_fontsize(10)
    axes[1, 1].set_ylabel("C")
    for ax in axes[0]:
        ax.axis("off")
    fig.colorbar(shown, ax=axes[0].tolist(), fraction=0.02)
    return fig


def segmentation_errors(rows: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """An image, the truth, the prediction and the errors in each row.

    Parameters
    ----------
    rows : mapping of str to tuple of ndarray
        By name of the lesion: image of uint8, shape (3, h, w); truth and prediction of bool, shape (h, w).
    """
    fig, axes = plt.subplots(len(rows), 4, figsize=(8, 2.05 * len(rows)), squeeze=False)
    for line, (name, (image, truth, found)) in zip(axes, rows.items(), strict=True):
        image = image.transpose(1, 2, 0)
        errors = image // 3
        for kind, pixels in zip(ERRORS, (truth & found, found & ~truth, truth & ~found), strict=True):
            errors[pixels] = ERRORS[kind]
        panels = {name: image, "truth": truth, "prediction": found, "errors": errors}
        for ax, (title, content) in zip(line, panels.items(), strict=True):
            ax.imshow(content, cmap="gray", interpolation="bicubic" if content is image else "nearest")
            ax.set_title(title, fontsize=10)
            ax.axis("off")
    handles = [plt.Rectangle((0, 0), 1, 1, color=np.divide(rgb, 255), label=kind) for kind, rgb in ERRORS.items()]
    fig.legend(handles=handles, loc="upper center", ncol=3, bbox_to_anchor=(0.5, 0))
    fig.tight_layout()
    return fig


def clusterings(results: pd.DataFrame, paper: pd.DataFrame, n_images: int) -> Figure:
    """Accuracy of each clustering, one point for each backbone, by how the weights were chosen, and the paper's.

    Parameters
    ----------
    results : DataFrame
        ``selection``, ``method``, ``accuracy``, ``weights``.
    paper : DataFrame
        ``method``, ``accuracy``.
    n_images : int
    """
    fig, ax = plt.subplots(figsize=(8, 4))
    labels = {
        "equal": ("no labels: all weights 1", PALETTE[0]),
        "silhouette": ("no labels: silhouette", PALETTE[2]),
        "held_out": ("labels of other patients", PALETTE[4]),
        "oracle": ("the labels that are scored", PALETTE[1]),
    }
    for place, (selection, (label, color)) in enumerate(labels.items()):
        part = results[results["selection"] == selection]
        x = part["method"].map(METHODS.index) + 0.18 * (place - 1.5)
        filled = np.where(part["weights"] != "random", color, "none")
        ax.scatter(x, part["accuracy"], facecolors=filled, edgecolors=color, label=label)
    ax.plot([METHODS.index(m) + 0.45 for m in paper["method"]], paper["accuracy"], "x", color=PALETTE[3], label="paper")
    ax.axhline(0.5, linestyle="--", color="gray")
    ax.set(ylabel=f"accuracy (n = {n_images})", ylim=(0.35, 1.1))
    ax.set_xticks(range(len(METHODS)), [DISPLAY[method] for method in METHODS])
    ax.legend(ncol=3, loc="upper center", fontsize=10, title="weights chosen by …; filled: ImageNet backbone")
    return fig


def training_course(courses: pd.DataFrame, without_heads: float, n_images: int) -> Figure:
    """Losses, silhouette and accuracy of DMH over its epochs: a thin line for each seed, a thick one for their mean.

    Parameters
    ----------
    courses : DataFrame
        From :func:`ruranet_utils.clustering.sensitivity.course`.
    without_heads : float
        Accuracy of k-medoids on the same features.
    n_images : int
    """
    fig, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
    panels = {"loss_diversity": axes[0], "loss_cluster": axes[0], "silhouette": axes[1], "accuracy": axes[2]}
    for color, (column, ax) in zip(PALETTE, panels.items(), strict=False):
        for _, one in courses.groupby("seed"):
            ax.plot(one["epoch"], one[column], color=color, alpha=0.25, linewidth=0.8)
        mean = courses.groupby("epoch")[column].mean()
        ax.plot(mean.index, mean, color=color, linewidth=2, label=column.replace("_", " "))
        ax.set(xlabel="epoch", xscale="symlog")
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=9)
    axes[1].set_ylabel("silhouette")
    axes[2].axhline(without_heads, linestyle="--", color="gray")
    axes[2].set_ylabel(f"accuracy (n = {n_images})")
    axes[2].set_title("dashed: no heads", fontsize=10)
    return fig


def weightings(accuracy: np.ndarray, chosen: Mapping[str, int]) -> Figure:
    """Heat map of the accuracy of all 81 weightings of four lesions.

    Parameters
    ----------
    accuracy : ndarray of float, shape (81,)
        In the order of ``WEIGHT_GRID``.
    chosen : mapping of str to int
        Weightings to frame, by what chose them.
    """
    codes = [f"{first:g}, {second:g}" for first in (1, 5, 10) for second in (1, 5, 10)]
    fig, ax = plt.subplots(figsize=(6.4, 5))
    names = {"xticklabels": codes, "yticklabels": codes, "cbar_kws": {"label": "accuracy"}}
    sns.heatmap(accuracy.reshape(9, 9), vmin=0.5, cmap="viridis", ax=ax, **names)
    ax.set(xlabel="weights of hemorrhages, edema", ylabel="weights of hard exudates, microaneurysms")
    for (label, index), color in zip(chosen.items(), ("white", PALETTE[1]), strict=False):
        place = (index % 9 + 0.06, index // 9 + 0.06)
        ax.add_patch(plt.Rectangle(place, 0.88, 0.88, fill=False, edgecolor=color, linewidth=3, label=label))
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=90)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.26)}
    ax.legend(**place, ncol=2, frameon=True, facecolor="0.75", framealpha=1)
    return fig


def projections(rows: Mapping[str, tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]) -> Figure:
    """Images projected to 2-D, colored by diagnosis and by cluster.

    Parameters
    ----------
    rows : mapping
        By stage, such as ``"before the heads"``: projections of shape (n, 2) by name, classes of shape (n,) by kind.
    """
    lines = [(stage, kind, plane, shown) for stage, (planes, shown) in rows.items() for kind, plane in planes.items()]
    fig, axes = plt.subplots(len(lines), 2, figsize=(7, 2.6 * len(lines)), squeeze=False)
    for line, (stage, kind, plane, shown) in zip(axes, lines, strict=True):
        for ax, (title, classes) in zip(line, shown.items(), strict=True):
            for value, color, marker in ((0, PALETTE[0], "o"), (1, PALETTE[1], "^")):
                points, label = plane[classes == value].T, f"{title} {value}"
                ax.scatter(*points, s=14, color=color, marker=marker, alpha=0.7, label=label)
            ax.set(title=f"{stage}, by {title}", xticks=[], yticks=[])
            ax.title.set_fontsize(11)
        line[0].set_ylabel(kind)
    for ax in axes[-1]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncol=2, fontsize=10, handletextpad=0.1)
    fig.tight_layout()
    return fig


def forest(ax: Axes, table: pd.DataFrame, labels: Sequence[str], score: str = "accuracy", **lines: float) -> None:
    """A score with its interval per row, the first row on top.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        ``<score>``, ``<score>_low``, ``<score>_high``.
    labels : sequence of str
        One per row.
    score : str
    **lines : float
        Vertical lines by label; underscores become spaces.
    """
    place = np.arange(len(table))
    error = [table[score] - table[f"{score}_low"], table[f"{score}_high"] - table[score]]
    ax.errorbar(table[score], place, xerr=error, fmt="o", color=PALETTE[0])
    for (name, value), look in zip(lines.items(), (":", "-", "--"), strict=False):
        ax.axvline(value, color="black", linestyle=look, linewidth=1, label=name.replace("_", " "))
    ax.set(yticks=place, yticklabels=labels, ylim=(len(table) - 0.5, -0.5), xlim=(0.3, 1.02), xlabel=score)
    if lines:
        ax.legend(loc="lower left", fontsize=9)


def receiver_curves(
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], scores: pd.DataFrame, printed: pd.Series
) -> Figure:
    """ROC curves of each protocol above, accuracies with intervals and the paper's below.

    Parameters
    ----------
    curves : mapping
        By protocol and backbone: false and true positive rate.
    scores : DataFrame
        ``protocol``, ``backbone``, ``accuracy`` with ``_low`` and ``_high``, ``n``.
    printed : Series
        The paper's accuracy by backbone.
    """
    fig, axes = plt.subplot_mosaic("ab;cc", figsize=(8, 7.2), height_ratios=[1.35, 1], layout="constrained")
    *above, below = axes.values()
    for ax, (protocol, of_backbones) in zip(above, curves.items(), strict=True):
        ax.plot([0, 1], [0, 1], "--", color="gray")
        for number, (backbone, rates) in enumerate(of_backbones.items()):
            look = {"color": PALETTE[number], "linestyle": ("-", "--", ":")[number % 3], "linewidth": 1.8}
            ax.plot(*rates, label=DISPLAY[backbone], **look)
        n = scores.loc[scores["protocol"] == protocol, "n"].iloc[0]
        ax.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal", title=f"{protocol}, n = {n}")
    handles = above[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncol=6, columnspacing=1, fontsize=10)
    for protocol, shift, color in zip(curves, (-0.13, 0.13), PALETTE, strict=False):
        part = scores[scores["protocol"] == protocol].reset_index()
        error = [part["accuracy"] - part["accuracy_low"], part["accuracy_high"] - part["accuracy"]]
        below.errorbar(part["accuracy"], part.index + shift, xerr=error, fmt="o", color=color, label=protocol)
    below.plot(printed.reindex(part["backbone"]), part.index, "kx", label="paper")
    below.axvline(0.5, linestyle="--", color="gray")
    below.set(xlabel="accuracy", xlim=(0, 1), yticks=part.index, yticklabels=part["backbone"].map(DISPLAY))
    below.set_ylim(len(part) - 0.5, -0.5)
    below.legend(loc="lower right", ncol=3, bbox_to_anchor=(1, 1), columnspacing=1, handletextpad=0.2)
    return fig


def spread_of_draws(draws: pd.DataFrame, chosen: int) -> Figure:
    """Accuracy and AUC of many hold-outs as dots; a cross marks the hold-out of seed ``chosen``."""
    fig, ax = plt.subplots(figsize=(6.4, 2.2), layout="constrained")
    for height, score in enumerate(("accuracy", "auc")):
        place = height + np.random.default_rng(0).uniform(-0.15, 0.15, len(draws))
        ax.plot(draws[score], place, "o", alpha=0.7)
        ax.plot(draws.loc[draws["seed"] == chosen, score], [height], "kx", markersize=10, markeredgewidth=2)
    ax.set(xlabel=f"on {draws['n'].mean():.0f} test images", xlim=(0, 1), ylim=(-0.5, 1.5))
    ax.set_yticks([0, 1], ["accuracy", "AUC"])
    ax.axvline(0.5, color="gray", linestyle="--")
    return fig


def calibration(bins: pd.DataFrame) -> Figure:
    """Share of positive images against the predicted probability, one panel for each backbone.

    Parameters
    ----------
    bins : DataFrame
        From :func:`ruranet_utils.supervised.study.calibration_bins`.
    """
    n_panels = bins["backbone"].nunique()
    n_rows, n_columns = -(-n_panels // 3), min(n_panels, 3)
    size = 2.7 * n_columns, 2.7 * n_rows
    fig, axes = plt.subplots(
        n_rows, n_columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[n_panels:]:
        ax.axis("off")
    for ax, (backbone, part) in zip(axes.flat, bins.groupby("backbone", sort=False), strict=False):
        ax.plot([0, 1], [0, 1], "--", color="gray")
        error = [part["share"] - part["low"], part["high"] - part["share"]]
        ax.errorbar(part["predicted"], part["share"], error, fmt="o", capsize=2, color=PALETTE[0])
        limits = {"xlim": (-0.04, 1.04), "ylim": (-0.04, 1.04), "aspect": "equal", "xticks": (0, 0.5, 1)}
        ax.set(title=DISPLAY[backbone], **limits)
    fig.supxlabel("predicted probability of DME")
    fig.supylabel("share with DME")
    return fig


def confusions(matrices: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Confusion matrices in a grid.

    Parameters
    ----------
    matrices : mapping
        By source (rows) and backbone (columns): ndarray of int, shape (2, 2), true by predicted class.
    """
    n_columns = max(map(len, matrices.values()))
    fig, axes = plt.subplots(len(matrices), n_columns, sharex=True, sharey=True, squeeze=False, figsize=(8, 4.8))
    for line, (source, of_backbones) in zip(axes, matrices.items(), strict=True):
        for ax, (backbone, matrix) in zip(line, of_backbones.items(), strict=True):
            shown = ConfusionMatrixDisplay(matrix, display_labels=["no", "yes"])
            shown.plot(ax=ax, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": matrix.sum(axis=1).max()})
            ax.set(xlabel="", ylabel="")
            ax.set_title(DISPLAY[backbone] if ax in axes[0] else "", fontsize=11)
        line[0].set_ylabel(source, fontsize=11)
    fig.supxlabel("predicted DME")
    fig.supylabel("true DME")
    fig.tight_layout()
    return fig


def ablation(results: pd.DataFrame, paper: pd.Series, n_images: int) -> Figure:
    """Accuracy of each variant of Table 5 by how the weights were chosen, and the paper's.

    Parameters
    ----------
    results : DataFrame
        ``selection`` (``"none"`` if there are no weights), ``variant``, ``accuracy`` with ``_low`` and ``_high``.
    paper : Series
        Accuracy by variant.
    n_images : int
    """
    names = {"a": "pixels", "a+": "features", "b": "+ segm.", "c": "+ SCSE", "d": "+ DMH", "e": "- PCA"}
    fig, ax = plt.subplots(figsize=(7, 4))
    looks = {"equal": (PALETTE[0], -0.2), "held_out": (PALETTE[2], 0), "oracle": (PALETTE[1], 0.2)}
    place = np.arange(len(names))
    for selection, (color, shift) in looks.items():
        part = results[results["selection"].isin([selection, "none"])].set_index("variant").loc[list(names)]
        error = [part["accuracy"] - part["accuracy_low"], part["accuracy_high"] - part["accuracy"]]
        label = f"ours, {selection.replace('_', ' ')}"
        ax.errorbar(place + shift, part["accuracy"], yerr=error, fmt="o", color=color, label=label)
    ax.plot(place, paper.reindex(list(names)), "x", color=PALETTE[3], markersize=8, label="paper")
    ax.axhline(0.5, linestyle="--", color="gray")
    ticks = [f"{variant}\n{name}" for variant, name in names.items()]
    ax.set(xticks=place, xticklabels=ticks, ylabel=f"accuracy (n = {n_images})", ylim=(0.3, 1))
    ax.legend(ncol=3, loc="upper center", fontsize=10)
    return fig


def components(curve: pd.DataFrame, paper: tuple[float, float, float]) -> Figure:
    """Explained variance and reconstruction error against the number of components.

    Parameters
    ----------
    curve : DataFrame
        ``k``, ``explained_ratio``, ``reconstruction_error``, ``reconstruction_error_per_feature``.
    paper : tuple of float
        The paper's number of components, explained ratio and error.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    (k, ratio, error), cross = paper, {"color": PALETTE[3], "markersize": 9, "markeredgewidth": 2}
    left.plot(curve["k"], curve["explained_ratio"], color=PALETTE[0], label="ours")
    left.plot(k, ratio, "x", **cross, label="paper")
    left.set(xlabel="components $k$", ylabel="cumulative explained variance", ylim=(0, 1.02))
    left.legend()
    right.plot(curve["k"], curve["reconstruction_error_per_feature"], color=PALETTE[0], label="per feature (left axis)")
    right.plot(k, error, "x", **cross, label="paper")
    right.set(xlabel="components $k$", ylabel="error per feature", ylim=(0, None))
    literal = right.twinx()
    literal.plot(curve["k"], curve["reconstruction_error"], ":", color=PALETTE[1], label="Eq. 6 (right axis)")
    literal.set(ylabel="error summed, Eq. 6", ylim=(0, None))
    handles = [handle for ax in (right, literal) for handle in ax.get_legend_handles_labels()[0]]
    right.legend(handles=handles, fontsize=9)
    fig.tight_layout()
    return fig


def confounds(scores: pd.DataFrame, labels: Mapping[str, str], paper: float) -> Figure:
    """Accuracy of every method by how strongly class and camera are tied, one panel per input.

    Parameters
    ----------
    scores : DataFrame
        ``seen``, ``method``, ``cohort``, ``accuracy`` with ``_low`` and ``_high``.
    labels : mapping of str to str
        Of the methods; the last line is dashed.
    paper : float
    """
    names, panels = scores["cohort"].unique(), scores["seen"].unique()
    fig, axes = plt.subplots(len(panels), 1, figsize=(8, 3.1 * len(panels)), sharex=True, layout="constrained")
    for ax, seen in zip(axes, panels, strict=True):
        for number, (method, label) in enumerate(labels.items()):
            part = scores[(scores["seen"] == seen) & (scores["method"] == method)].set_index("cohort").reindex(names)
            error = [part["accuracy"] - part["accuracy_low"], part["accuracy_high"] - part["accuracy"]]
            look = {"color": PALETTE[min(number, 4)], "linestyle": "--" if number == len(labels) - 1 else "-"}
            place = np.arange(len(names)) + 0.08 * (number - 2.5)
            ax.errorbar(place, part["accuracy"], error, marker="o", label=label, **look)
        ax.axhline(paper, color="black", linestyle=":", label="paper, DMH + GoogLeNet")
        ax.axhline(0.5, color="gray", linewidth=1)
        ax.set(title=seen, xticks=range(len(names)), xticklabels=names, ylim=(0.3, 1.03))
    fig.supylabel("accuracy")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=3)
    return fig


def groups(clusters: pd.DataFrame, area: pd.DataFrame, order: Sequence[str]) -> Figure:
    """Photographs by severity and certainty of their group, and the area of each lesion in them.

    Parameters
    ----------
    clusters : DataFrame
        ``severity``, ``areas certainty`` and the group ``areas``, a row for each photograph.
    area : DataFrame
        Share of each photograph that each lesion covers, in percent; its rows are those of ``clusters``.
    order : sequence of str
        Of the groups.
    """
    fig, (above, below) = plt.subplots(2, 1, figsize=(7, 7.6))
    look = {"hue_order": order, "palette": list(PALETTE[: len(order)])}
    sns.scatterplot(clusters, x="severity", y="areas certainty", hue="areas", ax=above, **look)
    above.set(xlabel="severity (standard deviations)", ylabel="certainty of the group (silhouette)")
    if clusters["areas certainty"].notna().any():
        above.legend(title="")
    else:
        above.text(0.5, 0.5, "one group only: no certainty", ha="center", transform=above.transAxes)
    long = area.assign(cluster=clusters["areas"]).melt("cluster", var_name="lesion")
    ticks = {"dodge": True, "jitter": False, "marker": "|", "size": 9, "linewidth": 1}  # jitter differs on every run
    sns.stripplot(long, x="value", y="lesion", hue="cluster", ax=below, legend=False, **ticks, **look)
    below.set(xlabel="share of the photograph covered (%)", ylabel="")
    below.set_xscale("symlog", linthresh=0.01)
    below.set_xlim(-0.001, 2 * long["value"].max() + 0.01)
    fig.tight_layout()
    return fig


def lesion_areas(area: pd.DataFrame) -> Figure:
    """Box plots of the share of an image that each lesion covers, in percent, over images that show it."""
    long = area.melt(var_name="lesion", value_name="area_percent")
    long = long[long["area_percent"] > 0]
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    look = {"hue": "lesion", "palette": list(PALETTE[: long["lesion"].nunique()]), "legend": False, "fliersize": 2}
    sns.boxplot(long, x="area_percent", y="lesion", ax=ax, **look)
    ax.set(xscale="log", xlabel="share of the image covered (%), images with the lesion", ylabel="")
    return fig


def outlined(photographs: Sequence[tuple[np.ndarray, np.ndarray | None, str]], names: Mapping[str, str]) -> Figure:
    """Up to eight photographs with the outlines of their lesions, in two rows.

    Parameters
    ----------
    photographs : sequence of tuple
        Image and masks as :func:`ruranet_utils.reporting.figures.draw_outlines` takes them, and a title.
    names : mapping of str to str
        Of the lesions, for the legend.
    """
    fig, axes = plt.subplots(2, 4, figsize=(8, 5))
    for ax in axes.flat:
        ax.axis("off")
    for ax, photograph in zip(axes.flat, photographs, strict=False):
        draw_outlines(ax, *photograph)
    outline_legend(fig, names)
    return fig


def with_and_without(photographs: np.ndarray, cleaned: np.ndarray, of_camera: Mapping[str, int]) -> Figure:
    """A photograph of each camera, as it is and without its lesions.

    Parameters
    ----------
    photographs, cleaned : ndarray of uint8, shape (n, 3, h, w)
    of_camera : mapping of str to int
        The camera of each row and which photograph is shown in it.
    """
    fig, axes = plt.subplots(len(of_camera), 2, figsize=(6, 3.2 * len(of_camera)), squeeze=False)
    for pair, (camera, number) in zip(axes, of_camera.items(), strict=True):
        for ax, images, title in zip(pair, (photographs, cleaned), ("", ", lesions removed"), strict=True):
            ax.imshow(images[number].transpose(1, 2, 0))
            ax.set_title(f"camera {camera}{title}", fontsize=11)
            ax.axis("off")
    fig.tight_layout()
    return fig
