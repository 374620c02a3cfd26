"""Figures of a run: arrays in, matplotlib figures out; nothing is shown or written.

They are made with matplotlib's object API, never pyplot: no global state, so threads may draw at once. Class
names may be long, in any script, and hold characters such as `$` that matplotlib would read as mathematics.
"""

import io
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from PIL import Image

from pipeline.evaluation import metrics
from pipeline.figures import fonts

# Told apart with any colour vision: Okabe and Ito, Color Universal Design (2008), without the yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("-", "--", ":", "-.")
_DPI = 100  # pixels per inch
_MOST_NUMBERED = 20  # classes, up to which a confusion matrix has its numbers written into the cells
_MOST_DRAWN = 50  # classes of a confusion matrix: with more, it is too large to be read, or drawn
_MOST_CURVES = 20  # classes, up to which each has its ROC curve
_LOWEST = 6  # classes that have one where there are more; the average is black
_MARGINS = {"left": 0.085, "right": 0.985, "bottom": 0.2, "top": 0.86}  # of learning curves; fractions
_SHEET_DETAIL = 45_000  # distinct pixels of a contact sheet: bounds its bytes, of which each takes about one
_TILE = 128  # px; about the side of an image on a contact sheet


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Draws counts, and the share of each true class's images as percentage and colour.

    Args:
        matrix: (num_classes, num_classes) int, rows true, columns predicted.
        classes: Names, in the order of the rows. Beyond 20 only colours are drawn, and of more than 50 only
            those that are confused most.
        title: Text above the matrix.
    """
    totals = matrix.sum(axis=1, keepdims=True)  # (num_classes, 1)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    if len(classes) > _MOST_DRAWN:
        drawn = metrics.most_confused(matrix, _MOST_DRAWN)
        title = f"{title}\nthe {_MOST_DRAWN} most confused of {len(classes):,} classes".strip()
        matrix, shares = (values[np.ix_(drawn, drawn)] for values in (matrix, shares))
        classes = [classes[number] for number in drawn]
    num_classes = len(classes)
    numbered = num_classes <= _MOST_NUMBERED
    cell = float(np.clip(6 / num_classes, 0.44 if numbered else 0.15, 1.3))  # inches
    names = [fonts.label(name) for name in classes]
    longest = 0.08 * max(len(line) for name in names for line in name.split("\n"))  # inches
    side = cell * num_classes + longest + 0.6
    figure = _figure(max(side, 3.6), side + 0.3)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    edges = np.arange(num_classes + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1)  # faster than imshow
    _name_sides(axes, names, size=9 if numbered else 5, rotation=0 if longest < cell else 90)
    if numbered:
        _write_cells(axes, matrix, shares, size=float(np.clip(cell * 13, 6, 12)))
    _add_title(figure, title)
    return figure


def _name_sides(axes: Axes, names: Sequence[str], size: float, rotation: float) -> None:
    axes.set(aspect="equal", ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")  # first on top
    font = fonts.font(*names)
    axes.set_xticks(range(len(names)), names, rotation=rotation, size=size, **font)
    axes.set_yticks(range(len(names)), names, size=size, **font)
    axes.tick_params(length=0)


def _write_cells(axes: Axes, matrix: np.ndarray, shares: np.ndarray, size: float) -> None:
    few = len(matrix) <= 10  # of many classes, cells without images stay empty: what is there stands out
    for row, column in np.ndindex(matrix.shape) if few else np.argwhere(matrix):
        count, share = matrix[row, column], shares[row, column]
        axes.text(
            column,
            row,
            f"{count}\n{share:.0%}" if count else "0",
            ha="center",
            va="center",
            size=size,
            color="white" if share > 0.5 else "black",
            in_layout=False,  # measuring 400 texts that lie within the axes would take most of the time
        )


def learning_curves(
    history: Mapping[str, Sequence[float]], best_epoch: int | None = None, title: str = ""
) -> Figure:
    """Draws loss (left) and accuracy (right) over epochs, with the learning rate below each.

    Args:
        history: `loss`, `val_loss`, `accuracy`, `val_accuracy` and `learning_rate`, each with one value an
            epoch, from epoch 1. Values that are not finite leave gaps; from the first loss that is not
            finite on, the run is marked as diverged.
        best_epoch: Epoch to mark, from 1.
        title: Text above the curves.
    """
    epochs = np.arange(1, len(history["loss"]) + 1)
    figure = _figure(9.0, 4.2)
    curves, rates = figure.subplots(
        2, 2, sharex=True, height_ratios=(5, 1), gridspec_kw={**_MARGINS, "hspace": 0.1, "wspace": 0.14}
    )
    for axes, key in zip(curves, ("loss", "accuracy"), strict=True):
        _draw_curves(axes, epochs, history[key], history[f"val_{key}"])
        axes.set_title(key, size=10)
    _scale_loss(curves[0], [*history["loss"], *history["val_loss"]])
    curves[1].set_ylim(-0.02, 1.02)  # all of it, so that runs can be compared at a glance
    for axes in rates:
        _draw_rates(axes, epochs, history["learning_rate"])
    rates[0].set_ylabel("learning\nrate", size=8)
    _mark_divergence(curves, history)
    if best_epoch is not None:
        label = f"best epoch {best_epoch}: accuracy {history['val_accuracy'][best_epoch - 1]:.3f}"
        for axes in curves:
            axes.axvline(best_epoch, color="black", linewidth=1, linestyle=":", label=label)
    figure.legend(*curves[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    _add_title(figure, title)
    return figure


def _draw_curves(
    axes: Axes, epochs: np.ndarray, training: Sequence[float], validation: Sequence[float]
) -> None:
    marker = "o" if len(epochs) <= 20 else None  # one epoch alone has no line
    for values, name, colour, style in (
        (training, "training", _COLOURS[0], "--"),
        (validation, "validation", _COLOURS[1], "-"),
    ):
        finite = np.where(np.isfinite(values), values, np.nan)  # (epochs,); nan leaves a gap
        axes.plot(epochs, finite, style, color=colour, marker=marker, markersize=4, label=name)
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(color="0.9")


def _scale_loss(axes: Axes, losses: Sequence[float]) -> None:
    finite = [loss for loss in losses if np.isfinite(loss)]
    if not finite:
        axes.set_yticks([])
    elif min(finite) > 0 and max(finite) > 1000 * min(finite):  # an explosion would flatten all the rest
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def _draw_rates(axes: Axes, epochs: np.ndarray, rates: Sequence[float]) -> None:
    axes.step(epochs, rates, where="mid", color="0.4", marker="o" if len(epochs) == 1 else None, markersize=4)
    values = sorted(set(rates))
    if values and values[0] > 0:
        axes.set_yscale("log")
        axes.set_ylim(values[0] / 3, values[-1] * 3)
    shown = values if len(values) <= 3 else [values[0], values[-1]]
    axes.set_yticks(shown, [f"{rate:g}" for rate in shown], size=8)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("epoch")
    axes.grid(color="0.9")


def _mark_divergence(curves: Sequence[Axes], history: Mapping[str, Sequence[float]]) -> None:
    finite = np.isfinite(history["loss"]) & np.isfinite(history["val_loss"])  # (epochs,)
    if finite.all():
        return
    epoch = int(np.argmin(finite)) + 1
    for axes in curves:
        axes.axvspan(epoch - 0.5, len(finite) + 0.5, color="0.88", zorder=0)
    curves[0].set_title(f"loss: diverged, not finite from epoch {epoch} on", size=10, color=_COLOURS[1])


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draws the receiver operating characteristic: of the second of two classes, or of each against the rest.

    Args:
        labels: (n,) int, 0 to num_classes - 1.
        probabilities: (n, num_classes) float.
        classes: Names, in the order of the columns. One without images, or with all of them, has no curve.
            Of more than 20, the 6 with the smallest areas and the average over all classes are drawn.
    """
    aside = len(classes) > 4  # then the legend stands beside the curves
    figure = _figure(8.0 if aside else 5.0, 5.0)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    axes.grid(color="0.93")
    if not np.isfinite(probabilities).all():
        _say(axes, "no curve: some probabilities are not finite")
    elif len(np.unique(labels)) == 1:
        _say(axes, "no curve: the images are all of one class")
    else:
        _draw_roc(axes, np.asarray(labels), probabilities, classes)
        place = "outside right center" if aside else "lower right"
        legend = (figure if aside else axes).legend(
            loc=place, title="area  class", fontsize=8, title_fontsize=8
        )
        for text in legend.get_texts():
            text.set(**fonts.font(text.get_text()))
    return figure


