"""Predictions: their order, the number of classes up to which all are kept, and blocks of ranked rows."""

import io

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import predictions
from pipeline.evaluation.predictions import Predictions


def made(num_classes: int, count: int = 4) -> Predictions:
    probabilities = np.random.default_rng(1).random((count, num_classes)).astype(np.float32)
    classes = [f"class {number}" for number in range(num_classes)]
    names = [f"{number}.jpg" for number in range(count)]
    return Predictions.of(classes, names, np.arange(count) % num_classes, probabilities)


def test_rows_follow_the_order_of_the_names():
    found = made(3)
    turned = found.in_order(["3.jpg", "2.jpg", "0.jpg", "1.jpg"])
    order = [3, 2, 0, 1]
    for field in ("labels", "top", "top_probabilities", "label_probabilities", "probabilities"):
        np.testing.assert_array_equal(getattr(turned, field), getattr(found, field)[order], field)
    assert turned.names == ("3.jpg", "2.jpg", "0.jpg", "1.jpg")
    assert found.in_order(found.names) is found
    assert found.in_order(["0.jpg", "1.jpg", "2.jpg", "4.jpg"]) is None


@pytest.mark.parametrize(("num_classes", "columns"), [(50, 3 + 50), (51, 3 + 1 + 2 * 5)])
def test_every_probability_is_kept_up_to_fifty_classes(num_classes, columns):
    content = made(num_classes).to_parquet()
    assert len(pd.read_parquet(io.BytesIO(content)).columns) == columns
    read = Predictions.from_parquet(content)
    assert (read.probabilities is None) == (num_classes == 51)
    np.testing.assert_array_equal(read.top, made(num_classes).top)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_blocks_rank_as_the_whole_does(monkeypatch, rows):
    whole = made(7, count=8)
    monkeypatch.setattr(predictions, "_BLOCK", 7 * rows)
    parts = made(7, count=8)
    np.testing.assert_array_equal(parts.top, np.argsort(-whole.probabilities, axis=1)[:, :5])
    np.testing.assert_array_equal(parts.top_probabilities, whole.top_probabilities)


def test_more_classes_than_a_block_holds_are_ranked_row_by_row(monkeypatch):
    monkeypatch.setattr(predictions, "_BLOCK", 3)
    found = made(7, count=2)
    np.testing.assert_array_equal(found.top, np.argsort(-found.probabilities, axis=1)[:, :5])


def test_classes_named_like_columns_and_like_each_other_keep_their_columns():
    classes = ["name", "name (class)", "a", "prediction"]
    found = Predictions.of(classes, ["x"], np.array([2]), np.array([[0.1, 0.2, 0.3, 0.4]], np.float32))
    table = pd.read_parquet(io.BytesIO(found.to_parquet()))
    assert len(set(table.columns)) == 7
    assert table["a"].tolist() == [np.float32(0.3)]
    assert table["name"].tolist() == ["x"]
    np.testing.assert_array_equal(
        Predictions.from_parquet(found.to_parquet()).probabilities, found.probabilities
    )
