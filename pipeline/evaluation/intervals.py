"""How far a measured score may be off for the luck of the images it was measured on: 95 % intervals.

They speak of other images of the same kind, as many of each class, not of another training, whose luck comes
on top.
"""

import math

import numpy as np

QUANTILE = 1.959963984540054  # of the normal distribution, at 97.5 %
RESAMPLES = 1000
_ROUNDING = 1e-14  # relative
SEED = 0  # of the resamples that pages and cards show
# By their names in `metrics.Report`: weighted by the classes' images, and each class alike.
AVERAGES = ("precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 0 to 1; also where it is 0 or 1, and for few images.

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


def of(confusion: np.ndarray) -> dict[str, tuple[float, float]]:
    """95 % intervals of `accuracy`, by Wilson, and of each of `AVERAGES`, by bootstrap.

    Args:
        confusion: (num_classes, num_classes) int, rows true, columns predicted; at least one image.
    """
    return {"accuracy": wilson(int(np.trace(confusion)), int(confusion.sum()))} | bootstrap(confusion, SEED)


def bootstrap(confusion: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of the averages (`AVERAGES`) of `metrics.Report`, stratified by class.

    Images are resampled within each true class, as the split was drawn: every resample has each class as
    often. Of a class's n images n - 1 are drawn and count n / (n - 1) each, which makes the variance of a
    share right for small n too (it is (n - 1) / n of that where n are drawn): J. N. K. Rao, C. F. J. Wu and
    K. Yue, Some recent work on resampling methods for complex surveys (1992). Nothing can be learned about
    the spread of a class of one image by itself; it is drawn right as often as all images together are.

    Precision and F1 of few images are biased, the resamples' once more, and over many classes this adds up
    to more than their spread. So the percentiles are moved by the resamples' mean bias: they surround the
    estimate, and speak of its expectation over such sets of images. Where all images of each class are
    answered alike, no resample differs and the interval has no width.

    Args:
        confusion: (num_classes, num_classes) int, rows true, columns predicted; at least one image.
        seed: Of the resamples.

    Returns:
        By the name of each average, the interval's ends, 0 to 1; the average lies between them.
    """
    support = confusion.sum(axis=1)
    estimate = averages(np.diag(confusion)[:, None], confusion.sum(axis=0)[:, None], support)  # (6, 1)
    drawn = averages(*_resamples(confusion, np.random.default_rng(seed)), support)  # (6, RESAMPLES)
    ends = np.percentile(drawn, (2.5, 97.5), axis=1) - drawn.mean(axis=1)  # (2, 6)
    low = np.clip(estimate[:, 0] + np.minimum(ends[0], 0), 0, 1)
    high = np.clip(estimate[:, 0] + np.maximum(ends[1], 0), 0, 1)
    # one without width, too, holds a score that was summed in another order
    flat = (low == high) & (low > 0) & (low < 1)
    low, high = np.where(flat, low * (1 - _ROUNDING), low), np.where(flat, high * (1 + _ROUNDING), high)
    return dict(zip(AVERAGES, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _resamples(confusion: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right answers, and answers, of each class in each resample: both (num_classes, RESAMPLES) float."""
    hits, answered = np.zeros((2, len(confusion), RESAMPLES))
    true, predicted = np.nonzero(confusion)
    wrong = np.repeat(predicted, confusion[true, predicted] * (true != predicted))  # one per image
    accuracy = np.trace(confusion) / confusion.sum()
    every = np.arange(RESAMPLES)
    for number, row in enumerate(confusion):
        given, n = np.flatnonzero(row), int(row.sum())
        if n == 1 and len(wrong):
            others = rng.choice(wrong, RESAMPLES) if given[0] == number else given[0]
            answers = np.where(rng.random(RESAMPLES) < accuracy, number, others)
            answered[answers, every] += 1
            hits[number] = answers == number
        elif len(given) == 1:  # all are answered alike
            answered[given] += n
            hits[number] = row[number]
        elif n:
            counts = rng.multinomial(n - 1, row[given] / n, size=RESAMPLES).T * (n / (n - 1))
            answered[given] += counts
            hits[number] = counts[given == number].sum(axis=0)
    return hits, answered


def averages(hits: np.ndarray, answered: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Each of `AVERAGES`, (6, k), of (num_classes, k) right answers and answers."""
    actual = np.broadcast_to(support[:, None], hits.shape)
    each = _share(hits, answered), _share(hits, actual), _share(2 * hits, actual + answered)
    return np.stack([support @ score / support.sum() for score in each] + [s.mean(axis=0) for s in each])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where there is nothing to divide by."""
    share: np.ndarray = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    return share
