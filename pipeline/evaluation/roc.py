"""ROC curves of many classes: false positive rates and the areas under the curves."""

from collections.abc import Iterator

import numpy as np

_COLUMNS = 16  # classes whose probabilities are sorted at once: bounds memory


def false_positive_rates(labels: np.ndarray, probabilities: np.ndarray) -> Iterator[np.ndarray]:
    """How far up in its class each image is ranked, which gives the ROC curve and the area under it.

    The area is 1 minus the mean of a class's rates (the Mann-Whitney statistic), to the digit what
    scikit-learn's curve gives. Its columns are sorted once, which is some 20 times as fast.

    Args:
        labels: (n,) int.
        probabilities: (n, num_classes) float, all finite.

    Yields:
        Of each class in turn, (images of the class,) float, ascending: the share of all other images that
        have a higher probability of the class, equal ones counting by half.

    >>> [rates.tolist() for rates in false_positive_rates(np.array([0, 1]), np.eye(2))]
    [[0.0], [0.0]]
    """
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(probabilities.shape[1] + 1))
    for first in range(0, probabilities.shape[1], _COLUMNS):
        block = np.ascontiguousarray(probabilities[:, first : first + _COLUMNS].T)
        for number, column in enumerate(block, start=first):
            own = np.sort(column[order[bounds[number] : bounds[number + 1]]])[::-1]
            ranked = np.sort(column)
            above = _above(ranked, own) - _above(own[::-1], own)
            others = len(labels) - len(own)
            yield above / others if others else np.full(len(own), np.nan)


def _above(ranked: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many of the ascending `ranked` are above each value, equal ones by half: (k,) float."""
    below = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    return len(ranked) - below / 2


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """The area under the ROC curve; for more than two classes, the "ovr" and "weighted" of `roc_auc_score`.

    Args:
        labels: (n,) int.
        probabilities: (n, num_classes) float.

    Returns:
        0 to 1; None if a class has no image or a probability is not finite.
    """
    num_classes = probabilities.shape[1]
    support = np.bincount(labels, minlength=num_classes)
    if not support.all() or not np.isfinite(probabilities).all():
        return None
    areas = [1 - rates.mean() for rates in false_positive_rates(labels, probabilities)]
    return float(areas[1] if num_classes == 2 else np.average(areas, weights=support))
