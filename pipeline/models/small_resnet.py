"""A residual network from scratch, for some thousands of small images: He et al. (2016, arXiv:1512.03385).

Two 3x3 convolutions a block, each with batch normalization, around a shortcut. Variants: five stages of 16 to
256 filters, a third of the 18-layer network's work at the same size; a 3x3 convolution with stride 2 as the
stem, and no pooling behind it; a shortcut that shrinks averages before its 1x1 convolution (He, T. et al.
2019, arXiv:1812.01187).
"""

import keras
import numpy as np
from keras import KerasTensor, layers

from pipeline.config.schema import ModelParams
from pipeline.models import activations

STAGES = ((16, 1), (32, 1), (64, 2), (128, 2), (256, 2))  # filters, blocks


def build(params: ModelParams, input_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """A stem, five stages of residual blocks, global average pooling, dropout, softmax.

    Args:
        params: activation; kernel initializer of every convolution; bias initializer, which the shift of
            every batch normalization starts from; dropout.
        input_shape: (height, width, 3), px; the last features are a thirty-second of it.
        num_classes: from two.
        seed: of the initial weights and of the dropout.

    Returns:
        An uncompiled model: (batch, height, width, 3) uint8 RGB -> (batch, num_classes) float32.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(64).tolist())

    def convolution(x: KerasTensor, filters: int, size: int, stride: int = 1) -> KerasTensor:
        kernel = keras.initializers.get(
            {"class_name": params.kernel_initializer, "config": {"seed": next(seeds)}}
        )
        return layers.Conv2D(
            filters, size, stride, padding="same", use_bias=False, kernel_initializer=kernel
        )(x)

    def normalization(x: KerasTensor) -> KerasTensor:
        shift = keras.initializers.Constant(params.bias_initializer)
        # Keras's 0.99 would not have seen enough batches after a few short epochs
        return layers.BatchNormalization(momentum=0.9, beta_initializer=shift)(x)

    def block(x: KerasTensor, filters: int, stride: int) -> KerasTensor:
        shortcut = x
        if stride > 1:
            shortcut = layers.AveragePooling2D(stride, padding="same")(shortcut)
        if x.shape[-1] != filters:
            shortcut = normalization(convolution(shortcut, filters, 1))
        x = activations.layer(params.activation)(normalization(convolution(x, filters, 3, stride)))
        x = normalization(convolution(x, filters, 3))
        return activations.layer(params.activation)(layers.Add()([x, shortcut]))

    inputs = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = activations.layer(params.activation)(normalization(convolution(x, STAGES[0][0], 3, stride=2)))
    for stage, (filters, blocks) in enumerate(STAGES):
        for number in range(blocks):
            x = block(x, filters, stride=2 if stage > 0 and number == 0 else 1)
    x = layers.GlobalAveragePooling2D(name="features")(x)  # (batch, 256)
    x = layers.Dropout(params.dropout, seed=next(seeds))(x)
    kernel = keras.initializers.GlorotUniform(seed=next(seeds))
    outputs = layers.Dense(num_classes, activation="softmax", kernel_initializer=kernel, name="label")(x)
    return keras.Model(inputs, outputs, name="small_resnet")