def _draw_roc(axes: Axes, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    import sklearn.metrics  # imported here: it takes over a second

    looks = itertools.cycle(itertools.product(_STYLES, _COLOURS))
    drawn = np.array([1]) if len(classes) == 2 else np.unique(labels)
    if len(drawn) > _MOST_CURVES:
        drawn = _draw_average(axes, drawn, metrics.false_positive_rates(labels, probabilities))
    for index in drawn:
        style, colour = next(looks)
        false_rate, true_rate, _ = sklearn.metrics.roc_curve(labels == index, probabilities[:, index])
        area = sklearn.metrics.auc(false_rate, true_rate)
        axes.plot(
            false_rate, true_rate, style, color=colour, label=f"{area:.3f}  {fonts.short(classes[index])}"
        )


def _draw_average(axes: Axes, classes: np.ndarray, rates: Iterable[np.ndarray]) -> np.ndarray:
    """Draws the mean of the curves of `classes`; returns those of them with the smallest areas, these first.

    Args:
        axes: To draw on.
        classes: (k,) int, those with images.
        rates: Of every class, as `metrics.false_positive_rates` gives them.
    """
    grid, height, areas = np.linspace(0, 1, 401), np.zeros(401), []
    for own in rates:
        areas.append(1 - own.mean() if len(own) else np.nan)
        height += np.searchsorted(own, grid, side="right") / max(1, len(own))
    mean, count = np.nanmean(areas), len(classes)
    label = f"{mean:.3f}  macro average of {count:,}"
    axes.plot(grid, height / count, color="black", linewidth=2.5, label=label)
    axes.set_title(f"the {_LOWEST} smallest areas of {count:,} classes, and the average", size=10)
    return classes[np.argsort(np.array(areas)[classes], kind="stable")[:_LOWEST]]


def contact_sheet(
    images: np.ndarray, captions: Sequence[str], columns: int = 8, most_lines: int = 2
) -> Figure:
    """Lays out images in rows, each with its caption below.

    Args:
        images: (n, h, w, 3) uint8. The more there are, the less detail each one shows.
        captions: n texts.
        columns: Most images in a row.
        most_lines: Of the sheet that each line of a caption may take; what is left of it is cut off.
    """
    if len(images) == 0:
        figure = _figure(4.0, 1.0)
        figure.text(0.5, 0.5, "no images", ha="center", va="center")
        return figure
    detail = min(_TILE // 2, int((_SHEET_DETAIL / len(images)) ** 0.5))  # px
    tiles = np.stack([_tile(image, detail) for image in images])
    return _lay_out(tiles, captions, min(columns, len(images)), most_lines)


def _tile(image: np.ndarray, detail: int) -> np.ndarray:
    """Reduces (h, w, 3) to `detail` px a side, and enlarges that by whole pixels, which adds few bytes."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((detail, detail), Image.Resampling.BOX)
    factor = max(1, round(_TILE / max(thumbnail.size)))
    return np.asarray(thumbnail).repeat(factor, axis=0).repeat(factor, axis=1)


def _lay_out(tiles: np.ndarray, captions: Sequence[str], columns: int, most_lines: int) -> Figure:
    n, height, width, _ = tiles.shape
    gap = 6  # px
    pitch_x = max(width, 96) + gap
    texts = [_wrapped(caption, pitch_x // 6, most_lines) for caption in captions]
    tallest = max(2, *(text.count("\n") + 1 for text in texts))  # lines, of 11 px
    pitch_y = height + 6 + 11 * tallest + gap
    rows = -(-n // columns)
    sheet = np.full((rows * pitch_y + gap, columns * pitch_x + gap, 3), 255, np.uint8)
    figure = _figure(sheet.shape[1] / _DPI, sheet.shape[0] / _DPI)
    for index, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        top, left = index // columns * pitch_y + gap, index % columns * pitch_x + gap  # px
        sheet[top : top + height, left : left + width] = tile
        x, y = left / sheet.shape[1], 1 - (top + height + 3) / sheet.shape[0]  # fractions, from below
        drawn = figure.text(x, y, text, size=7, va="top", linespacing=1.1, **fonts.font(text))
        # wide letters are cut off where the next caption begins
        drawn.set(clip_on=True, clip_box=Bbox.from_bounds(left, 0, pitch_x - gap / 2, sheet.shape[0]))
    figure.figimage(sheet)  # pixel by pixel, without resampling
    return figure


def _wrapped(caption: str, columns: int, most_lines: int) -> str:
    """A caption, each of whose lines takes at most so many lines of so many characters."""
    lines = fonts.drawable(caption).split("\n")
    wrapped = (textwrap.wrap(line, columns, max_lines=most_lines, placeholder="…") for line in lines)
    return "\n".join(itertools.chain.from_iterable(wrapped))


def png(figure: Figure, indexed: bool = True) -> bytes:
    """Renders a figure as a PNG.

    Args:
        figure: What to render.
        indexed: With at most 256 colours, which takes about a third of the bytes; photographs lose by it.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    (_indexed(image) if indexed else image).save(buffer, "PNG")
    return buffer.getvalue()


def _indexed(image: Image.Image) -> Image.Image:
    sample = image.resize((image.width // 3, image.height // 3), Image.Resampling.NEAREST)  # much faster
    indexed = image.quantize(palette=sample.quantize(255, Image.Quantize.MEDIANCUT), dither=Image.Dither.NONE)
    # The palette is approximate; white paper shall stay white.
    indexed.putpalette([*(indexed.getpalette() + [0] * 765)[:765], 255, 255, 255])
    indexed.paste(255, mask=image.convert("L").point(lambda grey: 255 * (grey == 255)))
    return indexed


def _figure(width: float, height: float) -> Figure:
    """An empty white figure; inches."""
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")


def _add_title(figure: Figure, title: str) -> None:
    columns = int(figure.get_figwidth() * 12)  # characters
    lines = [textwrap.wrap(line, columns) for line in fonts.drawable(title).split("\n")]
    text = "\n".join(itertools.chain.from_iterable(lines))
    figure.suptitle(text, size=10, **fonts.font(title))


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, bbox={"facecolor": "white"})
