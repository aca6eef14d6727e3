import json
import re

import numpy as np
import pandas as pd
import pytest

from ruranet_utils.reporting import results
from ruranet_utils.running.provenance import git
from ruranet_utils.storage import paths


def page(name):
    return (paths.ROOT / name).read_text()


@pytest.mark.parametrize("name", results.PAGES)
def test_a_page_holds_the_committed_results(name):
    """All but the cost of the last run, which differs when the reader has run it again."""
    minutes = re.compile(r"^Minutes are those.*", re.M)
    written, renewed = (minutes.sub("", text) for text in (page(name), results.renew(page(name))))
    assert renewed == written


def test_every_claim_has_both_numbers_a_verdict_and_a_notebook():
    lines = results.exhibits().splitlines()[2:]
    others, claims, audit = lines[: len(results.OTHERS)], lines[len(results.OTHERS) : -1], lines[-1]
    assert len(claims) == len(results.CLAIMS) and "impossible or contradicted" in audit
    for line in (*others, *claims):
        _, exhibit, claim, paper, real, synthetic, verdict, minutes, notebook, _ = map(str.strip, line.split("|"))
        target = re.fullmatch(r"\[\d\d\]\(\.\./(.+)\)", notebook).group(1)
        assert exhibit and claim and minutes.isdigit() and (paths.ROOT / target).exists()
        assert verdict.startswith(("reproduced", "differs", "no", "cannot be checked"))
        if line in claims:
            assert "N = " in real
            assert (exhibit in ("–", "Control")) == (paper == "–")
            assert exhibit == "–" or "three networks" in claim or "N = " in synthetic
            assert paper == "–" or -1 < float(paper) < 1


@pytest.mark.parametrize(
    ("paper", "ours", "score", "verdict"),
    [
        (0.8, (0.7, 0.6, 0.9), "iou", "reproduced (in our interval)"),
        (0.8, (0.7, 0.6, 0.75), "iou", "differs: lower"),
        (0.5, (0.7, 0.6, 0.75), "iou", "differs: higher"),
        (np.nan, (0.7, 0.6, 0.75), "iou", "not in the paper"),
        (0.8, (0.7, np.nan, np.nan), "iou", "differs: lower (no interval)"),
    ],
)
def test_verdicts(paper, ours, score, verdict):
    row = dict(zip((f"{score} ours", f"{score}_low", f"{score}_high"), ours, strict=True))
    assert results.verdict(paper, pd.Series({**row, "weights": "ImageNet"}), score) == verdict
    if not np.isnan(paper):
        assert (
            results.verdict(paper, pd.Series({**row, "weights": "random"}), score) == "not comparable: random weights"
        )


def test_without_an_interval_any_other_number_is_lower_or_higher():
    ours = pd.Series({"ours": 0.83, "weights": "ImageNet"})
    assert results.verdict(0.94, ours, "") == "differs: lower (no interval)"
    assert results.verdict(0.8, ours, "") == "differs: higher (no interval)"


def test_a_difference_follows_its_own_verdict():
    """Its interval leaves out 0, but it is one of many; where labels chose the weights, there is no test."""
    row = {"difference ours": 0.12, "difference_low": 0.01, "difference_high": 0.23, "weights": "ImageNet"}
    several = pd.Series({**row, "verdict": "no difference shown"})
    assert results.verdict(0.2, several, "difference") == "no difference shown"
    shown = pd.Series({**row, "verdict": "higher"})
    assert results.verdict(0.2, shown, "difference") == "reproduced (in our interval)"
    assert results.verdict(0.3, shown, "difference") == "differs: lower"
    untested = pd.Series({**row, "verdict": np.nan})
    assert results.verdict(0.2, untested, "difference") == "not tested: labels chose the weights"


