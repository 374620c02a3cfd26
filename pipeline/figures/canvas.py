"""What all figures share: an empty figure, titles and messages, colours, and rendering to PNG.

Figures are made with Matplotlib's object API, never with pyplot: it has no global state, so threads may draw
at the same time. Nothing is shown or written.
"""

import io
import itertools
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipeline.figures import fonts

# Distinguishable with any colour vision: Okabe and Ito, Color Universal Design (2008), without the yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DPI = 100  # pixels per inch


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure.

    Args:
        width: inches.
        height: inches.

    >>> new_figure(3, 2).get_size_inches().tolist()
    [3.0, 2.0]
    """
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def add_title(figure: Figure, title: str) -> None:
    """Write a title above a figure, wrapped to its width; its own line breaks are kept."""
    columns = int(figure.get_figwidth() * 12)  # characters
    lines = [textwrap.wrap(line, columns) for line in fonts.drawable(title).split("\n")]
    text = "\n".join(itertools.chain.from_iterable(lines))
    figure.suptitle(text, size=10, **fonts.font(title))


def add_message(axes: Axes, text: str) -> None:
    """Write a text into the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, bbox={"facecolor": "white"})


def png(figure: Figure, indexed: bool = True) -> bytes:
    r"""Render a figure as a PNG.

    Args:
        figure: to render.
        indexed: whether to reduce it to 256 colours, which takes less than half of the bytes. Photographs
            lose quality.

    >>> png(new_figure(1, 1))[:4]
    b'\x89PNG'
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # Matplotlib has no annotations there
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # (height, width, 4) uint8
    image = Image.fromarray(pixels).convert("RGB")
    content = io.BytesIO()
    (image.quantize(dither=Image.Dither.NONE) if indexed else image).save(content, "PNG")
    return content.getvalue()
