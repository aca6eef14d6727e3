"""Where measured tables come from."""

import json

import pandas as pd

from ruranet_utils.running.provenance import git, save_measurement


def test_a_measured_table_names_its_commit_machine_and_versions(tmp_path):
    for name in ("first", "second"):
        save_measurement(pd.DataFrame({"time s": [1.23456]}), name, tmp_path, digits=2)
    assert (tmp_path / "first.csv").read_text() == "time s\n1.23\n"
    measured = json.loads((tmp_path / "run.json").read_text())
    assert set(measured) == {"first", "second"}
    assert measured["first"]["commit"] == git("rev-parse", "HEAD") and measured["first"]["machine"]["cores"] > 0
    assert {"torch", "numpy", "scikit-learn"} <= set(measured["first"]["versions"])
