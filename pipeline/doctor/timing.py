"""Measures the training speed of a network: a few steps, timed."""

import time
from dataclasses import replace

import keras
import numpy as np
import psutil

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.doctor.cost import Measured
from pipeline.models import backbones
from pipeline.training import train
from pipeline.training.batches import LabelledImages, TrainingData
from pipeline.training.config import TrainConfig

# Timed steps per epoch; with so many, the fixed cost of an epoch, some 0.1 s, is small.
_STEPS, _STEPS_WITH_BACKBONE = 16, 2


def measure(
    network: keras.Model,
    params: Params,
    prepared: Prepared,
    training: LabelledImages,
    validation: LabelledImages,
    with_features: bool,
) -> Measured:
    """Train two epochs on a few of the images: seconds for a small network, longer for a large one.

    Args:
        network: The network of `params`.
        params: The parameters of the timed cell.
        prepared: The dataset.
        training: The training split.
        validation: The validation split.
        with_features: Whether to time the features of a frozen backbone, too: they are not cached yet.
    """
    is_frozen = backbones.is_frozen(network)
    count = params.train.batch_size * (_STEPS_WITH_BACKBONE if is_frozen else _STEPS)
    share = min(1.0, count / len(training.indices))
    few, few_validation = (
        replace(split, indices=split.indices[: max(1, round(share * len(split.indices)))], cache=None)
        for split in (training, validation)
    )
    fine_tunes = params.epochs > params.train.epochs
    short = params.with_values(
        {"train.epochs": 2, "train.early_stopping_patience": None, "model.fine_tune_epochs": 2 * fine_tunes}
    )
    timestamps, memory = [], []

    def on_epoch(*_: object) -> None:
        timestamps.append(time.perf_counter())
        memory.append(_private_bytes())

    config = TrainConfig.of(short)
    train.train(config, TrainingData(few, few_validation, len(prepared.classes)), on_epoch=on_epoch)
    seconds = np.diff(timestamps) / share
    uses_features = is_frozen and not config.augment and with_features  # the head is trained on features
    scale = (len(training.indices) + len(validation.indices)) / len(few.indices)
    return Measured(
        features_seconds=_features_seconds(network, few) * scale if uses_features else 0.0,
        epoch_seconds=float(seconds[0]) if len(seconds) else 0.0,  # a stage's first epoch includes tracing
        fine_tuning_seconds=float(seconds[-1]) if fine_tunes and len(seconds) == 3 else 0.0,
        memory_bytes=max(memory),
        weights_bytes=sum(4 * int(np.prod(weight.shape)) for weight in network.weights),
        features_bytes=_features_bytes(network, prepared) if uses_features else 0,
    )


def _features_seconds(network: keras.Model, few: LabelledImages) -> float:
    """Seconds to compute the features of a few images, without tracing: the faster of two runs."""
    extractor, seconds = backbones.extractor(network), []
    for _ in range(2):
        start = time.perf_counter()
        few.features(extractor)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _features_bytes(network: keras.Model, prepared: Prepared) -> int:
    return 4 * int(backbones.extractor(network).output.shape[-1]) * len(prepared.names)


def _private_bytes() -> int:
    """Memory of this process in bytes, without the memory-mapped images, which the system can reclaim."""
    info = psutil.Process().memory_info()
    return int(info.rss) - int(getattr(info, "shared", 0))
