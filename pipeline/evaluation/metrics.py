"""The scores of predictions on a split: arrays in, values out.

scikit-learn's sums and definitions are used throughout. It is imported where it is needed, since that takes
over a second and most commands end, or fail on a parameter, without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config import scores
from pipeline.evaluation import roc

EPSILON = 1e-7  # that probabilities are clipped to, as Keras clips them by default


@dataclass(frozen=True, eq=False)
class Report:
    """How well a classifier did on a split.

    Every class has its row, also one that has no image or is never predicted; where a share has nothing to
    divide by, it is 0.

    Attributes:
        classes: Names, in the order of the labels.
        accuracy: Share of the images with the right class, 0 to 1.
        loss: `cross_entropy`, nats; not finite where a probability is not.
        precision: Average over the classes, weighted by their images, 0 to 1; as are `recall` and `f1`.
        macro_precision: Plain average over the classes, 0 to 1; as are `macro_recall` and `macro_f1`.
        roc_auc: Area under the ROC curve, 0 to 1: of the second of two classes, or of each of more classes
            against the rest, weighted by their images. None where it is not defined: a class without a
            image, or probabilities that are not finite.
        confusion: (num_classes, num_classes) int, rows true, columns predicted.
        per_class: `precision`, `recall`, `f1-score` (0 to 1) and `support` (images) of each class.
        text: scikit-learn's classification report, to four digits.
        own: Of `pipeline.config.scores.OWN`, by name.
    """

    classes: tuple[str, ...]
    accuracy: float
    loss: float
    precision: float
    recall: float
    f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    roc_auc: float | None
    confusion: np.ndarray
    per_class: dict[str, dict[str, float]]
    text: str
    own: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns what scikit-learn's `classification_report(output_dict=True)` does, with `roc_auc` added.

        A class whose name is one of that shape's own keys, such as `accuracy`, is listed under its name with
        ` (class)` added.
        """
        images = float(self.confusion.sum())
        summary = {
            "accuracy": self.accuracy,
            "macro avg": _row(self.macro_precision, self.macro_recall, self.macro_f1, images),
            "weighted avg": _row(self.precision, self.recall, self.f1, images),
            "roc_auc": self.roc_auc,
        }
        rows: dict[str, Any] = {}
        for name, row in self.per_class.items():
            key = name
            while key in summary or (key != name and key in self.per_class):
                key += " (class)"
            rows[key] = row
        return rows | summary

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], classes: Sequence[str], confusion: np.ndarray, text: str, loss: float
    ) -> "Report":
        """The report that `as_json` returned, but for scores of one's own; see the attributes."""
        rows = list(content.values())[: len(classes)]  # by place: a class may be named `accuracy`
        averages = {
            f"{prefix}{name}": content[average][key]
            for prefix, average in (("", "weighted avg"), ("macro_", "macro avg"))
            for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"))
        }
        return cls(
            tuple(classes),
            content["accuracy"],
            loss,
            **averages,
            roc_auc=content["roc_auc"],
            confusion=confusion,
            per_class=dict(zip(classes, rows, strict=True)),
            text=text,
        )

    def scores(self) -> dict[str, float]:
        """Returns the numbers that runs are compared by, flat; `roc_auc` only where it is defined."""
        names = (
            "accuracy",
            "loss",
            "precision",
            "recall",
            "f1",
            "macro_precision",
            "macro_recall",
            "macro_f1",
            "roc_auc",
        )
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None} | dict(self.own)


def report(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Report:
    """Compares predictions with the truth.

    The predicted class is the most probable one, the first of equals; an image with a probability that is
    not finite counts as predicted to be of the first class.

    Args:
        labels: (n,) int, 0 to num_classes - 1; n at least 1.
        probabilities: (n, num_classes) float.
        classes: Names, all different, in the order of the columns.

    Raises:
        ValueError: The shapes do not fit, or there is no image.
    """
    from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support

    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if len(labels) == 0 or probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            f"{len(labels)} labels, probabilities of shape {probabilities.shape} and {len(classes)} classes: "
            "expected (n,), (n, num_classes) and num_classes, with n at least 1"
        )
    predicted = predicted_classes(probabilities)
    every = {"labels": range(len(classes))}
    table = precision_recall_fscore_support(labels, predicted, **every, zero_division=0)  # 4 x (num_classes,)
    averages = _averages(*table)
    return Report(
        tuple(classes),
        float(np.mean(predicted == labels)),
        cross_entropy(labels, probabilities),
        **averages,
        roc_auc=roc.roc_auc(labels, probabilities),
        confusion=confusion_matrix(labels, predicted, **every),
        per_class={name: _row(*row) for name, row in zip(classes, np.transpose(table), strict=True)},
        text=classification_report(
            labels, predicted, **every, target_names=list(classes), digits=4, zero_division=0
        ),
        own={name: float(score(labels, predicted, probabilities)) for name, score in scores.OWN.items()},
    )


