"""The stored numbers against the text of the paper, digit by digit, where that text is at hand."""

import re
from pathlib import Path

import pytest

from ruranet_utils import published
from ruranet_utils.profiles import CLASSIFIERS, DISPLAY, ENCODERS, EXTRACTORS, LESIONS, METHODS

PAPER = Path(__file__).parents[2] / "shared" / "paper" / "ruranet_pp.txt"
LESION_AS_PRINTED = {
    "hard_exudates": "Hard exudation",
    "microaneurysms": "Microaneurysm",
    "hemorrhages": "Hemorrhage",
    "edema": "Edema",
}
WORDS = {"four": 4, "six": 6, "eight": 8, "ten": 10}


@pytest.fixture(scope="module")
def paper() -> str:
    if not PAPER.is_file():
        pytest.skip("the text of the paper is not beside the project: ../shared/paper/ruranet_pp.txt")
    return PAPER.read_text(encoding="utf-8")


def printed_rows(paper: str, number: int) -> list[tuple[list[str], list[str]]]:
    """The rows of a table as (words, numbers), from its tab-separated lines."""
    block = re.search(rf"^Table {number}\. .*\n\n?((?:.*\t.*\n|\n)+)", paper, re.MULTILINE)[1]
    cells = [line.split("\t") for line in block.splitlines()]
    is_number = re.compile(r"\d+\.\d{4}").fullmatch
    rows = [([c for c in row if c and not is_number(c)], [c for c in row if is_number(c)]) for row in cells]
    return [row for row in rows if row[1]]


def as_printed(frame, columns) -> list[list[str]]:
    return [[f"{value:.4f}" for value in row] for row in frame[columns].to_numpy()]


def test_table_1_is_as_printed(paper):
    rows = printed_rows(paper, 1)
    for lesion, columns in (("microaneurysms", slice(0, 3)), ("hard_exudates", slice(3, 6))):
        table = published.table_1().set_index("lesion").loc[lesion]
        assert [DISPLAY[encoder] for encoder in table["encoder"]] == [words[0] for words, _ in rows]
        assert as_printed(table, published.SEGMENTATION) == [numbers[columns] for _, numbers in rows]


def test_table_2_is_as_printed(paper):
    rows, table = printed_rows(paper, 2), published.table_2()
    assert [LESION_AS_PRINTED[lesion] for lesion in table["lesion"]] == [words[0] for words, _ in rows]
    assert [DISPLAY[encoder] for encoder in table["encoder"]] == [words[-1] for words, _ in rows]
    assert as_printed(table, published.SEGMENTATION) == [numbers for _, numbers in rows]


@pytest.mark.parametrize(
    ("number", "table", "key", "columns"),
    [
        (3, published.table_3, "backbone", [*published.CLASSIFICATION, "auc"]),
        (4, published.table_4, "backbone", published.CLUSTERING),
        (5, published.table_5, "variant", published.CLUSTERING),
    ],
)
def test_tables_3_to_5_are_as_printed(paper, number, table, key, columns):
    rows = printed_rows(paper, number)
    assert [DISPLAY.get(name, name) for name in table()[key]] == [words[-1] for words, _ in rows]
    assert as_printed(table(), columns) == [numbers for _, numbers in rows]


def test_methods_of_table_4_stand_where_the_paper_leaves_them(paper):
    printed = {"k-medoids": "kmedoids", "Kmeans": "kmeans", "Agg": "agglomerative", "DMH": "dmh"}
    found = [
        (printed[words[0]], method)
        for (words, _), method in zip(printed_rows(paper, 4), published.table_4()["method"], strict=True)
        if words[0] in printed
    ]
    # beside "Kmeans" stands the last row of k-medoids: the docstring of table_4 says why
    expected = [("kmedoids", "kmedoids"), ("kmeans", "kmedoids")]
    assert found == [*expected, ("agglomerative", "agglomerative"), ("dmh", "dmh")]


