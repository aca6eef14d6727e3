"""Tables whose bytes are reproducible, and the comparison with the paper."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from ruranet_utils.profiles import DISPLAY
from ruranet_utils.storage.store import write_atomically

MISSING = "–"
_NAMED = ("encoder", "encoder paper", "encoder ours", "backbone", "method", "lesion")


def save_table(frame: pd.DataFrame, name: str, folder: Path, digits: int = 4) -> pd.DataFrame:
    """Write ``<name>.csv`` and ``<name>.md``, each in one step; equal frames give equal bytes.

    Parameters
    ----------
    frame : DataFrame
        Its index is not written.
    name : str
        File name without suffix.
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
    printed = printed.replace({r"\$": r"\\$", r"\|": r"\\|"}, regex=True)  # file names are not formulas
    align = ["right" if pd.api.types.is_numeric_dtype(dtype) else "left" for dtype in rounded.dtypes]
    markdown = printed.to_markdown(index=False, disable_numparse=True, colalign=align) + "\n"
    write_bytes(folder / f"{name}.csv", rounded.to_csv(index=False, lineterminator="\n").encode())
    write_bytes(folder / f"{name}.md", markdown.encode())
    return rounded


def paper_versus_ours(ours: pd.DataFrame, paper: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Put our scores next to the printed ones.

    Parameters
    ----------
    ours, paper : DataFrame
        Tables that share ``keys`` and ``columns``.
    keys : list of str
        Columns that identify a row, each combination once.
    columns : list of str
        Columns to compare.

    Returns
    -------
    DataFrame
        ``keys``; for each column ``<column> paper`` and ``<column> ours``; then our other columns, integers as
        ``Int64``. Our rows in our order, then the rows that only the paper has. Values that one side lacks are missing.

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
    # plain integers would turn into floats next to the missing values in rows that only the paper has
    ours = ours.astype({column: "Int64" for column in ours[further].select_dtypes("integer")})
    rows = pd.concat([ours[keys], paper[keys]]).drop_duplicates()
    both = rows.merge(paper[keys + columns], how="left", on=keys).merge(
        ours, how="left", on=keys, suffixes=(" paper", " ours")
    )
    return both[[*keys, *(f"{column} {side}" for column in columns for side in ("paper", "ours")), *further]]


def show(
    frame: pd.DataFrame,
    caption: str = "",
    best: dict[str, str] | None = None,
    within: str = "",
    first: Sequence[str] = (),
    digits: int = 4,
) -> Styler:
    """A table for a notebook, with reproducible HTML.

    Parameters
    ----------
    frame : DataFrame
        Names of encoders, backbones, methods and lesions are shown as ``profiles.DISPLAY`` spells them.
    caption : str
    best : dict, optional
        Column to ``"max"`` or ``"min"``: its best value is set in bold.
    within : str
        A column to group by: the best value is bold in each group, such as each lesion.
    first : sequence of str
        Columns to show first, for tables wider than the page.
    digits : int
        Decimals of floats. Missing values are shown as "–".

    Raises
    ------
    ValueError
        If ``best``, ``within`` or ``first`` names a missing column, or ``best`` asks for anything but ``"max"`` or
        ``"min"``.
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
    formats = {"precision": digits, "na_rep": MISSING, "escape": "html"}
    styler = _Table(frame, uuid=uuid, caption=caption or None, **formats).hide(axis="index")
    styler.format_index(lambda name: str(name).replace("_", " "), axis="columns")
    words = frame.select_dtypes(exclude="number").columns
    styler.set_table_styles({column: [{"selector": "", "props": "text-align: left"}] for column in words})
    if "$" in frame[words].to_string():
        styler.set_table_attributes('class="tex2jax_ignore mathjax_ignore"')  # file names are not formulas
    for column, which in best.items():
        highlight = styler.highlight_max if which == "max" else styler.highlight_min
        for rows in frame.groupby(within).groups.values() if within else [frame.index]:
            highlight(subset=(rows, [column]), props="font-weight: bold")
    return styler


class _Table(Styler):
    def __repr__(self) -> str:
        """Notebooks store this beside the HTML; the inherited one contains a memory address."""
        return self.to_string(delimiter="  ")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    write_atomically(path, lambda file: file.write_bytes(content))
