"""Compile, fit, schedule, keep the best epoch; the same parameters twice give the same numbers.

Results are the same to the last digit on one kind of processor with one version of TensorFlow; another
processor, or another number of threads, may round differently.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from pipeline import metrics, models
from pipeline.checkpoint import Checkpoint
from pipeline.params import ModelParams, ScheduleParams, TrainParams

# Every model is traced once, as it must be; TensorFlow takes many models for one that is traced too often.
tf.get_logger().setLevel(logging.ERROR)

# Pictures a step where only predictions are wanted: larger than a training step, since no gradients are kept.
PREDICTION_BATCH = 128
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@dataclass(frozen=True)
class Examples:
    """Labelled pictures, as views into the prepared arrays.

    Attributes:
        images: (n, size, size, 3) uint8; usually a memory map, of which only batches are read.
        labels: (n,) int64, class numbers.
        indices: (k,) int64, the rows that belong to this split, ascending.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
        model: not compiled, with the weights of its best epoch.
        history: each of `METRICS`, one value an epoch from 1.
        best_epoch: from 1; the highest validation accuracy, among equals the lowest validation loss.
        probabilities: (k, num_classes) float32, of the validation pictures at the best epoch.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    probabilities: np.ndarray


class Batches(keras.utils.PyDataset):
    """Batches read from the memory map when they are due, so that no copy of the pictures is ever whole.

    Each epoch has its own order, drawn from the seed and the epoch alone: an epoch can be repeated without
    those before it.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        with_labels: bool = True,
        seed: int | None = None,
        epoch: int = 0,
    ):
        super().__init__()
        self.examples, self.batch_size, self.with_labels, self.seed = examples, batch_size, with_labels, seed
        self.epoch = epoch
        self._order = self._draw()

    def __len__(self) -> int:
        return math.ceil(len(self.examples.indices) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        rows = self._order[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.examples.images[rows]  # (batch, size, size, 3) uint8
        return (images, self.examples.labels[rows]) if self.with_labels else (images,)

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order; Keras calls this."""
        self.epoch += 1
        self._order = self._draw()

    def _draw(self) -> np.ndarray:
        if self.seed is None:
            return self.examples.indices
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.examples.indices)


