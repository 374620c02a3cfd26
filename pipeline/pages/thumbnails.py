"""Small images for a page: arrays in, JPEGs and data URIs out."""

import base64
import io

import numpy as np
from PIL import Image

QUALITY = 80  # of the JPEGs


def jpeg(image: np.ndarray, side: int | None = None) -> bytes:
    """(h, w, 3) uint8 as a JPEG, with `side` as a square of so many pixels."""
    resized = Image.fromarray(image)
    if side:
        resized = resized.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """A JPEG as the address of an image that stands in the page itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
