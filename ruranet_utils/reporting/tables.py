"""What a run leaves behind: tables and figures whose bytes repeat, and the comparison with the paper."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas.io.formats.style import Styler

from ruranet_utils.config import ANNOTATIONS, DISPLAY
from ruranet_utils.store import write_atomically

STYLE = Path(__file__).with_name("figures.mplstyle")
PALETTE = tuple(rc_params_from_file(STYLE)["axes.prop_cycle"].by_key()["color"])
MISSING = "–"
OUTLINES = dict(zip(ANNOTATIONS, ("gold", "cyan", "lime", "silver", "magenta"), strict=True))
_NAMED = ("encoder", "encoder paper", "encoder ours", "backbone", "method", "lesion")


def save_table(frame: pd.DataFrame, name: str, folder: Path, digits: int = 4) -> pd.DataFrame:
    """Write ``<name>.csv`` and ``<name>.md``, each in one step; equal frames give equal bytes.

    Parameters
    ----------
    frame : DataFrame
        Its index is not written.
    name : str
        File name without ending.
    folder : Path
        Created if it does not exist.
    digits : int
        Decimals that floats are rounded to. Missing values are empty in the CSV and "–" in the Markdown.

    Returns
    -------
    DataFrame
        The rounded frame.
    """
    rounded = frame.copy()
    floats = rounded.select_dtypes("floating").columns
    rounded[floats] = rounded[floats].round(digits) + 0.0  # -0.0 becomes 0.0
    printed = rounded.copy().astype(object)
    for column in floats:
        printed[column] = [f"{value:.{digits}f}" for value in rounded[column].to_numpy(float, na_value=float("nan"))]
    printed = printed.where(rounded.notna(), MISSING).astype(str)
    align = ["right" if pd.api.types.is_numeric_dtype(dtype) else "left" for dtype in rounded.dtypes]
    markdown = printed.to_markdown(index=False, disable_numparse=True, colalign=align) + "\n"
    _write(folder / f"{name}.csv", rounded.to_csv(index=False, lineterminator="\n").encode())
    _write(folder / f"{name}.md", markdown.encode())
    return rounded


def save_figure(fig: Figure, name: str, folder: Path, photographs: bool = False) -> None:
    """Write ``<name>.png`` (200 dpi) and ``<name>.pdf``, each in one step, without dates or versions.

    Parameters
    ----------
    fig : Figure
        Left open.
    name : str
        File name without ending.
    folder : Path
        Created if it does not exist.
    photographs : bool
        Whether the figure shows photographs of patients, which may not be published: it then goes to
        ``folder / "photographs"``, which git ignores.
    """
    folder = folder / "photographs" if photographs else folder
    png, pdf = io.BytesIO(), io.BytesIO()
    fig.savefig(png, format="png", dpi=200, bbox_inches="tight", metadata={"Software": None})
    undated = {"Creator": None, "Producer": None, "CreationDate": None}
    fig.savefig(pdf, format="pdf", dpi=200, bbox_inches="tight", metadata=undated)
    _write(folder / f"{name}.png", png.getvalue())
    _write(folder / f"{name}.pdf", pdf.getvalue())


def paper_versus_ours(ours: pd.DataFrame, paper: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Set our scores beside the printed ones.

    Parameters
    ----------
    ours, paper : DataFrame
        Tables that share ``keys`` and ``columns``.
    keys : list of str
        Columns that name a row, each combination once.
    columns : list of str
        Columns to compare.

    Returns
    -------
    DataFrame
        ``keys``; for each column ``<column> paper`` and ``<column> ours``; then the further columns of ours,
        whole numbers as ``Int64``. Our rows in our order, then the rows that only the paper has. What one side
        does not have is missing.

    Raises
    ------
    ValueError
        If a frame lacks one of the columns, or has a row without a key or two rows with the same keys.
    """
    for name, frame in (("ours", ours), ("paper", paper)):
        if absent := [column for column in [*keys, *columns] if column not in frame]:
            raise ValueError(f"{name} has no column {', '.join(absent)}; its columns are {', '.join(frame)}")
        if frame[keys].isna().any(axis=None):
            raise ValueError(f"{name} has {frame[keys].isna().any(axis=1).sum()} rows without {', '.join(keys)}")
        if twice := frame[keys][frame.duplicated(keys)].to_dict("records"):
            raise ValueError(f"{name} has more than one row for {twice[:3]}; expected each combination once")
    further = [column for column in ours if column not in keys and column not in columns]
    # plain integers would turn into floats beside the missing values of the paper's own rows
    ours = ours.astype({column: "Int64" for column in ours[further].select_dtypes("integer")})
    rows = pd.concat([ours[keys], paper[keys]]).drop_duplicates()
    both = rows.merge(paper[keys + columns], how="left", on=keys).merge(
        ours, how="left", on=keys, suffixes=(" paper", " ours")
    )
    return both[[*keys, *(f"{column} {side}" for column in columns for side in ("paper", "ours")), *further]]