def train(
    model_params: ModelParams,
    params: TrainParams,
    training: Examples,
    validation: Examples,
    num_classes: int,
    seed: int,
    on_epoch: Callable[[int, Mapping[str, float], Callable[[], Checkpoint]], bool | None] = lambda *_: None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train a network from fresh weights, or on from a checkpoint, and keep its best epoch.

    A training that goes on from its own checkpoint gives what it would have given without the break, to the
    last digit.

    Args:
        model_params: the `model` section.
        params: the `train` section.
        training: what the weights are fitted to.
        validation: what every epoch is measured on, and the best one chosen by.
        num_classes: from two.
        seed: of the initial weights, the dropout, the augmentation and the order of the batches.
        on_epoch: called at each epoch's end with its number, from 1, its `METRICS`, and a function that makes
            the checkpoint to go on from. Where it returns True, no further epoch is trained.
        checkpoint: to go on from; None: from the start.

    Raises:
        UserError: the network cannot take pictures of this size.
    """
    keras.utils.clear_session()  # numbers the layers from one again, so that every model's file is alike
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    image_size = training.images.shape[1]
    model = models.build(model_params, image_size, num_classes, seed)
    traced = _traced(model, model_params, params, image_size, num_classes, seed)
    epochs = _Epochs(traced, validation, params.early_stopping, on_epoch)
    if checkpoint is not None:
        epochs.restore(checkpoint)
    done = len(epochs.history["loss"])
    if done < params.epochs and not epochs.over():
        traced.fitted.fit(
            Batches(training, params.batch_size, seed=seed, epoch=done),
            initial_epoch=done,
            epochs=params.epochs,
            shuffle=False,  # Keras would shuffle the batches again, by Python's one random state
            verbose=0,
            callbacks=[
                keras.callbacks.LearningRateScheduler(
                    lambda epoch: learning_rate(params.learning_rate, params.schedule, epoch + 1)
                ),
                epochs,
            ],
        )
    model.set_weights(epochs.weights)
    return Trained(model, epochs.history, epochs.best, epochs.probabilities)


def learning_rate(initial: float, schedule: ScheduleParams, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1: constant, then times `factor` every `every` epochs."""
    if epoch <= schedule.start:
        return initial
    return initial * schedule.factor ** (1 + (epoch - schedule.start - 1) // schedule.every)


def predict(model: keras.Model, examples: Examples) -> np.ndarray:
    """Probabilities of each class, (k, num_classes) float32, in the order of `examples.indices`."""
    return model.predict(Batches(examples, PREDICTION_BATCH, with_labels=False), verbose=0)


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean categorical cross-entropy, in nats, as Keras computes it.

    Args:
        labels: (k,) int64.
        probabilities: (k, num_classes) float32.
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    epsilon = keras.config.epsilon()
    return float(-np.log(np.clip(chosen, epsilon, 1 - epsilon)).mean())


@dataclass(frozen=True)
class _Traced:
    """A network that TensorFlow has graphs of, and the one around it that is fitted."""

    network: keras.Model
    fitted: keras.Model


class _Epochs(keras.callbacks.Callback):
    """Measures each epoch on the validation split, and keeps the best one's weights and predictions.

    It predicts where `validation_data` would only evaluate: the report needs the best epoch's probabilities,
    and this way they cost no further pass and no further graph.
    """

    def __init__(self, traced: _Traced, validation: Examples, early_stopping: int | None, on_epoch: Callable):
        super().__init__()
        self.traced, self.validation, self.report = traced, validation, on_epoch
        self.early_stopping = early_stopping
        self.history: dict[str, list[float]] = {name: [] for name in METRICS}
        self.best, self.weights, self.probabilities = 0, None, None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        labels = self.validation.labels[self.validation.indices]
        probabilities = predict(self.traced.network, self.validation)
        values = logs | {
            "val_loss": cross_entropy(labels, probabilities),
            "val_accuracy": float((metrics.predicted_classes(probabilities) == labels).mean()),
        }
        for name in METRICS:
            self.history[name].append(float(values[name]))
        if self.best == 0 or self._rank(epoch) > self._rank(self.best - 1):
            self.best = epoch + 1
            self.weights, self.probabilities = self.traced.network.get_weights(), probabilities
        wanted = self.report(
            epoch + 1, {name: values[-1] for name, values in self.history.items()}, self.checkpoint
        )
        if wanted or self.over():
            self.model.stop_training = True

    def _rank(self, index: int) -> tuple[float, float]:
        loss = self.history["val_loss"][index]
        return self.history["val_accuracy"][index], -loss if math.isfinite(loss) else -math.inf

    def over(self) -> bool:
        """Whether training ends before its last epoch: it diverged, or has not become better for long."""
        if not math.isfinite(self.history["loss"][-1] if self.history["loss"] else 0.0):
            return True  # no weights come back from that
        accuracies = self.history["val_accuracy"]
        if self.early_stopping is None or not accuracies:
            return False
        return len(accuracies) - 1 - accuracies.index(max(accuracies)) >= self.early_stopping

    def checkpoint(self) -> Checkpoint:
        """Where the training stands now, at an epoch's end."""
        fitted = self.traced.fitted
        return Checkpoint(
            variables=[keras.ops.convert_to_numpy(variable) for variable in fitted.variables],
            optimizer=[keras.ops.convert_to_numpy(variable) for variable in fitted.optimizer.variables],
            history={name: list(values) for name, values in self.history.items()},
            best_epoch=self.best,
            best_weights=self.weights,
            probabilities=self.probabilities,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a training stood."""
        fitted = self.traced.fitted
        for variables, values in (
            (fitted.variables, checkpoint.variables),
            (fitted.optimizer.variables, checkpoint.optimizer),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.history = {name: list(values) for name, values in checkpoint.history.items()}
        self.best, self.weights = checkpoint.best_epoch, checkpoint.best_weights
        self.probabilities = checkpoint.probabilities


# Tracing costs over a second, and cells that differ in their initial weights or learning rate alone share it.
_kept: dict[str, _Traced] = {}
_MOST_KEPT = 4


def _traced(
    fresh: keras.Model,
    model_params: ModelParams,
    params: TrainParams,
    image_size: int,
    num_classes: int,
    seed: int,
) -> _Traced:
    """A compiled network as if just made: one traced before, where there is one alike, or else a new one.

    Args:
        fresh: the network, with its initial weights; these are copied.
        model_params: what decides, with the rest, whether two networks have the same graph.
        params: as `model_params`.
        image_size: as `model_params`.
        num_classes: as `model_params`.
        seed: of the augmentation.
    """
    shape = model_params.model_dump(exclude=set(models.INITIALIZERS))
    key = repr((shape, params.momentum, params.augment, image_size, num_classes))
    traced = _kept.pop(key, None)
    if traced is None:
        network = keras.models.clone_model(fresh)
        traced = _Traced(network, _augmented(network, seed) if params.augment else network)
        traced.fitted.compile(
            optimizer=keras.optimizers.SGD(params.learning_rate, momentum=params.momentum),
            # categorical cross-entropy, with class numbers in place of one-hot rows
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )
        traced.fitted.optimizer.build(
            traced.fitted.trainable_variables
        )  # so that a checkpoint can be restored
    _kept[key] = traced
    if len(_kept) > _MOST_KEPT:
        del _kept[next(iter(_kept))]  # the one that was used longest ago
    _copy_state(_augmented(fresh, seed) if params.augment else fresh, traced.fitted)
    for variable in traced.fitted.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))  # the schedule sets the learning rate
    return traced


def _copy_state(source: keras.Model, target: keras.Model) -> None:
    """Copy weights and the state of random layers between two models of one shape."""
    for old, new in zip(target.variables, source.variables, strict=True):
        old.assign(new)


def _augmented(model: keras.Model, seed: int) -> keras.Model:
    """The model behind random flips, shifts and zooms, sharing its weights; only fitting sees it."""
    seeds = np.random.SeedSequence([seed, 1]).generate_state(3).tolist()
    inputs = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    x = layers.RandomFlip("horizontal", seed=seeds[0])(inputs)
    x = layers.RandomTranslation(0.1, 0.1, seed=seeds[1])(x)
    x = layers.RandomZoom(0.1, seed=seeds[2])(x)
    return keras.Model(inputs, model(x))
