"""A first, quick model of the images, asked about each one that it has not seen.

Where the sweep's network stands on a frozen backbone: logistic regression on the backbone's features, which
the sweep reuses. Elsewhere: `simple_cnn` on small images for a few epochs, which knows far less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from pipeline.training import feature_cache, train
from pipeline.training.batches import PREDICTION_BATCH, Batches, Examples

FEWEST = 50  # images that a first model is worth anything with

_SIDE = 32  # px
_MOST = 10_000  # images that a network is trained on for each fold
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
_SHRINKAGE = 0.01  # inverse strength of the regression's penalty: features are many, and images few


@dataclass(frozen=True, eq=False)
class Answers:
    """What a first model says of n images that it has not seen.

    Attributes:
        by: the model, in words.
        probabilities: (n, num_classes) float64.
    """

    by: str
    probabilities: np.ndarray


def ask(
    network: keras.Model, params: Params, prepared: Prepared, splits: Sequence[Examples], folds: np.ndarray
) -> Answers:
    """Trains a model for each fold, and asks it about the fold.

    Args:
        network: of the sweep.
        params: seed, and the sections that are no matter of the first model.
        prepared: n images.
        splits: they again, each in one of these; features are kept where training looks for them.
        folds: (n,) int64, of each image the fold in which it is predicted.
    """
    if backbones.is_frozen(network):
        found = _features(backbones.extractor(network), splits, len(prepared.names))
        return Answers(
            f"logistic regression on the features of {params.model.backbone}"
            if params.model.name == "transfer"
            else f"logistic regression on the features of {params.model.name}",
            _by_regression(found, prepared, folds),
        )
    return Answers(f"simple_cnn at {_SIDE} px", _by_network(params, prepared, folds))


def _features(extractor: keras.Model, splits: Sequence[Examples], count: int) -> np.ndarray:
    """(count, channels) float32, in the order of the images."""
    found = np.empty((count, extractor.output.shape[-1]), np.float32)
    for split in splits:
        found[split.indices] = feature_cache.compute(
            extractor,
            lambda rows, split=split: Batches(
                replace(split, indices=rows), PREDICTION_BATCH, with_labels=False
            ),
            split.indices,
            split.features,
        )
    return found


def _by_regression(found: np.ndarray, prepared: Prepared, folds: np.ndarray) -> np.ndarray:
    probabilities = np.zeros((len(found), len(prepared.classes)))
    for fold in np.unique(folds):
        rest, asked = folds != fold, folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=_SHRINKAGE, max_iter=300))
        model.fit(found[rest], prepared.labels[rest])
        # of a rare class the rest may hold none
        probabilities[np.ix_(asked, model.classes_)] = model.predict_proba(found[asked])
    return probabilities


def _by_network(params: Params, prepared: Prepared, folds: np.ndarray) -> np.ndarray:
    own, objective = params.with_values(_SETTINGS), Objective(params.sweep.metric)
    images = np.stack([_small(image) for image in prepared.images])
    probabilities = np.zeros((len(images), len(prepared.classes)))
    drawn = np.random.default_rng(params.seed).permutation(len(images))
    for fold in tqdm(np.unique(folds), desc="labels", unit=" folds", disable=None, leave=False):
        rest = np.sort(drawn[folds[drawn] != fold][:_MOST])
        rest, asked = (
            Examples(images, prepared.labels, rows) for rows in (rest, np.flatnonzero(folds == fold))
        )
        trained = train.train(
            own.model, own.train, rest, asked, len(prepared.classes), params.seed, objective
        )
        probabilities[asked.indices] = trained.probabilities
    return np.nan_to_num(probabilities)  # of a training that diverged


def _small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX))
