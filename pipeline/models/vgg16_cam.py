"""VGG16 made to show where it looks: class activation maps (Zhou et al. 2016, arXiv:1512.04150).

The convolutions of Simonyan and Zisserman (2015, arXiv:1409.1556) without their last pooling, so that the map
has a sixteenth of the image's size instead of a thirty-second. Behind them stands nothing but the average
and one dense layer, whose weights of a class times the last features are the map.
"""

import keras

from pipeline.config.schema import ModelParams
from pipeline.models import backbones

LAST_CONVOLUTION = "block5_conv3"


def build(params: ModelParams, input_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """VGG16's convolutions, global average pooling, softmax.

    Args:
        params: weights of the convolutions.
        input_shape: (height, width, 3), px; from 32.
        num_classes: from two.
        seed: of the head's initial weights, and of convolutions without weights from before.

    Returns:
        An uncompiled model: (batch, height, width, 3) uint8 RGB -> (batch, num_classes) float32. Its
        convolutions are frozen, unless `params.weights` is `none`.

    Raises:
        UserError: as `backbones.build`.
    """
    inputs, features = backbones.build("VGG16", params.weights, input_shape, seed, last=LAST_CONVOLUTION)
    return backbones.with_head(inputs, features, num_classes, seed, dropout=0, name="vgg16_cam")
