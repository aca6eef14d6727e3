import re

import pandas as pd
import pytest

from ruranet_utils import paths, summary


def test_readme_holds_the_committed_results():
    """All but the time and memory of the last run, which differ when the reader has run it again."""
    text = (paths.ROOT / "README.md").read_text()
    first, renewed = (
        re.sub(r"^Computed by the committed runs.*", "", one, flags=re.M) for one in (text, summary.readme(text))
    )
    assert renewed == first != text


def test_every_claim_of_the_readme_has_the_papers_and_our_number():
    for line in summary.results().splitlines()[2:]:
        _, claim, paper, synthetic, *_ = (cell.strip() for cell in line.split("|"))
        if claim.startswith("soft exudates"):  # neither in the paper nor in the phantoms
            assert paper == synthetic == "–"
        else:
            assert claim and 0 < float(paper) < 1 and synthetic.startswith("0.") and "N = " in synthetic


def test_a_changed_table_changes_the_readme(tmp_path, monkeypatch):
    for profile in summary.PROFILES:
        (tmp_path / profile).mkdir()
        for file in paths.figures(profile).glob("table_*.csv"):
            (tmp_path / profile / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path))
    assert summary.results() in (paths.ROOT / "README.md").read_text()
    table = pd.read_csv(tmp_path / "open" / "table_2.csv")
    table["iou ours"] += 0.0001
    table.to_csv(tmp_path / "open" / "table_2.csv", index=False)
    assert summary.results() not in (paths.ROOT / "README.md").read_text()


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="results"):
        summary.readme("# nothing")


def test_every_sentence_follows_its_table(tmp_path, monkeypatch):
    for file in paths.figures("open").glob("table_*.csv"):
        (tmp_path / "open").mkdir(exist_ok=True)
        (tmp_path / "open" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path))
    said = [summary.findings()]
    assert said[0] in (paths.ROOT / "README.md").read_text()
    numeric = (
        "table_1",
        "table_protocols",
        "table_4_summary",
        "table_5",
        "table_pca_versus_paper",
        "table_lesion_channel",
    )
    for name in numeric:
        file = tmp_path / "open" / f"{name}.csv"
        table = pd.read_csv(file)
        numbers = table.select_dtypes(float).columns
        table.assign(**table[numbers] / 2).to_csv(file, index=False)
        said.append(summary.findings())
    table = pd.read_csv(tmp_path / "open" / "table_audit.csv")
    table.assign(verdict="consistent").to_csv(tmp_path / "open" / "table_audit.csv", index=False)
    said.append(summary.findings())
    assert len(set(said)) == 8