def section(paper: str, name: str) -> str:
    parts = re.split(r"^(Abstract|Keywords|\d(?:\.\d)?)(?=[.:]? [A-Z])", paper, flags=re.MULTILINE)
    return " ".join(parts[parts.index(name) + 1].split())


@pytest.mark.parametrize("name", published.TEXT)
def test_statement_is_quoted_from_its_section(paper, name):
    statement = published.TEXT[name]
    assert statement.quote in section(paper, statement.where.split(",")[0])


@pytest.mark.parametrize("name", published.TEXT)
def test_statement_holds_the_value_of_its_quote(name):
    value, _, quote = published.TEXT[name]
    plain = re.sub(r"e\^\{(-?\d+)\}", r"e\1", quote)
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", plain)]
    numbers += [float(n) / 100 for n in re.findall(r"([\d.]+)%", quote)]
    numbers += [n for word, n in WORDS.items() if word in quote.lower().split()]
    values = value if isinstance(value, tuple) else (value,)
    assert all(any(v == pytest.approx(n, abs=1e-12) for n in numbers) for v in values)


def test_table_1_holds_every_encoder_on_two_lesions():
    table = published.table_1()
    assert set(zip(table["encoder"], table["lesion"], strict=True)) == {
        (encoder, lesion) for encoder in ENCODERS for lesion in ("microaneurysms", "hard_exudates")
    }
    assert len(table) == 20


def test_tables_2_3_and_5_hold_their_rows():
    assert sorted(published.table_2()["lesion"]) == sorted(LESIONS)
    assert tuple(published.table_3()["backbone"]) == CLASSIFIERS
    assert "".join(published.table_5()["variant"]) == "abcde"


def test_table_4_holds_20_of_32_combinations():
    table = published.table_4()
    assert not table.duplicated(["method", "backbone"]).any()
    assert table.groupby("method").size().reindex(METHODS).tolist() == [4, 4, 4, 8]
    assert set(table.query("method == 'dmh'")["backbone"]) == set(EXTRACTORS)


def test_reading_of_table_4_agrees_with_the_number_of_images():
    """Accuracies must be whole numbers of images: of 302 for DMH, of 150 for all others, and not the reverse."""
    for method, accuracy in published.table_4()[["method", "accuracy"]].itertuples(index=False):
        fits = {n: round(round(accuracy * n) / n, 4) == accuracy for n in (150, 300, 302)}
        is_dmh = method == "dmh"
        assert fits == {150: not is_dmh, 300: not is_dmh, 302: is_dmh}


def test_values_read_by_eye():
    table_1 = published.table_1().set_index(["encoder", "lesion"])
    assert table_1.loc[("mobilenet_v2", "hard_exudates"), "iou"] == 0.8041
    assert table_1.loc[("vgg19", "microaneurysms"), "precision"] == 0.5342
    assert published.table_2().set_index("lesion").loc["edema", ["iou", "accuracy"]].tolist() == [0.9925, 0.9867]
    assert published.table_3().set_index("backbone").loc["googlenet", "auc"] == 0.8044
    assert published.table_4().set_index(["method", "backbone"]).loc[("kmeans", "googlenet"), "f1"] == 0.7991
    assert published.table_5().set_index("variant").loc["a", "calinski_harabasz"] == 2359.7505


def test_text_repeats_the_tables():
    dmh = published.table_4().query("method == 'dmh' and backbone == 'googlenet'").iloc[0]
    full = published.table_5().set_index("variant").loc["d"]
    for column in published.CLASSIFICATION:
        assert published.TEXT[column].value == dmh[column] == full[column]
    assert published.TEXT["n_patients"].value == 302
    assert published.TEXT["scse_accuracy_gain"].value == pytest.approx(0.8600 / 0.8400 - 1, abs=5e-5)


def test_tables_are_fresh_copies():
    table = published.table_5()
    table.loc[0, "accuracy"] = 1.0
    assert published.table_5().loc[0, "accuracy"] == 0.5430
