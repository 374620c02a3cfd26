"""Networks: the `model` section of the parameters in, an uncompiled `keras.Model` out.

Each has a file here, named as `model.name` and `config.networks.NETWORKS` name it, with a function `build`.
Every network takes uint8 images and carries its own rescaling, so that what is saved can be given images.
"""

from importlib import import_module

import keras

from pipeline.config.schema import ModelParams


def build(params: ModelParams, image_size: int, num_classes: int, seed: int) -> keras.Model:
    """Build the network that `params.name` names, with fresh weights.

    Args:
        params: the `model` section.
        image_size: side of the square images, px.
        num_classes: from two.
        seed: of the initial weights and of the dropout.

    Returns:
        An uncompiled model: (batch, image_size, image_size, 3) uint8 RGB -> (batch, num_classes) float32
        probabilities.

    Raises:
        UserError: the network cannot take images of this size, or its weights are not to be had.
    """
    network = import_module(f"{__name__}.{params.name}")
    return network.build(params, (image_size, image_size, 3), num_classes, seed)
