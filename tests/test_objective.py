"""The objective: which way a score is better, and that an epoch's value is the report's."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.config import scores
from pipeline.config.command_line import load
from pipeline.config.sweep_schema import SweepParams
from pipeline.evaluation import metrics
from pipeline.evaluation.objective import Objective
from pipeline.training import train
from pipeline.training.batches import LabelledImages, TrainingData
from pipeline.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
NAMES = ["accuracy", "loss", "precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1"]


def test_every_metric_that_ranks_is_a_score_of_the_report():
    labels, probabilities = predictions()
    allowed = SweepParams.model_fields["metric"].annotation.__args__
    assert set(allowed) == {*NAMES, *scores.OWN}
    assert set(allowed) <= set(metrics.report(labels, probabilities, ("a", "b", "c")).scores())


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_has_the_value_of_its_report(name):
    labels, probabilities = predictions()
    expected = metrics.report(labels, probabilities, ("a", "b", "c")).scores()[name]
    assert Objective(name).measure(labels, probabilities) == expected


def test_loss_is_minimised_and_all_others_are_maximised():
    assert [name for name in NAMES if Objective(name).direction == "minimize"] == ["loss"]
    assert Objective("loss").better_than(0.1, 0.2) and not Objective("loss").better_than(0.2, 0.1)
    assert Objective("f1").better_than(0.2, 0.1) and not Objective("f1").better_than(0.1, 0.2)


@pytest.mark.parametrize("name", ["loss", "f1"])
def test_nothing_is_worse_than_no_number(name):
    objective = Objective(name)
    assert not objective.better_than(math.nan, None)
    assert objective.better_than(0.5, None) and objective.better_than(0.5, math.nan)
    assert not objective.better_than(0.5, 0.5)
    assert objective.best([math.nan, 0.5, math.inf, 0.5]) == 1


def test_loss_is_keras_cross_entropy():
    labels, probabilities = predictions()
    expected = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    assert metrics.cross_entropy(labels, probabilities) == pytest.approx(float(np.mean(expected)), rel=1e-5)


@pytest.mark.parametrize("name", ["accuracy", "loss", "macro_f1"])
def test_best_epoch_and_early_stopping_go_by_the_objective(name):
    params = load(
        [
            "--train.epochs=8",
            "--train.learning_rate=0.05",
            "--train.early_stopping_patience=2",
            "--data.image_size=16",
        ],
        ROOT / "params.yaml",
    )
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 16, 16, 3), np.uint8), np.arange(60) % 2  # nothing to learn
    objective = Objective(name)
    parts = [LabelledImages(images, labels, rows) for rows in (np.arange(40), np.arange(40, 60))]
    trained = train.train(TrainConfig(params.model, params.train, objective, 42), TrainingData(*parts, 2))
    values = trained.history[objective.key]
    best = objective.best(values)
    ties = [epoch for epoch, value in enumerate(values) if value == values[best]]
    losses = trained.history["val_loss"]
    assert trained.best_epoch - 1 == min(ties, key=losses.__getitem__)
    assert values[trained.best_epoch - 1] == objective.measure(labels[40:], trained.probabilities)
    assert len(values) == min(8, best + 1 + 2)


def predictions() -> tuple[np.ndarray, np.ndarray]:
    """Labels and float32 probabilities of 60 images of three classes."""
    rng = np.random.default_rng(0)
    values = rng.random((60, 3)).astype(np.float32)
    return rng.integers(0, 3, 60), values / values.sum(axis=1, keepdims=True)
