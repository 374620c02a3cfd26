"""The images of a request: encoded bytes, base64 text or pixels, each decoded to RGB."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, DataType, Schema
from PIL import Image

from .images import UnreadableImage, decode

SCHEMA = Schema([ColSpec(DataType.binary, "image")])  # of the model's signature
MAX_ENCODED_BYTES = 50 << 20  # of one image
ALLOWED = (
    "allowed: a data frame with a column 'image' (encoded images; base64 text in JSON); in Python, "
    "model.get_raw_model().predict also takes a uint8 array (batch, height, width, 3)"
)
_DATA_URI = re.compile(r"data:[^,]{0,200},")
_STANDARD = str.maketrans("-_", "+/")  # from the alphabet that URLs and file names use


def images_of(data: Any) -> tuple[Sequence[Any], pd.Index]:
    """The images of a request, in any form that `read` takes, and the index of the answer.

    Args:
        data: as `ALLOWED` says, or a dict with a column `image`.

    Raises:
        MlflowException: an HTTP status of 400: it is something else, or has no images.
    """
    index = None
    if isinstance(data, pd.DataFrame | dict):
        if "image" not in data:
            raise refused(f"got no column 'image', but {[str(column) for column in data][:10]}")
        index = data.index if isinstance(data, pd.DataFrame) else None
        data = data["image"]
    if isinstance(data, np.ndarray) and data.ndim > 1:
        data = _pixels(data)
    elif isinstance(data, pd.Series | list | np.ndarray) and np.ndim(data) == 1:
        data = list(data)
    else:
        raise refused(f"got {type(data).__name__}")
    if len(data) == 1 and isinstance(data[0], list):  # what MLflow makes of {"image": [text, text]}
        data, index = data[0], None
    if not len(data):
        raise refused("got no images")
    return data, pd.RangeIndex(len(data)) if index is None else index


def _pixels(data: np.ndarray) -> np.ndarray:
    if data.ndim != 4 or data.shape[3] != 3 or 0 in data.shape[1:]:
        raise refused(f"got an array of shape {data.shape}")
    if data.dtype != np.uint8:
        raise refused(f"got an array of {data.dtype}")
    return data


def read(image: Any) -> Image.Image:
    """One image of a request as RGB.

    Args:
        image: encoded bytes; base64 text, also as a data URI, without padding, or in the alphabet of URLs; or
            pixels, uint8 (height, width, 3).

    Raises:
        UnreadableImage: it is none, or too large.
    """
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
            raise UnreadableImage("too large", f"{height * width:,} pixels")
        return Image.fromarray(image)
    if isinstance(image, str):
        return decode(from_text(image))
    if not isinstance(image, bytes | bytearray | memoryview):
        raise UnreadableImage("not an image", f"{type(image).__name__}, not bytes or base64 text")
    _check_bytes(len(image))
    image = bytes(image)
    try:
        return decode(image)
    except UnreadableImage as error:
        # For JSON's `inputs` and `instances`, MLflow hands text on as the bytes of its characters.
        try:
            encoded = from_text(image.decode("ascii"))
        except (UnicodeDecodeError, UnreadableImage):
            raise error from None
    return decode(encoded)


def from_text(text: str) -> bytes:
    """Decode base64 text, in any of its usual forms.

    Raises:
        UnreadableImage: it is not base64, or too large.
    """
    _check_bytes(len(text) * 3 // 4)
    text = "".join(text.split())
    if prefix := _DATA_URI.match(text):
        if not prefix[0].endswith(";base64,"):
            raise UnreadableImage("not base64", f"a data URI that starts {prefix[0][:40]!r}")
        text = text[prefix.end() :]
    text = text.translate(_STANDARD).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImage("not base64", error) from error


def _check_bytes(count: int) -> None:
    if count > MAX_ENCODED_BYTES:
        raise UnreadableImage("too large", f"{count:,} bytes, over the limit of {MAX_ENCODED_BYTES:,}")


def refused(reason: str) -> MlflowException:
    """An error that MLflow's server returns as HTTP status 400."""
    error: MlflowException = MlflowException.invalid_parameter_value(f"{reason}; {ALLOWED}")
    return error
