"""Transfer learning: a new head on a network that was trained on many images before."""

import keras

from pipeline.config.schema import ModelParams
from pipeline.models import backbones


def build(params: ModelParams, input_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """A backbone, global average pooling, dropout, softmax.

    Args:
        params: backbone and its weights; dropout.
        input_shape: (height, width, 3), px.
        num_classes: from two.
        seed: of the head's initial weights, of the dropout, and of a backbone without weights from before.

    Returns:
        An uncompiled model: (batch, height, width, 3) uint8 RGB -> (batch, num_classes) float32. Its
        backbone is frozen, unless `params.weights` is `none`.

    Raises:
        UserError: as `backbones.build`.
    """
    inputs, features = backbones.build(params.backbone, params.weights, input_shape, seed)
    return backbones.with_head(inputs, features, num_classes, seed, params.dropout, "transfer")
