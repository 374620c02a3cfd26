"""Compiled networks that TensorFlow has traced before, used again where only weights or rates differ."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from pipeline.schema import TrainParams


@dataclass(frozen=True)
class Traced:
    """A network that TensorFlow has graphs of, and the one around it that is fitted."""

    network: keras.Model
    fitted: keras.Model


# Tracing costs over a second, and cells that differ in their initial weights or learning rate alone share it.
_kept: dict[str, Traced] = {}
_MOST_KEPT = 4


def traced(fresh: keras.Model, kind: tuple, params: TrainParams, augment: bool, seed: int) -> Traced:
    """A compiled network as if just made: one traced before, where there is one alike, or else a new one.

    Args:
        fresh: the network, with its initial weights; these are copied.
        kind: what decides, with momentum and weight decay, whether two networks have the same graph.
        params: the `train` section.
        augment: whether what is fitted sees changed pictures.
        seed: of the augmentation.
    """
    key = repr((kind, params.momentum, params.weight_decay, augment))
    found = _kept.pop(key, None)
    if found is None:
        network = keras.models.clone_model(fresh)
        found = Traced(network, _augmented(network, seed) if augment else network)
        found.fitted.compile(
            optimizer=keras.optimizers.SGD(
                params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay or None
            ),
            # categorical cross-entropy, with class numbers in place of one-hot rows
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )
        found.fitted.optimizer.build(found.fitted.trainable_variables)  # so that a checkpoint can be restored
    _kept[key] = found
    if len(_kept) > _MOST_KEPT:
        del _kept[next(iter(_kept))]  # the one that was used longest ago
    _copy_state(_augmented(fresh, seed) if augment else fresh, found.fitted)
    for variable in found.fitted.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))  # the schedule sets the learning rate
    return found


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
