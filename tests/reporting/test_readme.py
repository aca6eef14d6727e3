import json
import re

import numpy as np
import pandas as pd
import pytest

from ruranet_utils.reporting import readme
from ruranet_utils.running.provenance import git
from ruranet_utils.storage import paths


def test_readme_holds_the_committed_results():
    """All but the cost of the last run, which differs when the reader has run it again."""
    text = (paths.ROOT / "README.md").read_text()
    first, renewed = (
        re.sub(r"^Computed by the committed runs.*", "", x, flags=re.M) for x in (text, readme.readme(text))
    )
    assert renewed == first != text


def test_every_claim_has_both_numbers_a_verdict_and_a_notebook():
    *claims, audit = readme.results().splitlines()[2:]
    assert len(claims) == len(readme.CLAIMS)
    for line in claims:
        _, claim, paper, synthetic, real, verdict, notebook, _ = (cell.strip() for cell in line.split("|"))
        target = re.fullmatch(r"\[\d\d\]\((.+)\)", notebook).group(1)
        assert claim and (paths.ROOT / target).exists() and "N = " in real
        if claim.startswith("Soft exudates"):  # neither in the paper nor in the phantoms
            assert (paper, synthetic, verdict) == ("–", "–", "not in the paper")
        else:
            assert -1 < float(paper) < 1 and "N = " in synthetic and verdict.startswith(("ours is", "within", "no"))
    assert "impossible or contradicted" in audit


@pytest.mark.parametrize(
    ("paper", "ours", "score", "verdict"),
    [
        (0.8, (0.7, 0.6, 0.9), "iou", "within our interval"),
        (0.8, (0.7, 0.6, 0.75), "iou", "ours is lower"),
        (0.5, (0.7, 0.6, 0.75), "iou", "ours is higher"),
        (np.nan, (0.7, 0.6, 0.75), "iou", "not in the paper"),
        (0.3, (0.1, -0.1, 0.2), "difference", "no difference shown"),
        (0.8, (0.7, np.nan, np.nan), "iou", "ours is lower"),
        (0.1, (0.15, 0.05, 0.2), "difference", "within our interval"),
        (0.3, (0.15, 0.05, 0.2), "difference", "ours is lower"),
    ],
)
def test_verdicts(paper, ours, score, verdict):
    row = dict(zip((f"{score} ours", f"{score}_low", f"{score}_high"), ours, strict=True))
    assert readme.verdict(paper, pd.Series({**row, "weights": "ImageNet"}), score) == verdict
    if not np.isnan(paper):
        assert readme.verdict(paper, pd.Series({**row, "weights": "random"}), score) == "not comparable: random weights"


def test_without_an_interval_any_other_number_is_lower_or_higher():
    assert readme.verdict(0.94, pd.Series({"ours": 0.83, "weights": "ImageNet"}), "") == "ours is lower"
    assert readme.verdict(0.8, pd.Series({"ours": 0.83, "weights": "ImageNet"}), "") == "ours is higher"


def test_a_changed_table_changes_the_readme(tmp_path, monkeypatch):
    for profile in readme.PROFILES:
        (tmp_path / profile).mkdir()
        for file in paths.figures(profile).glob("table_*.csv"):
            (tmp_path / profile / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path))
    assert readme.results() in (paths.ROOT / "README.md").read_text()
    table = pd.read_csv(tmp_path / "open" / "table_2.csv")
    table["iou ours"] += 0.0001
    table.to_csv(tmp_path / "open" / "table_2.csv", index=False)
    assert readme.results() not in (paths.ROOT / "README.md").read_text()


def test_what_the_profile_needs_is_what_its_run_measured():
    text = (paths.ROOT / "README.md").read_text()
    committed = git("show", "HEAD:figures/synthetic/run.json")
    if committed is None:
        pytest.skip("no git repository")
    run = json.loads(committed)
    minutes = sum(notebook["costliest"]["time_s"] for notebook in run["notebooks"].values()) / 60
    (row,) = re.findall(r"^\| `synthetic` \|.*", text, re.M)
    assert row.endswith(f"| no | {minutes:.0f} min | {run['disk_mb']['store'] / 1000:.1f} GB |")
    assert f"takes about {minutes:.0f} minutes" in text
    assert f"The environment takes {run['disk_mb']['environment'] / 1000:.0f} GB more" in text


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="results"):
        readme.readme("# nothing")


def test_every_sentence_follows_its_table(tmp_path, monkeypatch):
    for file in paths.figures("open").glob("table_*.csv"):
        (tmp_path / "open").mkdir(exist_ok=True)
        (tmp_path / "open" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path))
    said = [readme.findings()]
    assert said[0] in (paths.ROOT / "README.md").read_text()
    numeric = (
        "table_1",
        "table_protocols",
        "table_3",
        "table_3_draws",
        "table_confound",
        "table_confound_versus_paper",
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
        said.append(readme.findings())
    table = pd.read_csv(tmp_path / "open" / "table_audit.csv")
    table.assign(verdict="consistent").to_csv(tmp_path / "open" / "table_audit.csv", index=False)
    said.append(readme.findings())
    assert len(set(said)) == 12
