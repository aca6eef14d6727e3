"""Tables and figures: bytes that repeat, writes that are whole or not at all, and alignment with the paper."""

import os
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.colors import to_hex
from PIL import Image

from ruranet_utils.reporting.figures import PALETTE, draw_outlines, outline_legend, save_figure, style
from ruranet_utils.reporting.tables import paper_versus_ours, save_table, show


@pytest.fixture
def frame():
    return pd.DataFrame(
        {"encoder": ["vgg16", "mobilenet_v2"], "iou": [0.871949, np.nan], "n": [27, 27], "note": ["a", None]}
    )


@pytest.fixture
def fig():
    with plt.rc_context():
        style()
        fig, ax = plt.subplots()
        ax.plot([0, 1, 2], [0.1, 0.4, 0.3], label="Dice α")
        ax.set_xlabel("Epoch")
        ax.legend()
        yield fig
        plt.close(fig)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- save_table --------------------------------------------------------------------------------------------------


def test_table_as_files(frame, tmp_path):
    returned = save_table(frame, "table_1", tmp_path / "new" / "folder")
    files = contents(tmp_path / "new" / "folder")
    assert files["table_1.csv"].decode() == "encoder,iou,n,note\nvgg16,0.8719,27,a\nmobilenet_v2,,27,\n"
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in files["table_1.md"].decode().splitlines()]
    assert lines[0] == ["encoder", "iou", "n", "note"]
    assert lines[2:] == [["vgg16", "0.8719", "27", "a"], ["mobilenet_v2", "–", "27", "–"]]
    assert set(files) == {"table_1.csv", "table_1.md"}
    assert returned["iou"].tolist() == pytest.approx([0.8719, np.nan], nan_ok=True)
    assert frame["iou"][0] == 0.871949


def test_table_pads_to_its_digits(tmp_path):
    save_table(pd.DataFrame({"x": [0.86, -1e-9, 12.0]}), "t", tmp_path, digits=3)
    assert re.findall(r"-?\d+\.\d+", (tmp_path / "t.md").read_text()) == ["0.860", "0.000", "12.000"]
    assert (tmp_path / "t.csv").read_text() == "x\n0.86\n0.0\n12.0\n"


def test_table_repeats_its_bytes(frame, tmp_path):
    save_table(frame, "t", tmp_path / "a")
    save_table(frame.copy(), "t", tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert all(b"\r" not in content for content in contents(tmp_path / "a").values())


def test_csv_reads_back(frame, tmp_path):
    returned = save_table(frame, "t", tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), returned)


def test_failed_write_leaves_the_old_file_and_no_other(frame, tmp_path, monkeypatch):
    save_table(frame, "t", tmp_path)
    before = contents(tmp_path)

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_table(frame.assign(n=1), "t", tmp_path)
    assert contents(tmp_path) == before


# --- save_figure -------------------------------------------------------------------------------------------------


def test_figure_repeats_its_bytes_without_dates(fig, tmp_path):
    save_figure(fig, "fig_1", tmp_path / "a")
    save_figure(fig, "fig_1", tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert set(files) == {"fig_1.png", "fig_1.pdf"}
    for word in (b"Date", b"Producer", b"Creator", b"Software", b"atplotlib"):
        assert all(word not in content for content in files.values())


def test_figure_has_200_dpi_and_stays_open(fig, tmp_path):
    save_figure(fig, "f", tmp_path)
    with Image.open(tmp_path / "f.png") as image:
        dpi, width = image.info["dpi"][0], image.width
    assert dpi == pytest.approx(200, abs=0.1)
    assert width == pytest.approx(fig.get_figwidth() * 200, rel=0.2)
    assert plt.fignum_exists(fig.number)


def test_photographs_go_where_git_does_not_look(fig, tmp_path):
    save_figure(fig, "f", tmp_path, photographs=True)
    assert set(contents(tmp_path)) == {"photographs/f.png", "photographs/f.pdf"}


def test_figure_that_cannot_be_drawn_leaves_the_old_file(fig, tmp_path):
    save_figure(fig, "f", tmp_path)
    before = contents(tmp_path)
    fig.axes[0].set_title("$not closed {$")
    with pytest.raises(ValueError, match="closed"):
        save_figure(fig, "f", tmp_path)
    assert contents(tmp_path) == before


def test_style_is_the_same_whatever_was_set_before():
    with plt.rc_context():
        style()
        first = dict(plt.rcParams)
        plt.rcParams.update({"font.size": 3, "axes.spines.top": True})
        style()
        assert dict(plt.rcParams) == first
        assert plt.rcParams["pdf.fonttype"] == 42
        assert plt.rcParams["svg.hashsalt"]


def test_colors_are_the_colorblind_palette_of_seaborn():
    assert tuple(sns.color_palette("colorblind").as_hex()) == PALETTE
    with plt.rc_context():
        style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE)


