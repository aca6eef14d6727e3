"""Figures whose bytes are reproducible, and what several of them share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.lines import Line2D

from ruranet_utils.features.macula import Macula
from ruranet_utils.profiles import ANNOTATIONS
from ruranet_utils.reporting.tables import write_bytes

STYLE = Path(__file__).with_name("figures.mplstyle")
PALETTE = tuple(rc_params_from_file(STYLE)["axes.prop_cycle"].by_key()["color"])
WIDE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial",
)
OUTLINES = dict(zip(ANNOTATIONS, ("gold", "cyan", "lime", "silver", "magenta"), strict=True))


def save_figure(fig: Figure, name: str, folder: Path, photographs: bool = False) -> None:
    """Write ``<name>.png`` (200 dpi) and ``<name>.pdf``, each in one step, without dates or versions.

    Parameters
    ----------
    fig : Figure
        Left open, with its layout fixed.
    name : str
        File name without suffix.
    folder : Path
        Created if it does not exist.
    photographs : bool
        Whether the figure shows photographs of patients, which must not be published: it then goes to
        ``folder / "photographs"``, which git ignores.
    """
    folder = folder / "photographs" if photographs else folder
    png, pdf = io.BytesIO(), io.BytesIO()
    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # already laid out: each of the next drawings would repeat it, twice
    fig.savefig(png, format="png", dpi=200, bbox_inches="tight", metadata={"Software": None})
    undated = {"Creator": None, "Producer": None, "CreationDate": None}
    fig.savefig(pdf, format="pdf", dpi=200, bbox_inches="tight", metadata=undated)
    write_bytes(folder / f"{name}.png", png.getvalue())
    write_bytes(folder / f"{name}.pdf", pdf.getvalue())


def draw_outlines(ax: Axes, image: np.ndarray, masks: np.ndarray | None, title: str = "") -> None:
    """Show an image with the outline of each lesion in its color of ``OUTLINES``.

    Parameters
    ----------
    ax : Axes
    image : ndarray of uint8, shape (3, h, w)
    masks : ndarray of bool, shape (n_lesions, h, w), or None
        In the order of ``profiles.ANNOTATIONS``.
    title : str
    """
    ax.imshow(image.transpose(1, 2, 0), interpolation="bicubic")
    for mask, color in zip(masks if masks is not None else (), OUTLINES.values(), strict=False):
        if mask.any():
            ax.contour(mask, levels=[0.5], colors=color, linewidths=0.8)
    ax.set_title(drawable(title), fontsize=9, parse_math=False)
    ax.axis("off")


def draw_macula(ax: Axes, image: np.ndarray, masks: np.ndarray, macula: Macula, title: str = "") -> None:
    """:func:`draw_outlines` with the disc's center, the fovea and the circle of one disc diameter around it."""
    draw_outlines(ax, image, masks, title if macula.found else f"{title}\nno disc found")
    if macula.found:
        ax.contour(macula.distance(image.shape[1:]), levels=[1], colors="white", linewidths=1, linestyles="--")
        for (row, column), marker in ((macula.disc, "o"), (macula.fovea, "+")):
            ax.plot(column, row, marker, color="white", markersize=6, markerfacecolor="none")


def drawable(text: str) -> str:
    """The text with every character missing from all available fonts as its escape, such as ``\\u773c``."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in plt.rcParams["font.family"]]
    known = {char: char == "\n" or any(font.get_char_index(ord(char)) for font in fonts) for char in set(text)}
    return "".join(char if known[char] else char.encode("unicode_escape").decode() for char in text)


def outline_legend(fig: Figure, names: Mapping[str, str]) -> None:
    """Add a legend of the outline colors below a figure; ``names`` are those of some lesions."""
    handles = [Line2D([], [], color=OUTLINES[lesion], label=name) for lesion, name in names.items()]
    if handles:
        fig.legend(handles=handles, loc="lower center", ncol=len(handles), columnspacing=1, fontsize=10)


def style() -> None:
    """Set the look of all figures to that of ``figures.mplstyle``, whatever was set before.

    Installed fonts of ``WIDE_FONTS`` draw the characters that its font lacks.
    """
    plt.style.use(["default", STYLE])
    installed = {font.name for font in fontManager.ttflist}
    plt.rcParams["font.family"] = [*plt.rcParams["font.family"], *(name for name in WIDE_FONTS if name in installed)]
