"""Compile, fit, schedule, keep the best epoch; the same parameters twice give the same numbers.

Results are the same to the last digit on one kind of processor with one version of TensorFlow; another
processor, or another number of threads, may round differently.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from pipeline import models
from pipeline.config.networks import NETWORKS, TRACE_INDEPENDENT_KEYS
from pipeline.config.schema import ModelParams, ScheduleParams, TrainParams
from pipeline.evaluation import metrics
from pipeline.evaluation.objective import Objective
from pipeline.models import backbones
from pipeline.runtime import logs
from pipeline.runtime.hardware import FLOAT32
from pipeline.training import feature_cache, graph_cache
from pipeline.training.batches import PREDICTION_BATCH, Batches, Examples
from pipeline.training.checkpoint import Checkpoint

logs.silence("tensorflow")

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def logged_metrics(objective: Objective) -> list[str]:
    """What is measured after each epoch: `METRICS`, and the objective's own where it is another."""
    return [*dict.fromkeys([*METRICS, objective.key])]


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
        model: not compiled, with the weights of its best epoch.
        history: each of `logged_metrics`, one value per epoch from 1.
        best_epoch: from 1; the best one by the objective, among equals by validation loss.
        probabilities: (k, num_classes) float32, of the validation images at the best epoch.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    probabilities: np.ndarray


def train(
    model_params: ModelParams,
    params: TrainParams,
    training: Examples,
    validation: Examples,
    num_classes: int,
    seed: int,
    objective: Objective,
    on_epoch: Callable[[int, Mapping[str, float], Callable[[], Checkpoint]], bool | None] = lambda *_: None,
    checkpoint: Checkpoint | None = None,
    until: int | None = None,
) -> Trained:
    """Train a network from fresh weights, or on from a checkpoint, and keep its best epoch.

    A training that goes on from its own checkpoint gives what it would have given without the break, to the
    last digit. A network on a frozen backbone is trained in stages: its head, for `params.epochs`, and from
    the best of these on the backbone's top as well, for `model_params.fine_tune_epochs`.

    Args:
        model_params: the `model` section.
        params: the `train` section; a `precision` that is still `auto` is float32.
        training: what the weights are fitted to.
        validation: what every epoch is measured on, and the best one chosen by.
        num_classes: from two.
        seed: of the initial weights, the dropout, the augmentation and the order of the batches.
        objective: chooses the best epoch, and when early stopping ends the training.
        on_epoch: called at each epoch's end with its number, from 1, its `logged_metrics`, and a function
            that makes the checkpoint to resume from. Where it returns True, no further epoch is trained.
        checkpoint: of the same objective, to resume from; None: from the start.
        until: the last epoch to train at most; None: as many as the parameters say.

    Raises:
        UserError: the network cannot take images of this size, or its weights are not to be had.
    """
    # Numbers the layers from one again, so that every model's file is alike. It also collects garbage, for
    # 0.2 s: done for every eighth training only, a worker grew twice as fast.
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    image_size = training.images.shape[1]
    model = models.build(model_params, image_size, num_classes, seed)
    kind = (model_params.model_dump(exclude=set(TRACE_INDEPENDENT_KEYS)), image_size, num_classes)
    augment = NETWORKS[model_params.name].augment if params.augment == "auto" else params.augment
    stages = _stages(model, model_params, params, augment)
    epochs = _Epochs(params, objective, on_epoch)
    for number, stage in enumerate(stages):
        if checkpoint and checkpoint.stage > number:
            continue
        network = stage.network()
        if number > 0 and checkpoint is None:
            epochs.keep_best_in(model)
        examples = [stage.examples(model, split) for split in (training, validation)]
        traced = graph_cache.traced(
            network, (stage.name, *kind), params, stage.precision, stage.augment, seed
        )
        epochs.begin(number, stage.learning_rate, traced, network, examples[1], checkpoint)
        checkpoint = None
        last = min(epochs.stage_start + stage.epochs, until or math.inf)
        if epochs.done < last and not epochs.over():
            traced.fitted.fit(
                Batches(examples[0], params.batch_size, seed=seed, epoch=epochs.done),
                class_weight=class_weight(params.class_weight, examples[0], num_classes),
                initial_epoch=epochs.done,
                epochs=last,
                shuffle=False,  # Keras would shuffle the batches again, by Python's one random state
                verbose=0,
                callbacks=[keras.callbacks.LearningRateScheduler(epochs.learning_rate), epochs],
            )
        if epochs.stopped or epochs.diverged() or epochs.done == until:
            break
    epochs.keep_best_in(model)
    return Trained(model, epochs.history, epochs.best, epochs.probabilities)


