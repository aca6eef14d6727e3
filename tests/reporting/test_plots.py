"""Figures show the numbers that they are given."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ruranet_utils.profiles import METHODS
from ruranet_utils.reporting import plots


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def points(ax):
    return np.concatenate([np.asarray(one.get_offsets()) for one in ax.collections if len(one.get_offsets())])


def test_encoder_scores_has_a_panel_for_each_lesion():
    names = {"a": "A", "b": "B", "c": "C"}
    study = pd.DataFrame([(x, e, i / 10) for x in names for i, e in enumerate(("vgg16", "vgg19"))])
    study.columns = ["lesion", "encoder", "iou"]
    study = study.assign(iou_low=study["iou"] - 0.05, iou_high=study["iou"] + 0.05)
    fig = plots.encoder_scores(study, pd.Series({("a", "vgg19"): 0.9}), names)
    assert [ax.get_title() for ax in fig.axes] == ["A", "B", "C", ""]
    ours, *_, paper = fig.axes[0].lines
    assert ours.get_xdata().tolist() == [0, 0.1] and np.array_equal(paper.get_xdata(), [np.nan, 0.9], equal_nan=True)


def test_learning_curves():
    history = np.array([[1, 0.9, 0.1], [2, 0.5, 0.4]])
    loss, dice = plots.learning_curves({"one": history}).axes
    assert loss.lines[0].get_ydata().tolist() == [0.9, 0.5] and dice.lines[0].get_ydata().tolist() == [0.1, 0.4]


def test_attention_is_shown_as_it_is():
    maps = [SimpleNamespace(spatial=np.full((4, 4), 0.25), channel=np.array([0.9, 0.1]))]
    fig = plots.attention(np.zeros((3, 8, 8), np.uint8), maps, "image")
    assert (fig.axes[1].images[0].get_array() == 0.25).all()
    assert fig.axes[3].lines[0].get_ydata().tolist() == [0.1, 0.9]


def test_errors_have_the_colors_of_the_legend():
    image = np.full((3, 2, 2), 90, np.uint8)
    truth, found = np.array([[1, 1], [0, 0]], bool), np.array([[1, 0], [1, 0]], bool)
    fig = plots.segmentation_errors({"lesion": (image, truth, found)})
    shown = fig.axes[3].images[0].get_array()
    expected = [[plots.ERRORS["found"], plots.ERRORS["missed"]], [plots.ERRORS["false positive"], (30, 30, 30)]]
    assert shown.tolist() == np.array(expected).tolist()


def test_clusterings_marks_the_backbones_with_imagenet_weights():
    results = pd.DataFrame({"method": METHODS[:2], "accuracy": [0.6, 0.7], "weights": ["random", "ImageNet"]})
    paper = pd.DataFrame({"method": METHODS[:1], "accuracy": [0.8]})
    (ax,) = plots.clusterings(results.assign(selection="equal"), paper, 9).axes
    assert sorted(points(ax)[:, 1]) == [0.6, 0.7]
    filled = next(one for one in ax.collections if len(one.get_offsets())).get_facecolors()
    assert filled[:, 3].tolist() == [0, 1] and ax.lines[0].get_ydata().tolist() == [0.8]


def test_training_course_draws_seeds_and_their_mean():
    course = pd.DataFrame({"seed": [0, 0, 1, 1], "epoch": [0, 1, 0, 1]})
    course = course.assign(loss_diversity=0.1, loss_cluster=0.2, silhouette=0.3, accuracy=[0.5, 0.6, 0.7, 0.8])
    fig = plots.training_course(course, 0.55, 9)
    drawn = [line.get_ydata() for line in fig.axes[2].lines]
    np.testing.assert_allclose(drawn[:3], [[0.5, 0.6], [0.7, 0.8], [0.6, 0.7]])


def test_weightings_frames_the_choices():
    accuracy = np.linspace(0.5, 0.9, 81)
    fig = plots.weightings(accuracy, {"silhouette": 0, "labels": 40})
    ax = fig.axes[0]
    np.testing.assert_allclose(ax.collections[0].get_array().ravel(), accuracy)
    assert [(int(p.get_x()), int(p.get_y())) for p in ax.patches] == [(0, 0), (4, 4)]


def test_projections_colors_by_class():
    plane, classes = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    fig = plots.projections({"before": ({"PCA": plane}, {"diagnosis": classes, "cluster": 1 - classes})})
    assert [ax.get_title() for ax in fig.axes] == ["before, by diagnosis", "before, by cluster"]
    for ax, zeros in zip(fig.axes, (plane[::2], plane[1::2]), strict=True):
        np.testing.assert_array_equal(ax.collections[0].get_offsets(), zeros)
