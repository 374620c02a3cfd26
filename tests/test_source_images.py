"""Bytes in, RGB out: every mode by hand-computed pixels, every defect by its reason."""

import io
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.sources.images import HALF_A_DIGEST, UnreadableImage, decode, identity, pixel_digest, resize

ROOT = Path(__file__).parents[1]
WHITE = (255, 255, 255)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, pixels: bytes) -> bytes:
    """A PNG by hand, for what Pillow cannot write: `pixels` are the rows without their filter bytes."""
    stride = len(pixels) // height
    rows = b"".join(b"\0" + pixels[row * stride : (row + 1) * stride] for row in range(height))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(width: int, bits: int, pixels: bytes) -> bytes:
    """A little-endian grayscale TIFF of one row by hand."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(pixels)}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def palette_image(colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata(range(len(colours)))
    return image


def test_gray_is_repeated_in_all_three_channels():
    assert decode(encode(Image.new("L", (2, 3), 100), "PNG")).getpixel((0, 0)) == (100, 100, 100)


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (2, 1))
    image.putdata([0, 1])
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        decoded = decode(encode(image, kind))
        assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE], kind


def test_palette_colours_are_looked_up():
    image = palette_image([(10, 20, 30), (200, 100, 0)])
    for kind in ("PNG", "GIF", "BMP"):
        decoded = decode(encode(image, kind))
        assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (200, 100, 0)], kind


def test_the_transparent_colour_of_a_palette_becomes_white():
    image = palette_image([(10, 20, 30), (200, 100, 0)])
    for kind in ("PNG", "GIF"):
        decoded = decode(encode(image, kind, transparency=1))
        assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), WHITE], kind


def test_each_palette_entry_can_have_its_own_alpha():
    # Half-transparent black over white: 255 * (1 - 128 / 255) = 127.
    data = encode(palette_image([(0, 0, 0), (0, 0, 0)]), "PNG", transparency=bytes([255, 128]))
    assert [decode(data).getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (127, 127, 127)]


def test_alpha_is_composited_over_white():
    # 200 * 128/255 + 255 * 127/255 = 227.4; 0 + 127 = 127.
    data = encode(Image.new("RGBA", (1, 1), (200, 0, 0, 128)), "PNG")
    assert decode(data).getpixel((0, 0)) == (227, 127, 127)
    assert decode(encode(Image.new("RGBA", (1, 1), (9, 9, 9, 0)), "PNG")).getpixel((0, 0)) == WHITE
    assert decode(encode(Image.new("RGBA", (1, 1), (9, 9, 9, 255)), "PNG")).getpixel((0, 0)) == (9, 9, 9)


def test_gray_with_alpha_is_composited_over_white():
    # 100 * 128/255 + 127 = 177.2.
    assert decode(encode(Image.new("LA", (1, 1), (100, 128)), "PNG")).getpixel((0, 0)) == (177, 177, 177)


def test_a_transparent_key_colour_becomes_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    decoded = decode(encode(image, "PNG", transparency=(4, 5, 6)))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(1, 2, 3), WHITE]


def test_cmyk_is_converted():
    # No cyan, full magenta and yellow: red. Half black: half of white.
    assert decode(encode(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF")).getpixel((0, 0)) == (255, 0, 0)
    half = decode(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 128)), "JPEG", quality=100)).getpixel((4, 4))
    assert half == (127, 127, 127)


@pytest.mark.parametrize(
    ("kind", "byte_order"), [("PNG", "<u2"), ("PPM", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")]
)
def test_16_bit_gray_is_scaled_not_clipped(kind, byte_order):
    values = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]])
    decoded = decode(encode(Image.fromarray(values.astype(byte_order)), kind))
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 0, 1, 0x12, 0x80, 0xFF]


def test_16_bit_colour_is_scaled():
    data = png(1, 1, 16, 2, struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF))
    assert decode(data).getpixel((0, 0)) == (0x12, 0x80, 0xFF)


def test_12_bit_gray_is_scaled():
    # 0xFFF and 0x800, packed into three bytes.
    assert np.asarray(decode(tiff(2, 12, b"\xff\xf8\x00")))[0, :, 0].tolist() == [0xFF, 0x80]


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = decode(data).getpixel((0, 0))
        assert red > 250, kind
        assert green < 5, kind
        assert blue < 5, kind


# EXIF 2.3, tag 274: the visual side on which the stored 0th row and 0th column lie.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied_once(orientation, kind):
    image = Image.new("RGB", (48, 32), "black")
    image.paste("red", (0, 0, 16, 16))  # where the 0th row and the 0th column meet
    image.paste("blue", (32, 0, 48, 16))  # 0th row, last column
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = decode(encode(image, kind, exif=exif))

    row, column = ORIENTATIONS[orientation]
    opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
    assert upright.size == ((48, 32) if row in ("top", "bottom") else (32, 48))
    red, blue = corner(upright, {row, column}), corner(upright, {row, opposite[column]})
    assert red[0] > 200, red
    assert red[2] < 50, red
    assert blue[2] > 200, blue
    assert blue[0] < 50, blue


def corner(image: Image.Image, sides: set[str]) -> tuple[int, int, int]:
    x = 4 if "left" in sides else image.width - 5
    y = 4 if "top" in sides else image.height - 5
    return image.getpixel((x, y))


def test_broken_exif_does_not_cost_the_image():
    image = encode(Image.new("RGB", (8, 8), "red"), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    program = (
        "import sys; from pipeline.sources.images import decode; print(decode(sys.stdin.buffer.read()).size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=image, cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b"(8, 8)\n"
    assert done.stderr == b"", "a warning for each such photo would bury what matters"


def test_the_name_does_not_matter_but_the_content():
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        assert decode(encode(Image.new("RGB", (8, 8), "red"), kind)).mode == "RGB"


NOISE = Image.effect_noise((64, 64), 50)
GOOD_JPEG = encode(NOISE, "JPEG")
GOOD_PNG = encode(NOISE, "PNG")

DEFECTS = {
    "empty": (b"", "empty file"),
    "text": (b"not an image at all", "not an image: "),
    "half a JPEG": (GOOD_JPEG[: len(GOOD_JPEG) // 2], "truncated: "),
    "half a PNG": (GOOD_PNG[: len(GOOD_PNG) // 2], "truncated: "),
    "a PNG's signature": (GOOD_PNG[:8], "damaged: starts as PNG "),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image: "),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "not an image: "),
    "floating-point TIFF": (
        encode(Image.new("F", (2, 2), 0.5), "TIFF"),
        "not supported: floating-point pixels have no fixed range",
    ),
    "32-bit TIFF": (
        encode(Image.new("I", (2, 2), 70_000), "TIFF"),
        "not supported: signed or 32-bit integers have no fixed range",
    ),
    "over the limit": (
        png(10_000, 10_000, 8, 2, bytes(10_000)),
        "too large: 100,000,000 pixels, over the limit of 89,478,485",
    ),
    "over twice the limit": (
        png(20_000, 10_000, 8, 2, bytes(10_000)),
        "too large: 200,000,000 pixels, over the limit of 89,478,485",
    ),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("defect", DEFECTS)
def test_what_cannot_be_decoded_has_a_reason(defect):
    data, reason = DEFECTS[defect]
    with pytest.raises(UnreadableImage) as raised:
        decode(data)
    assert str(raised.value).startswith(reason)
    assert str(raised.value).isprintable()


def test_the_pixel_limit_holds_whatever_the_warning_filters():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImage, match="100,000,000 pixels"):
            decode(png(10_000, 10_000, 8, 2, bytes(10_000)))


def test_a_reason_is_one_short_printable_line():
    error = UnreadableImage("damaged", "line one\nline two\x1b[31m " + "x" * 1000)
    assert str(error).startswith("damaged: line one line two [31m xxx")
    assert str(error).isprintable()
    assert len(str(error)) < 200


def fuzz_seeds() -> list[bytes]:
    image = Image.effect_mandelbrot((48, 40), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return [
        encode(image, "JPEG", exif=exif),
        encode(image.convert("CMYK"), "JPEG", progressive=True),
        encode(image, "PNG", exif=exif),
        encode(image.convert("P"), "PNG"),
        encode(image.convert("P"), "GIF", save_all=True, append_images=[image.rotate(90).convert("P")]),
        encode(image, "TIFF", exif=exif),
        encode(image, "TIFF", compression="tiff_lzw"),
        encode(image.convert("1"), "TIFF", compression="group4"),
        encode(image, "WEBP", exif=exif),
        encode(image.convert("RGBA"), "WEBP", lossless=True),
        encode(image.convert("P"), "BMP"),
        encode(image, "PPM"),
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_but_unreadable_escapes_from_damaged_files():
    draw = random.Random(20240517)
    seeds = fuzz_seeds()
    outcomes = {"decoded": 0, "unreadable": 0}
    for _ in range(4000):
        data = bytearray(draw.choice(seeds))
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        else:
            reach = len(data) if draw.random() < 0.5 else min(200, len(data))  # headers break in more ways
            for _ in range(draw.choice((1, 1, 2, 4, 16))):
                data[draw.randrange(reach)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        try:
            assert decode(bytes(data)).mode == "RGB"
            outcomes["decoded"] += 1
        except UnreadableImage as error:
            assert str(error).isprintable()
            outcomes["unreadable"] += 1
    assert min(outcomes.values()) > 500, outcomes  # the damage is neither always fatal nor always harmless


def test_resize_gives_a_square_of_bytes_without_keeping_the_aspect():
    pixels = resize(Image.new("RGB", (300, 20), (1, 2, 3)), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (1, 2, 3)).all()


def test_resize_is_antialiased():
    # A checkerboard of single pixels is gray from afar; picking pixels would find black or white.
    board = (np.indices((200, 200)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = resize(Image.fromarray(board).convert("RGB"), 50)
    assert pixels.min() >= 125
    assert pixels.max() <= 130


def digest(image: Image.Image, size: int = 16) -> str:
    return pixel_digest(image, resize(image, size))


def test_the_digest_is_of_the_pixels_not_of_the_file():
    image = Image.effect_mandelbrot((40, 30), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    digests = {digest(decode(encode(image, kind))) for kind in ("PNG", "BMP", "TIFF", "PPM")}
    digests.add(digest(decode(encode(image, "WEBP", lossless=True))))
    assert len(digests) == 1


def test_every_pixel_counts_in_the_identity_however_little_it_changes():
    image = NOISE.convert("RGB").resize((9, 7))
    identities = {identity(digest(image))}
    for x in range(9):
        for y in range(7):
            changed = image.copy()
            red, green, blue = image.getpixel((x, y))
            changed.putpixel((x, y), (red, green ^ 1, blue))
            identities.add(identity(digest(changed)))
    assert len(identities) == 1 + 9 * 7


def test_width_and_height_count_in_the_digest():
    shapes = [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)]
    assert len({identity(digest(Image.new("RGB", shape))) for shape in shapes}) == 6


def test_the_identity_is_the_same_at_any_size():
    one, other = digest(NOISE.convert("RGB"), 16), digest(NOISE.convert("RGB"), 20)
    assert identity(one) == identity(other)
    assert one[HALF_A_DIGEST:] != other[HALF_A_DIGEST:]
    assert len(one) == 2 * HALF_A_DIGEST
