"""How far a measured score may be off for the luck of the pictures it was measured on: 95 % intervals.

They speak of other pictures of the same kind, not of another training, whose luck comes on top.
"""

import math

import numpy as np

QUANTILE = 1.959963984540054  # of the normal distribution, at 97.5 %
RESAMPLES = 1000
# By their names in `metrics.Report`: weighted by the classes' pictures, and each class alike.
AVERAGES = ("precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1")
_BLOCK = 100  # resamples drawn at once: bounds memory where there are many classes


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 0 to 1; also where it is 0 or 1, and for few pictures.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927); without
    correction for continuity.

    Args:
        successes: 0 to n; a mean of several counts need not be whole.
        n: At least 1.
    """
    share, square = successes / n, QUANTILE**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = QUANTILE / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # by arithmetic these ends are exact; rounding would leave 1e-17
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def bootstrap(confusion: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of the averages (`AVERAGES`) of `metrics.Report`.

    Pictures drawn with replacement are counts of the confusion matrix's cells drawn from a multinomial
    distribution: the same, without the pictures. B. Efron, Bootstrap methods: another look at the jackknife
    (1979). Where there is no mistake, or nothing else, no resample differs and the interval has no width.

    Args:
        confusion: (num_classes, num_classes) int, rows true, columns predicted; at least one picture.
        seed: Of the resamples.
    """
    rng, n, num_classes = np.random.default_rng(seed), int(confusion.sum()), len(confusion)
    true, predicted = np.nonzero(confusion)  # (cells,); no more of them than pictures
    right = true == predicted
    scores = []
    for _ in range(RESAMPLES // _BLOCK):
        counts = rng.multinomial(n, confusion[true, predicted] / n, size=_BLOCK)  # (block, cells)
        actual = _by_class(counts, true, num_classes)
        answered = _by_class(counts, predicted, num_classes)
        hits = _by_class(counts[:, right], true[right], num_classes)
        each = _share(hits, answered), _share(hits, actual), _share(2 * hits, actual + answered)
        weighted = [(actual * score).sum(axis=1) / n for score in each]
        scores.append(weighted + [score.mean(axis=1) for score in each])
    low, high = np.percentile(np.concatenate(scores, axis=1), (2.5, 97.5), axis=1)  # each (6,)
    return dict(zip(AVERAGES, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _by_class(counts: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Sums (block, cells) to (block, num_classes) by the class of each cell."""
    sums = np.zeros((len(counts), num_classes))
    if len(classes):
        order = np.argsort(classes, kind="stable")
        present, starts = np.unique(classes[order], return_index=True)
        sums[:, present] = np.add.reduceat(counts[:, order], starts, axis=1)
    return sums


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
