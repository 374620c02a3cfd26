"""How fast a network is here: a few steps of its training, timed."""

import time
from dataclasses import replace

import keras
import numpy as np
import psutil

from pipeline.config.networks import NETWORKS
from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.doctor.cost import Pace
from pipeline.evaluation.objective import Objective
from pipeline.models import backbones
from pipeline.training import feature_cache, train
from pipeline.training.batches import PREDICTION_BATCH, Batches, Examples

# Timed: enough of them that what an epoch costs by itself, some 0.1 s, does not count for much.
_BATCHES, _BATCHES_ON_A_BACKBONE = 16, 2


def measure(
    network: keras.Model,
    params: Params,
    prepared: Prepared,
    training_split: Examples,
    validation: Examples,
    with_features: bool,
) -> Pace:
    """Times a few steps, on some of the images: seconds for a small network, more for a large one.

    Args:
        network: as `params` say.
        params: of the cell that is timed.
        prepared: the images.
        training_split: those to train on.
        validation: those that every epoch is measured on.
        with_features: whether a frozen backbone's features are still to be computed, and so are timed too.
    """
    on_backbone = backbones.is_frozen(network)
    count = params.train.batch_size * (_BATCHES_ON_A_BACKBONE if on_backbone else _BATCHES)
    share = min(1.0, count / len(training_split.indices))
    some, measured_on = (
        replace(split, indices=split.indices[: max(1, round(share * len(split.indices)))], features=None)
        for split in (training_split, validation)
    )
    tuned = params.epochs > params.train.epochs
    short = params.with_values(
        {"train.epochs": 2, "train.early_stopping_patience": None, "model.fine_tune_epochs": 2 * tuned}
    )
    stamps, memory = [], []

    def at_end(*_: object) -> None:
        stamps.append(time.perf_counter())
        memory.append(_own_memory())

    train.train(
        short.model,
        short.train,
        some,
        measured_on,
        len(prepared.classes),
        params.seed,
        Objective(params.sweep.metric),
        on_epoch=at_end,
    )
    taken = np.diff(stamps) / share
    augment = NETWORKS[params.model.name].augment if params.train.augment == "auto" else params.train.augment
    blind = on_backbone and not augment and with_features  # the head is trained on features
    seen = len(training_split.indices) + len(validation.indices)
    return Pace(
        features=_features(network, some) * seen / len(some.indices) if blind else 0.0,
        epoch=float(taken[0]) if len(taken) else 0.0,  # the first epoch of each stage is traced as well
        tuned_epoch=float(taken[-1]) if tuned and len(taken) == 3 else 0.0,
        memory=max(memory),
        weights=sum(4 * int(np.prod(weight.shape)) for weight in network.weights),
        features_bytes=_features_bytes(network, prepared) if blind else 0,
    )


def _features(network: keras.Model, some: Examples) -> float:
    """Seconds to compute the features of some images, once the graph is there."""
    extractor, taken = backbones.extractor(network), []
    for _ in range(2):
        start = time.perf_counter()
        feature_cache.compute(
            extractor,
            lambda rows: Batches(replace(some, indices=rows), PREDICTION_BATCH, with_labels=False),
            some.indices,
        )
        taken.append(time.perf_counter() - start)
    return min(taken)


def _features_bytes(network: keras.Model, prepared: Prepared) -> int:
    return 4 * backbones.extractor(network).output.shape[-1] * len(prepared.names)


def _own_memory() -> int:
    """Bytes of this process without the mapped images, which the system can read again."""
    info = psutil.Process().memory_info()
    return info.rss - getattr(info, "shared", 0)
