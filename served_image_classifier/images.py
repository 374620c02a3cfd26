"""Decoding of one image: encoded bytes in, RGB pixels out.

Images are untrusted. Only the formats listed here are tried, Pillow's pixel limit is an error, and every
exception of Pillow on a damaged or hostile file becomes UnreadableImage. The module changes no state of the
process: neither warning filters nor Pillow's limits.
"""

import io
import re
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, TiffTags, UnidentifiedImageError, features

# Registers the formats that Image.preinit() does not; without it the first such image imports every plugin.
from PIL import AvifImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401  # isort: skip

# JPEG stands for MPO too: several JPEGs in one file, of which the first counts.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else []))

# What Pillow's decoders raise on damaged input (seen by fuzzing, here and by others): far more than OSError.
DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Warning,  # where the caller has made errors of them
)

# The EXIF orientation says how the camera was held; this undoes it.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """An image that cannot be used. Its text is the reason: one short line, `kind` or `kind: detail`."""

    def __init__(self, kind: str, detail: object = ""):
        # The detail may quote bytes of the file: printable characters only, for consoles and CSV cells.
        shown = "".join(c if c.isprintable() else " " for c in str(detail))
        super().__init__(f"{kind}: {' '.join(shown.split())[:160]}" if shown.strip() else kind)


def decode(data: bytes) -> Image.Image:
    """Decodes one image.

    The EXIF orientation is applied. Grayscale, palette, CMYK and 1-bit images are converted; 16-bit ones
    are scaled to 8 bits; transparency is composited over white; of an animation the first frame counts.

    Args:
        data: The file's bytes, in a format Pillow knows, whatever its name said.

    Returns:
        A loaded image of mode RGB.

    Raises:
        UnreadableImage: The bytes are no image, a damaged one, too large (`Image.MAX_IMAGE_PIXELS`), or
            of a kind that has no 8-bit range (floating-point, 32-bit integers).
    """
    if not data:
        raise UnreadableImage("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(image.width * image.height)  # between its limit and twice its limit Pillow only warns
        image.load()
        return _rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(int(pixels[0]) if pixels else 0) from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except MemoryError as error:
        raise UnreadableImage("too large", "not enough memory to decode it") from error
    except DECODER_ERRORS as error:
        kind = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise UnreadableImage(kind, error) from error


def resize(image: Image.Image, size: int) -> np.ndarray:
    """Resizes an RGB image to a square, antialiased (Pillow's BILINEAR), without keeping its aspect.

    Returns:
        uint8 array (size, size, 3).
    """
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _check_pixels(pixels: int) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise _too_large(pixels)


def _too_large(pixels: int) -> UnreadableImage:
    return UnreadableImage("too large", f"{pixels:,} pixels, over the limit of {Image.MAX_IMAGE_PIXELS:,}")


def _unidentified(data: bytes) -> UnreadableImage:
    """The reason for an unidentified file: a damaged header, or not an image."""
    for name in FORMATS:
        accept = Image.OPEN[name][1]
        if accept is not None and accept(data[:16]) is True:
            return UnreadableImage("damaged", f"starts as {name} but cannot be read as that")
    return UnreadableImage("not an image", f"its content is none of {', '.join(FORMATS)}")


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF (or XMP) orientation; EXIF data that cannot be read does not cost the image."""
    if image.format == "TIFF":  # Pillow applies a TIFF's own orientation while it loads
        return image
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DECODER_ERRORS:
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> Image.Image:
    """Converts a loaded image of any mode to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise UnreadableImage("not supported", "floating-point pixels have no fixed range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Keeps the high 8 bits, as Pillow itself does with 16-bit colour; its own convert('L') would clip."""
    bits = 16  # PNG, and PPM, whose loader scales every range to 16 bits
    if image.format == "TIFF":
        (bits,) = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]  # of TIFF images
        if image.mode == "I":
            raise UnreadableImage("not supported", f"signed or {bits}-bit integers have no fixed range")
    return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))


_BITS_PER_SAMPLE = next(number for number, tag in TiffTags.TAGS_V2.items() if tag.name == "BitsPerSample")