# --- paper_versus_ours -------------------------------------------------------------------------------------------


def test_our_rows_come_first_and_both_sides_stand_beside_each_other():
    ours = pd.DataFrame({"n": [27, 28], "backbone": ["b", "x"], "f1": [0.5, 0.6], "interval": ["i", "j"]})
    paper = pd.DataFrame({"backbone": ["a", "b", "c"], "f1": [0.7, np.nan, 0.9], "auc": [1, 1, 1]})
    both = paper_versus_ours(ours, paper, ["backbone"], ["f1"])
    assert list(both) == ["backbone", "f1 paper", "f1 ours", "n", "interval"]
    assert both["backbone"].tolist() == ["b", "x", "a", "c"]
    assert both["f1 paper"].tolist() == pytest.approx([np.nan, np.nan, 0.7, 0.9], nan_ok=True)
    assert both["f1 ours"].tolist() == pytest.approx([0.5, 0.6, np.nan, np.nan], nan_ok=True)
    assert both["n"].tolist() == [27, 28, pd.NA, pd.NA]
    assert both["n"].dtype == "Int64"
    assert list(ours) == ["n", "backbone", "f1", "interval"]


def test_rows_are_aligned_by_all_keys():
    ours = pd.DataFrame({"method": ["dmh", "kmeans"], "backbone": ["vgg16", "vgg16"], "f1": [0.1, 0.2]})
    paper = pd.DataFrame({"backbone": ["vgg16", "vgg16"], "method": ["kmeans", "dmh"], "f1": [0.3, 0.4]})
    both = paper_versus_ours(ours, paper, ["method", "backbone"], ["f1"])
    assert both["f1 paper"].tolist() == [0.4, 0.3]
    assert both["f1 ours"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("ours", "paper", "message"),
    [
        ({"f1": [1.0]}, {"k": ["a"], "f1": [1.0]}, "ours has no column k"),
        ({"k": ["a"], "f1": [1.0]}, {"k": ["a"]}, "paper has no column f1"),
        ({"k": ["a", "a"], "f1": [1.0, 2.0]}, {"k": ["a"], "f1": [1.0]}, "ours has more than one row .*'a'"),
        ({"k": ["a"], "f1": [1.0]}, {"k": ["b", "b"], "f1": [1.0, 2.0]}, "paper has more than one row .*'b'"),
        ({"k": ["a", None], "f1": [1.0, 2.0]}, {"k": ["a"], "f1": [1.0]}, "ours has 1 rows without k"),
    ],
)
def test_alignment_errors(ours, paper, message):
    with pytest.raises(ValueError, match=message):
        paper_versus_ours(pd.DataFrame(ours), pd.DataFrame(paper), ["k"], ["f1"])


# --- show --------------------------------------------------------------------------------------------------------


def test_shown_table_repeats_and_reads_well(frame):
    html = show(frame, caption="Table 1", best={"iou": "max"}).to_html()
    assert html == show(frame.copy(), caption="Table 1", best={"iou": "max"}).to_html()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)
    assert cells == ["VGG16", "0.8719", "27", "a", "MobileNet", "–", "27", "–"]
    assert "<caption>Table 1</caption>" in html
    rules = re.findall(r"([^}]*){\s*text-align: left", html)
    left = set(re.findall(r"col\d", " ".join(rules)))
    assert left == {"col0", "col3"}, "words to the left, numbers to the right"
    assert frame["encoder"][0] == "vgg16"


@pytest.mark.parametrize(("which", "row"), [("max", 1), ("min", 2)])
def test_best_value_is_bold(which, row):
    table = pd.DataFrame({"method": ["dmh", "kmeans", "other"], "score": [np.nan, 0.9, 0.2]})
    html = show(table, best={"score": which}).to_html()
    assert re.findall(r"_row(\d)_col1[^{]*\{\s*font-weight: bold", html) == [str(row)]
    assert "other" in html


