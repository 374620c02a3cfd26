"""What a set of predictions is reported as: text, tables and figures, as files by name.

The page of a whole sweep, report.html, is another thing: pipeline/pages.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import figures, metrics


@dataclass(frozen=True, eq=False)
class Predictions:
    """What predictions.csv holds: k names, (k,) int64 labels, (k, num_classes) float64 probabilities."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray


def classification(
    report: metrics.Report, names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, title: str
) -> dict[str, bytes]:
    """The files that report on predictions.

    Args:
        report: of these labels and probabilities.
        names: (k,) the pictures' names.
        labels: (k,) int64.
        probabilities: (k, num_classes) float32.
        title: of the figures.

    Returns:
        classification_report.txt and .json, confusion_matrix.json and .png, predictions.csv, by name.
    """
    confusion = {"classes": list(report.classes), "matrix": report.confusion.tolist()}
    figure = figures.confusion_matrix(report.confusion, report.classes, title)
    return {
        "classification_report.txt": report.text.encode(errors="surrogateescape"),
        "classification_report.json": _json(report.as_json()),
        "confusion_matrix.json": _json(confusion),
        "confusion_matrix.png": figures.png(figure),
        "predictions.csv": predictions(report.classes, names, labels, probabilities),
    }


def learning_curves(history: Mapping[str, Sequence[float]], best_epoch: int, title: str) -> dict[str, bytes]:
    """learning_curves.png of a training's history, its best epoch marked."""
    return {"learning_curves.png": figures.png(figures.learning_curves(history, best_epoch, title))}


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, bytes]:
    """roc_curve.png of (k,) labels and (k, num_classes) probabilities."""
    return {"roc_curve.png": figures.png(figures.roc_curve(labels, probabilities, classes))}


def predictions(
    classes: Sequence[str], names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray
) -> bytes:
    """A CSV with every picture's name, label, prediction and one column of probability a class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "label", "prediction", *classes])
    predicted = metrics.predicted_classes(probabilities)
    for name, label, prediction, row in zip(names, labels, predicted, probabilities, strict=True):
        writer.writerow([name, classes[label], classes[prediction], *(repr(float(value)) for value in row)])
    return text.getvalue().encode(errors="surrogateescape")


def read_predictions(content: bytes) -> Predictions:
    """What `predictions` wrote, to the last digit; at least one picture."""
    text = io.StringIO(content.decode(errors="surrogateescape"), newline="")
    head, *rows = csv.reader(text)
    classes = tuple(head[3:])  # by place: a class may be named `label`
    return Predictions(
        classes,
        tuple(row[0] for row in rows),
        np.array([classes.index(row[1]) for row in rows]),
        np.array([row[3:] for row in rows], float),
    )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="surrogateescape")
