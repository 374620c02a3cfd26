"""Small images for a page: arrays in, JPEGs and data URIs out."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

QUALITY = 80  # of a JPEG, 0 to 100
_GAP = 4  # px
_GREY = (128, 128, 128)


def jpeg(image: np.ndarray, side: int | None = None) -> bytes:
    """(height, width, 3) uint8 as a JPEG, resized to `side` x `side` px if given."""
    resized = Image.fromarray(image)
    if side:
        resized = resized.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def side_by_side(images: Sequence[Image.Image], side: int) -> np.ndarray:
    """RGB images in a row, each centred in a grey square: uint8 (side, width, 3).

    >>> side_by_side([Image.new("RGB", (300, 200))] * 2, side=100).shape
    (100, 204, 3)
    """
    canvas = Image.new("RGB", (len(images) * (side + _GAP) - _GAP, side), _GREY)
    for number, image in enumerate(images):
        thumbnail = ImageOps.contain(image, (side, side))
        left, top = (side - thumbnail.width) // 2, (side - thumbnail.height) // 2
        canvas.paste(thumbnail, (number * (side + _GAP) + left, top))
    return np.asarray(canvas)


def data_uri(content: bytes) -> str:
    """A JPEG as a data URI, which embeds it in a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
