"""Figures of class activation maps: images and maps in, Matplotlib figures out; nothing is written.

The opacity of an overlay is proportional to the heat: cold regions show the unchanged image.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from pipeline.figures import canvas, fonts
from pipeline.runtime.console import shortened

_OPACITY = 0.65  # of the highest heat
_COLOUR_MAP = "turbo"  # its colours stay distinguishable over an image
_SIDE, _TILE = 288, 192  # px; the longer side of an image, alone and on a sheet
_GAP, _CAPTION_HEIGHT = 8, 30  # px; between two images, and of a caption of two lines
_TITLE_LINES = 4  # at most


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map over its image.

    Args:
        image: (h, w, 3) uint8.
        heat: (rows, columns) float, 0 to 1; enlarged to the image, bilinearly.

    Returns:
        (h, w, 3) uint8.

    >>> overlay(np.full((1, 1, 3), 128, np.uint8), np.zeros((1, 1))).tolist()
    [[[128, 128, 128]]]
    """
    heat = enlarge(heat, image.shape[0], image.shape[1])
    colours = 255 * colormaps[_COLOUR_MAP](heat)[..., :3]  # (h, w, 3)
    opacity = _OPACITY * heat[..., None]
    return np.asarray(np.rint(image * (1 - opacity) + colours * opacity), np.uint8)


def enlarge(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a map bilinearly: (rows, columns) float, 0 to 1, to (height, width) float32, 0 to 1.

    >>> enlarge(np.array([[0.0, 1.0]]), 1, 4).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    image = Image.fromarray(np.asarray(heat, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(np.clip(np.asarray(image), 0, 1))


def side_by_side(image: np.ndarray, heat: np.ndarray, title: str, meaning: str) -> Figure:
    """Draw an image, its map, and the map over the image.

    Args:
        image: (h, w, 3) uint8.
        heat: (rows, columns) float, 0 to 1.
        title: text above all three: the image's name, its label, the prediction.
        meaning: text above the map: the method and the class.
    """
    fitted = fit(image, _SIDE)
    height, width, _ = fitted.shape
    titles = _wrapped(title, (3 * width + 100) // 9)
    meanings = _wrapped(meaning, (width + 20) // 8)
    lines = 20 * (len(titles) + len(meanings)) + 50  # px
    figure = canvas.new_figure((3 * width + 130) / canvas.DPI, (height + lines) / canvas.DPI)
    figure.set_layout_engine("constrained", h_pad=0.08)
    left, middle, right = figure.subplots(1, 3)
    left.imshow(fitted)
    # at the same resolution as the overlay, so that the two can be compared
    shown = middle.imshow(enlarge(heat, height, width), cmap=_COLOUR_MAP, vmin=0, vmax=1)
    right.imshow(overlay(fitted, heat))
    for axes, text in ((left, "image"), (middle, "\n".join(meanings)), (right, "overlay")):
        axes.set_axis_off()
        axes.set_title(text, size=9, **fonts.font(text))
    figure.colorbar(shown, ax=right, ticks=[0, 1], shrink=0.9)
    figure.suptitle("\n".join(titles), size=10, **fonts.font(title))
    return figure


def sheet(images: np.ndarray, maps: np.ndarray, captions: Sequence[str], columns: int = 2) -> Figure:
    """Lay out images in rows, each beside its overlay and above its caption.

    Args:
        images: (n, h, w, 3) uint8; n at least 1.
        maps: (n, rows, columns) float, 0 to 1.
        captions: n texts of at most two lines; of a line that is too long, the end is kept.
        columns: maximum images, each with its overlay, per row.

    Raises:
        ValueError: the numbers of images, maps and captions differ.
    """
    pairs = [with_overlay(image, heat) for image, heat in zip(images, maps, strict=True)]
    height, width, _ = pairs[0].shape
    columns = min(columns, len(pairs))
    pitch_x, pitch_y = width + 2 * _GAP, height + _CAPTION_HEIGHT + _GAP
    paper = np.full((-(-len(pairs) // columns) * pitch_y + _GAP, columns * pitch_x, 3), 255, np.uint8)
    figure = canvas.new_figure(paper.shape[1] / canvas.DPI, paper.shape[0] / canvas.DPI)
    for index, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
        top, left = index // columns * pitch_y + _GAP, index % columns * pitch_x + _GAP  # px
        paper[top : top + height, left : left + width] = pair
        x, y = left / paper.shape[1], 1 - (top + height + 3) / paper.shape[0]  # fractions, from below
        longest = width // 7
        lines = map(fonts.drawable, caption.split("\n"))
        # the end of a path says more than its start
        text = "\n".join(shortened(line, longest, tail=longest - 1) for line in lines)
        figure.text(x, y, text, size=7.5, va="top", linespacing=1.1, **fonts.font(text))
    figure.figimage(paper)  # without resampling
    return figure


def _wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(fonts.drawable(text), columns, max_lines=_TITLE_LINES, placeholder="…")


def with_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image beside its overlay, both at `_TILE` px: (h', w', 3) uint8.

    Args:
        image: (h, w, 3) uint8.
        heat: (rows, columns) float, 0 to 1.
    """
    fitted = fit(image)
    gap = np.full((fitted.shape[0], 2, 3), 255, np.uint8)
    return np.concatenate([fitted, gap, overlay(fitted, heat)], axis=1)


def fit(image: np.ndarray, side: int = _TILE) -> np.ndarray:
    """Resize (h, w, 3) uint8 bicubically to `side` px on its longer side.

    >>> fit(np.zeros((10, 20, 3), np.uint8), 8).shape
    (4, 8, 3)
    """
    height, width, _ = image.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
