"""The small convolutional network of the original grid search, trained from scratch."""

import keras
import numpy as np
from keras import layers

from pipeline.config.schema import ModelParams
from pipeline.models import activations

FILTERS = (32, 64, 128, 128)
UNITS = 128


def build(params: ModelParams, input_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """Four blocks of convolution and pooling, a hidden dense layer, dropout, softmax.

    Args:
        params: activation, kernel and bias initializer of every convolution and of the hidden layer; dropout.
        input_shape: (height, width, 3), px; from 16, since four poolings halve it.
        num_classes: from two.
        seed: of the initial weights and of the dropout.

    Returns:
        An uncompiled model: (batch, height, width, 3) uint8 RGB -> (batch, num_classes) float32.
    """
    # One seed a layer: an initializer that is used twice would start both layers alike.
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(FILTERS) + 3).tolist())

    def weights() -> dict[str, keras.Initializer]:
        kernel = keras.initializers.get(
            {"class_name": params.kernel_initializer, "config": {"seed": next(seeds)}}
        )
        return {
            "kernel_initializer": kernel,
            "bias_initializer": keras.initializers.Constant(params.bias_initializer),
        }

    inputs = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in FILTERS:
        x = layers.Conv2D(filters, 3, padding="same", **weights())(x)
        x = activations.layer(params.activation)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)  # (batch, height/16 * width/16 * 128)
    x = layers.Dense(UNITS, **weights())(x)
    x = activations.layer(params.activation)(x)
    x = layers.Dropout(params.dropout, seed=next(seeds))(x)
    kernel = keras.initializers.GlorotUniform(seed=next(seeds))
    outputs = layers.Dense(num_classes, activation="softmax", kernel_initializer=kernel, name="label")(x)
    return keras.Model(inputs, outputs, name="simple_cnn")
