"""Networks: the `model` section of the parameters in, an uncompiled `keras.Model` out.

Every network takes uint8 pictures and carries its own rescaling, so that what is saved can be given pictures.
"""

import keras

from pipeline.models import simple_cnn, small_resnet, transfer, vgg16_cam
from pipeline.schema import ModelParams

BUILDERS = {
    "simple_cnn": simple_cnn.build,
    "small_resnet": small_resnet.build,
    "transfer": transfer.build,
    "vgg16_cam": vgg16_cam.build,
}


def build(params: ModelParams, image_size: int, num_classes: int, seed: int) -> keras.Model:
    """Build the network that `params.name` names, with fresh weights.

    Args:
        params: the `model` section.
        image_size: side of the square pictures, px.
        num_classes: from two.
        seed: of the initial weights and of the dropout.

    Returns:
        An uncompiled model: (batch, image_size, image_size, 3) uint8 RGB -> (batch, num_classes) float32
        probabilities.

    Raises:
        UserError: the network cannot take pictures of this size, or its weights are not to be had.
    """
    return BUILDERS[params.name](params, (image_size, image_size, 3), num_classes, seed)