def test_a_changed_table_changes_the_page(tmp_path, monkeypatch):
    for profile in results.PROFILES:
        (tmp_path / profile).mkdir()
        for file in (*paths.figures(profile).glob("*.csv"), paths.figures(profile) / "run.json"):
            (tmp_path / profile / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path))
    assert results.exhibits() in page("docs/results.md") and results.summary() in page("README.md")
    for name, score, written in (("table_2", "iou", results.exhibits), ("table_4", "accuracy", results.summary)):
        before, file = written(), tmp_path / "open" / f"{name}.csv"
        table = pd.read_csv(file)
        table[f"{score} ours"] += 0.01
        table.to_csv(file, index=False)
        assert written() != before


def test_the_picture_shows_the_tables():
    ax = results.headline().axes[0]
    heights = [bar.get_height() for bar in ax.patches]
    heads = [results._find("open", "table_4", results._DMH | row) for row in (results._ORACLE, results._EQUAL)]
    areas = results._find("open", "table_lesion_channel", results._AREAS)
    blind = results._find("open", "table_confound", results._BLIND)
    expected = [heads[0]["accuracy paper"], *(head["accuracy ours"] for head in heads)]
    assert heights == [*expected, areas["accuracy"], blind["accuracy ours"]]


def test_what_the_profile_needs_is_what_its_run_measured():
    committed = git("show", "HEAD:figures/synthetic/run.json")
    if committed is None:
        pytest.skip("no git repository")
    run = json.loads(committed)
    minutes = sum(notebook["costliest"]["time_s"] for notebook in run["notebooks"].values()) / 60
    settings = page("docs/settings.md")
    (row,) = re.findall(r"^\| `synthetic` \|.*", settings, re.M)
    assert row.endswith(f"| no | {minutes:.0f} min | {run['disk_mb']['store'] / 1000:.1f} GB |")
    assert f"takes about {minutes:.0f} minutes" in page("README.md")
    assert f"The environment takes {run['disk_mb']['environment'] / 1000:.0f} GB more" in settings


def test_the_readme_says_how_good_the_shipped_network_is():
    table = pd.read_csv(paths.ROOT / "models/table_field.csv")
    (row,) = table[(table["scored at"] == "the photographs' own size") & (table["threshold"] == 0.3)].to_dict("records")
    assert f"hard exudates: IoU {row['iou hard_exudates']:.2f} at full size" in page("README.md")


def test_make_readme_renews_the_pages_the_picture_and_the_notebooks(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(results, "write_atomically", lambda path, write: write(tmp_path / path.name))
    monkeypatch.setattr(results, "save_figure", lambda _, name, folder: made.append((name, folder)))
    monkeypatch.setattr(results, "publish", lambda executed, folder: made.append((executed, folder)))
    results.main()
    assert (tmp_path / "README.md").read_text() == page("README.md") and (tmp_path / "results.md").exists()
    opened = paths.figures("open")
    assert made == [("fig_headline", opened), (opened / "notebooks", paths.NOTEBOOKS / "open")]


def test_the_readme_is_short():
    assert len(page("README.md").split()) <= 700


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks a marker"):
        results.renew("# nothing")


def test_every_sentence_follows_its_table(tmp_path, monkeypatch):
    for file in paths.figures("open").glob("table_*.csv"):
        (tmp_path / "open").mkdir(exist_ok=True)
        (tmp_path / "open" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("RURANET_FIGURES", str(tmp_path))
    said = [results.findings()]
    assert said[0] in page("docs/results.md")
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
        "table_5_seeds",
        "table_ladder",
    )
    for name in numeric:
        file = tmp_path / "open" / f"{name}.csv"
        table = pd.read_csv(file)
        numbers = table.select_dtypes(float).columns
        table.assign(**table[numbers] / 2).to_csv(file, index=False)
        said.append(results.findings())
    table = pd.read_csv(tmp_path / "open" / "table_audit.csv")
    table.assign(verdict="consistent").to_csv(tmp_path / "open" / "table_audit.csv", index=False)
    said.append(results.findings())
    assert len(set(said)) == 14
