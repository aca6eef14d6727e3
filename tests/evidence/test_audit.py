"""The audit and its search (grim) on tables of which the truth is known, against slow loops and scikit-learn."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from ruranet_utils import published
from ruranet_utils.evidence.audit import audit_classification, audit_segmentation
from ruranet_utils.evidence.grim import AVERAGES, SCORES, confusion_matrices, decimals_of, possible_sizes, rounds_to


def scikit_learn_scores(n_positive, n_negative, tp, fp, fn, tn, average):
    """Scores of ``tp`` ... ``tn``; what is missing to the class sizes lies in a third cluster."""
    third = (n_positive - tp - fn, n_negative - fp - tn)
    y_true = np.repeat([1, 1, 1, 0, 0, 0], [tp, fn, third[0], fp, tn, third[1]])
    y_pred = np.repeat([1, 0, 2, 1, 0, 2], [tp, fn, third[0], fp, tn, third[1]])
    labels, average = {
        "positive": ([1], "macro"),
        "weighted": ([0, 1], "weighted"),
        "macro": ([0, 1], "macro"),
        "macro of three": ([0, 1, 2], "macro"),
    }[average]
    found = precision_recall_fscore_support(y_true, y_pred, labels=labels, average=average, zero_division=0)
    return {"accuracy": accuracy_score(y_true, y_pred), **dict(zip(SCORES, found[:3], strict=True))}


def random_row(rng, average, decimals):
    """A printed row of a random confusion matrix with balanced classes, and the matrix."""
    half = int(rng.integers(5, 60))
    tp, tn = rng.integers(0, half + 1, 2)
    fn, fp = half - tp, half - tn
    if average == "macro of three":
        fn, fp = rng.integers(0, fn + 1), rng.integers(0, fp + 1)
    scores = scikit_learn_scores(half, half, tp, fp, fn, tn, average)
    return {name: round(score, decimals) for name, score in scores.items()}, (2 * half, half, tp, tn, fp, fn)


def test_possible_sizes_by_hand():
    assert possible_sizes([0.33], 2, range(1, 10)) == [3, 6, 9]
    assert possible_sizes([0.33, 0.5], 2, range(1, 13)) == [6, 12]
    assert possible_sizes([0.84, np.nan], 2, [25, 26]) == [25]
    for printed in (0.12, 0.13):  # 1/8 may be printed as either
        assert 8 in possible_sizes([printed], 2)
    assert possible_sizes([0.11], 2, [8, 9]) == [9]


@pytest.mark.parametrize("average", AVERAGES)
def test_confusion_matrices_are_those_of_a_slow_search(average):
    row = {"positive": (0.7, 0.67, 0.8, 0.73), "macro of three": (0.6, 0.56, 0.4, 0.46)}.get(
        average, (0.7, 0.71, 0.7, 0.7)
    )
    row = dict(zip(("accuracy", *SCORES), row, strict=True))
    expected = []
    for n in (8, 10, 20):
        for tp, fp, fn, tn in product(range(n // 2 + 1), repeat=4):
            whole = tp + fn == n // 2 and fp + tn == n // 2
            inside = average == "macro of three" and tp + fn <= n // 2 and fp + tn <= n // 2
            if (whole or inside) and rounds_to((tp + tn) / n, row["accuracy"], 2):
                scores = scikit_learn_scores(n // 2, n // 2, tp, fp, fn, tn, average)
                if all(rounds_to(scores[name], row[name], 2) for name in row):
                    expected.append((n, n // 2, tp, tn, fp, fn))
    found = confusion_matrices(row, average, 2, [8, 10, 20])
    assert sorted(map(tuple, found.to_numpy())) == sorted(expected) and expected


def test_true_tables_are_never_contradicted():
    """60 random tables, printed with 3 or 4 decimals: the matrix behind every row is found."""
    rng = np.random.default_rng(0)
    for number in range(60):
        average, decimals = AVERAGES[number % 4], 3 + number % 2
        printed, matrices = zip(*(random_row(rng, average, decimals) for _ in range(2)), strict=True)
        audited = audit_classification(pd.DataFrame(printed), decimals, range(2, 120))
        for row, matrix, verdict in zip(printed, matrices, audited.to_dict("records"), strict=True):
            assert verdict["verdict"] != "impossible" and matrix[0] in verdict["sizes"]
            assert average in verdict["averages"]
            found = confusion_matrices(row, average, decimals, [matrix[0]])
            assert matrix in set(map(tuple, found.to_numpy()))


def test_false_rows_are_found():
    """One digit of a true row changed: hardly any stays possible with 4 decimals."""
    rng = np.random.default_rng(1)
    rows = [random_row(rng, "positive", 4)[0] for _ in range(20)]
    for row in rows:
        row["f1"] = round(row["f1"] + (0.01 if row["f1"] < 0.5 else -0.01), 4)
    verdicts = audit_classification(pd.DataFrame(rows), 4)["verdict"]
    assert (verdicts == "impossible").sum() >= 18


def test_a_missing_score_is_no_contradiction():
    table = pd.DataFrame({"name": list("abc"), "accuracy": [0.75, 0.8412, np.nan], "recall": [np.nan, 0.5, 0.4]})
    audited = audit_classification(table, sizes=range(2, 30))
    assert audited["verdict"].tolist() == ["consistent", "impossible", "not checked"]
    assert audited["name"].tolist() == list("abc") and 8 in audited.loc[0, "sizes"]


def test_few_decimals_leave_many_sizes():
    audited = audit_classification(pd.DataFrame({"accuracy": [0.8, 1.0]}), 1, range(2, 60, 2))
    assert audited["verdict"].tolist() == ["consistent", "consistent"] and len(audited.loc[0, "sizes"]) > 20


def test_classes_need_not_be_balanced():
    row = {"accuracy": 0.9, "precision": 0.6667, "recall": 1.0, "f1": 0.8}
    found = confusion_matrices(row, "positive", 4, [10, 11], positive_share=0.2)
    assert found.to_numpy().tolist() == [[10, 2, 2, 7, 1, 0]]
    assert confusion_matrices(row, "positive", 4, [10]).empty


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"accuracy": [84.11, 75.2]}, r"must lie in \[0, 1\], got 84.11, 75.2; percentages must be divided by 100"),
        ({"accuracy": [0.5, -0.1]}, r"must lie in \[0, 1\], got -0.1$"),
        ({"accuracy": [np.nan]}, "every cell is missing"),
        ({"f1": [0.5]}, "needs a column accuracy, got f1"),
    ],
)
def test_tables_that_cannot_be_read(table, message):
    for decimals in (None, 4):
        with pytest.raises(ValueError, match=message):
            audit_classification(pd.DataFrame(table), decimals)


def test_unknown_average_and_missing_accuracy():
    with pytest.raises(ValueError, match="unknown average 'micro'; valid averages: positive, weighted"):
        confusion_matrices({"accuracy": 0.5}, "micro", 2)
    with pytest.raises(ValueError, match="without an accuracy"):
        confusion_matrices({"f1": 0.5}, "macro", 2)


def test_decimals_are_those_of_the_longest_number():
    assert decimals_of(pd.DataFrame({"a": [0.5, 0.86], "b": [1.0, 0.8411]})) == 4
    assert decimals_of(pd.Series([0.0, 1.0])) == 0


def test_segmentation_verdicts_by_hand():
    table = pd.DataFrame(
        {
            "lesion": list("abcde"),
            "iou": [0.9925, 0.5, 0.7001, 0.3, np.nan],
            "accuracy": [0.9867, 0.9, 0.7, np.nan, 0.9],
            "precision": [0.9988, 0.4, 0.8, 0.2, 0.9],
        }
    )
    assert audit_segmentation(table)["verdict"].tolist() == [
        "impossible: IoU above accuracy",
        "impossible: IoU above precision",
        "consistent",  # 0.70005 may be printed as either
        "impossible: IoU above precision",
        "not checked",
    ]
    with pytest.raises(ValueError, match="needs a column iou"):
        audit_segmentation(table[["accuracy"]])


def test_true_segmentations_are_never_contradicted():
    counts = np.random.default_rng(2).integers(0, 9, size=(200, 4))
    counts[:, 0] += 1
    tp, fp, fn, tn = counts.T
    table = {"iou": tp / (tp + fp + fn), "accuracy": (tp + tn) / counts.sum(axis=1), "precision": tp / (tp + fp)}
    assert (audit_segmentation(pd.DataFrame(table).round(2))["verdict"] == "consistent").all()


@pytest.mark.parametrize("value", [84.11, 1.2, -0.1])
def test_what_is_no_share_gets_no_verdict(value):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        possible_sizes([0.5, value], 4)
    for row in ({"accuracy": value}, {"accuracy": 0.5, "f1": value}):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            confusion_matrices(row, "positive", 4)


def test_fewer_decimals_than_printed_are_refused():
    """0.8411 is nobody's number of two decimals."""
    for audit, table in (
        (audit_classification, {"accuracy": [0.8411]}),
        (audit_segmentation, {"iou": [0.8411], "accuracy": [0.9]}),
    ):
        with pytest.raises(ValueError, match="prints 4 decimals, got decimals=2"):
            audit(pd.DataFrame(table), 2)
        audit(pd.DataFrame(table), 5)


