"""Files of a report: what is written is read back, whatever the names, and what it weighs."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import Predictions
from pipeline.inference import report


def softmax(count: int, classes: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, (count, classes))
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def assert_same(one: Predictions, other: Predictions) -> None:
    assert (one.classes, one.names) == (other.classes, other.names)
    for field in ("labels", "top", "top_probabilities", "label_probabilities"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), field)


def test_predictions_are_read_back_to_the_last_digit():
    classes = ("label", "two\r\nlines", 'a,"b"', "\udcff", "name", "name (class)", "\\udcff", "top_1")
    names = ("x/\udcff.jpg", "comma, and\nline.png", "", "4")
    labels = np.array([3, 0, 1, 1])
    probabilities = np.random.default_rng(0).random((4, 8)).astype(np.float32)
    probabilities[2] = np.nan
    probabilities[3, 7] = np.inf
    got = Predictions.from_parquet(report.predictions(classes, names, labels, probabilities))
    assert_same(got, Predictions.of(classes, names, labels, probabilities))
    assert (got.classes, got.names) == (classes, names)
    assert got.labels.tolist() == [3, 0, 1, 1]
    np.testing.assert_array_equal(got.probabilities, probabilities)
    assert got.answers.tolist() == metrics.predicted_classes(probabilities).tolist()
    assert not got.are_finite


def test_predictions_of_many_classes_keep_the_five_most_probable():
    classes = (*(f"class {number}" for number in range(999)), "\udcfe")
    names = (*(f"{number}.jpg" for number in range(300)), "\udcff.jpg")
    labels = np.arange(301) * 3
    probabilities = softmax(301, 1000)
    probabilities[5] = np.nan
    probabilities[6, [10, 20, 30]] = 0.25  # equals: the first is the answer
    got = Predictions.from_parquet(report.predictions(classes, names, labels, probabilities))
    assert_same(got, Predictions.of(classes, names, labels, probabilities))
    assert got.probabilities is None
    expected = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    expected[5] = range(5)
    np.testing.assert_array_equal(got.top, expected)
    assert got.answers.tolist() == metrics.predicted_classes(probabilities).tolist()
    assert got.top[6, :3].tolist() == [10, 20, 30]
    np.testing.assert_array_equal(
        got.top_probabilities[:5], np.take_along_axis(probabilities, expected, axis=1)[:5]
    )
    np.testing.assert_array_equal(got.label_probabilities[:5], probabilities[range(5), labels[:5]])
    assert np.isnan(got.top_probabilities[5]).all()
    assert got.mistakes().tolist() == metrics.most_confident_errors(labels, probabilities).tolist()


def test_predictions_are_a_table_that_pandas_reads():
    content = report.predictions(("cat", "dog"), ("a", "b"), np.array([0, 0]), np.eye(2))
    table = pd.read_parquet(io.BytesIO(content))
    assert list(table.columns) == ["name", "label", "prediction", "cat", "dog"]
    assert table.astype({"label": str, "prediction": str}).values.tolist() == [
        ["a", "cat", "cat", 1.0, 0.0],
        ["b", "cat", "dog", 0.0, 1.0],
    ]
    many = report.predictions([str(n) for n in range(60)], ("a",), np.array([7]), softmax(1, 60))
    tops = [f"top_{n}{end}" for n in range(1, 6) for end in ("", "_probability")]
    assert list(pd.read_parquet(io.BytesIO(many)).columns) == [
        "name", "label", "prediction", "label_probability", *tops,
    ]  # fmt: skip


def test_predictions_of_a_thousand_classes_take_some_bytes_an_image():
    names = [f"n{number % 1000:04}/{number:08}.jpg" for number in range(5000)]
    labels = np.arange(5000) % 1000
    content = report.predictions([f"n{n:04}" for n in range(1000)], names, labels, softmax(5000, 1000))
    assert len(content) / 5000 < 80  # as text with every probability: 22,000


def test_least_certain_are_those_whose_two_best_are_nearest():
    told = Predictions.of(
        ("a", "b", "c"), "xyz", np.zeros(3, int), [[0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.4, 0.2, 0.4]]
    )
    assert told.least_certain().tolist() == [2, 0, 1]


@pytest.mark.parametrize("num_classes", [3, 300])
def test_report_is_read_back(num_classes):
    classes = ("accuracy", "weighted avg", *(f"\udcff{number}" for number in range(num_classes - 2)))
    probabilities = softmax(900, num_classes)
    labels = np.where(np.arange(900) % 3 > 0, probabilities.argmax(axis=1), np.arange(900) % num_classes)
    made = metrics.report(labels, probabilities, classes)
    files = report.classification(made, list(map(str, range(900))), labels, probabilities, "title")
    got = report.read_classification(files.__getitem__, made.loss)
    assert got.scores() == made.scores()
    assert (got.classes, got.per_class, got.text) == (made.classes, made.per_class, made.text)
    np.testing.assert_array_equal(got.confusion, made.confusion)
    told = json.loads(files["confusion_matrix.json"].decode(errors="surrogateescape"))
    assert set(told) == {"classes", "matrix" if num_classes == 3 else "counts"}
    assert sum(cell[2] for cell in told.get("counts", [])) in (0, 900)
