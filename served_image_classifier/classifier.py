"""The served model itself: what MLflow loads by this module's name, and calls."""

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

BATCH = 128  # images that go through the network at once
COLUMNS = ("label", "error")  # of the answer, beside one for each class
_SHOWN = 3  # reasons in an error's text


def class_columns(classes: Sequence[str], taken: Sequence[str] = COLUMNS) -> list[str]:
    """The column of each class: its name; `label (class)` for a class named as another column is."""
    columns = []
    for name in classes:
        column = name
        while column in taken or (column != name and column in classes) or column in columns:
            column += " (class)"
        columns.append(column)
    return columns


class Classifier:
    """What MLflow's pyfunc flavour calls.

    Args:
        network: (batch, size, size, 3) uint8 -> (batch, num_classes) float32.
        classes: names in the order of the outputs.
    """

    def __init__(self, network: keras.Model, classes: Sequence[str]):
        self.network, self.classes = network, classes
        self.size = network.input_shape[1]
        self._one_at_a_time = threading.Lock()  # a server calls from threads, and Keras is not safe for them

    def get_raw_model(self) -> Self:
        """The classifier without MLflow's signature, by MLflow's own name: its `predict` takes arrays too."""
        return self

    def predict(self, data: Any) -> pd.DataFrame:
        """Classify images.

        Args:
            data: as `inputs.ALLOWED` says.

        Returns:
            A row for each image, in the order (and with the index) of `data`: `label`, the probability of
            each class under its name, and `error`. `error` is empty but where an image cannot be used: it
            is the reason there, `label` is None, and the probabilities are NaN (null in JSON).

        Raises:
            MlflowException: an HTTP status of 400: `data` is something else, it has no images, or none of
                them can be used.
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
            # MLflow would write NaN, which is no JSON
            probabilities = np.where(np.isnan(probabilities), None, probabilities)
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
    """Write what `load` reads into a folder, which is made."""
    folder.mkdir()
    network.save(folder / "network.keras")
    (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")


def load(folder: Path) -> Classifier:
    """The classifier that `save` wrote."""
    network = keras.models.load_model(folder / "network.keras", compile=False)
    return Classifier(network, json.loads((folder / "classes.json").read_text(encoding="utf-8")))


def _load_pyfunc(path: str) -> Classifier:
    """MLflow calls this by its name, with the folder that `save` wrote."""
    server.keep_text()
    return load(Path(path))
