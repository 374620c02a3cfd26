"""Reports, against answers worked out by hand and against scikit-learn's own whole calls."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import classification_report, roc_auc_score

from pipeline.evaluation import metrics, roc
from pipeline.evaluation.metrics import diverged, most_confident_errors, report

# Three classes; predicted 0 0 1 | 1 2 | 2, so class 0 has 2 of 3, class 1 has 1 of 2, class 2 has 1 of 1.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])
CLASSES = ("cat", "dog", "bird")


def certain(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(n,) classes to (n, num_classes) probabilities of 1 and 0."""
    return np.eye(num_classes)[predicted]


def softmax(rng: np.random.Generator, n: int, num_classes: int) -> np.ndarray:
    exponentials = np.exp(rng.standard_normal((n, num_classes)))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_three_classes_by_hand():
    got = report(LABELS, certain(PREDICTED, 3), CLASSES)
    assert got.classes == CLASSES
    assert got.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    expected = {
        "cat": {"precision": 1, "recall": 2 / 3, "f1-score": 4 / 5, "support": 3},
        "dog": {"precision": 1 / 2, "recall": 1 / 2, "f1-score": 1 / 2, "support": 2},
        "bird": {"precision": 1 / 2, "recall": 1, "f1-score": 2 / 3, "support": 1},
    }
    assert got.per_class.keys() == expected.keys()
    for name, row in expected.items():
        assert got.per_class[name] == pytest.approx(row)
    assert got.scores() == pytest.approx(
        {
            "accuracy": 4 / 6,
            # two answers are wrong and certain; Keras clips their probability of 0 to 1e-7
            "loss": (2 * -math.log(1e-7) - 4 * math.log(1 - 1e-7)) / 6,
            "precision": (3 * 1 + 2 * 1 / 2 + 1 * 1 / 2) / 6,
            "recall": 4 / 6,
            "f1": (3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6,
            "macro_precision": 2 / 3,
            "macro_recall": 13 / 18,
            "macro_f1": 59 / 90,
            # Of a yes-or-no guess the area is the mean of both classes' recalls: 5/6, 5/8 and 9/10 here.
            "roc_auc": (3 * 5 / 6 + 2 * 5 / 8 + 1 * 9 / 10) / 6,
        }
    )


def test_binary_area_counts_ordered_pairs():
    # Of the 4 pairs (dog, cat), only 0.35 against 0.4 is in the wrong order.
    second = np.array([0.1, 0.4, 0.35, 0.8])
    got = report(np.array([0, 0, 1, 1]), np.stack([1 - second, second], axis=1), ("cat", "dog"))
    assert got.roc_auc == 3 / 4


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_prediction_on_a_balanced_split(constant):
    got = report(np.array([0, 1] * 50), certain(np.full(100, constant), 2), ("cat", "dog")).scores()
    rounded = {name: round(value, 2) for name, value in got.items()}
    assert rounded == {
        "accuracy": 0.50,
        "loss": 8.06,
        "precision": 0.25,
        "recall": 0.50,
        "f1": 0.33,
        "macro_precision": 0.25,
        "macro_recall": 0.50,
        "macro_f1": 0.33,
        "roc_auc": 0.50,
    }


def test_json_and_text_are_scikit_learns():
    probabilities = softmax(np.random.default_rng(1), 300, 4)
    labels, names = np.arange(300) % 4, ["a", "b", "c", "d"]
    got = report(labels, probabilities, names)
    predicted = probabilities.argmax(axis=1)
    theirs = classification_report(labels, predicted, target_names=names, output_dict=True)
    area = roc_auc_score(labels, probabilities, multi_class="ovr", average="weighted")
    ours = json.loads(json.dumps(got.as_json()))
    assert ours.pop("roc_auc") == pytest.approx(area)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value)
    assert got.text == classification_report(labels, predicted, target_names=names, digits=4)


