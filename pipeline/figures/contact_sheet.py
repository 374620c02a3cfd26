"""Contact sheets: many images on one figure, each with its caption."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from pipeline.figures import canvas, fonts

_SHEET_PIXELS = 45_000  # distinct pixels of a sheet: bounds its size, at about one byte per pixel
_TILE = 128  # px; approximate side of an image on a sheet


def draw(images: np.ndarray, captions: Sequence[str], columns: int = 8, max_lines: int = 2) -> Figure:
    """Lay out images in rows, each with its caption below.

    Args:
        images: (n, h, w, 3) uint8. The resolution of each falls with their number.
        captions: n texts; each may have several lines.
        columns: maximum images per row.
        max_lines: lines on the sheet that each line of a caption may be wrapped into; the rest is cut off.

    Raises:
        ValueError: the numbers of images and captions differ.
    """
    if len(images) == 0:
        figure = canvas.new_figure(4.0, 1.0)
        figure.text(0.5, 0.5, "no images", ha="center", va="center")
        return figure
    detail = min(_TILE // 2, int((_SHEET_PIXELS / len(images)) ** 0.5))  # px
    tiles = np.stack([_tile(image, detail) for image in images])
    return _lay_out(tiles, captions, min(columns, len(images)), max_lines)


def _tile(image: np.ndarray, detail: int) -> np.ndarray:
    """Reduce (h, w, 3) to `detail` px per side, then repeat pixels up to `_TILE`, which adds few bytes."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((detail, detail), Image.Resampling.BOX)
    factor = max(1, round(_TILE / max(thumbnail.size)))
    return np.asarray(thumbnail).repeat(factor, axis=0).repeat(factor, axis=1)


def _lay_out(tiles: np.ndarray, captions: Sequence[str], columns: int, max_lines: int) -> Figure:
    n, height, width, _ = tiles.shape
    gap = 6  # px
    pitch_x = max(width, 96) + gap
    texts = [_wrapped(caption, pitch_x // 6, max_lines) for caption in captions]
    caption_lines = max(2, *(text.count("\n") + 1 for text in texts))  # of 11 px
    pitch_y = height + 6 + 11 * caption_lines + gap
    rows = -(-n // columns)
    sheet = np.full((rows * pitch_y + gap, columns * pitch_x + gap, 3), 255, np.uint8)
    figure = canvas.new_figure(sheet.shape[1] / canvas.DPI, sheet.shape[0] / canvas.DPI)
    for index, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        top, left = index // columns * pitch_y + gap, index % columns * pitch_x + gap  # px
        sheet[top : top + height, left : left + width] = tile
        x, y = left / sheet.shape[1], 1 - (top + height + 3) / sheet.shape[0]  # fractions, from below
        drawn = figure.text(x, y, text, size=7, va="top", linespacing=1.1, **fonts.font(text))
        # wide letters must not overlap the next caption
        drawn.set(clip_on=True, clip_box=Bbox.from_bounds(left, 0, pitch_x - gap / 2, sheet.shape[0]))
    figure.figimage(sheet)  # without resampling
    return figure


def _wrapped(caption: str, columns: int, max_lines: int) -> str:
    """A caption whose lines are each wrapped to `columns` characters and at most `max_lines` lines."""
    lines = fonts.drawable(caption).split("\n")
    wrapped = (textwrap.wrap(line, columns, max_lines=max_lines, placeholder="…") for line in lines)
    return "\n".join(itertools.chain.from_iterable(wrapped))
