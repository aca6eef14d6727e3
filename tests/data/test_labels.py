"""Tables of labels as spreadsheets write them: read right, or refused with the line."""

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ruranet_utils.data.refusal import Refused
from ruranet_utils.data.sources.folder import finder
from ruranet_utils.data.sources.labels import read_labels

IMAGES = {name: Path(f"{name}.png") for name in ("eye 1", "Auge é", "a,b", 'c"d')}
HEADERS = [("image", "label", "patient"), ("Image", "LABEL", "Patient_ID"), ("File Name", "label", "Subject")]
EXPECTED = {name: (str(i % 2), f"P{i // 2}") for i, name in enumerate(IMAGES)}


def read(folder: Path, content: str | bytes) -> dict[str, tuple[str, str]]:
    file = folder / "labels.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, notes = read_labels(file, finder(IMAGES))
    assert notes == []
    return dict(zip(table.index, map(tuple, table.to_numpy()), strict=True))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    header=st.sampled_from(HEADERS),
    suffix=st.sampled_from(["", ".png", ".PNG", ".jpg"]),
    form=st.sampled_from(["NFC", "NFD"]),
    decimal=st.sampled_from(["", ".0"]),
    trailing=st.integers(0, 3),
    blank_rows=st.integers(0, 3),
    sep=st.booleans(),
)
def test_however_it_is_written_it_says_the_same(
    tmp_path, delimiter, quoting, encoding, newline, header, suffix, form, decimal, trailing, blank_rows, sep
):
    form = "NFC" if encoding == "cp1252" else form
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=newline)
    writer.writerow(header)
    for name, (label, patient) in EXPECTED.items():
        writer.writerow([unicodedata.normalize(form, name) + suffix, label + decimal, patient, *[""] * trailing])
    writer.writerows([[""] * 3] * blank_rows)
    text = (f"sep={delimiter}{newline}" if sep else "") + out.getvalue()
    assert read(tmp_path, text.encode(encoding)) == EXPECTED


def test_blanks_around_cells_are_dropped_and_missing_patients_stay_empty(tmp_path):
    assert read(tmp_path, "image , label,patient\n eye 1 , 1 ,\n") == {"eye 1": ("1", "")}
    assert read(tmp_path, "image,label\neye 1,1\n") == {"eye 1": ("1", "")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, expected a first row with image, label"),
        ("\n \n", "is empty"),
        (
            "a,b\n",
            r"has the columns \['a', 'b'\], expected a first row with image, label and, if known, patient, each once",
        ),
        ("image,label,Label\n", "each once"),
        ('image,label\n"eye 1,0\n' + "eye 2,1\n" * 20_000, "cannot be read .*field larger than field limit"),
        ("image,label\n\neye 1,1,P1\n", r"has 3 cells in line 3, expected 2 as in the header"),
    ],
)
def test_what_stays_ambiguous_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_unknown_columns_are_named(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label,camera\neye 1,0,x\n")
    table, notes = read_labels(tmp_path / "labels.csv", finder(IMAGES))
    assert table.loc["eye 1"].tolist() == ["0", ""]
    assert notes == [
        f"{tmp_path / 'labels.csv'}: ignored columns: camera; if one says who the patient is, name it patient"
    ]


@pytest.mark.parametrize("blank", ["NA", "n/a", "unknown", "-", "None"])
def test_words_for_nothing_are_empty_cells(tmp_path, blank):
    assert read(tmp_path, f"image,label,patient\neye 1,1,{blank}\n") == {"eye 1": ("1", "")}
    grade = blank if blank in ("-", "None") else ""
    assert read(tmp_path, f"image,label,patient\neye 1,{blank},NAN1\n") == {"eye 1": (grade, "NAN1")}


@pytest.mark.parametrize("encoding", ["gbk", "mac-roman", "cp1251"])
def test_an_unknown_encoding_is_named_where_it_hides_a_photograph(tmp_path, encoding):
    name = {"gbk": "眼1", "mac-roman": "Auge é", "cp1251": "глаз"}[encoding]
    (tmp_path / "labels.csv").write_bytes(f"image,label\neye 1,0\n{name},1\n".encode(encoding))
    with pytest.raises(Refused, match=r"labels\.csv is not Unicode.*save it as 'CSV UTF-8'"):
        read_labels(tmp_path / "labels.csv", finder([*IMAGES, name]))


@pytest.mark.parametrize("written", ["eye 1.webp", "eye 1.JFIF", "eye 1.jp2", "eye 1 .jpg", "eye 1.avif"])
def test_any_suffix_of_a_photograph_may_be_written(written):
    assert finder(IMAGES)(written) == "eye 1"
