"""Train one network and keep its best epoch.

The same parameters give the same numbers, to the last digit, on one kind of CPU with one version of
TensorFlow. Another CPU, or another number of threads, may round differently.
"""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from pipeline import models
from pipeline.config.networks import TRACE_INDEPENDENT_KEYS
from pipeline.runtime import logs
from pipeline.training import graph_cache
from pipeline.training.batches import Batches, LabelledImages, TrainingData
from pipeline.training.callbacks import (
    BestWeights,
    EarlyStopping,
    MeasureEpoch,
    OnEpoch,
    ReportEpoch,
    TrainState,
    learning_rate_scheduler,
)
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.config import TrainConfig
from pipeline.training.stages import stages

logs.silence("tensorflow")


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        model: not compiled, with the weights of the best epoch.
        history: each of `callbacks.logged_metrics`, one value per epoch from 1.
        best_epoch: from 1; the best by the objective, among equals by validation loss.
        probabilities: (k, num_classes) float32, of the validation images at the best epoch.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    probabilities: np.ndarray


def train(
    config: TrainConfig,
    data: TrainingData,
    on_epoch: OnEpoch = lambda *_: None,
    checkpoint: Checkpoint | None = None,
    until: int | None = None,
) -> Trained:
    """Train a network from initial weights, or resume from a checkpoint.

    A training that resumes from its own checkpoint gives the same result as without the interruption, to the
    last digit. A network on a frozen backbone is trained in stages: its head for `train.epochs`, then, from
    the best of these epochs, the head and the backbone's top for `model.fine_tune_epochs`.

    Args:
        config: the settings.
        data: the images.
        on_epoch: called at the end of each epoch; see `OnEpoch`.
        checkpoint: to resume from, of the same configuration; None: initial weights.
        until: the last epoch to train, from 1; None: as many as the configuration says.

    Raises:
        UserError: the network cannot take images of this size, or its weights are not available.
    """
    # Restarts the numbering of layers, so that equal models give equal files. It also collects garbage, for
    # 0.2 s; done for every eighth training only, the memory of a worker grew twice as fast.
    keras.utils.clear_session()
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    image_size = data.training.images.shape[1]
    model = models.build(config.model, image_size, data.num_classes, config.seed)
    architecture = repr(
        (config.model.model_dump(exclude=set(TRACE_INDEPENDENT_KEYS)), image_size, data.num_classes)
    )
    params, state = config.train, TrainState(config.objective)
    for number, stage in enumerate(stages(model, config)):
        if checkpoint and checkpoint.stage > number:
            continue
        network = stage.network()
        if number > 0 and checkpoint is None:
            state.restore_best_weights(model)
        training, validation = (stage.inputs(model, split) for split in (data.training, data.validation))
        traced = graph_cache.traced(network, architecture, config, stage)
        state.start_stage(number, network, traced, checkpoint)
        checkpoint = None
        last_epoch = state.stage_start + stage.epochs
        last_epoch = min(last_epoch, until or last_epoch)
        early_stopping = EarlyStopping(state, params.early_stopping_patience)
        if state.epochs < last_epoch and not early_stopping.should_stop():
            measure = MeasureEpoch(state, traced, validation), BestWeights(state, traced.network)
            callbacks = [
                learning_rate_scheduler(state, stage.learning_rate, params.schedule),
                *(*measure, ReportEpoch(state, on_epoch), early_stopping),
            ]
            epochs = state.epochs, last_epoch
            _fit(traced.training_model, training, config, data.num_classes, epochs, callbacks)
        if state.stopped or state.diverged or state.epochs == until:
            break
    state.restore_best_weights(model)
    return Trained(model, state.history, state.best_epoch, state.probabilities)


def _fit(
    model: keras.Model,
    training: LabelledImages,
    config: TrainConfig,
    num_classes: int,
    epochs: tuple[int, int],
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Train from the end of one epoch to the end of another."""
    first, last = epochs
    model.fit(
        Batches(training, config.train.batch_size, seed=config.seed, epoch=first),
        class_weight=class_weight(config.train.class_weight, training, num_classes),
        initial_epoch=first,
        epochs=last,
        shuffle=False,  # Keras would shuffle the batches again, with Python's global random state
        verbose=0,
        callbacks=callbacks,
    )


def class_weight(name: str, training: LabelledImages, num_classes: int) -> dict[int, float] | None:
    """The weight of each class's images in the training loss, as Keras's `fit` takes it.

    `balanced` is scikit-learn's: images / (classes x images of the class), so that the sum over all images
    does not change. The reported training loss is the weighted one: the mean over the classes of their mean
    losses. Accuracy and all validation metrics are unweighted.

    Args:
        name: `train.class_weight`: `none` or `balanced`.
        training: what the weights are fitted to.
        num_classes: at least 2.

    Returns:
        A weight above 0 for each class with images; None for `none`.

    >>> class_weight("balanced", LabelledImages(np.zeros((3, 1)), np.array([0, 0, 1]), np.arange(3)), 2)
    {0: 0.75, 1: 1.5}
    """
    if name == "none":
        return None
    counts = np.bincount(training.split_labels, minlength=num_classes)
    total = len(training.indices)
    return {number: total / (num_classes * int(count)) for number, count in enumerate(counts) if count}
