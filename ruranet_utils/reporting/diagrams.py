"""Figures 1 and 2, drawn from the run: the layers of its model with their shapes, and the clustering module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import nn

from ruranet_utils.profiles import DISPLAY, LESIONS

SCSE = "SCSEModule"  # of segmentation_models_pytorch, which takes two seconds to import


@dataclass(frozen=True, eq=False)
class Attention:
    """What one SCSE module computed for one image.

    Attributes
    ----------
    layer : str
        Its name in the model, such as ``decoder.blocks.0.attention1.attention``.
    spatial : ndarray of float32, shape (h, w)
        S of Section 2.1, in [0, 1].
    channel : ndarray of float32, shape (n_channels,)
        C of Section 2.1, in [0, 1].
    """

    layer: str
    spatial: np.ndarray
    channel: np.ndarray


def layers(model: nn.Module, size_px: int) -> pd.DataFrame:
    """Every layer that an image passes through, in order.

    Parameters
    ----------
    model : Module
        From :func:`ruranet_utils.segmentation.unet.build`.
    size_px : int
        Side of the image.

    Returns
    -------
    DataFrame
        ``layer`` (name), ``kind`` (class), ``input`` and ``output`` (shapes without the batch, such as
        ``"96 x 32 x 32"``), ``parameters``.
    """
    rows, hooks = [], []

    def note(name: str):
        def hook(module, inputs, output):
            rows.append(
                {
                    "layer": name,
                    "kind": type(module).__name__,
                    "input": _shape(inputs[0]),
                    "output": _shape(output),
                    "parameters": sum(parameter.numel() for parameter in module.parameters()),
                }
            )

        return hook

    for name, module in model.named_modules():
        if name and (not any(module.children()) or type(module).__name__ == SCSE):
            hooks.append(module.register_forward_hook(note(name)))
    _pass_through(model, torch.zeros(1, 3, size_px, size_px), hooks)
    return pd.DataFrame(rows)


def attention_maps(model: nn.Module, image: torch.Tensor) -> list[Attention]:
    """Spatial and channel attention of every SCSE module for an image, from the deepest decoder stage up.

    Parameters
    ----------
    model : Module
    image : Tensor of float32, shape (1, 3, h, w)
        Normalized; on the model's device.
    """
    found, hooks = [], []

    def note(name: str):
        def hook(module, inputs, output):
            spatial, channel = module.sSE(inputs[0]), module.cSE(inputs[0])
            found.append(Attention(name, spatial[0, 0].cpu().numpy(), channel[0, :, 0, 0].cpu().numpy()))

        return hook

    for name, module in model.named_modules():
        if type(module).__name__ == SCSE:
            hooks.append(module.register_forward_hook(note(name)))
    _pass_through(model, image, hooks)
    return found


def draw_scse(ax, table: pd.DataFrame, module: str) -> None:
    """Draw one SCSE module: its layers, their shapes and the data flow (Figure 1b).

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        From :func:`layers`.
    module : str
        Name of the SCSE module, such as ``decoder.blocks.0.attention1.attention``.
    """
    inside = table[table["layer"].str.startswith(f"{module}.")]
    whole = table.set_index("layer").loc[module]
    ax.set(xlim=(0, 10), ylim=(0, 10))
    ax.axis("off")
    for branch, y, title, color in (
        ("cSE", 7.6, "channel attention C", "#cfe3f1"),
        ("sSE", 2.4, "spatial attention S", "#f7dcc4"),
    ):
        rows = inside[inside["layer"].str.startswith(f"{module}.{branch}.")]
        places = 5 + 1.15 * (np.arange(len(rows)) - (len(rows) - 1) / 2)
        stations = [(1.2, 5), *((place, y) for place in places), (8.8, 5)]
        for start, end in pairwise(stations):
            _arrow(ax, start, end)
        for place, row in zip(places, rows.itertuples(), strict=True):
            _box(ax, place, y, f"{row.kind}\n{row.output}", color, rotation=90)
        ax.text(5, y + (2.1 if y > 5 else -1.6), f"{branch}: {title}", ha="center", va="center", fontsize=11)
    _arrow(ax, (1.2, 5), (8.8, 5))
    _box(ax, 1.2, 5, f"F_cat = [F_d, F_e]\n{whole['input']}", "0.93")
    _box(ax, 8.8, 5, f"F_out = C·F_cat + S·F_cat\n{whole['output']}", "0.93")


def draw_clustering(ax, sizes: Mapping[str, str]) -> None:
    """Draw the clustering module with the shapes of a run (Figure 2).

    Parameters
    ----------
    ax : Axes
    sizes : mapping of str to str
        Text below each step: ``lesions`` of one image, ``features``, ``components``, ``heads``, ``mean`` and
        ``clusters``, in this order.
    """
    colors = dict(zip(sizes, ("0.93", "#cfe3f1", "#cfe3f1", "#f7dcc4", "#d5ecd4", "0.93"), strict=True))
    places = dict(zip(sizes, np.linspace(1.2, 11.0, len(sizes)), strict=True))
    ax.set(xlim=(0, 12), ylim=(0, 10))
    ax.axis("off")
    for number, (lesion, y) in enumerate(zip(LESIONS, np.linspace(8.4, 2.6, len(LESIONS)), strict=True), start=1):
        branch = {
            "lesions": DISPLAY[lesion],
            "features": f"$x_{number}$",
            "components": "PCA",
            "heads": f"head ${number}$",
        }
        for start, end in pairwise([*((places[name], y) for name in branch), (places["mean"], 5.5)]):
            _arrow(ax, start, end)
        for name, text in branch.items():
            _box(ax, places[name], y, text, colors[name])
    _arrow(ax, (places["mean"], 5.5), (places["clusters"], 5.5))
    _box(ax, places["mean"], 5.5, "$F_{global}$", colors["mean"])
    _box(ax, places["clusters"], 5.5, "k-medoids", colors["clusters"])
    for name, x in places.items():
        ax.text(x, 0.9, sizes[name], ha="center", va="center", fontsize=9)
    ax.text(places["heads"], 9.7, "$L_{div} + \\lambda L_{cluster}$ (Eq. 3)", ha="center", va="center", fontsize=10)
    ax.text(places["clusters"], 7.0, "$\\frac{1}{4}\\sum w_i f_i$ (Eq. 2)", ha="right", va="center", fontsize=10)


def _arrow(ax, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Arrow from the middle of one box to the middle of the next; the boxes are drawn over its ends."""
    ax.annotate("", (0.4 * start[0] + 0.6 * end[0], 0.4 * start[1] + 0.6 * end[1]), start, arrowprops=_HEAD)
    ax.plot(*zip(start, end, strict=True), color="0.4", linewidth=1.2, zorder=0)


def _box(ax, x: float, y: float, text: str, color: str, rotation: int = 0) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "0.4"}
    ax.text(x, y, text, ha="center", va="center", fontsize=9, rotation=rotation, bbox=box)


_HEAD = {"arrowstyle": "-|>", "color": "0.4", "linewidth": 0, "shrinkA": 0, "shrinkB": 0}


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape[1:]))


def _pass_through(model: nn.Module, image: torch.Tensor, hooks: list) -> None:
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
