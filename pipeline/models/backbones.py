"""Networks trained before, without their heads: by their name in `keras.applications`, or from a Keras file.

What is built on one has a layer called `FEATURES`: what comes before it can be frozen, and its features
computed once; what comes behind it is the head.
"""

import functools
import inspect
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
from keras import layers

from pipeline.config import networks
from pipeline.config.networks import BACKBONE_FILES
from pipeline.runtime import files
from pipeline.runtime.console import shortened
from pipeline.runtime.errors import UserError

FEATURES = "features"
BACKBONE = "backbone"


def applications() -> dict[str, ModuleType]:
    """The module of every network of `keras.applications`, by the network's name."""
    modules = [
        module
        for module in vars(keras.applications).values()
        if inspect.ismodule(module) and hasattr(module, "preprocess_input")
    ]
    return {name: module for module in modules for name in vars(module) if name[0].isupper()}


def build(
    name: str,
    weights: str,
    input_shape: tuple[int, int, int],
    seed: int,
    last: str | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Build a backbone behind an input of images; with weights from before, it is frozen.

    Args:
        name: in `keras.applications`, whose own preprocessing comes with it; or a Keras file's path, which
            takes RGB from 0 to 255 and has its preprocessing inside.
        weights: `imagenet` (or what the Keras file holds), `none` (fresh ones), or the path of a file.
        input_shape: (height, width, 3), px.
        seed: of fresh weights.
        last: the layer whose output is wanted; None: the last one.

    Returns:
        The input, (batch, height, width, 3) uint8, and the features, (batch, rows, columns, channels).

    Raises:
        UserError: there is no such file, or the backbone cannot take such images; its weights do not fit,
            or cannot be downloaded.
    """
    networks.check_files({"backbone": name, "weights": weights})
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1.0, name="pixels")(inputs)  # as float
    if name.endswith(BACKBONE_FILES):
        backbone = _from_file(name, weights, input_shape)
    else:
        module = applications()[name]
        x = module.preprocess_input(x)
        backbone = _from_applications(name, getattr(module, name), weights, input_shape)
    outputs = backbone.output if last is None else backbone.get_layer(last).output
    backbone = keras.Model(backbone.input, outputs, name=BACKBONE)
    backbone.trainable = weights == "none"
    return inputs, backbone(x)


def _from_applications(
    name: str, function: Callable[..., keras.Model], weights: str, input_shape: tuple[int, int, int]
) -> keras.Model:
    build = functools.partial(function, include_top=False, input_shape=input_shape)
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    fetched = folder / f".{name}-{input_shape[0]}"  # made once the weights are there, for this size
    if weights == "imagenet" and fetched.exists():
        with _download_errors(name, folder):
            return build(weights=weights)
    with _as_user_error(f"model.backbone: {name} cannot take images of {input_shape[0]} px"):
        backbone = build(weights=None)
    if weights == "imagenet":
        with _download_errors(name, folder):
            # one process at a time, since Keras downloads to the very place it looks in
            with files.file_lock(
                folder / ".lock",
                f"another process is downloading the weights of {name} to {folder}; waiting for it",
            ):
                if not fetched.exists():
                    backbone = build(weights=weights)
                    fetched.touch()
                    return backbone
            return build(weights=weights)
    if weights != "none":
        _load_weights(backbone, weights, name)
    return backbone


def _from_file(name: str, weights: str, input_shape: tuple[int, int, int]) -> keras.Model:
    with _as_user_error(f"model.backbone: {name} cannot be loaded as a Keras file (code inside is refused)"):
        backbone = keras.saving.load_model(name, compile=False, safe_mode=True)
    ends = (backbone.input, backbone.output) if isinstance(backbone, keras.Model) else (None, None)
    if any(len(getattr(end, "shape", ())) != 4 for end in ends):
        raise UserError(
            f"model.backbone: {name} is not a network without a head: one input of images and one output "
            "of features, (batch, rows, columns, channels), are allowed"
        )
    size = backbone.input.shape[1]
    if size not in (None, input_shape[0]):
        raise UserError(
            f"model.backbone: {name} takes images of {size} px, got {input_shape[0]}; "
            f"set data.image_size={size}"
        )
    with _as_user_error(f"model.backbone: {name} cannot take images of {input_shape[0]} px"):
        probe = backbone.compute_output_shape((1, *input_shape))
    if 0 in probe:
        raise UserError(
            f"model.backbone: {name} cannot take images of {input_shape[0]} px: nothing is left of them; "
            "set a larger data.image_size"
        )
    if weights == "none":
        return keras.models.clone_model(backbone)
    if weights != "imagenet":
        _load_weights(backbone, weights, name)
    return backbone


def _load_weights(backbone: keras.Model, weights: str, name: str) -> None:
    with _as_user_error(f"model.weights: {weights} does not hold the weights of {name} without its head"):
        if weights.endswith(BACKBONE_FILES):
            backbone.set_weights(
                keras.saving.load_model(weights, compile=False, safe_mode=True).get_weights()
            )
        else:
            backbone.load_weights(weights)


@contextmanager
def _as_user_error(what: str) -> Iterator[None]:
    """Turn what Keras refuses into one line for the user."""
    try:
        yield
    # What Keras raises on a foreign file or an odd size has no type of its own.
    except (ValueError, TypeError, KeyError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    line = str(error).strip().split("\n")[0]
    return shortened(line, 300)


@contextmanager
def _download_errors(name: str, folder: Path) -> Iterator[None]:
    """Say in one line why Keras's own weights of a network are not to be had in its folder."""
    try:
        yield
    # Keras raises a bare Exception where it cannot download, and ValueError where the file is damaged
    except Exception as error:
        if isinstance(error, UserError):
            raise
        url = re.search(r"https?://\S+?(?=: |\s|$)", str(error))
        if url is None:
            raise UserError(
                f"model.weights: the weights of {name} in {folder} cannot be used: {_first_line(error)}; "
                "remove the damaged file, or set model.weights to a file of yours"
            ) from error
        file = url[0].rsplit("/", 1)[-1]
        raise UserError(
            f"model.weights: the ImageNet weights of {name} cannot be downloaded: {url[0]}; download it "
            f"elsewhere, put it at {folder / file}, and run the same command; or set model.weights to the "
            "path of a file, or to none"
        ) from error


def is_frozen(network: keras.Model) -> bool:
    """Whether a network has a backbone that training leaves as it is."""
    return any(layer.name == BACKBONE and not layer.trainable for layer in network.layers)


def extractor(network: keras.Model) -> keras.Model:
    """The part that can be frozen: (batch, height, width, 3) uint8 -> (batch, channels) float32.

    Its layers, and so its weights, are those of the network.
    """
    return keras.Model(network.input, network.get_layer(FEATURES).output, name="extractor")


def head(network: keras.Model) -> keras.Model:
    """The part behind the features: (batch, channels) float32 -> (batch, num_classes) float32.

    Its layers, and so its weights, are those of the network.
    """
    pooled = network.get_layer(FEATURES)
    inputs = keras.Input(pooled.output.shape[1:], name=FEATURES)
    x = inputs
    for layer in network.layers[network.layers.index(pooled) + 1 :]:
        x = layer(x)
    return keras.Model(inputs, x, name="head")


def unfreeze(network: keras.Model, count: int) -> None:
    """Let the last `count` layers of the backbone be trained, but for batch normalization.

    Its statistics are of millions of images; those of a few batches would undo what the layers around it
    rely on.
    """
    backbone = network.get_layer(BACKBONE)
    backbone.trainable = True
    found = [layer for layer in backbone.layers if not isinstance(layer, layers.InputLayer)]
    for position, layer in enumerate(found):
        top = position >= len(found) - count
        layer.trainable = top and not isinstance(layer, layers.BatchNormalization)


def with_head(
    inputs: keras.KerasTensor,
    features: keras.KerasTensor,
    num_classes: int,
    seed: int,
    dropout: float,
    name: str,
) -> keras.Model:
    """Global average pooling, dropout where its rate is above 0, and one dense softmax layer on features.

    Args:
        inputs: as `build` returns it.
        features: as `build` returns it.
        num_classes: from two.
        seed: of the head's initial weights and its dropout.
        dropout: rate.
        name: of the network.
    """
    seeds = np.random.SeedSequence(seed).generate_state(2).tolist()
    x = layers.GlobalAveragePooling2D(name=FEATURES)(features)
    if dropout:
        x = layers.Dropout(dropout, seed=seeds[0])(x)
    kernel = keras.initializers.GlorotUniform(seed=seeds[1])
    outputs = layers.Dense(num_classes, activation="softmax", kernel_initializer=kernel, name="label")(x)
    return keras.Model(inputs, outputs, name=name)
