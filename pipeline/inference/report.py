"""What a set of predictions is reported as: text, tables and figures, as files by name, and read back.

The page of a whole sweep, report.html, is another thing: pipeline/pages.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import Predictions
from pipeline.figures import canvas, confusion_matrix, curves
from pipeline.tracking import artifacts

PREDICTIONS = "predictions.parquet"
_MOST_WHOLE = 200  # classes, up to which confusion_matrix.json has every cell


def classification(
    report: metrics.Report, names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, title: str
) -> dict[str, bytes]:
    """The files that report on predictions.

    Args:
        report: of these labels and probabilities.
        names: (k,) the images' names.
        labels: (k,) int64.
        probabilities: (k, num_classes) float32.
        title: of the figures.

    Returns:
        classification_report.txt and .json, confusion_matrix.json and .png, predictions.parquet, by name.
    """
    figure = confusion_matrix.draw(report.confusion, report.classes, title)
    return {
        "classification_report.txt": report.text.encode(errors="surrogateescape"),
        "classification_report.json": _json(report.as_json()),
        "confusion_matrix.json": confusion(report.confusion, report.classes),
        "confusion_matrix.png": canvas.png(figure),
        PREDICTIONS: predictions(report.classes, names, labels, probabilities),
    }


def read_classification(read: Callable[[str], bytes], loss: float) -> metrics.Report:
    """The report that `classification` wrote; of scores of one's own it has none.

    Args:
        read: gives a file by its name.
        loss: of the report; it is not among the files.
    """
    classes, matrix = read_confusion(read("confusion_matrix.json"))
    parsed = json.loads(read("classification_report.json").decode(errors="surrogateescape"))
    text = read("classification_report.txt").decode(errors="surrogateescape")
    return metrics.Report.from_json(parsed, classes, matrix, text, loss)


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> bytes:
    """confusion_matrix.json: `classes`, and `matrix`, or of more than 200 classes `counts`.

    `counts` has the cells that are not 0, each as [true class, predicted class, images], by number.

    Args:
        matrix: (num_classes, num_classes) int, rows true, columns predicted.
        classes: names, in the order of the rows.
    """
    if len(classes) <= _MOST_WHOLE:
        return _json({"classes": list(classes), "matrix": matrix.tolist()})
    cells = np.argwhere(matrix)  # (k, 2)
    counts = np.column_stack([cells, matrix[tuple(cells.T)]])
    text = json.dumps({"classes": list(classes), "counts": counts.tolist()}, ensure_ascii=False)
    return f"{text}\n".encode(errors="surrogateescape")


def read_confusion(content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and the (num_classes, num_classes) matrix, that `confusion` wrote."""
    parsed = json.loads(content.decode(errors="surrogateescape"))
    classes = tuple(parsed["classes"])
    if "matrix" in parsed:
        return classes, np.array(parsed["matrix"])
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    true, predicted, images = np.transpose(parsed["counts"])
    matrix[true, predicted] = images
    return classes, matrix


def learning_curves(history: Mapping[str, Sequence[float]], best_epoch: int, title: str) -> dict[str, bytes]:
    """learning_curves.png of a training's history, its best epoch marked."""
    return {"learning_curves.png": canvas.png(curves.learning_curves(history, best_epoch, title))}


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, bytes]:
    """roc_curve.png of (k,) labels and (k, num_classes) probabilities."""
    return {"roc_curve.png": canvas.png(curves.roc_curve(labels, probabilities, classes))}


def predictions(
    classes: Sequence[str], names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray
) -> bytes:
    """predictions.parquet: each image's name, label, prediction and probabilities; see `Predictions`."""
    return Predictions.of(classes, names, labels, probabilities).to_parquet()


def recorded_predictions(run_id: str) -> Predictions:
    """The predictions on the validation split that a training's run has.

    Raises:
        UserError: The run has none.
    """
    return Predictions.from_parquet(artifacts.read(run_id, f"report/{PREDICTIONS}"))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="surrogateescape")
