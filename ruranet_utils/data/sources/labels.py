"""Reading a table of labels, as spreadsheets write it: delimiters, encodings, blanks and spellings."""

from __future__ import annotations

import csv
import re
import unicodedata
import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ruranet_utils.data.sources.base import SUFFIXES

DELIMITERS = ",;\t|"
SPELLINGS = {
    "image": ("image", "images", "imagename", "imageid", "filename"),
    "label": ("label", "labels"),
    "patient": ("patient", "patients", "patientid", "patientno", "subject", "subjectid"),
}


def read_labels(file: Path, images: Mapping[str, Path]) -> pd.DataFrame:
    """Read a table of labels.

    ==================  ===============================================================================================
    accepted            as
    ==================  ===============================================================================================
    encoding            UTF-8 or UTF-16 (with or without mark), else Windows-1252
    delimiter           comma, semicolon, tab or bar, whichever the header has most of; Excel's line ``sep=``
    columns             ``SPELLINGS``, whatever the case, blanks and underscores; others are named in a warning
    blanks              around every cell; empty rows and trailing delimiters
    label               ``1.0`` for ``1``
    image               with or without suffix, in any case of the suffix and any Unicode form
    ==================  ===============================================================================================

    Parameters
    ----------
    file : Path
    images : mapping of str to Path
        The photographs by their names.

    Returns
    -------
    DataFrame of str
        ``label`` and ``patient`` (empty where it is not stated), by the names of ``images`` where one fits.

    Raises
    ------
    ValueError
        If a column is missing or there twice, or a row has more cells than the header; names the line.
    """
    lines = _text(file).splitlines()
    if lines and lines[0].lower().startswith("sep="):
        lines = ["", *lines[1:]]  # numbers of lines stay
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise ValueError(f"{file} is empty, expected the columns image, label and, if known, patient")
    delimiter = max(DELIMITERS, key=lines[first].count)
    reader = csv.reader(lines[first:], delimiter=delimiter, skipinitialspace=True)
    header, rows = _columns(next(reader), file), []
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells[len(header) :]):
            raise ValueError(
                f"{file}, line {first + reader.line_num}: {len(cells)} cells, expected {len(header)} as in the header"
            )
        if any(cells):
            rows.append(dict(zip(header, cells + [""] * len(header), strict=False)))
    table = pd.DataFrame(rows, columns=header, dtype=str)
    table["label"] = table["label"].str.replace(r"^([01])\.0+$", r"\1", regex=True)
    names = {_form(name): name for name in images}
    table.index = [_name(cell, names) for cell in table["image"]]
    return table.assign(patient=table.get("patient", ""))[["label", "patient"]]


def _text(file: Path) -> str:
    data = file.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _columns(cells: list[str], file: Path) -> list[str]:
    found = [cell.strip() for cell in cells]
    while found and not found[-1]:
        found.pop()
    spelled = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
    columns = [spelled.get(re.sub(r"[\W_]", "", cell).lower(), cell) for cell in found]
    if not {"image", "label"} <= set(columns) or any(columns.count(name) > 1 for name in SPELLINGS):
        raise ValueError(f"{file} has the columns {found}, expected image, label and, if known, patient, once each")
    unknown = [cell for cell in columns if cell not in SPELLINGS]
    if unknown:
        warnings.warn(f"{file}: the columns {unknown} are not read; patients are in `patient`", stacklevel=3)
    return columns


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _name(cell: str, names: Mapping[str, str]) -> str:
    whole = _form(cell)
    stem, _, suffix = whole.rpartition(".")
    return names.get(whole) or (names.get(stem) if f".{suffix}".lower() in SUFFIXES else None) or cell
