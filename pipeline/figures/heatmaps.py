"""Figures of class activation maps: images and maps in, matplotlib figures out; nothing is written.

Heat covers the more of an image the higher it is, so that what is left cold stays as it was.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from pipeline.figures import fonts

_DPI = 100  # pixels per inch
_COVER = 0.65  # of the image's colour that the highest heat replaces
_COLOURS = "turbo"  # told apart also where an image shines through
_SIDE, _TILE = 288, 192  # px; the longer side of an image, alone and on a sheet
_GAP, _LINES = 8, 30  # px; between two images, and for two lines of caption
_FEW_LINES = {"max_lines": 4, "placeholder": "…"}


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map over its image.

    Args:
        image: (h, w, 3) uint8.
        heat: (rows, columns) float, 0 to 1; enlarged to the image, bilinearly.

    Returns:
        (h, w, 3) uint8.
    """
    heat = enlarge(heat, image.shape[0], image.shape[1])
    colours = 255 * colormaps[_COLOURS](heat)[..., :3]  # (h, w, 3)
    cover = _COVER * heat[..., None]
    return np.rint(image * (1 - cover) + colours * cover).astype(np.uint8)


def enlarge(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map at an image's size, (rows, columns) to (height, width) float32, bilinearly; 0 to 1."""
    image = Image.fromarray(np.asarray(heat, np.float32))
    return np.clip(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)), 0, 1)


def side_by_side(image: np.ndarray, heat: np.ndarray, title: str, meaning: str) -> Figure:
    """Draws an image, its map, and the map over the image.

    Args:
        image: (h, w, 3) uint8.
        heat: (rows, columns) float, 0 to 1.
        title: Text above all three: the fitted's name, its label, what was predicted.
        meaning: Text above the map: the method, and the class that it speaks for.
    """
    fitted = fit(image, _SIDE)
    height, width, _ = fitted.shape
    titles = textwrap.wrap(fonts.drawable(title), (3 * width + 100) // 9, **_FEW_LINES)
    meanings = textwrap.wrap(fonts.drawable(meaning), (width + 20) // 8, **_FEW_LINES)
    lines = 20 * (len(titles) + len(meanings)) + 50  # px
    figure = Figure(figsize=((3 * width + 130) / _DPI, (height + lines) / _DPI), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.08)
    left, middle, right = figure.subplots(1, 3)
    left.imshow(fitted)
    # drawn at the size that it has in the overlay, so that the two can be compared
    shown = middle.imshow(enlarge(heat, height, width), cmap=_COLOURS, vmin=0, vmax=1)
    right.imshow(overlay(fitted, heat))
    for axes, text in ((left, "image"), (middle, "\n".join(meanings)), (right, "overlay")):
        axes.set_axis_off()
        axes.set_title(text, size=9, **fonts.font(text))
    figure.colorbar(shown, ax=right, ticks=[0, 1], shrink=0.9)
    figure.suptitle("\n".join(titles), size=10, **fonts.font(title))
    return figure


def sheet(images: np.ndarray, maps: np.ndarray, captions: Sequence[str], columns: int = 2) -> Figure:
    """Lays out images in rows, each beside its overlay and above its caption.

    Args:
        images: (n, h, w, 3) uint8; n at least 1.
        maps: (n, rows, columns) float, 0 to 1.
        captions: n texts of at most two lines; of a long line, the end is kept.
        columns: Most images, each with its overlay, in a row.
    """
    pairs = [with_overlay(image, heat) for image, heat in zip(images, maps, strict=True)]
    height, width, _ = pairs[0].shape
    columns = min(columns, len(pairs))
    pitch_x, pitch_y = width + 2 * _GAP, height + _LINES + _GAP
    paper = np.full((-(-len(pairs) // columns) * pitch_y + _GAP, columns * pitch_x, 3), 255, np.uint8)
    figure = Figure(figsize=(paper.shape[1] / _DPI, paper.shape[0] / _DPI), dpi=_DPI, facecolor="white")
    for index, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
        top, left = index // columns * pitch_y + _GAP, index % columns * pitch_x + _GAP  # px
        paper[top : top + height, left : left + width] = pair
        x, y = left / paper.shape[1], 1 - (top + height + 3) / paper.shape[0]  # fractions, from below
        text = "\n".join(_ending(fonts.drawable(line), width // 7) for line in caption.split("\n"))
        figure.text(x, y, text, size=7.5, va="top", linespacing=1.1, **fonts.font(text))
    figure.figimage(paper)  # pixel by pixel, without resampling
    return figure


def _ending(line: str, most: int) -> str:
    """At most so many characters: a path's end, and a caption's, says more than its beginning."""
    return line if len(line) <= most else f"…{line[1 - most :]}"


def with_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image, enlarged, beside itself under its map: (h, w, 3) uint8 and (rows, columns) float, 0 to 1."""
    fitted = fit(image)
    gap = np.full((fitted.shape[0], 2, 3), 255, np.uint8)
    return np.concatenate([fitted, gap, overlay(fitted, heat)], axis=1)


def fit(image: np.ndarray, side: int = _TILE) -> np.ndarray:
    """(h, w, 3) at `side` px on its longer side; smoothly, since large pixels hide what a small one shows."""
    height, width, _ = image.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
