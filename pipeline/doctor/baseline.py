"""A quick baseline model whose out-of-fold predictions find label-error candidates.

With a frozen backbone: logistic regression on the backbone's features, which the sweep reuses. Otherwise:
`simple_cnn` on small images for a few epochs, which is much weaker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.evaluation.objective import Objective
from pipeline.models import backbones
from pipeline.training import train
from pipeline.training.batches import LabelledImages, TrainingData
from pipeline.training.config import TrainConfig

MIN_IMAGES = 50  # with fewer, the model is too weak to be of use

_SIDE = 32  # px
_MAX_TRAINING_IMAGES = 10_000  # of simple_cnn, per fold
_SETTINGS = {
    "model.name": "simple_cnn",
    "model.activation": "relu",
    "model.kernel_initializer": "he_uniform",
    "model.bias_initializer": 0.0,
    "model.dropout": 0.5,
    "train.epochs": 6,
    "train.batch_size": 32,
    "train.learning_rate": 0.01,
    "train.momentum": 0.9,
    "train.weight_decay": 0.0,
    "train.precision": "float32",
    "train.augment": False,
    "train.early_stopping_patience": None,
}
_INVERSE_PENALTY = 0.01  # scikit-learn's C: there are many features, and few images
_MAX_ITERATIONS = 300


@dataclass(frozen=True, eq=False)
class BaselinePredictions:
    """Out-of-fold predictions of n images.

    Attributes:
        model: The model, in words.
        probabilities: (n, num_classes) float64.
    """

    model: str
    probabilities: np.ndarray


def predict_out_of_fold(
    network: keras.Model,
    params: Params,
    prepared: Prepared,
    splits: Sequence[LabelledImages],
    folds: np.ndarray,
) -> BaselinePredictions:
    """Train a model per fold on the other folds, and predict the fold.

    Args:
        network: The sweep's network.
        params: The sweep's parameters; the seed and the metric are used.
        prepared: n images.
        splits: The same images as examples, each in one split; features are cached as training expects.
        folds: (n,) int64, each image's fold.
    """
    if backbones.is_frozen(network):
        features = _features(backbones.extractor(network), splits, len(prepared.names))
        name = params.model.backbone if params.model.name == "transfer" else params.model.name
        return BaselinePredictions(
            f"logistic regression on the features of {name}", _logistic_regression(features, prepared, folds)
        )
    return BaselinePredictions(f"simple_cnn at {_SIDE} px", _simple_cnn(params, prepared, folds))


def _features(extractor: keras.Model, splits: Sequence[LabelledImages], count: int) -> np.ndarray:
    """(count, channels) float32, in the order of the images."""
    features = np.empty((count, extractor.output.shape[-1]), np.float32)
    for split in splits:
        features[split.indices] = split.features(extractor)
    return features


def _logistic_regression(features: np.ndarray, prepared: Prepared, folds: np.ndarray) -> np.ndarray:
    probabilities = np.zeros((len(features), len(prepared.classes)))
    for fold in np.unique(folds):
        training, predicted = folds != fold, folds == fold
        regression = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_MAX_ITERATIONS)
        model = make_pipeline(StandardScaler(), regression)
        model.fit(features[training], prepared.labels[training])
        # a rare class may be missing from the training folds
        probabilities[np.ix_(predicted, model.classes_)] = model.predict_proba(features[predicted])
    return probabilities


def _simple_cnn(params: Params, prepared: Prepared, folds: np.ndarray) -> np.ndarray:
    own = params.with_values(_SETTINGS)
    config = TrainConfig(own.model, own.train, Objective(params.sweep.metric), params.seed)
    images = np.stack([_resized(image) for image in prepared.images])
    probabilities = np.zeros((len(images), len(prepared.classes)))
    shuffled = np.random.default_rng(params.seed).permutation(len(images))
    for fold in tqdm(np.unique(folds), desc="labels", unit=" folds", disable=None, leave=False):
        rows = np.sort(shuffled[folds[shuffled] != fold][:_MAX_TRAINING_IMAGES])
        training, predicted = (
            LabelledImages(images, prepared.labels, indices)
            for indices in (rows, np.flatnonzero(folds == fold))
        )
        trained = train.train(config, TrainingData(training, predicted, len(prepared.classes)))
        probabilities[predicted.indices] = trained.probabilities
    return np.nan_to_num(probabilities)  # a fold whose training diverged predicts NaN


def _resized(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX))