def draw_outlines(ax: Axes, image: np.ndarray, masks: np.ndarray | None, title: str = "") -> None:
    """Show an image with the outline of each lesion in its color of ``OUTLINES``.

    Parameters
    ----------
    ax : Axes
    image : ndarray of uint8, shape (3, h, w)
    masks : ndarray of bool, shape (n_lesions, h, w), or None
        In the order of ``config.ANNOTATIONS``.
    title : str
    """
    ax.imshow(image.transpose(1, 2, 0))
    for mask, color in zip(masks if masks is not None else (), OUTLINES.values(), strict=False):
        if mask.any():
            ax.contour(mask, levels=[0.5], colors=color, linewidths=0.8)
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def outline_legend(fig: Figure, names: Mapping[str, str]) -> None:
    """Name the colors of the outlines below a figure; ``names`` are those of some lesions."""
    handles = [Line2D([], [], color=OUTLINES[lesion], label=name) for lesion, name in names.items()]
    if handles:
        fig.legend(handles=handles, loc="lower center", ncol=len(handles), columnspacing=1, fontsize=10)


def style() -> None:
    """Set the look of all figures to that of ``figures.mplstyle``, whatever was set before."""
    plt.style.use(["default", STYLE])


def show(
    frame: pd.DataFrame,
    caption: str = "",
    best: dict[str, str] | None = None,
    within: str = "",
    first: Sequence[str] = (),
    digits: int = 4,
) -> Styler:
    """A table for a notebook, of which the HTML repeats byte for byte.

    Parameters
    ----------
    frame : DataFrame
        Names of encoders, backbones, methods and lesions are shown as ``config.DISPLAY`` spells them.
    caption : str
    best : dict, optional
        Column to ``"max"`` or ``"min"``: its best value is set in bold.
    within : str
        A column: the best value is that of each of its groups, such as each lesion.
    first : sequence of str
        Columns to show before the others: what is read first, where the table is wider than the page.
    digits : int
        Decimals of floats. Missing values are shown as "–".

    Raises
    ------
    ValueError
        If ``best``, ``within`` or ``first`` name a column that is not there, or ``best`` asks for anything but
        ``"max"`` or ``"min"``.
    """
    best = best or {}
    if unknown := [column for column in (*best, within, *first) if column and column not in frame]:
        raise ValueError(f"best, within or first name {', '.join(unknown)}; the columns are {', '.join(frame)}")
    if set(best.values()) - {"max", "min"}:
        raise ValueError(f"best must ask for 'max' or 'min', got {best}")
    named = {column: frame[column].map(lambda key: DISPLAY.get(key, key)) for column in _NAMED if column in frame}
    frame = frame.assign(**named).reset_index(drop=True)[[*first, *frame.columns.difference(first, sort=False)]]
    # the id must differ between the tables of a notebook, or the bold cells of one show in another
    uuid = hashlib.sha256(f"{caption}{best}{frame.to_csv()}".encode()).hexdigest()[:8]
    styler = _Table(frame, uuid=uuid, caption=caption or None, precision=digits, na_rep=MISSING).hide(axis="index")
    styler.format_index(lambda name: str(name).replace("_", " "), axis="columns")
    words = frame.select_dtypes(exclude="number").columns
    styler.set_table_styles({column: [{"selector": "", "props": "text-align: left"}] for column in words})
    for column, which in best.items():
        highlight = styler.highlight_max if which == "max" else styler.highlight_min
        for rows in frame.groupby(within).groups.values() if within else [frame.index]:
            highlight(subset=(rows, [column]), props="font-weight: bold")
    return styler


class _Table(Styler):
    def __repr__(self) -> str:
        """Notebooks store this beside the HTML; the inherited one holds a memory address."""
        return self.to_string(delimiter="  ")


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write_bytes(content))
