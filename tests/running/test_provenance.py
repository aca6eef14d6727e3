"""Where measured tables come from."""

import json
from dataclasses import replace

import pandas as pd

from ruranet_utils.profiles import get_profile
from ruranet_utils.running.provenance import describe_run, git, save_measurement


def test_a_measured_table_names_its_commit_machine_and_versions(tmp_path):
    for name in ("first", "second"):
        save_measurement(pd.DataFrame({"time s": [1.23456]}), name, tmp_path, digits=2)
    assert (tmp_path / "first.csv").read_text() == "time s\n1.23\n"
    measured = json.loads((tmp_path / "run.json").read_text())
    assert set(measured) == {"first", "second"}
    assert measured["first"]["commit"] == git("rev-parse", "HEAD") and measured["first"]["machine"]["cores"] > 0
    assert {"torch", "numpy", "scikit-learn"} <= set(measured["first"]["versions"])


def test_what_is_known_of_other_notebooks_is_kept_with_the_settings_that_were_others():
    profile = get_profile("synthetic")
    ran = {"a": {"time_s": 9.0, "computed": 5}, "b": {"time_s": 8.0, "computed": 3}}
    first = describe_run(profile, {}, ran, {})
    warm = describe_run(profile, {}, {"a": {"time_s": 1.0, "computed": 0}}, json.loads(json.dumps(first)))
    assert warm["notebooks"]["a"]["time_s"] == 1 and warm["notebooks"]["a"]["costliest"]["time_s"] == 9
    assert warm["notebooks"]["b"] == first["notebooks"]["b"]
    cheaper = describe_run(profile, {}, {"a": {"time_s": 3.0, "computed": 2}}, json.loads(json.dumps(first)), cold=True)
    assert cheaper["notebooks"]["a"]["costliest"]["time_s"] == 3, "today's code computes less"
    other = replace(profile, epochs=7)
    changed = describe_run(other, {}, {"a": {"time_s": 2.0, "computed": 1}}, json.loads(json.dumps(warm)))
    assert changed["notebooks"]["a"]["costliest"]["time_s"] == 2, "what it cost with other settings says nothing"
    assert changed["notebooks"]["b"]["other_settings"] == {"epochs": profile.epochs}
    again = describe_run(replace(profile, seed=1), {}, {}, json.loads(json.dumps(changed)))
    assert again["notebooks"]["b"]["other_settings"] == {"seed": 0} and "other_settings" in again["notebooks"]["a"]
    back = describe_run(profile, {}, {}, json.loads(json.dumps(again)))
    assert back["notebooks"]["b"] == first["notebooks"]["b"]
