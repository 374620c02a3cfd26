"""Scores of your own, beside those that every report has, and which way each score is better.

A score is in every run with the others (`report/NAME`, `test/NAME`), and `sweep.metric=NAME` ranks by it.
"""

from collections.abc import Callable, Mapping

import numpy as np

# Takes labels (n,) int, predicted classes (n,) int and probabilities (n, num_classes) float, with n at least
# 1; gives a finite number, the higher the better unless its name is in `LOWER_IS_BETTER`. Probabilities of a
# diverged network may not be finite.
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]

OWN: Mapping[str, Score] = {}

# Names of scores that are minimised; `loss` is the cross-entropy that every report has.
LOWER_IS_BETTER = frozenset({"loss"})
