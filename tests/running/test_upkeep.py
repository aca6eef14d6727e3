"""What the store holds, what of it is outdated, and that nothing else is removed."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from ruranet_utils import cli
from ruranet_utils.clustering.study import SEARCH
from ruranet_utils.running import upkeep
from ruranet_utils.segmentation.segmenter import TRAINING
from ruranet_utils.storage import paths
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """With a current and an outdated result, a trained network, a checkpoint, a kept model and an old layout."""
    monkeypatch.setenv("RURANET_STORE", str(tmp_path))
    store = Store(paths.steps())
    older = Step(SEARCH.name, SEARCH.version - 1, SEARCH.code)
    for step, size in ((SEARCH, 10), (older, 100_000), (TRAINING, 200_000)):
        store.fetch(step, {"seed": 0}, lambda size=size: {"x": np.zeros(size)})
    store.checkpoint(SEARCH, {"seed": 1}).write_bytes(b"half a training")
    for name in ("models/open/edema.safetensors", "weight_search/abc.safetensors", "weight_search/abc.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 50_000)
    return store


def test_survey_tells_what_is_outdated(store):
    table = upkeep.survey().set_index("step")
    assert list(table.index) == ["segmentation_model", "weight_search", "(older layout)"]
    assert table["results"].to_dict() == {"segmentation_model": 1, "weight_search": 2, "(older layout)": 1}
    assert table.loc["segmentation_model", "outdated_mb"] == 0 and table.loc["segmentation_model", "size_mb"] > 1.5
    assert 0.8 < table.loc["weight_search", "outdated_mb"] < table.loc["weight_search", "size_mb"]
    assert table.loc["(older layout)", "outdated_mb"] >= 0.1


@pytest.mark.parametrize("networks", [False, True])
def test_prune_keeps_what_a_run_would_read(store, networks, tmp_path):
    freed = upkeep.prune(networks)
    assert freed > (2.4 if networks else 0.9)
    assert upkeep.survey()["outdated_mb"].sum() == 0
    assert store._load(store.path(SEARCH, {"seed": 0})) is not None
    assert (store._load(store.path(TRAINING, {"seed": 0})) is None) == networks
    assert (tmp_path / "models/open/edema.safetensors").exists() and not (tmp_path / "weight_search").exists()


def test_an_older_layout_is_never_served_and_left_alone(store, tmp_path):
    assert upkeep.older_layout(tmp_path) == [tmp_path / "weight_search"]
    assert store.root == tmp_path / "2"
    assert (tmp_path / "weight_search/abc.json").read_bytes() == b"x" * 50_000


def test_what_is_not_ours_is_left_alone(store, tmp_path):
    for name in ("my photographs/eye.png", "my tables/a.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    upkeep.prune()
    assert {entry.name for entry in tmp_path.iterdir()} == {"2", "models", "my photographs", "my tables", "notes.txt"}


def test_a_damaged_record_counts_as_outdated(store):
    record = store.path(SEARCH, {"seed": 0}).with_suffix(".json")
    record.write_text(record.read_text()[:20])
    record.with_name(".1-half.json").write_text("{")
    table = upkeep.survey().set_index("step")
    assert table.loc["weight_search", "results"] == 2
    upkeep.prune()
    assert not record.exists() and not record.with_name(".1-half.json").exists()


def test_the_command_shows_and_prunes(store, tmp_path):
    shown = CliRunner().invoke(cli.main, ["store", "--json"])
    assert {row["step"] for row in json.loads(shown.stdout)} >= {"weight_search", "(older layout)"}
    assert (tmp_path / "weight_search").exists(), "nothing is removed unasked"
    done = CliRunner().invoke(cli.main, ["store", "--prune"])
    assert done.exit_code == 0 and "removed: " in done.output and not (tmp_path / "weight_search").exists()
    assert CliRunner().invoke(cli.main, ["store", "--networks"]).exit_code == 2


def test_an_empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("RURANET_STORE", str(tmp_path / "none"))
    assert upkeep.survey().empty and upkeep.prune() == 0


def test_a_lock_that_is_released_meanwhile_counts_nothing(tmp_path, monkeypatch):
    """``make reproduce`` describes its store while another notebook is still running."""
    before = upkeep.size_mb(tmp_path)
    monkeypatch.setattr("pathlib.Path.rglob", lambda folder, pattern: [folder / "released.lock"])
    assert upkeep.size_mb(tmp_path) == before
