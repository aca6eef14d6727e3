"""Reading a table of labels as spreadsheets write it: delimiters, encodings, spaces and spellings."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from ruranet_utils.data.refusal import Refused

COLUMNS = "a first row with image, label and, if known, patient, each once"
DELIMITERS = ",;\t|"
SPELLINGS = {
    "image": ("image", "images", "imagename", "imageid", "filename"),
    "label": ("label", "labels"),
    "patient": ("patient", "patients", "patientid", "patientno", "subject", "subjectid"),
}
BLANK = {  # what people and programs write for a value that is missing; a label "none" or "-" may be a grade
    "label": r"(?i)^(na|n/a|nan|null|unknown|\?)$",
    "patient": r"(?i)^(na|n/a|nan|none|null|unknown|-+|\?)$",
}


def read_labels(file: Path, find: Callable[[str], str | None]) -> tuple[pd.DataFrame, list[str]]:
    """Read a table of labels.

    ==================  ===============================================================================================
    accepted            as
    ==================  ===============================================================================================
    encoding            UTF-8 or UTF-16 (with or without a byte-order mark), else Windows-1252
    delimiter           comma, semicolon, tab or bar, whichever is most frequent in the header; Excel's line ``sep=``
    columns             ``SPELLINGS``, ignoring case, spaces and underscores; others are named in a warning
    spaces              around every cell; empty rows and trailing delimiters
    label               ``1.0`` for ``1``; empty cells or no such column if nothing is labeled
    patient             ``7.0`` for ``7``
    empty cells         also ``NA``, ``unknown`` and the like as label or patient (``BLANK``)
    image               anything by which ``find`` finds a photograph
    ==================  ===============================================================================================

    Parameters
    ----------
    file : Path
    find : callable
        Returns the name of the photograph that a cell means, or None.

    Returns
    -------
    table : DataFrame of str
        ``label`` and ``patient`` (empty if not stated), by the names of photographs, or by the cell's text if it names
        none.
    notes : list of str
        Columns that are not read.

    Raises
    ------
    Refused
        If a column is missing or there twice, a row has more cells than the header, or a quotation mark is not closed;
        names the line. If it is not Unicode and, read as Windows-1252, names something that is not ASCII and no
        photograph.
    """
    text, is_guess = _text(file)
    lines = text.splitlines()
    if lines and lines[0].lower().startswith("sep="):
        lines = ["", *lines[1:]]  # line numbers stay the same
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise Refused(file, "is empty", COLUMNS, "write one row for each photograph, or remove the file")
    if lines[first].startswith("PK\x03\x04"):
        raise Refused(file, "is an Excel workbook", "a text file", "save it as CSV")
    delimiter = max(DELIMITERS, key=lines[first].count)
    rest = [f"{line}\n" for line in lines[first:]]
    reader = csv.reader(rest, delimiter=delimiter, skipinitialspace=True)
    header, rows = _columns(next(reader), file), []
    for row in _until_too_long(reader, file):
        cells = [cell.strip() for cell in row]
        if any(cells[len(header) :]):
            found = f"has {len(cells)} cells in line {first + reader.line_num}"
            remedy = f"put cells that contain {delimiter!r} in quotation marks"
            raise Refused(file, found, f"{len(header)} as in the header", remedy)
        if any("\n" in cell for cell in row):
            found = f"has a quotation mark that is not closed, up to line {first + reader.line_num}"
            raise Refused(file, found, "each cell in one line", "close or remove it")
        if any(cells):
            rows.append(dict(zip(header, cells + [""] * len(header), strict=False)))
    table = pd.DataFrame(rows, columns=header, dtype=str)
    blank = pd.Series("", table.index, dtype=str)
    columns = {name: table.get(name, blank).str.replace(words, "", regex=True) for name, words in BLANK.items()}
    table["label"] = columns["label"].str.replace(r"^([01])\.0+$", r"\1", regex=True)
    unknown = [cell for cell in header if cell not in SPELLINGS]
    notes = [f"{file}: ignored columns: {', '.join(unknown)}; if one says who the patient is, name it patient"]
    table["patient"] = columns["patient"].str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    lost = [cell for cell in table["image"] if not cell.isascii() and find(cell) is None] if is_guess else []
    if lost:
        found = f"is not Unicode; read as Windows-1252 it names {lost[0]!r}, which is not in images/"
        raise Refused(file, found, "UTF-8, or names as in images/", "save it as 'CSV UTF-8', or correct the name")
    table.index = [find(cell) or cell for cell in table["image"]]
    return table[["label", "patient"]], notes if unknown else []


def _text(file: Path) -> tuple[str, bool]:
    """The text, and whether its encoding is only a guess."""
    data = file.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace"), False
    if b"\0" in data[:2]:  # UTF-16 without its mark
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors="replace"), False
    try:
        return data.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), True


def _columns(cells: list[str], file: Path) -> list[str]:
    found = [cell.strip() for cell in cells]
    while found and not found[-1]:
        found.pop()
    spelled = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
    columns = [spelled.get(re.sub(r"[\W_]", "", cell).lower(), cell) for cell in found]
    if (
        "image" not in columns
        or not {"label", "patient"}.intersection(columns)
        or any(columns.count(name) > 1 for name in SPELLINGS)
    ):
        raise Refused(
            file, f"has the columns {found}", COLUMNS, "write them into the first row, and remove what stands above"
        )
    return columns


def _until_too_long(reader: Iterator[list[str]], file: Path) -> Iterator[list[str]]:
    """The rows, or a refusal if a cell goes on for ever."""
    try:
        yield from reader
    except csv.Error as error:
        raise Refused(file, f"cannot be read ({error})", "each cell in one line", "close the quotation marks") from None
