"""Labelled images as training and prediction take them: views into the prepared arrays, in batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset.prepare import Prepared
from pipeline.training.feature_cache import Cache, Chunked

# Images a step where only predictions are wanted: larger than a training step, since no gradients are kept.
PREDICTION_BATCH = 128


@dataclass(frozen=True)
class Examples:
    """Labelled images, as views into the prepared arrays.

    Attributes:
        images: (n, size, size, 3) uint8; usually a memory map, of which only batches are read. Or their
            features, (n, channels) float32, as `feature_cache.Chunked`.
        labels: (n,) int64, class numbers.
        indices: (k,) int64, the rows that belong to this split, ascending.
        features: where features of these images are kept; None: nowhere.
    """

    images: np.ndarray | Chunked
    labels: np.ndarray
    indices: np.ndarray
    features: Cache | None = None


def examples(prepared: Prepared, split: str) -> Examples:
    """The images of a split, as training and prediction take them."""
    folder = prepared.path.parents[1] / "features" / prepared.digest
    cache = Cache(folder, prepared.image_digests)
    return Examples(prepared.images, prepared.labels, prepared.indices(split), cache)


class Batches(keras.utils.PyDataset):
    """Batches read from the memory map when they are due, so that no copy of the images is ever whole.

    Each epoch has its own order, drawn from the seed and the epoch alone: an epoch can be repeated without
    those before it.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        with_labels: bool = True,
        seed: int | None = None,
        epoch: int = 0,
    ):
        super().__init__()
        self.examples, self.batch_size, self.with_labels, self.seed = examples, batch_size, with_labels, seed
        self.epoch = epoch
        self._order = self._draw()

    def __len__(self) -> int:
        return math.ceil(len(self.examples.indices) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        rows = self._order[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.examples.images[rows]  # (batch, size, size, 3) uint8
        return (images, self.examples.labels[rows]) if self.with_labels else (images,)

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order; Keras calls this."""
        self.epoch += 1
        self._order = self._draw()

    def _draw(self) -> np.ndarray:
        if self.seed is None:
            return self.examples.indices
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.examples.indices)


def predictor(model: keras.Model) -> Callable[[Examples], np.ndarray]:
    """What predicts many times with one model: `model.predict` would make a dataset anew each time.

    Returns:
        A function of examples: probabilities of each class, (k, num_classes) float32, in the order of
        `examples.indices`.
    """
    given = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype)
    answer = tf.function(
        lambda images: model(images, training=False), input_signature=[given], autograph=False
    )

    def predict(examples: Examples) -> np.ndarray:
        batches = Batches(examples, PREDICTION_BATCH, with_labels=False)
        return np.concatenate(
            [answer(images).numpy() for (images,) in map(batches.__getitem__, range(len(batches)))]
        )

    return predict


def predict(model: keras.Model, examples: Examples) -> np.ndarray:
    """Probabilities of each class, (k, num_classes) float32, in the order of `examples.indices`."""
    return predictor(model)(examples)
