"""What can be known of each network without building it: its own parameters, and what it prefers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network that `model.name` can name.

    Attributes:
        parameters: keys of the `model` section that it is built from; the others mean nothing to it.
        image_size: px; what `data.image_size=auto` stands for.
        augment: what `train.augment=auto` stands for.
    """

    parameters: tuple[str, ...]
    image_size: int
    augment: bool = False


_FROM_SCRATCH = ("activation", "kernel_initializer", "bias_initializer", "dropout")
_FINE_TUNING = ("weights", "fine_tune_epochs", "fine_tune_layers", "fine_tune_learning_rate")
NETWORKS = {
    "simple_cnn": Network(_FROM_SCRATCH, image_size=64),
    "small_resnet": Network(_FROM_SCRATCH, image_size=96, augment=True),
    "transfer": Network(("backbone", *_FINE_TUNING, "dropout"), image_size=160),
    "vgg16_cam": Network(_FINE_TUNING, image_size=224),
}
# Keys of the `model` section that decide how a network starts or is trained, but not what it computes.
NOT_OF_THE_GRAPH = ("kernel_initializer", "bias_initializer", "fine_tune_epochs", "fine_tune_learning_rate")
