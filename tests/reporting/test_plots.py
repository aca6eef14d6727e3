"""Figures show the numbers that they are given."""

import warnings
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
    (ax,) = plots.encoder_scores(study[study["encoder"] == "vgg19"], pd.Series({("a", "vgg19"): 0.9}), names).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B", "C"]


def test_learning_curves():
    history = np.array([[1, 0.9, 0.1], [2, 0.5, 0.4]])
    loss, dice = plots.learning_curves({"one": history}).axes
    assert loss.lines[0].get_ydata().tolist() == [0.9, 0.5] and dice.lines[0].get_ydata().tolist() == [0.1, 0.4]
    history[:, 2] = np.nan
    assert len(plots.learning_curves({"one": history}).axes) == 1


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


def scored(**columns):
    table = pd.DataFrame(columns)
    return table.assign(accuracy_low=table["accuracy"] - 0.1, accuracy_high=table["accuracy"] + 0.1)


def test_forest_puts_the_first_row_on_top():
    _, ax = plt.subplots()
    plots.forest(ax, scored(accuracy=[0.5, 0.8]), ["one", "two"], paper=0.84, our_own=0.5)
    assert ax.lines[0].get_xdata().tolist() == [0.5, 0.8] and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["paper", "our own"]


def test_receiver_curves_shows_each_protocol():
    rates = np.array([0, 0.2, 1]), np.array([0, 0.9, 1])
    curves = {"hold-out": {"vgg16": rates}, "cross-validation": {"vgg16": rates}}
    scores = scored(protocol=list(curves), backbone="vgg16", accuracy=[0.6, 0.7], n=[9, 30])
    fig = plots.receiver_curves(curves, scores, pd.Series({"vgg16": 0.9}))
    assert [ax.get_title() for ax in fig.axes[:2]] == ["hold-out, n = 9", "cross-validation, n = 30"]
    assert fig.axes[0].lines[1].get_ydata().tolist() == [0, 0.9, 1]
    assert [line.get_xdata()[0] for line in fig.axes[2].lines if line.get_marker() == "x"] == [0.9]


def test_draws_calibration_and_confusions():
    draws = pd.DataFrame({"seed": [0, 1], "accuracy": [0.4, 0.6], "auc": [0.5, 0.7], "n": 12})
    crosses = [line for line in plots.spread_of_draws(draws, 1).axes[0].lines if line.get_marker() == "x"]
    assert [cross.get_xdata()[0] for cross in crosses] == [0.6, 0.7]
    bins = pd.DataFrame({"backbone": "vgg16", "predicted": [0.2, 0.7], "share": [0.1, 0.8], "low": 0.0, "high": 1.0})
    ax = plots.calibration(bins).axes[0]
    assert ax.lines[1].get_ydata().tolist() == [0.1, 0.8]
    matrix = np.array([[3, 1], [0, 4]])
    fig = plots.confusions({"paper": {"vgg16": matrix}, "ours": {"vgg16": matrix.T}})
    shown = [ax.images[0].get_array().tolist() for ax in fig.axes]
    assert shown == [matrix.tolist(), matrix.T.tolist()]
    assert [ax.get_title() for ax in fig.axes] == ["VGG16", ""]


def test_ablation_leaves_the_paper_without_a_plus():
    variants = ["a", "a+", "b", "c", "d", "e"]
    results = pd.concat([scored(variant=variants, accuracy=0.7).assign(selection=s) for s in ("equal", "held_out")])
    results = pd.concat([results, scored(variant=variants, accuracy=0.8).assign(selection="oracle")])
    ax = plots.ablation(results, pd.Series({"a": 0.5, "b": 0.9}), 9).axes[0]
    paper = next(line for line in ax.lines if line.get_label() == "paper")
    np.testing.assert_array_equal(paper.get_ydata(), [0.5, np.nan, 0.9, np.nan, np.nan, np.nan])


def test_components_has_the_papers_crosses():
    curve = pd.DataFrame({"k": [1, 2], "explained_ratio": [0.4, 0.6], "reconstruction_error": [9.0, 6.0]})
    fig = plots.components(curve.assign(reconstruction_error_per_feature=[0.6, 0.4]), (50, 0.94, 0.06))
    crosses = [line.get_xydata().tolist() for ax in fig.axes for line in ax.lines if line.get_marker() == "x"]
    assert crosses == [[[50, 0.94]], [[50, 0.06]]]


def test_confounds_has_a_panel_for_what_is_seen():
    rows = [(seen, m, c) for seen in ("lesions", "whole") for m in ("dmh", "last") for c in ("untied", "tied")]
    table = pd.DataFrame(rows, columns=["seen", "method", "cohort"])
    scores = scored(**table.to_dict("list"), accuracy=np.arange(8) / 10)
    fig = plots.confounds(scores, {"dmh": "DMH", "last": "probe"}, 0.84)
    assert [ax.get_title() for ax in fig.axes] == ["lesions", "whole"]
    assert fig.axes[1].lines[0].get_ydata().tolist() == [0.4, 0.5]


def test_groups_areas_and_outlines():
    clusters = pd.DataFrame({"severity": [0.1, 2.0], "areas certainty": [0.5, 0.9], "areas": ["fewer", "more"]})
    fig = plots.groups(clusters, pd.DataFrame({"exudates": [0.0, 1.0]}), ["fewer", "more"])
    assert points(fig.axes[0]).tolist() == [[0.1, 0.5], [2.0, 0.9]]
    alone = clusters.assign(**{"areas certainty": np.nan, "areas": "fewer"})
    with warnings.catch_warnings(action="error", category=UserWarning):  # about a legend of nothing
        fig = plots.groups(alone, pd.DataFrame({"exudates": [0.0, 0.0]}), ["fewer", "more"])
    assert [text.get_text() for text in fig.axes[0].texts] == ["one group only: no certainty"]
    assert len(plots.lesion_areas(pd.DataFrame({"one": [0.0, 1.0], "two": [2.0, 3.0]})).axes[0].patches) == 2
    image = np.zeros((3, 8, 8), np.uint8)
    fig = plots.outlined([(image, None, "first")], {"hard_exudates": "Hard exudates"})
    assert [ax.get_title() for ax in fig.axes if ax.get_title()] == ["first"]


def test_each_camera_has_a_row_with_and_without_lesions():
    photographs = np.arange(3, dtype=np.uint8).repeat(12).reshape(3, 3, 2, 2)
    fig = plots.with_and_without(photographs, photographs + 100, {"A": 2, "B": 1})
    assert [ax.images[0].get_array().max() for ax in fig.axes] == [2, 102, 1, 101]
    assert [ax.get_title() for ax in fig.axes[2:]] == ["camera B", "camera B, lesions removed"]
