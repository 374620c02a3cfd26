"""Two models' answers to the same images: which is better by an objective, and whether that may be chance.

A paired test compares both models image by image. For accuracy it is McNemar's exact test
(`significance.mcnemar`). For any other score it is a paired bootstrap: images are drawn again within each
class, the same ones for both models, and the p-value is that of the percentile interval that just reaches
zero (B. Efron and R. J. Tibshirani, An introduction to the bootstrap, 1993, sections 13 and 15).
Of fewer than some 50 images it is a rough figure.

Among many cells a p-value has to be far smaller than any number of resamples can show. There the difference
is divided by its bootstrap standard deviation, and the tail is the normal distribution's (`tail`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation import intervals, metrics, significance
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.predictions import Predictions

LEVEL = 0.05  # a difference with a p-value below it is significant
RESAMPLES = 1000
RESAMPLES_OF_A_DEVIATION = 200  # enough for it (the same book, section 6.4)


@dataclass(frozen=True)
class Comparison:
    """A model against another one.

    Attributes:
        objective: What they are compared by.
        value: Of the first model.
        other: Of the second.
        images: That both answered.
        p_value: Two-sided, of the difference.
        test: The paired test's name.
    """

    objective: Objective
    value: float
    other: float
    images: int
    p_value: float
    test: str

    @property
    def better(self) -> bool:
        """Whether the first is better than the second."""
        return self.objective.better_than(self.value, self.other)

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance, at `LEVEL`."""
        return self.p_value < LEVEL


def compare(
    objective: Objective, labels: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int = 0
) -> Comparison:
    """Compare two models on the same images.

    Args:
        objective: What they are compared by.
        labels: (n,) int; n at least 1.
        first: (n, num_classes) float, the first model's probabilities.
        second: The second model's, of the same images in the same order.
        seed: Of the resamples.
    """
    value, other = (objective.measure(labels, probabilities) for probabilities in (first, second))
    if objective.name == "accuracy":
        right, other_right = (metrics.predicted_classes(answers) == labels for answers in (first, second))
        test, p_value = (
            "McNemar",
            significance.mcnemar(int((right & ~other_right).sum()), int((other_right & ~right).sum())),
        )
    else:
        test, p_value = "paired bootstrap", _bootstrap(objective, labels, first, second, seed)
    return Comparison(objective, value, other, len(labels), p_value, test)


def tail(objective: Objective, first: Predictions, second: Predictions, seed: int = 0) -> float:
    """The two-sided p-value of the difference of two models' scores, by the normal distribution.

    Args:
        objective: What they are compared by.
        first: The first model's answers.
        second: The second model's, to the same images in the same order.
        seed: Of the resamples.

    Returns:
        0 to 1; 1 where a score is not finite, or where the answers do not hold what the objective needs.
    """
    score, other_score = (_scorer_of(objective, answers) for answers in (first, second))
    if score is None or other_score is None:
        return 1.0
    everything = np.arange(len(first.labels))
    difference = score(everything) - other_score(everything)
    resamples = _resamples(first.labels, RESAMPLES_OF_A_DEVIATION, seed)
    deviation = float(np.std([score(rows) - other_score(rows) for rows in resamples], ddof=1))
    if difference == 0 or not (math.isfinite(difference) and math.isfinite(deviation)):
        return 1.0
    return math.erfc(abs(difference) / deviation / math.sqrt(2)) if deviation else 0.0


def _bootstrap(
    objective: Objective, labels: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int
) -> float:
    score, other_score = (_scorer(objective, labels, answers) for answers in (first, second))
    at_least = at_most = 0
    for rows in _resamples(labels, RESAMPLES, seed):
        cost, other_cost = objective.cost(score(rows)), objective.cost(other_score(rows))
        at_least += cost >= other_cost
        at_most += cost <= other_cost
    # one more, so that no p-value is 0: the images themselves are a resample too
    return min(1.0, 2 * (min(at_least, at_most) + 1) / (RESAMPLES + 1))


def _resamples(labels: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of images drawn again within each class, (n,) int, so many times."""
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    of_class = labels[order]  # (n,): the class that each image of a resample is drawn from
    for _ in range(count):
        yield order[starts[of_class] + (rng.random(len(labels)) * sizes[of_class]).astype(int)]


def _scorer_of(objective: Objective, answers: Predictions) -> Callable[[np.ndarray], float] | None:
    """As `_scorer`, of answers that were read; None where they do not hold what the objective needs."""
    if objective.name == "loss":
        zeros = np.zeros_like(answers.labels)
        return lambda rows: objective.measure(zeros[rows], answers.label_probabilities[rows, None])
    if objective.name in intervals.AVERAGES:
        return _average(objective, answers.labels, answers.answers, len(answers.classes))
    probabilities = answers.probabilities
    if probabilities is None:
        return None
    return lambda rows: objective.measure(answers.labels[rows], probabilities[rows])


def _scorer(
    objective: Objective, labels: np.ndarray, probabilities: np.ndarray
) -> Callable[[np.ndarray], float]:
    """A function of rows, (k,) int, to the objective's value on these; without the cost of many classes."""
    if objective.name == "loss":
        only, zeros = probabilities[np.arange(len(labels)), labels][:, None], np.zeros_like(labels)
        return lambda rows: objective.measure(zeros[rows], only[rows])
    if objective.name not in intervals.AVERAGES:
        return lambda rows: objective.measure(labels[rows], probabilities[rows])
    return _average(objective, labels, metrics.predicted_classes(probabilities), probabilities.shape[1])


def _average(
    objective: Objective, labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> Callable[[np.ndarray], float]:
    right, number = predicted == labels, intervals.AVERAGES.index(objective.name)

    def average(rows: np.ndarray) -> float:
        hits, answered, support = (
            np.bincount(classes, minlength=num_classes)
            for classes in (labels[rows[right[rows]]], predicted[rows], labels[rows])
        )
        return float(intervals.averages(hits[:, None], answered[:, None], support)[number, 0])

    return average