def test_best_value_of_each_group_is_bold():
    table = pd.DataFrame({"lesion": list("aabbc"), "score": [0.1, 0.2, 0.9, 0.8, np.nan]})
    html = show(table, best={"score": "max"}, within="lesion").to_html()
    bold = re.search(r"([^}]*)\{\s*font-weight: bold", html)[1]
    assert re.findall(r"_row(\d)_col1", bold) == ["1", "2"]


def test_columns_to_be_read_first_stand_in_front(frame):
    html = show(frame, best={"iou": "max"}, first=["iou", "encoder"]).to_html()
    assert re.findall(r"col_heading[^>]*>(\w+)<", html) == ["iou", "encoder", "n", "note"]
    assert re.findall(r"_row(\d)_col(\d)[^{]*\{\s*font-weight: bold", html) == [("0", "0")]


def test_tables_of_one_notebook_do_not_share_their_ids(frame):
    ids = {
        re.search(r'id="(T_\w+)"', show(f, c).to_html())[1] for f, c in ((frame, "a"), (frame, "b"), (frame[:1], "a"))
    }
    assert len(ids) == 3


def test_plain_text_of_a_shown_table_repeats(frame):
    text = repr(show(frame, caption="Table 1"))
    assert text == repr(show(frame, caption="Table 1"))
    assert "VGG16" in text


def test_show_errors(frame):
    with pytest.raises(ValueError, match=r"best, within or first name dice; .*iou"):
        show(frame, best={"dice": "max"})
    with pytest.raises(ValueError, match=r"best, within or first name drusen; .*iou"):
        show(frame, best={"iou": "max"}, within="drusen")
    with pytest.raises(ValueError, match="largest"):
        show(frame, best={"iou": "largest"})


def test_outlines_have_the_colors_that_the_legend_names():
    fig, ax = plt.subplots()
    masks = np.zeros((5, 8, 8), bool)
    masks[1, 2:5, 2:5] = masks[4, 6:, 6:] = True
    draw_outlines(ax, np.zeros((3, 8, 8), np.uint8), masks, "eye")
    outline_legend(fig, {"microaneurysms": "dots", "soft_exudates": "spots"})
    drawn = [to_hex(contour.get_edgecolor()[0]) for contour in ax.collections]
    named = {text.get_text(): to_hex(line.get_color()) for text, line in _legend(fig)}
    assert drawn == list(named.values()) and list(named) == ["dots", "spots"] and ax.get_title() == "eye"
    plt.close(fig)


def test_outlines_may_be_missing():
    fig, ax = plt.subplots()
    draw_outlines(ax, np.zeros((3, 8, 8), np.uint8), None)
    outline_legend(fig, {})
    assert not ax.collections and not fig.legends
    plt.close(fig)


def _legend(fig):
    (legend,) = fig.legends
    return zip(legend.get_texts(), legend.get_lines(), strict=True)


# --- names of files ------------------------------------------------------------------------------------------------


def test_names_with_dollars_bars_and_tags_are_shown_as_they_are(tmp_path):
    frame = pd.DataFrame({"image_id": ["case_$12_$34", "a|b", "<b>c</b>"], "area": [0.1, 0.2, 0.3]})
    save_table(frame, "clusters", tmp_path)
    markdown = (tmp_path / "clusters.md").read_text()
    assert r"case_\$12_\$34" in markdown and r"a\|b" in markdown
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "clusters.csv"), frame)
    html = show(frame).to_html()
    assert "tex2jax_ignore" in html and "&lt;b&gt;c" in html and "tex2jax_ignore" not in show(frame[1:]).to_html()


@pytest.mark.filterwarnings("error")
def test_titles_show_names_of_files_in_every_script(phantoms, tmp_path):
    with plt.rc_context():
        style()
        fig, ax = plt.subplots(figsize=(3, 3))
        draw_outlines(ax, phantoms.images[0], None, "case_$12_$34\n眼 é")
        title = ax.get_title()
        save_figure(fig, "names", tmp_path)
        plt.close(fig)
    assert title in ("case_$12_$34\n眼 é", "case_$12_$34\n\\u773c é")
