"""Intervals, against published values, against exact sums, and against pictures drawn one by one."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from pipeline import intervals


# R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998),
# table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_values(successes, n, low, high):
    assert intervals.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert intervals.wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_by_hand_for_one_picture():
    # with z² = 3.8415: (1 + z²/2) / (1 + z²) ± z (z²/4)^½ / (1 + z²), so 1 / (1 + z²) to 1
    assert intervals.wilson(1, 1) == (pytest.approx(1 / 4.841459, abs=1e-6), 1.0)
    assert intervals.wilson(0, 1) == (0.0, pytest.approx(3.841459 / 4.841459, abs=1e-6))


def test_wilson_holds_the_truth_19_times_in_20():
    """By the binomial distribution itself, which leaves nothing to chance: of 40 pictures, any true share."""
    n, covered = 40, []
    for truth in np.linspace(0.02, 0.98, 97):
        chances = [math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)]
        ends = [intervals.wilson(k, n) for k in range(n + 1)]
        covered.append(sum(p for p, (low, high) in zip(chances, ends, strict=True) if low <= truth <= high))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.89


def test_bootstrap_of_recall_by_exact_sums():
    """Weighted recall is the share of right answers, which resamples give by a binomial distribution."""
    n, right = 50, 40
    chances = [math.comb(n, k) * 0.8**k * 0.2 ** (n - k) for k in range(n + 1)]
    below = np.cumsum(chances)
    expected = np.searchsorted(below, (0.025, 0.975)) / n
    assert expected.tolist() == [0.68, 0.9]
    got = intervals.bootstrap(np.array([[right - 15, 4], [6, 15]]), seed=0)
    assert got["recall"] == pytest.approx(expected, abs=0.02)  # one picture


def test_bootstrap_is_that_of_pictures_drawn_one_by_one():
    """Against scikit-learn's sums of each resample; the third class is never predicted."""
    confusion = np.array([[70, 10, 0], [15, 60, 0], [9, 6, 0]])
    labels, predicted = (np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices(confusion.shape))
    rng = np.random.default_rng(1)
    scores = []
    for rows in rng.integers(0, len(labels), (500, len(labels))):
        averages = [
            precision_recall_fscore_support(
                labels[rows], predicted[rows], labels=range(3), average=average, zero_division=0
            )[:3]
            for average in ("weighted", "macro")
        ]
        scores.append(np.concatenate(averages))
    expected = np.percentile(scores, (2.5, 97.5), axis=0)
    got = intervals.bootstrap(confusion, seed=0)
    assert list(got) == ["precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1"]
    assert np.transpose(list(got.values())) == pytest.approx(expected, abs=0.015)
    assert got["precision"] != got["recall"] != got["f1"]


def test_bootstrap_is_drawn_by_its_seed():
    confusion = np.array([[30, 10], [5, 35]])
    assert intervals.bootstrap(confusion, 3) == intervals.bootstrap(confusion, 3)
    assert intervals.bootstrap(confusion, 3) != intervals.bootstrap(confusion, 4)


def test_bootstrap_without_a_mistake_has_no_width():
    assert intervals.bootstrap(np.diag([20, 0, 7]), 0)["f1"] == (1, 1)


def test_bootstrap_of_many_classes_takes_little():
    rng = np.random.default_rng(0)
    confusion = np.zeros((1000, 1000), int)
    np.add.at(confusion, (rng.integers(0, 1000, 5000), rng.integers(0, 1000, 5000)), 1)
    low, high = intervals.bootstrap(confusion, 0)["recall"]
    assert 0 <= low <= np.trace(confusion) / 5000 <= high < 0.01


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 29), (131, 160), (1460, 1600), (1600, 1600)])
def test_wilson_is_scipys(successes, n):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert intervals.wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_macro_averages_have_each_class_count_alike():
    """Recall by exact sums: 10 of a class of which 5 are right, 1000 of another of which all are."""
    got = intervals.bootstrap(np.array([[5, 5], [0, 1000]]), seed=0)
    low, high = got["macro_recall"]
    # nearly Binomial(10, 1/2) of ten: 2 to 8 right, so a mean of 0.6 to 0.9
    assert (low, high) == (pytest.approx(0.6, abs=0.03), pytest.approx(0.9, abs=0.03))
    assert got["recall"][0] > 0.99
