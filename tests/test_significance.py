"""McNemar's test: by hand, against scipy, and how often it is wrong where equal classifiers are compared."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.evaluation import intervals, significance


def test_mcnemar_by_hand():
    # of 4 images one has 0: 2 (1/2)^4; of 4 one has 1: 2 (1 + 4) (1/2)^4
    assert significance.mcnemar(4, 0) == pytest.approx(1 / 8)
    assert significance.mcnemar(1, 3) == pytest.approx(5 / 8)
    assert significance.mcnemar(3, 3) == significance.mcnemar(0, 0) == 1


@pytest.mark.parametrize(
    ("one", "other"), [(40, 35), (0, 31), (12, 60), (500, 380), (900, 901), (20_000, 19_000)]
)
def test_mcnemar_is_scipys_binomial_test(one, other):
    expected = binomtest(one, one + other).pvalue
    assert significance.mcnemar(one, other) == pytest.approx(expected, rel=1e-9)
    assert significance.mcnemar(other, one) == significance.mcnemar(one, other)


def test_best_of_ten_is_one_of_45_pairs():
    assert significance.corrected(0.001, 10) == pytest.approx(0.045)
    assert significance.corrected(0.03, 10) == 1
    assert significance.corrected(0.03, 2) == 0.03


def test_largest_p_value_is_that_of_the_worst_images():
    """By going through all ways in which two of 20 images' answers can overlap."""
    n = 20
    for right, other in ((15, 9), (9, 15), (20, 3), (7, 7), (0, 5)):
        overlaps = range(max(0, right + other - n), min(right, other) + 1)
        p_values = [significance.mcnemar(right - both, other - both) for both in overlaps]
        assert significance.largest_p_value(right, other, n) == pytest.approx(max(p_values))


def drawn(rng: np.random.Generator, cells: int, images: int, spread: float) -> np.ndarray:
    """(cells, images) right answers of equally good classifiers; images may be harder or easier."""
    chances = np.clip(rng.normal(0.8, spread, images), 0.02, 0.98)
    return rng.random((cells, images)) < chances


def smallest_p_value_of_the_best(right: np.ndarray) -> float:
    best = right[right.sum(axis=1).argmax()]
    only_best, only_other = ((one & ~other).sum(axis=1) for one, other in ((best, right), (right, best)))
    return min(map(significance.mcnemar, only_best.tolist(), only_other.tolist()))


def test_false_alarms_of_two_are_at_most_their_level():
    rng, sweeps = np.random.default_rng(3), 4000
    for spread in (0.0, 0.3):
        rights = (drawn(rng, 2, 400, spread) for _ in range(sweeps))
        alarms = np.mean([smallest_p_value_of_the_best(right) <= 0.05 for right in rights])
        assert 0.03 < alarms <= 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_false_alarms_of_a_winner_are_at_most_their_level(spread):
    """48 equal cells, of which the best is chosen by these very images: the figures of the docstring."""
    rng, cells, sweeps = np.random.default_rng(4), 48, 1000
    smallest = [smallest_p_value_of_the_best(drawn(rng, cells, 1600, spread)) for _ in range(sweeps)]
    alarms = np.mean([significance.corrected(p_value, cells) <= 0.05 for p_value in smallest])
    assert 0.01 < alarms <= 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5
    # Holm's and Bonferroni's corrections for the winner's 47 comparisons reject something at the same p-value
    assert np.mean([p_value * (cells - 1) <= 0.05 for p_value in smallest]) > 0.25
    assert np.mean([p_value <= 0.05 for p_value in smallest]) > 0.95


def test_a_clear_winner_is_found():
    rng = np.random.default_rng(5)
    right = np.vstack([rng.random(1600) < 0.9, rng.random((7, 1600)) < 0.8])
    for other in right[1:]:
        counts = (right[0] & ~other).sum(), (~right[0] & other).sum()
        assert significance.corrected(significance.mcnemar(*map(int, counts)), 8) < 0.05


def test_intervals_of_simulated_accuracies_hold_the_truth_19_times_in_20():
    rng, repeats = np.random.default_rng(6), 20_000
    for truth, images in ((0.5, 160), (0.8, 160), (0.8, 1600), (0.97, 1600)):
        counts = rng.binomial(images, truth, repeats)
        ends = {count: intervals.wilson(count, images) for count in set(counts.tolist())}
        held = np.mean([ends[count][0] <= truth <= ends[count][1] for count in counts.tolist()])
        assert held == pytest.approx(0.95, abs=0.015)  # the counts are whole: no interval can hit it exactly