def test_traces_of_binary_numbers_are_no_decimals():
    """The paper's Table 3 as percentages, divided by 100 again, or as numbers of 32 bits."""
    printed = published.table_3()[["accuracy", "precision", "recall", "f1"]]
    noisy = (printed * 100).round(2) / 100
    for table in (noisy, *(printed.astype(kind) for kind in (np.float32, str, "Float64"))):
        assert decimals_of(table) == 4
        assert audit_classification(table)["sizes"].map(lambda sizes: 62 in sizes).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_share": 50}, "positive_share must lie between 0 and 1, got 50"),
        ({"sizes": []}, "of no size"),
        ({"sizes": [3, 9]}, r"of no size that was given 0\.5 is a whole number"),
    ],
)
def test_a_search_of_nothing_is_no_verdict(options, message):
    with pytest.raises(ValueError, match=message):
        audit_classification(pd.DataFrame({"accuracy": [0.84]}), **options)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"accuracy": ["0.84", "good"]}, "expected numbers, got 'good'"),
        ({"accuracy": [0.84], "F1": [0.2]}, "columns must be named accuracy, precision, recall, f1, got F1"),
        ({"accuracy": [1, 0]}, "every number is 0 or 1"),
    ],
)
def test_words_other_names_and_whole_numbers(table, message):
    with pytest.raises(ValueError, match=message):
        audit_classification(pd.DataFrame(table))


def test_missing_cells_of_any_kind_are_missing():
    for nothing in (None, np.nan, pd.NA):
        table = pd.DataFrame({"accuracy": [0.75, 0.5], "f1": [nothing, 0.5]}, dtype=object)
        assert (audit_classification(table, 2, range(2, 20))["verdict"] == "consistent").all()
        assert len(confusion_matrices({"accuracy": 0.75, "f1": nothing}, "positive", 2, [4]))


def test_an_iou_alone_and_columns_that_occur_twice_are_refused():
    with pytest.raises(ValueError, match="accuracy or precision to compare"):
        audit_segmentation(pd.DataFrame({"iou": [0.5]}))
    with pytest.raises(ValueError, match="occur twice: accuracy"):
        audit_classification(pd.DataFrame([[0.5, 0.6]], columns=["accuracy", "accuracy"]))


def test_a_search_that_would_never_end_is_refused():
    with pytest.raises(ValueError, match="give fewer sizes or more decimals"):
        audit_classification(pd.DataFrame({"accuracy": [0.6], "precision": [0.1], "f1": [0.9]}), 1)