def learning_rate(initial: float, schedule: ScheduleParams, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1: constant, then times `factor` every `every` epochs."""
    if epoch <= schedule.start:
        return initial
    return initial * schedule.factor ** (1 + (epoch - schedule.start - 1) // schedule.every)


def class_weight(name: str, training: Examples, num_classes: int) -> dict[int, float] | None:
    """What a training image of each class counts in the loss, as Keras's `fit` takes it.

    `balanced` is scikit-learn's: images / (classes x images of the class), so that all images together
    weigh what they weigh without. The training loss that is reported is the weighted one, each class's mean
    loss counting alike; accuracy and everything on the validation split stay unweighted.

    Args:
        name: `train.class_weight`.
        training: what the weights are fitted to.
        num_classes: from two.

    Returns:
        A weight above 0 for each class that there are images of; None for `none`.
    """
    if name == "none":
        return None
    counts = np.bincount(training.labels[training.indices], minlength=num_classes)
    total = len(training.indices)
    return {number: total / (num_classes * int(count)) for number, count in enumerate(counts) if count}


@dataclass(frozen=True)
class _Stage:
    """A part of a training with weights, examples, a learning rate and epochs of its own.

    Attributes:
        name: tells graphs of one network apart.
        network: makes the part of the whole network that is fitted, sharing its weights.
        sees_images: whether that part takes images, and not their features.
        augment: whether it is fitted to changed images.
        precision: that it is fitted in.
        learning_rate: before the schedule.
        epochs: at most.
    """

    name: str
    network: Callable[[], keras.Model]
    sees_images: bool
    augment: bool
    precision: str
    learning_rate: float
    epochs: int

    def examples(self, model: keras.Model, split: Examples) -> Examples:
        """What this part is fitted to, or measured on."""
        if self.sees_images:
            return split
        found = feature_cache.compute(
            backbones.extractor(model),
            lambda rows: Batches(replace(split, indices=rows), PREDICTION_BATCH, with_labels=False),
            split.indices,
            split.features,
        )
        return Examples(found, split.labels[split.indices], np.arange(len(found)))


def _stages(
    model: keras.Model, model_params: ModelParams, params: TrainParams, augment: bool
) -> list[_Stage]:
    """The stages of a training: one, but for a network with a frozen backbone that is to be tuned."""
    precision = FLOAT32 if params.precision == "auto" else params.precision
    seeing = {"sees_images": True, "augment": augment, "precision": precision}
    of_head = {"learning_rate": params.learning_rate, "epochs": params.epochs}
    if not backbones.is_frozen(model):
        return [_Stage("whole", lambda: model, **seeing, **of_head)]

    def unfrozen() -> keras.Model:
        backbones.unfreeze(model, model_params.fine_tune_layers)
        return model

    head = _Stage("frozen", lambda: model, **seeing, **of_head)
    if not augment:  # each epoch sees the same features; a head is too small to gain from shorter numbers
        blind = {"sees_images": False, "augment": False, "precision": FLOAT32}
        head = _Stage("head", lambda: backbones.head(model), **blind, **of_head)
    tuned = _Stage(
        "tuned",
        unfrozen,
        **seeing,
        learning_rate=model_params.fine_tune_learning_rate,
        epochs=model_params.fine_tune_epochs,
    )
    return [head, tuned] if tuned.epochs else [head]


class _Epochs(keras.callbacks.Callback):
    """Measures each epoch on the validation split, and keeps the best one's weights and predictions.

    It predicts where `validation_data` would only evaluate: the report needs the best epoch's probabilities,
    and this way they cost no further pass and no further graph.
    """

    def __init__(self, params: TrainParams, objective: Objective, on_epoch: Callable):
        super().__init__()
        self.settings, self.objective, self.report = params, objective, on_epoch
        self.history: dict[str, list[float]] = {name: [] for name in logged_metrics(objective)}
        self.best, self.weights, self.probabilities = 0, None, None
        self.stopped = False
        self.stage, self.stage_start = 0, 0

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return len(self.history["loss"])

    def begin(
        self,
        stage: int,
        learning_rate: float,
        traced: graph_cache.Traced,
        network: keras.Model,
        validation: Examples,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Begin a stage, or go on with it from a checkpoint. `network` is the part of the model it fits."""
        self.stage, self.stage_start, self.initial = stage, self.done, learning_rate
        self.traced, self.network, self.validation = traced, network, validation
        if checkpoint is not None:
            self._restore(checkpoint)

    def keep_best_in(self, model: keras.Model) -> None:
        """Give the model, of which the stage's network is a part, the best epoch's weights."""
        self.network.set_weights(self.weights)
        self.network, self.weights = model, model.get_weights()

    def learning_rate(self, epoch: int) -> float:
        """Of an epoch, counted from 0."""
        return learning_rate(self.initial, self.settings.schedule, epoch + 1 - self.stage_start)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        labels = self.validation.labels[self.validation.indices]
        self.traced.settle()
        probabilities = self.traced.predict(self.validation)
        values = logs | {
            f"val_{name}": metrics.score(name, labels, probabilities)
            for name in {"loss", "accuracy", self.objective.name}
        }
        for name in self.history:
            self.history[name].append(float(values[name]))
        if self.best == 0 or self._cost(epoch) < self._cost(self.best - 1):
            self.best = epoch + 1
            self.weights, self.probabilities = self.traced.network.get_weights(), probabilities
        self.stopped = bool(
            self.report(
                epoch + 1, {name: values[-1] for name, values in self.history.items()}, self.checkpoint
            )
        )
        if self.stopped or self.over():
            self.model.stop_training = True

    def _cost(self, index: int) -> tuple[float, float]:
        """Of an epoch, counted from 0: lower is better; among equals by the objective, the loss decides."""
        loss = self.history["val_loss"][index]
        return (
            self.objective.cost(self.history[self.objective.key][index]),
            loss if math.isfinite(loss) else math.inf,
        )

    def diverged(self) -> bool:
        """Whether the loss has left the finite numbers: no weights come back from that."""
        return self.done > 0 and not math.isfinite(self.history["loss"][-1])

    def over(self) -> bool:
        """Whether the stage ends before its last epoch: it diverged, or has not become better for long."""
        if self.diverged():
            return True
        values = self.history[self.objective.key][self.stage_start :]
        if self.settings.early_stopping_patience is None or not values:
            return False
        return len(values) - 1 - self.objective.best(values) >= self.settings.early_stopping_patience

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
            stage=self.stage,
            stage_start=self.stage_start,
            objective=self.objective.name,
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        fitted = self.traced.fitted
        for variables, values in (
            (fitted.variables, checkpoint.variables),
            (fitted.optimizer.variables, checkpoint.optimizer),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.history = {name: list(values) for name, values in checkpoint.history.items()}
        self.best, self.weights = checkpoint.best_epoch, checkpoint.best_weights
        self.probabilities, self.stage_start = checkpoint.probabilities, checkpoint.stage_start
