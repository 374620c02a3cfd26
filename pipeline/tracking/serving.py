"""The served model: encoded pictures or pixels in, a data frame of labels and probabilities out.

What `register` registers has this module, and the few of ours that it imports, in its folder `code/`, so that
MLflow loads it with no checkout of the project (`mlflow models serve`, `mlflow.pyfunc.load_model`). What it
comes to import besides has to be added to `models.SERVED_CODE` and `models.SERVED_PACKAGES`.
"""

import base64
import binascii
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.data.pictures import UnreadablePicture, decode, resize

MAX_ENCODED_BYTES = 50 << 20  # of one picture
BATCH = 128  # pictures that go through the network at once
COLUMNS = ("label", "error")  # of the answer, beside one for each class
ALLOWED = (
    "allowed: a data frame with a column 'image' (encoded pictures; base64 text in JSON), or a uint8 array "
    "(batch, height, width, 3)"
)
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

    def predict(self, data: Any) -> pd.DataFrame:
        """Classify pictures.

        Args:
            data: as `ALLOWED` says; also the dict that MLflow makes of JSON's `inputs` and `instances`.

        Returns:
            A row for each picture, in the order (and with the index) of `data`: `label`, the probability of
            each class under its name, and `error`. `error` is empty but where a picture cannot be used: it
            is the reason there, `label` is None, and the probabilities are NaN (null in JSON).

        Raises:
            MlflowException: an HTTP status of 400: `data` is something else, it has no pictures, or none of
                them can be used.
        """
        pictures, index = _pictures(data)
        probabilities = np.full((len(pictures), len(self.classes)), np.nan)
        errors = [""] * len(pictures)
        for first in range(0, len(pictures), BATCH):
            kept, images = [], []
            for row, picture in enumerate(pictures[first : first + BATCH], first):
                try:
                    images.append(resize(_image(picture), self.size))
                    kept.append(row)
                except UnreadablePicture as error:
                    errors[row] = str(error)
            if kept:
                with self._one_at_a_time:
                    probabilities[kept] = self.network.predict_on_batch(np.stack(images))
        if all(errors):
            raise _refused(f"no picture can be used: {'; '.join(_some(errors))}")
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


def _pictures(data: Any) -> tuple[Sequence[Any], pd.Index]:
    """The pictures of a request, encoded or as uint8 arrays (height, width, 3), and the answer's index."""
    index = None
    if isinstance(data, pd.DataFrame | dict):
        if "image" not in data:
            raise _refused(f"got no column 'image', but {[str(column) for column in data][:10]}")
        index = data.index if isinstance(data, pd.DataFrame) else None
        data = data["image"]
    if isinstance(data, np.ndarray) and data.ndim > 1:
        data = _pixels(data)
    elif isinstance(data, pd.Series | list | np.ndarray) and np.ndim(data) == 1:
        data = list(data)
    else:
        raise _refused(f"got {type(data).__name__}")
    if not len(data):
        raise _refused("got no pictures")
    return data, pd.RangeIndex(len(data)) if index is None else index


def _pixels(data: np.ndarray) -> np.ndarray:
    if data.ndim != 4 or data.shape[3] != 3 or 0 in data.shape[1:]:
        raise _refused(f"got an array of shape {data.shape}")
    if data.dtype == np.uint8:
        return data
    # JSON's numbers have no type of their own: those that are whole and in range are meant as uint8
    if data.dtype.kind not in "iu" or (data.size and (data.min() < 0 or data.max() > 255)):
        raise _refused(f"got an array of {data.dtype}, not of whole numbers from 0 to 255")
    return data.astype(np.uint8)


def _image(picture: Any) -> Image.Image:
    """One picture of a request as RGB.

    Raises:
        UnreadablePicture: it is none, or too large.
    """
    if isinstance(picture, np.ndarray):
        height, width = picture.shape[:2]
        if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
            raise UnreadablePicture("too large", f"{height * width:,} pixels")
        return Image.fromarray(picture)
    if isinstance(picture, str):
        _check_bytes(len(picture) * 3 // 4)
        try:
            picture = base64.b64decode("".join(picture.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UnreadablePicture("not base64", error) from error
    if not isinstance(picture, bytes | bytearray | memoryview):
        raise UnreadablePicture("not a picture", f"{type(picture).__name__}, not bytes or base64 text")
    _check_bytes(len(picture))
    return decode(bytes(picture))


def _check_bytes(count: int) -> None:
    if count > MAX_ENCODED_BYTES:
        raise UnreadablePicture("too large", f"{count:,} bytes, over the limit of {MAX_ENCODED_BYTES:,}")


def _some(errors: Sequence[str]) -> Iterator[str]:
    kinds = list(dict.fromkeys(errors))
    yield from kinds[:_SHOWN]
    if kinds[_SHOWN:]:
        yield f"and {len(kinds) - _SHOWN:,} more reasons"


def _refused(reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(f"{reason}; {ALLOWED}")


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
    return load(Path(path))
