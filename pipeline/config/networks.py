"""The networks: their parameters, their defaults and their files, without building them."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import UserError


@dataclass(frozen=True)
class Network:
    """A value of `model.name`; the module of that name in `pipeline/models` builds the network.

    Attributes:
        parameters: The keys of the `model` section that the network has.
        image_size: Default of `data.image_size`, px.
        augment: Default of `train.augment`.
        bfloat16_on_cpu: Whether mixed_bfloat16 can make it faster on a CPU. Keras computes the statistics of
            batch normalization in float32, and TensorFlow has no fast depthwise convolution in bfloat16: in
            networks that use them, the casts cost more than they save.
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
# Keys of the `model` section that change initial values or the training, but not the traced graph.
TRACE_INDEPENDENT_KEYS = (
    "kernel_initializer",
    "bias_initializer",
    "fine_tune_epochs",
    "fine_tune_learning_rate",
)

# The networks of `keras.applications`, listed here because importing Keras is slow; a test compares them.
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


def valid_backbone(name: str) -> str:
    """Validates a backbone: one of `APPLICATIONS`, or the path of a Keras file.

    Raises:
        ValueError: It is neither.
    """
    if name in APPLICATIONS or name.endswith(BACKBONE_FILES):
        return name
    near = difflib.get_close_matches(name, APPLICATIONS, n=1, cutoff=0.4)
    advice = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"got {name!r}, which is neither a network of keras.applications nor a Keras file (.keras); {advice}"
        f"allowed: a file's path, {', '.join(APPLICATIONS)}"
    )


def valid_weights(name: str) -> str:
    """Validates weights: `imagenet`, `none`, or the path of a weights file.

    Raises:
        ValueError: It is none of these.
    """
    if name in ("imagenet", "none") or name.endswith(WEIGHTS_FILES):
        return name
    raise ValueError(f"got {name!r}; allowed: imagenet, none, or a file (.keras, .weights.h5, .h5)")


def check_files(names: dict[str, str]) -> None:
    """Checks that the files among these values of `backbone` and `weights` exist.

    Raises:
        UserError: A file is missing.
    """
    for key, name in names.items():
        if name.endswith(WEIGHTS_FILES) and not Path(name).is_file():
            raise UserError(f"model.{key}: file {Path(name).absolute()} does not exist")
