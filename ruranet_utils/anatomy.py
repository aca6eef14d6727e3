"""Figure 1, read off an actual model: the layers of its SCSE modules with their shapes, and what they attend to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from segmentation_models_pytorch.base.modules import SCSEModule
from torch import nn


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
    """Every layer of a model that an image passes, in this order.

    Parameters
    ----------
    model : Module
        From :func:`ruranet_utils.segmentation.build`.
    size_px : int
        Side of the image that is sent through.

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
        if name and (not any(module.children()) or isinstance(module, SCSEModule)):
            hooks.append(module.register_forward_hook(note(name)))
    _pass_through(model, torch.zeros(1, 3, size_px, size_px), hooks)
    return pd.DataFrame(rows)


def attention_maps(model: nn.Module, image: torch.Tensor) -> list[Attention]:
    """Spatial and channel attention of every SCSE module that an image passes, from the deepest decoder stage upwards.

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
        if isinstance(module, SCSEModule):
            hooks.append(module.register_forward_hook(note(name)))
    _pass_through(model, image, hooks)
    return found


def draw_scse(ax, table: pd.DataFrame, module: str) -> None:
    """Draw one SCSE module with its layers, shapes and the data's way through it (Figure 1b).

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
    _box(ax, 1.1, 5, f"F_cat = [F_d, F_e]\n{whole['input']}", "0.93")
    for branch, y, title, color in (
        ("cSE", 7.9, "C: channel attention", "#cfe3f1"),
        ("sSE", 2.1, "S: spatial attention", "#f7dcc4"),
    ):
        rows = inside[inside["layer"].str.startswith(f"{module}.{branch}.")]
        ax.text(5, y + 1.75, f"{title} ({branch})", ha="center", fontsize=11)
        places = np.linspace(2.9, 7.1, max(len(rows), 2))[-len(rows) :]
        ax.annotate("", (places[0] - 0.45, y), (1.4, 5 + np.sign(y - 5) * 0.9), arrowprops={"arrowstyle": "->"})
        for place, row in zip(places, rows.itertuples(), strict=True):
            _box(ax, place, y, f"{row.kind}\n{row.output}", color, rotation=90)
        ax.annotate("", (8.75, 5 + np.sign(y - 5) * 0.9), (places[-1] + 0.45, y), arrowprops={"arrowstyle": "->"})
    ax.annotate("", (7.6, 5), (2.2, 5), arrowprops={"arrowstyle": "->", "color": "0.5"})
    _box(ax, 8.8, 5, f"F_out = C·F + S·F\n{whole['output']}", "0.93")


def _box(ax, x: float, y: float, text: str, color: str, rotation: int = 0) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "0.4"}
    ax.text(x, y, text, ha="center", va="center", fontsize=9, rotation=rotation, bbox=box)


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
