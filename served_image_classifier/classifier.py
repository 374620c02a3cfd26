"""The served model, which MLflow loads by the name of this module."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import pandas as pd

from . import inputs, server
from .images import UnreadableImage, resize

BATCH = 128  # images per forward pass
COLUMNS = ("label", "error")  # of the predictions, besides one per class
_SHOWN = 3  # distinct reasons in an error message


def class_columns(classes: Sequence[str], taken: Sequence[str] = COLUMNS) -> list[str]:
    """The column of each class: its name, with ` (class)` appended if another column has that name.

    >>> class_columns(["cat", "label"])
    ['cat', 'label (class)']
    """
    columns = []
    for name in classes:
        column = name
        while column in taken or (column != name and column in classes) or column in columns:
            column += " (class)"
        columns.append(column)
    return columns


class Classifier:
    """The model behind MLflow's pyfunc flavour.

    Args:
        network: (batch, size, size, 3) uint8 -> (batch, num_classes) float32.
        classes: Names in the order of the outputs.
    """

    def __init__(self, network: keras.Model, classes: Sequence[str]):
        self.network, self.classes = network, classes
        self.size = network.input_shape[1]
        self._one_at_a_time = threading.Lock()  # servers use threads, and Keras is not thread-safe

    def get_raw_model(self) -> Self:
        """This object, whose `predict` is without MLflow's signature check and also takes arrays."""
        return self

    def predict(self, data: Any) -> pd.DataFrame:
        """Classify images.

        Args:
            data: See `inputs.ALLOWED`.

        Returns:
            A row per image, with the order and index of `data`: `label`, a column of probabilities per class,
            and `error`. For an unusable image, `error` is the reason, `label` is None and the probabilities
            are NaN (null in JSON); otherwise `error` is empty.

        Raises:
            MlflowException: `data` has another type, or no usable image (HTTP status 400).
        """
        images, index = inputs.images_of(data)
        probabilities = np.full((len(images), len(self.classes)), np.nan)
        errors = [""] * len(images)
        for first in range(0, len(images), BATCH):
            kept, pixels = [], []
            for row, image in enumerate(images[first : first + BATCH], first):
                try:
                    pixels.append(resize(inputs.read(image), self.size))
                    kept.append(row)
                except UnreadableImage as error:
                    errors[row] = str(error)
            if kept:
                with self._one_at_a_time:
                    probabilities[kept] = self.network.predict_on_batch(np.stack(pixels))
        if all(errors):
            raise inputs.refused(f"no image can be used: {'; '.join(_some(errors))}")
        return self._frame(probabilities, errors, index)

    def _frame(self, probabilities: np.ndarray, errors: Sequence[str], index: pd.Index) -> pd.DataFrame:
        best = [
            None if error else self.classes[row.argmax()]
            for row, error in zip(probabilities, errors, strict=True)
        ]
        if any(errors) and os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT"):
            # MLflow would write NaN, which is invalid JSON
            probabilities = np.where(np.isnan(probabilities), np.array(None, dtype=object), probabilities)
        columns = class_columns(self.classes)
        frame = pd.DataFrame(probabilities, columns=columns, index=index)
        frame.insert(0, "label", pd.Series(best, dtype=object, index=index))
        frame["error"] = pd.Series(errors, dtype=object, index=index)
        return frame


def _some(errors: Sequence[str]) -> Iterator[str]:
    kinds = list(dict.fromkeys(errors))
    yield from kinds[:_SHOWN]
    if kinds[_SHOWN:]:
        yield f"and {len(kinds) - _SHOWN:,} more reasons"


def save(folder: Path, network: keras.Model, classes: Sequence[str]) -> None:
    """Write a classifier into a new folder, for `load`."""
    folder.mkdir()
    network.save(folder / "network.keras")
    (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")


def load(folder: Path) -> Classifier:
    """Read the classifier that `save` wrote."""
    network = keras.models.load_model(folder / "network.keras", compile=False)
    return Classifier(network, json.loads((folder / "classes.json").read_text(encoding="utf-8")))


def _load_pyfunc(path: str) -> Classifier:
    """Entry point of MLflow's pyfunc loader.

    Args:
        path: The folder that `save` wrote.
    """
    server.keep_text()
    return load(Path(path))
