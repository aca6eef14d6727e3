"""The figures behind the widgets; that the widgets move them is tested in a browser (tests/browser)."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ruranet_utils.clustering.weighting import WEIGHT_GRID, search_weights
from ruranet_utils.profiles import ANNOTATIONS, LESIONS
from ruranet_utils.reporting import widgets
from ruranet_utils.statistics.metrics import matched_accuracy


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """The figures that were shown."""
    figures = []
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()))
    yield figures
    plt.close("all")


def move(monkeypatch, **values):
    """Let the widgets be live, with controls set to some values instead of their own."""
    monkeypatch.setenv("RURANET_WIDGETS", "1")
    made = {}

    def interact(draw, **controls):
        made.update(controls)
        draw(**{name: values.get(name, control.value) for name, control in controls.items()})

    monkeypatch.setattr(widgets, "interact", interact)
    return made


@pytest.mark.parametrize(
    ("environment", "live"),
    [
        ({}, False),
        ({"JPY_SESSION_NAME": "04.ipynb"}, True),
        ({"JPY_SESSION_NAME": "04.ipynb", "RURANET_WIDGETS": "0"}, False),
        ({"RURANET_WIDGETS": "1"}, True),
    ],
)
def test_widgets_are_for_notebooks_that_somebody_has_open(monkeypatch, environment, live):
    for name in ("JPY_SESSION_NAME", "RURANET_WIDGETS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert widgets.is_live() is live


@pytest.fixture
def weighed():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 10)
    features = rng.normal(size=(20, len(LESIONS), 3))
    features[labels == 1, LESIONS.index("edema")] += 3  # the one lesion that tells
    spaces = {("resnet18", "kmedoids"): features, ("resnet18", "dmh"): features[..., :2]}
    searches = {key: search_weights(space, "kmedoids") for key, space in spaces.items()}
    return spaces, searches, labels


@pytest.mark.parametrize("row", [0, 2, 40, 80])
def test_the_weights_of_the_sliders_give_the_scores_of_the_grid(weighed, shown, monkeypatch, row):
    spaces, searches, labels = weighed
    move(monkeypatch, features=("resnet18", "dmh"), **dict(zip(LESIONS, WEIGHT_GRID[row], strict=True)))
    widgets.weigh_lesions(spaces, searches, labels, seed=0)
    search = searches["resnet18", "dmh"]
    accuracy = matched_accuracy(labels, search.labels[row])
    plane, scores = shown[0].axes
    assert plane.get_title() == "DMH, ResNet18"
    assert scores.get_title() == f"accuracy {accuracy:.3f}, silhouette {search.criteria['silhouette'][row]:.3f}"
    assert sum(len(points.get_offsets()) for points in plane.collections) == len(labels)


def test_without_a_reader_the_first_figure_is_drawn_once(weighed, shown, monkeypatch):
    monkeypatch.setenv("RURANET_WIDGETS", "0")
    monkeypatch.setattr(widgets, "interact", None)
    widgets.weigh_lesions(*weighed, seed=0)
    assert len(shown) == 1 and shown[0].axes[0].get_title() == "k-medoids, ResNet18"


def test_lesions_above_the_threshold_beside_the_truth(phantoms, shown, monkeypatch):
    """A network whose probability rises from left to right."""
    height, width = phantoms.images.shape[2:]
    rising = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (1, 1, height, width))
    model = SimpleNamespace(
        lesions=("hemorrhages",), card={"thresholds": [0.5]}, probabilities=lambda images, profile: iter([rising])
    )
    controls = move(monkeypatch, photograph=3, threshold=0.75)
    widgets.browse_lesions(phantoms, [model], None)
    truth = phantoms.masks[3, ANNOTATIONS.index("hemorrhages")]
    found = rising[0, 0] > 0.75
    iou = (truth & found).sum() / (truth | found).sum()
    assert shown[0].axes[1].get_title() == f"found, IoU {iou:.2f}"
    assert phantoms.table["image_id"][3] in shown[0].get_suptitle()
    areas = phantoms.masks[:, ANNOTATIONS.index("hemorrhages")].sum(axis=(1, 2))
    assert controls["photograph"].value == areas.argmax() and controls["photograph"].max == len(phantoms) - 1
    assert controls["threshold"].value == 0.5
