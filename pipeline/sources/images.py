"""What the pipeline knows of one image: its pixels, what its header says, and its name.

Decoding and resizing travel with every served model, so they are in `served_image_classifier`; the pipeline
takes them from here, with Pillow's warnings set as its commands want them.
"""

import hashlib
import io
import warnings

import numpy as np
from PIL import Image

from pipeline.runtime import logs
from served_image_classifier.images import DECODER_ERRORS, FORMATS, UnreadableImage, decode, resize

__all__ = ["HALF_A_DIGEST", "UnreadableImage", "decode", "header", "identity", "pixel_digest", "resize"]

HALF_A_DIGEST = 16  # hexadecimal digits

# Between its limit and twice its limit Pillow only warns, and then decodes up to 180 million pixels.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Many photos carry odd EXIF data, of which only the orientation is used: a warning for each of them would
# bury what matters.
if not logs.debugging():
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


def header(data: bytes) -> tuple[str, str, tuple[int, int]]:
    """What an image's file tells of itself before its pixels are decoded: format, mode, (width, height).

    Raises:
        UnreadableImage: There is no such header. `decode` may fail although there is one.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, *DECODER_ERRORS) as error:
        raise UnreadableImage("not an image", error) from error
    return image.format or "", image.mode, image.size


def pixel_digest(image: Image.Image, resized: np.ndarray) -> str:
    """Names an image by its pixels: the same pixels have the same name in any encoding.

    The first half hashes width, height and every pixel in full size: it is the same at any `image_size`, and
    it is the image's `identity`. The second half hashes what a model sees of the image. SHA-256 is the
    fastest sound hash of the standard library where the processor has instructions for it, as most have.

    Args:
        image: RGB, in full size.
        resized: uint8 (image_size, image_size, 3), what `resize` made of it.

    Returns:
        Twice `HALF_A_DIGEST` hexadecimal digits.
    """
    full_size = hashlib.sha256(image.tobytes())
    full_size.update(repr(image.size).encode())
    return full_size.hexdigest()[:HALF_A_DIGEST] + hashlib.sha256(resized.data).hexdigest()[:HALF_A_DIGEST]


def identity(digest: str) -> str:
    """The half of a `pixel_digest` by which images are identical: equal pixels in full size, at any size.

    >>> identity("0123456789abcdef" + "f" * 16)
    '0123456789abcdef'
    """
    return digest[:HALF_A_DIGEST]
