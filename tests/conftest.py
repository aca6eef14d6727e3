"""What several test files share: a tiny profile, its cohort, an empty store and the store's journal."""

import json

import numpy as np
import pytest

from ruranet_utils.data.cohort import load_cohorts
from ruranet_utils.profiles import get_profile
from ruranet_utils.segmentation import unet
from ruranet_utils.segmentation.model_file import SHAPE, Model
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import Store


@pytest.fixture(scope="session")
def tiny():
    """Profile whose every step takes about a second."""
    return get_profile(
        "synthetic",
        n_images=20,
        image_size_px=64,
        crop_field=False,
        patch_size_px=32,
        patches_per_image=1,
        batch_size=4,
        encoder_depth=3,
        epochs=1,
        classifier_epochs=1,
        feature_size_px=32,
        workers=1,
        encoders="mobilenet_v2",
        classifiers="mobilenet_v2",
        extractors="mobilenet_v2",
    )


@pytest.fixture(scope="session")
def phantoms(tiny, tmp_path_factory):
    """The synthetic cohort of the tiny profile."""
    return load_cohorts(tiny, Store(tmp_path_factory.mktemp("phantoms")))[0]


@pytest.fixture(scope="session")
def untrained(tmp_path_factory, tiny):
    """Folder of a store in which a network for hemorrhages is kept as that of the profile synthetic."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RURANET_STORE", str(store))
        network = unet.build("mobilenet_v2", "scse", tiny)
        state = {f"state.{name}": value.numpy() for name, value in network.state_dict().items()}
        card = {"lesions": ["hemorrhages"], "encoder": "mobilenet_v2", "attention": "scse", "thresholds": [0.5]}
        card |= tiny.settings(*SHAPE, "crop_field")
        Model(state, card).save(paths.models("synthetic"))
    return store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A function that returns what the store computed or found since it was last called."""
    path = tmp_path / "journal.jsonl"
    monkeypatch.setenv("RURANET_JOURNAL", str(path))

    def read() -> list[dict]:
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [event for event in map(json.loads, lines) if "found" in event]

    return read


@pytest.fixture
def two_groups():
    """Twenty images, four lesions: the second lesion alone separates the even images from the odd ones."""
    rng = np.random.default_rng(0)
    y_true = np.arange(20) % 2
    features = rng.normal(size=(20, 4, 5))
    features[:, 1] += 2.0 * y_true[:, None]
    return features, y_true
