"""Labelled images for training and prediction: views of the prepared arrays, read in batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset.prepare import Prepared
from pipeline.sources import split_names
from pipeline.training.feature_cache import ChunkedFeatures, FeatureCache, cached_features

# Images per step of a prediction: more than in a training step, since no gradients are kept.
PREDICTION_BATCH = 128


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images of one split, as views of the prepared arrays.

    Attributes:
        images: (n, size, size, 3) uint8, usually a memory map of which only batches are read; or features,
            (n, channels) float32.
        labels: (n,) int64, class indices.
        indices: (k,) int64, the rows that belong to this split, ascending.
        cache: where features of these images are cached; None: nowhere.
    """

    images: np.ndarray | ChunkedFeatures
    labels: np.ndarray
    indices: np.ndarray
    cache: FeatureCache | None = None

    @classmethod
    def of(cls, prepared: Prepared, split: str) -> Self:
        """The images of a split (`train`, `validation` or `test`) of a prepared dataset."""
        folder = prepared.path.parents[1] / "features" / prepared.digest
        cache = FeatureCache(folder, prepared.image_digests)
        return cls(prepared.images, prepared.labels, prepared.indices(split), cache)

    @property
    def split_labels(self) -> np.ndarray:
        """(k,) int64, the class indices of this split, in the order of `indices`."""
        return np.asarray(self.labels[self.indices])

    def features(self, extractor: keras.Model) -> ChunkedFeatures:
        """Features of the images, read from the cache if present: (k, channels) float32.

        Args:
            extractor: (batch, height, width, 3) uint8 -> (batch, channels) float32.

        Raises:
            UserError: the features cannot be written to the disk.
        """
        return cached_features(
            extractor,
            lambda rows: Batches(replace(self, indices=rows), PREDICTION_BATCH, with_labels=False),
            self.indices,
            self.cache,
        )


@dataclass(frozen=True)
class TrainingData:
    """The images of one training.

    Attributes:
        training: what the weights are fitted to.
        validation: what each epoch is measured on, and the best epoch is selected by.
        num_classes: at least 2.
    """

    training: LabelledImages
    validation: LabelledImages
    num_classes: int

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """The training and validation splits of a prepared dataset."""
        return cls(
            LabelledImages.of(prepared, split_names.TRAIN),
            LabelledImages.of(prepared, split_names.VALIDATION),
            len(prepared.classes),
        )


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no annotations
    """Batches that are read from the memory map on demand: the images are never all in memory.

    The order of an epoch depends on the seed and the epoch only, so that an epoch can be repeated without
    those before it.

    Args:
        data: the images.
        batch_size: images per batch; the last batch may have fewer.
        with_labels: whether a batch is (images, labels) or (images,).
        seed: of the order; None: the order of `data.indices`.
        epoch: epochs that are done.
    """

    def __init__(
        self,
        data: LabelledImages,
        batch_size: int,
        with_labels: bool = True,
        seed: int | None = None,
        epoch: int = 0,
    ):
        super().__init__()
        self.data, self.batch_size, self.with_labels, self.seed = data, batch_size, with_labels, seed
        self.epoch = epoch
        self._order = self._draw_order()

    def __len__(self) -> int:
        return math.ceil(len(self.data.indices) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        rows = self._order[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.data.images[rows]  # (batch, size, size, 3) uint8
        return (images, self.data.labels[rows]) if self.with_labels else (images,)

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; called by Keras."""
        self.epoch += 1
        self._order = self._draw_order()

    def _draw_order(self) -> np.ndarray:
        if self.seed is None:
            return self.data.indices
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.data.indices)


def predictor(model: keras.Model) -> Callable[[LabelledImages], np.ndarray]:
    """A function that predicts repeatedly with one model; `model.predict` builds a dataset on every call.

    Returns:
        A function of labelled images: class probabilities, (k, num_classes) float32, in the order of
        `indices`.
    """
    images_spec = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype)
    call = tf.function(
        lambda images: model(images, training=False), input_signature=[images_spec], autograph=False
    )

    def predict(data: LabelledImages) -> np.ndarray:
        batches = Batches(data, PREDICTION_BATCH, with_labels=False)
        return np.concatenate(
            [call(images).numpy() for (images,) in map(batches.__getitem__, range(len(batches)))]
        )

    return predict


def predict(model: keras.Model, data: LabelledImages) -> np.ndarray:
    """Class probabilities, (k, num_classes) float32, in the order of `data.indices`."""
    return predictor(model)(data)