def score(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """One of `Report.scores`, without the rest of a report: what an epoch is measured by.

    Args:
        name: `accuracy`, `loss`, one of the averages, or one of `pipeline.config.scores.OWN`.
        labels: (n,) int; n at least 1.
        probabilities: (n, num_classes) float.

    >>> score("accuracy", np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    predicted = predicted_classes(probabilities)
    if name == "accuracy":
        return float(np.mean(predicted == labels))
    if name == "loss":
        return cross_entropy(labels, probabilities)
    if name in scores.OWN:
        return float(scores.OWN[name](labels, predicted, probabilities))
    from sklearn.metrics import precision_recall_fscore_support

    classes = range(probabilities.shape[1])
    table = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    return _averages(*table)[name]


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean categorical cross-entropy of hard labels, in nats, as Keras computes it.

    Args:
        labels: (k,) int64.
        probabilities: (k, num_classes) float32.
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(chosen, EPSILON, 1 - EPSILON)).mean())


def diverged(losses: Sequence[float], probabilities: np.ndarray) -> bool:
    """Whether training came to nothing.

    Args:
        losses: Of each epoch.
        probabilities: (n, num_classes) float, of a split.

    Returns:
        True where a loss or a probability is not finite, or every image is predicted to be of one class.
    """
    finite = np.isfinite(losses).all() and np.isfinite(probabilities).all()
    return not finite or len(np.unique(predicted_classes(probabilities))) <= 1


def predicted_classes(probabilities: np.ndarray) -> np.ndarray:
    """The most probable class of each row, (n, num_classes) to (n,) int; see `report`."""
    return np.where(np.isfinite(probabilities).all(axis=1), np.argmax(probabilities, axis=1), 0)


def most_confident_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The rows of the images that are predicted wrong, the most confident first, equals in order: (k,) int.

    Args:
        labels: (n,) int.
        probabilities: (n, num_classes) float; images with some that are not finite come last.
    """
    return by_confidence(labels, predicted_classes(probabilities), probabilities.max(axis=1))


def by_confidence(labels: np.ndarray, answers: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """The rows of the wrong answers, the most confident first, equals in order: (k,) int.

    Args:
        labels: (n,) int.
        answers: (n,) int, the predicted classes.
        confidences: (n,) float, their probabilities; those that are not finite come last.
    """
    wrong = np.flatnonzero(answers != labels)
    return wrong[np.argsort(-confidences[wrong], kind="stable")]


def most_confused(confusion: np.ndarray, most: int) -> np.ndarray:
    """The classes of the most frequent confusions, either way, ascending: (`most`,) int, or all where fewer.

    Args:
        confusion: (num_classes, num_classes) int.
        most: How many.
    """
    if len(confusion) <= most:
        return np.arange(len(confusion))
    pairs = np.triu(confusion + confusion.T, k=1)
    one, other = np.nonzero(pairs)
    order = np.argsort(-pairs[one, other], kind="stable")
    ranked = np.stack([one[order], other[order]], axis=1).ravel()
    # where there are not enough confusions, the first of the other classes
    chosen = dict.fromkeys([*ranked.tolist(), *range(len(confusion))])
    return np.sort(np.array(list(chosen)[:most]))


def _averages(
    precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, support: np.ndarray
) -> dict[str, float]:
    """The averages over classes of (num_classes,) each: weighted by `support`, and plain."""
    each = {"precision": precision, "recall": recall, "f1": f1}
    weighted = {name: float(np.average(values, weights=support)) for name, values in each.items()}
    return weighted | {f"macro_{name}": float(np.mean(values)) for name, values in each.items()}


def _row(precision: float, recall: float, f1: float, support: float) -> dict[str, float]:
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1-score": float(f1),
        "support": float(support),
    }
