"""The objective: the score that ranks trainings, and which way it is better.

Best epoch, early stopping, pruner, study, ranking, finalists, verdict and the champion's gate all ask this
one object, so that a metric means the same in each of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.config import scores
from pipeline.evaluation import metrics


@dataclass(frozen=True)
class Objective:
    """A score by its name in `metrics.Report.scores`.

    A value that is not finite is worse than any that is, and than none.

    Attributes:
        name: `sweep.metric`.

    >>> Objective("loss").better_than(0.2, 0.3), Objective("accuracy").better_than(0.2, 0.3)
    (True, False)
    """

    name: str

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """`maximize` or `minimize`, as Optuna calls them."""
        return "minimize" if self.name in scores.LOWER_IS_BETTER else "maximize"

    @property
    def key(self) -> str:
        """The metric that runs have after each epoch: `val_NAME`."""
        return f"val_{self.name}"

    def measure(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """Its value for the predictions of one epoch, the same that a report of them has.

        Args:
            labels: (n,) int.
            probabilities: (n, num_classes) float.
        """
        return metrics.score(self.name, labels, probabilities)

    def of_report(self, values: Mapping[str, float]) -> float:
        """Its value among a report's scores (`metrics.Report.scores`, `Trial.scores`)."""
        return values[self.name]

    def cost(self, value: float) -> float:
        """The value as a number that is lower the better, to sort by; infinite where it is not finite."""
        if not math.isfinite(value):
            return math.inf
        return value if self.direction == "minimize" else -value

    def better_than(self, value: float, other: float | None) -> bool:
        """Whether a value is better than another one, or than none."""
        return math.isfinite(value) and (other is None or self.cost(value) < self.cost(other))

    def best(self, values: Sequence[float]) -> int:
        """The index of the best value, the first of equals.

        >>> Objective("loss").best([0.5, 0.3, 0.3])
        1
        """
        return min(range(len(values)), key=lambda index: self.cost(values[index]))
