"""The stages of a training: one, or two for a frozen backbone that is fine-tuned."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np

from pipeline.models import backbones
from pipeline.runtime.hardware import FLOAT32
from pipeline.training.batches import LabelledImages
from pipeline.training.config import TrainConfig


@dataclass(frozen=True)
class Stage:
    """A part of a training with its own weights, inputs, learning rate and epochs.

    Attributes:
        name: distinguishes the graphs of one network.
        network: makes the part of the whole network that is fitted; it shares the weights.
        on_features: whether that part takes features instead of images.
        augment: whether training images are augmented.
        dtype_policy: of the fitted model.
        learning_rate: before the schedule.
        epochs: at most.
    """

    name: str
    network: Callable[[], keras.Model]
    on_features: bool
    augment: bool
    dtype_policy: str
    learning_rate: float
    epochs: int

    def inputs(self, model: keras.Model, data: LabelledImages) -> LabelledImages:
        """What this part of `model` is fitted to, or measured on: the images, or their features."""
        if not self.on_features:
            return data
        features = data.features(backbones.extractor(model))
        return LabelledImages(features, data.split_labels, np.arange(len(features)))


def stages(model: keras.Model, config: TrainConfig) -> list[Stage]:
    """The stages of a training, in order.

    Args:
        model: the whole network.
        config: of the training.

    Returns:
        One stage for a network without a frozen backbone. Otherwise a stage for the head, and one for the
        head and the top of the backbone if `fine_tune_epochs` is above 0.
    """
    params, augment = config.model, config.augment
    whole = Stage(
        "whole",
        lambda: model,
        on_features=False,
        augment=augment,
        dtype_policy=config.dtype_policy,
        learning_rate=config.train.learning_rate,
        epochs=config.train.epochs,
    )
    if not backbones.is_frozen(model):
        return [whole]

    def unfrozen() -> keras.Model:
        backbones.unfreeze(model, params.fine_tune_layers)
        return model

    if augment:
        head = replace(whole, name="frozen")
    else:  # each epoch sees the same features; a head is too small to gain from mixed precision
        head = replace(
            whole,
            name="head",
            network=lambda: backbones.head(model),
            on_features=True,
            dtype_policy=FLOAT32,
        )
    if not params.fine_tune_epochs:
        return [head]
    tuned = replace(
        whole,
        name="tuned",
        network=unfrozen,
        learning_rate=params.fine_tune_learning_rate,
        epochs=params.fine_tune_epochs,
    )
    return [head, tuned]
