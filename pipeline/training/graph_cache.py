"""Compiled networks that TensorFlow has traced before, used again where only weights or rates differ."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from pipeline.config.schema import TrainParams
from pipeline.runtime.hardware import FLOAT16, FLOAT32
from pipeline.training.batches import Examples, predictor


@dataclass(frozen=True)
class Traced:
    """A network that TensorFlow has graphs of, and the one that is fitted.

    Attributes:
        network: in float32: what is measured, kept and saved.
        twin: the same in the precision of the training; `network` itself where that is float32.
        fitted: `twin`, or augmentation and then `twin`.
        predict: the probabilities that `network` gives of examples.
        optimizer: the variables of `fitted.optimizer` before the first step.
    """

    network: keras.Model
    twin: keras.Model
    fitted: keras.Model
    predict: Callable[[Examples], np.ndarray]
    optimizer: list[np.ndarray]

    def settle(self) -> None:
        """Take over into `network` what `twin` has learned."""
        if self.twin is not self.network:
            for mine, learned in zip(self.network.weights, self.twin.weights, strict=True):
                mine.assign(learned)


# Tracing costs over a second, and cells that differ in their initial weights or learning rate alone share it.
_kept: dict[str, Traced] = {}
_MOST_KEPT = 4


def traced(
    fresh: keras.Model, kind: tuple, params: TrainParams, precision: str, augment: bool, seed: int
) -> Traced:
    """A compiled network as if just made: one traced before, where there is one alike, or else a new one.

    Args:
        fresh: the network, with its initial weights; these are copied.
        kind: what decides, with some of `params`, whether two networks have the same graph.
        params: the `train` section.
        precision: that it is fitted in, by the name of Keras's policy.
        augment: whether what is fitted sees changed images.
        seed: of the augmentation.
    """
    key = repr((kind, params.momentum, params.weight_decay, precision, augment))
    found = _kept.pop(key, None)
    if found is None:
        network = keras.models.clone_model(fresh)
        twin = network if precision == FLOAT32 else _in_precision(network, precision)
        fitted = _augmented(twin, seed) if augment else twin
        optimizer = keras.optimizers.SGD(
            params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay or None
        )
        if precision == FLOAT16:  # its smallest number is 6e-8: gradients would vanish
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        fitted.compile(
            optimizer=optimizer,
            # categorical cross-entropy, with class numbers in place of one-hot rows
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )
        optimizer.build(fitted.trainable_variables)  # so that a checkpoint can be restored
        state = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
        found = Traced(network, twin, fitted, predictor(network), state)
    _kept[key] = found
    if len(_kept) > _MOST_KEPT:
        del _kept[next(iter(_kept))]  # the one that was used longest ago
    _copy_state(_augmented(fresh, seed) if augment else fresh, found.fitted)
    for variable, value in zip(found.fitted.optimizer.variables, found.optimizer, strict=True):
        variable.assign(value)  # the schedule sets the learning rate
    return found


def _in_precision(network: keras.Model, precision: str) -> keras.Model:
    """A network of the same shape that computes in another precision, but for its last layer.

    Its weights stay float32. Exponents of a softmax, and the loss of what comes out, need more digits.
    """

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer is not network.layers[-1] and not isinstance(layer, layers.InputLayer):
            config["dtype"] = precision
        return layer.__class__.from_config(config)

    return keras.models.clone_model(network, clone_function=clone, recursive=True)


def _copy_state(source: keras.Model, target: keras.Model) -> None:
    """Copy weights and the state of random layers between two models of one shape."""
    for old, new in zip(target.variables, source.variables, strict=True):
        old.assign(new)


def _augmented(model: keras.Model, seed: int) -> keras.Model:
    """The model behind random changes of its images, sharing its weights; only fitting sees it."""
    seeds = np.random.SeedSequence([seed, 1]).generate_state(6).tolist()
    inputs = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    x = layers.RandomFlip("horizontal", seed=seeds[0])(inputs)
    x = layers.RandomTranslation(0.1, 0.1, seed=seeds[1])(x)
    x = layers.RandomZoom((-0.25, 0.1), seed=seeds[2])(x)  # nearer by up to a quarter, farther by a tenth
    x = layers.RandomRotation(0.03, seed=seeds[3])(x)  # of a turn: 11 degrees
    x = layers.RandomBrightness(0.15, seed=seeds[4])(x)
    x = layers.RandomContrast(0.2, seed=seeds[5])(x)
    return keras.Model(inputs, model(x))
