"""What can be known of each network without building it: its own parameters, what it prefers, its files."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import UserError


@dataclass(frozen=True)
class Network:
    """A network that `model.name` can name; a file of that name in `pipeline/models` builds it.

    Attributes:
        parameters: keys of the `model` section that it is built from; the others mean nothing to it.
        image_size: px; what `data.image_size=auto` stands for.
        augment: what `train.augment=auto` stands for.
        bfloat16_on_cpu: whether shorter numbers make it faster on a processor. Keras computes the statistics
            of batch normalization in float32, and TensorFlow has no fast depthwise convolutions of bfloat16:
            for networks of these, turning numbers to and fro costs more than it saves.
    """

    parameters: tuple[str, ...]
    image_size: int
    augment: bool = False
    bfloat16_on_cpu: bool = False


_FROM_SCRATCH = ("activation", "kernel_initializer", "bias_initializer", "dropout")
_FINE_TUNING = ("weights", "fine_tune_epochs", "fine_tune_layers", "fine_tune_learning_rate")
NETWORKS = {
    "simple_cnn": Network(_FROM_SCRATCH, image_size=64, bfloat16_on_cpu=True),
    "small_resnet": Network(_FROM_SCRATCH, image_size=96, augment=True),
    "transfer": Network(("backbone", *_FINE_TUNING, "dropout"), image_size=160),
    "vgg16_cam": Network(_FINE_TUNING, image_size=224, bfloat16_on_cpu=True),
}
# Keys of the `model` section that decide how a network starts or is trained, but not what it computes.
NOT_OF_THE_GRAPH = ("kernel_initializer", "bias_initializer", "fine_tune_epochs", "fine_tune_learning_rate")

# The networks of `keras.applications`, written out so that a wrong name is refused without importing Keras; a
# test compares them.
APPLICATIONS = (
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121",
    "DenseNet169", "DenseNet201", "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3",
    "EfficientNetB4", "EfficientNetB5", "EfficientNetB6", "EfficientNetB7", "EfficientNetV2B0",
    "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M",
    "EfficientNetV2S", "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "NASNetLarge",
    "NASNetMobile", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2",
    "VGG16", "VGG19", "Xception",
)  # fmt: skip
BACKBONE_FILES = (".keras",)
WEIGHTS_FILES = (".keras", ".h5")


def known_backbone(name: str) -> str:
    """The name, where it is one of `APPLICATIONS` or ends like a Keras file.

    Raises:
        ValueError: it is neither.
    """
    if name in APPLICATIONS or name.endswith(BACKBONE_FILES):
        return name
    near = difflib.get_close_matches(name, APPLICATIONS, n=1, cutoff=0.4)
    advice = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"got {name!r}, which is neither a network of keras.applications nor a Keras file (.keras); {advice}"
        f"allowed: a file's path, {', '.join(APPLICATIONS)}"
    )


def known_weights(name: str) -> str:
    """The name, where it is `imagenet`, `none`, or ends like a file of weights.

    Raises:
        ValueError: it is none of these.
    """
    if name in ("imagenet", "none") or name.endswith(WEIGHTS_FILES):
        return name
    raise ValueError(f"got {name!r}; allowed: imagenet, none, or a file (.keras, .weights.h5, .h5)")


def check_files(names: dict[str, str]) -> None:
    """Check that the files among these values of `backbone` and `weights` are there.

    Raises:
        UserError: one is not.
    """
    for key, name in names.items():
        if name.endswith(WEIGHTS_FILES) and not Path(name).is_file():
            raise UserError(f"model.{key}: there is no file {Path(name).absolute()}")
