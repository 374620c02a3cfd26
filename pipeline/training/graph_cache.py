"""Compiled networks whose graphs TensorFlow has traced, reused if only weights or learning rates differ."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from pipeline.runtime.hardware import FLOAT16, FLOAT32
from pipeline.training.batches import LabelledImages, predictor
from pipeline.training.config import TrainConfig
from pipeline.training.stages import Stage


@dataclass(frozen=True)
class TracedModel:
    """A network with traced graphs, and the model that is fitted.

    Attributes:
        network: in float32: measured and saved.
        mixed_precision_model: the same network in the dtype policy of the training; `network` itself if that
            is float32.
        training_model: compiled: `mixed_precision_model`, or augmentation followed by it.
        predict: class probabilities of labelled images, by `network`.
        optimizer_variables: of `training_model.optimizer` before the first step.
    """

    network: keras.Model
    mixed_precision_model: keras.Model
    training_model: keras.Model
    predict: Callable[[LabelledImages], np.ndarray]
    optimizer_variables: list[np.ndarray]

    def sync_weights(self) -> None:
        """Copy the weights of `mixed_precision_model` to `network`."""
        if self.mixed_precision_model is not self.network:
            for target, source in zip(self.network.weights, self.mixed_precision_model.weights, strict=True):
                target.assign(source)


# Tracing takes over a second; cells that differ only in initial weights or learning rates share a graph.
_cache: dict[str, TracedModel] = {}
_MAX_CACHED = 4  # least recently used first out


def traced(network: keras.Model, architecture: str, config: TrainConfig, stage: Stage) -> TracedModel:
    """A compiled copy of a network in its initial state, from the cache if an equal graph is there.

    Args:
        network: with initial weights, which are copied.
        architecture: identifies the network's graph.
        config: of the training.
        stage: that fits the network.
    """
    train = config.train
    key = repr(
        (stage.name, architecture, train.momentum, train.weight_decay, stage.dtype_policy, stage.augment)
    )
    found = _cache.pop(key, None) or _compile(keras.models.clone_model(network), config, stage)
    _cache[key] = found
    if len(_cache) > _MAX_CACHED:
        del _cache[next(iter(_cache))]  # the least recently used
    _copy_variables(_augmented(network, config.seed) if stage.augment else network, found.training_model)
    for variable, value in zip(
        found.training_model.optimizer.variables, found.optimizer_variables, strict=True
    ):
        variable.assign(value)  # the learning rate is set by the schedule
    return found


def _compile(network: keras.Model, config: TrainConfig, stage: Stage) -> TracedModel:
    in_policy = network if stage.dtype_policy == FLOAT32 else _with_dtype_policy(network, stage.dtype_policy)
    training_model = _augmented(in_policy, config.seed) if stage.augment else in_policy
    optimizer = keras.optimizers.SGD(
        config.train.learning_rate,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay or None,
    )
    if stage.dtype_policy == FLOAT16:  # its smallest number is 6e-8: gradients would underflow
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    training_model.compile(
        optimizer=optimizer,
        # categorical cross-entropy with class indices in place of one-hot rows
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    optimizer.build(training_model.trainable_variables)  # so that a checkpoint can be restored
    variables = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
    return TracedModel(network, in_policy, training_model, predictor(network), variables)


def _with_dtype_policy(network: keras.Model, policy: str) -> keras.Model:
    """A copy of a network that computes in a dtype policy, except for its last layer.

    The weights stay float32. The softmax and the loss need its precision.
    """

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer is not network.layers[-1] and not isinstance(layer, layers.InputLayer):
            config["dtype"] = policy
        return layer.__class__.from_config(config)

    return keras.models.clone_model(network, clone_function=clone, recursive=True)


def _copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Copy weights and the states of random layers between two models of the same structure."""
    for old, new in zip(target.variables, source.variables, strict=True):
        old.assign(new)


def _augmented(model: keras.Model, seed: int) -> keras.Model:
    """A model that augments its images first and shares the given model's weights; for training only."""
    seeds = np.random.SeedSequence([seed, 1]).generate_state(6).tolist()
    inputs = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    x = layers.RandomFlip("horizontal", seed=seeds[0])(inputs)
    x = layers.RandomTranslation(0.1, 0.1, seed=seeds[1])(x)
    x = layers.RandomZoom((-0.25, 0.1), seed=seeds[2])(x)  # in by up to a quarter, out by up to a tenth
    x = layers.RandomRotation(0.03, seed=seeds[3])(x)  # of a full turn: 11 degrees
    x = layers.RandomBrightness(0.15, seed=seeds[4])(x)
    x = layers.RandomContrast(0.2, seed=seeds[5])(x)
    return keras.Model(inputs, model(x))
