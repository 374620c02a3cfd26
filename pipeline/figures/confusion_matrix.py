"""Confusion matrices, drawn."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation import metrics
from pipeline.figures import canvas, fonts

_MAX_ANNOTATED = 20  # classes, up to which the counts are written into the cells
_MAX_DRAWN = 50  # classes; a larger matrix is unreadable and slow to draw


def draw(matrix: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    r"""Draw counts, and their shares of each true class as percentages and colours.

    Args:
        matrix: (num_classes, num_classes) int, rows true, columns predicted.
        classes: names, in the order of the rows. More than 20 classes are drawn as colours only; of more than
            50, only the 50 most confused ones are drawn.
        title: text above the matrix.

    >>> [text.get_text() for text in draw(np.array([[3, 1], [0, 4]]), ["cat", "dog"]).axes[0].texts]
    ['3\n75%', '1\n25%', '0', '4\n100%']
    """
    totals = matrix.sum(axis=1, keepdims=True)  # (num_classes, 1)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    if len(classes) > _MAX_DRAWN:
        drawn = metrics.most_confused(matrix, _MAX_DRAWN)
        title = f"{title}\nthe {_MAX_DRAWN} most confused of {len(classes):,} classes".strip()
        matrix, shares = (values[np.ix_(drawn, drawn)] for values in (matrix, shares))
        classes = [classes[number] for number in drawn]
    num_classes = len(classes)
    annotated = num_classes <= _MAX_ANNOTATED
    cell = float(np.clip(6 / num_classes, 0.44 if annotated else 0.15, 1.3))  # inches
    names = [fonts.label(name) for name in classes]
    longest = 0.08 * max(len(line) for name in names for line in name.split("\n"))  # inches
    side = cell * num_classes + longest + 0.6
    figure = canvas.new_figure(max(side, 3.6), side + 0.3)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    edges = np.arange(num_classes + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1)  # faster than imshow
    _label_axes(axes, names, size=9 if annotated else 5, rotation=0 if longest < cell else 90)
    if annotated:
        _annotate_cells(axes, matrix, shares, size=float(np.clip(cell * 13, 6, 12)))
    canvas.add_title(figure, title)
    return figure


def _label_axes(axes: Axes, names: Sequence[str], size: float, rotation: float) -> None:
    # the y axis points down: the first class is on top
    axes.set(aspect="equal", ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")
    font = fonts.font(*names)
    axes.set_xticks(range(len(names)), names, rotation=rotation, size=size, **font)
    axes.set_yticks(range(len(names)), names, size=size, **font)
    axes.tick_params(length=0)


def _annotate_cells(axes: Axes, matrix: np.ndarray, shares: np.ndarray, size: float) -> None:
    show_zeros = len(matrix) <= 10  # of many classes, zeros would hide the confusions
    for row, column in np.ndindex(matrix.shape) if show_zeros else np.argwhere(matrix):
        count, share = matrix[row, column], shares[row, column]
        axes.text(
            column,
            row,
            f"{count}\n{share:.0%}" if count else "0",
            ha="center",
            va="center",
            size=size,
            color="white" if share > 0.5 else "black",
            in_layout=False,  # the texts are inside the axes; measuring 400 of them takes most of the time
        )
