"""Learning curves and ROC curves, drawn."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from pipeline.evaluation import roc
from pipeline.figures import canvas, fonts

_LINE_STYLES = ("-", "--", ":", "-.")
_MAX_ROC_CURVES = 20  # classes, up to which each has its ROC curve
_WORST_ROC_CURVES = 6  # classes that have one if there are more, beside the average
_MARGINS = {"left": 0.085, "right": 0.985, "bottom": 0.2, "top": 0.86}  # of learning curves; fractions


def learning_curves(
    history: Mapping[str, Sequence[float]], best_epoch: int | None = None, title: str = ""
) -> Figure:
    """Draw loss (left) and accuracy (right) over epochs, with the learning rate below each.

    Args:
        history: `loss`, `val_loss`, `accuracy`, `val_accuracy` and `learning_rate`, each with one value per
            epoch, from epoch 1. Values that are not finite leave gaps. The epochs from the first loss that
            is not finite are marked as diverged.
        best_epoch: epoch to mark, from 1; None: no mark.
        title: text above the curves.
    """
    epochs = np.arange(1, len(history["loss"]) + 1)
    figure = canvas.new_figure(9.0, 4.2)
    curves, rates = figure.subplots(
        2, 2, sharex=True, height_ratios=(5, 1), gridspec_kw={**_MARGINS, "hspace": 0.1, "wspace": 0.14}
    )
    for axes, key in zip(curves, ("loss", "accuracy"), strict=True):
        _draw_curves(axes, epochs, history[key], history[f"val_{key}"])
        axes.set_title(key, size=10)
    _scale_loss(curves[0], [*history["loss"], *history["val_loss"]])
    curves[1].set_ylim(-0.02, 1.02)  # the whole range, so that runs can be compared
    for axes in rates:
        _draw_learning_rate(axes, epochs, history["learning_rate"])
    rates[0].set_ylabel("learning\nrate", size=8)
    _mark_divergence(curves, history)
    if best_epoch is not None:
        label = f"best epoch {best_epoch}: accuracy {history['val_accuracy'][best_epoch - 1]:.3f}"
        for axes in curves:
            axes.axvline(best_epoch, color="black", linewidth=1, linestyle=":", label=label)
    figure.legend(*curves[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    canvas.add_title(figure, title)
    return figure


def _draw_curves(
    axes: Axes, epochs: np.ndarray, training: Sequence[float], validation: Sequence[float]
) -> None:
    marker = "o" if len(epochs) <= 20 else None  # a single epoch has no line
    for values, name, colour, style in (
        (training, "training", canvas.COLOURS[0], "--"),
        (validation, "validation", canvas.COLOURS[1], "-"),
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
    elif min(finite) > 0 and max(finite) > 1000 * min(finite):  # one huge loss would flatten the rest
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def _draw_learning_rate(axes: Axes, epochs: np.ndarray, rates: Sequence[float]) -> None:
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
    curves[0].set_title(f"loss: diverged, not finite from epoch {epoch} on", size=10, color=canvas.COLOURS[1])


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw the receiver operating characteristic: of the second of two classes, or of each against the rest.

    Args:
        labels: (n,) int, 0 to num_classes - 1.
        probabilities: (n, num_classes) float.
        classes: names, in the order of the columns. A class with no image or with all images has no curve.
            Of more than 20 classes, the 6 with the smallest areas and the average over all are drawn.
    """
    aside = len(classes) > 4  # whether the legend is beside the curves
    figure = canvas.new_figure(8.0 if aside else 5.0, 5.0)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    axes.grid(color="0.93")
    if not np.isfinite(probabilities).all():
        canvas.add_message(axes, "no curve: some probabilities are not finite")
    elif len(np.unique(labels)) == 1:
        canvas.add_message(axes, "no curve: the images are all of one class")
    else:
        _draw_roc(axes, np.asarray(labels), probabilities, classes)
        place = "outside right center" if aside else "lower right"
        parent: Any = figure if aside else axes
        legend = parent.legend(loc=place, title="area  class", fontsize=8, title_fontsize=8)
        for text in legend.get_texts():
            text.set(**fonts.font(text.get_text()))
    return figure


def _draw_roc(axes: Axes, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    import sklearn.metrics  # imported here: it takes over a second

    styles = itertools.cycle(itertools.product(_LINE_STYLES, canvas.COLOURS))
    drawn = np.array([1]) if len(classes) == 2 else np.unique(labels)
    if len(drawn) > _MAX_ROC_CURVES:
        drawn = _draw_average(axes, drawn, roc.false_positive_rates(labels, probabilities))
    for index in drawn:
        style, colour = next(styles)
        false_rate, true_rate, _ = sklearn.metrics.roc_curve(labels == index, probabilities[:, index])
        area = sklearn.metrics.auc(false_rate, true_rate)
        axes.plot(
            false_rate, true_rate, style, color=colour, label=f"{area:.3f}  {fonts.short(classes[index])}"
        )


def _draw_average(axes: Axes, classes: np.ndarray, rates: Iterable[np.ndarray]) -> np.ndarray:
    """Draw the mean of the curves of `classes`; return the classes with the smallest areas, ascending.

    Args:
        axes: to draw on.
        classes: (k,) int, those with images.
        rates: of every class, as `roc.false_positive_rates` yields them.
    """
    grid, height, areas = np.linspace(0, 1, 401), np.zeros(401), []
    for own in rates:
        areas.append(1 - own.mean() if len(own) else np.nan)
        height += np.searchsorted(own, grid, side="right") / max(1, len(own))
    mean, count = np.nanmean(areas), len(classes)
    label = f"{mean:.3f}  macro average of {count:,}"
    axes.plot(grid, height / count, color="black", linewidth=2.5, label=label)
    axes.set_title(f"the {_WORST_ROC_CURVES} smallest areas of {count:,} classes, and the average", size=10)
    return classes[np.argsort(np.array(areas)[classes], kind="stable")[:_WORST_ROC_CURVES]]