def test_probabilities_of_half_precision_have_an_area():
    probabilities = softmax(np.random.default_rng(2), 200, 3)
    labels = np.arange(200) % 3
    half = report(labels, probabilities.astype(np.float16), CLASSES).roc_auc
    assert half == pytest.approx(report(labels, probabilities, CLASSES).roc_auc, abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_class_without_a_image_keeps_its_row():
    got = report(np.array([0, 0]), certain(np.array([0, 1]), 3), CLASSES)
    assert got.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert got.per_class["bird"] == {"precision": 0, "recall": 0, "f1-score": 0, "support": 0}
    assert got.recall == 0.5
    assert got.macro_recall == pytest.approx(0.5 / 3)
    assert "bird" in got.text
    assert got.roc_auc is None
    assert "roc_auc" not in got.scores()
    assert got.as_json()["roc_auc"] is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_probabilities_count_as_the_first_class(bad):
    # numpy's argmax alone would take the second class for nan and inf.
    got = report(np.array([0, 1, 1]), np.array([[0.2, bad], [0.1, 0.9], [bad, 0.9]]), ("cat", "dog"))
    assert got.confusion.tolist() == [[1, 0], [1, 1]]
    assert got.roc_auc is None
    assert np.isfinite(list(got.scores().values())).all()


def test_names_of_any_kind():
    names = ["accuracy", "macro avg", "weighted avg", "roc_auc", "accuracy (class)", "кошка дома", "猫"]
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    got = report(labels, certain(np.array([0, 1, 1, 2, 3, 4, 5, 6]), 7), names)
    assert list(got.per_class) == names
    assert got.per_class["accuracy"] == pytest.approx(
        {"precision": 1.0, "recall": 0.5, "f1-score": 2 / 3, "support": 2.0}
    )
    assert got.accuracy == 7 / 8
    written = got.as_json()
    assert written["accuracy"] == 7 / 8
    assert written["macro avg"]["support"] == 8
    assert written["accuracy (class)"] == got.per_class["accuracy (class)"]
    assert written["accuracy (class) (class)"] == got.per_class["accuracy"]
    assert len(written) == 7 + 4
    assert all(name in got.text for name in names)


@pytest.mark.parametrize(
    ("labels", "shape"), [(np.zeros(0, int), (0, 2)), (np.zeros(3, int), (2, 2)), (np.zeros(3, int), (3, 3))]
)
def test_shapes_that_do_not_fit(labels, shape):
    with pytest.raises(ValueError, match="expected"):
        report(labels, np.full(shape, 0.5), ("cat", "dog"))


@pytest.mark.parametrize(
    ("losses", "probabilities", "expected"),
    [
        ([0.7, 0.6], [[0.9, 0.1], [0.1, 0.9]], False),
        ([0.7, np.nan], [[0.9, 0.1], [0.1, 0.9]], True),
        ([np.inf, 0.6], [[0.9, 0.1], [0.1, 0.9]], True),
        ([0.7, 0.6], [[0.9, 0.1], [np.nan, np.nan]], True),
        ([0.7, 0.6], [[0.9, 0.1], [0.6, 0.4]], True),
        ([0.7, 0.6], [[0.1, 0.9], [0.4, 0.6]], True),
    ],
)
def test_diverged(losses, probabilities, expected):
    assert diverged(losses, np.array(probabilities)) is expected


def test_import_leaves_scikit_learn_alone():
    code = "import sys, pipeline.evaluation.metrics; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


def test_most_confident_errors_come_first_and_equals_in_order():
    nan = float("nan")
    probabilities = np.array(
        [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4], [nan, nan], [0.1, 0.9]]
    )
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    assert most_confident_errors(labels, probabilities).tolist() == [3, 2, 1, 4, 5]
    assert most_confident_errors(np.array([0, 1]), probabilities[:2]).tolist() == []


@pytest.mark.parametrize(
    ("count", "num_classes", "levels"), [(500, 2, 0), (400, 3, 5), (600, 40, 9), (90, 40, 0)]
)
def test_roc_auc_is_scikit_learns(count, num_classes, levels):
    """Also with ties, of which `levels` different probabilities make many."""
    rng = np.random.default_rng(count)
    labels = rng.permutation(np.arange(count) % num_classes)
    probabilities = rng.random((count, num_classes)).astype(np.float32)
    if levels:
        probabilities = np.round(probabilities * levels)
    expected = [roc_auc_score(labels == number, probabilities[:, number]) for number in range(num_classes)]
    got = [1 - rates.mean() for rates in roc.false_positive_rates(labels, probabilities)]
    assert got == pytest.approx(expected, abs=1e-12)
    whole = expected[1] if num_classes == 2 else np.average(expected, weights=np.bincount(labels))
    found = report(labels, probabilities, [str(number) for number in range(num_classes)])
    assert found.roc_auc == pytest.approx(whole, abs=1e-12)


def test_false_positive_rates_by_hand():
    labels = np.array([0, 0, 1, 1])
    second = np.array([0.1, 0.4, 0.4, 0.8])  # of class 1, 0.8 is above both others, 0.4 above one, one equal
    first, other = roc.false_positive_rates(labels, np.stack([1 - second, second], axis=1))
    assert other.tolist() == [0, 0.25]
    assert first.tolist() == [0, 0.25]
    (alone,) = roc.false_positive_rates(np.zeros(2, int), np.ones((2, 1)))
    assert np.isnan(alone).all()


def test_most_confused_classes_are_those_of_the_largest_pairs():
    confusion = np.diag([9] * 6)
    confusion[4, 1], confusion[1, 4], confusion[2, 5], confusion[0, 3] = 3, 2, 4, 1
    assert metrics.most_confused(confusion, 2).tolist() == [1, 4]
    assert metrics.most_confused(confusion, 4).tolist() == [1, 2, 4, 5]
    assert metrics.most_confused(np.diag([9] * 6), 3).tolist() == [0, 1, 2]
    assert metrics.most_confused(confusion, 9).tolist() == [0, 1, 2, 3, 4, 5]
