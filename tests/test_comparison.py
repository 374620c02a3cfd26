"""Two models on the same images: by hand, against another implementation, and at its level by simulation."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score

from pipeline.evaluation import comparison, intervals
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.predictions import Predictions


def answers(labels: np.ndarray, right: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Probabilities of two classes, `sure` of the right one where `right`, of the other where not."""
    predicted = np.where(right, labels, 1 - labels)
    return np.where(np.eye(2, dtype=bool)[predicted], sure, 1 - sure)


def test_accuracy_by_mcnemar():
    """10 images are right in the first model alone, 2 in the second: 2 * P(Binomial(12, 1/2) <= 2)."""
    labels = np.repeat([0, 1], 20)
    first, second = np.ones(40, bool), np.ones(40, bool)
    first[:2], second[2:12] = False, False
    found = comparison.compare(Objective("accuracy"), labels, answers(labels, first), answers(labels, second))
    assert (found.value, found.other, found.images) == (0.95, 0.75, 40)
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert found.better and found.significant and found.test == "McNemar"
    back = comparison.compare(Objective("accuracy"), labels, answers(labels, second), answers(labels, first))
    assert not back.better and back.p_value == found.p_value


@pytest.mark.parametrize("name", ["loss", "macro_f1", "precision"])
def test_bootstrap_tells_a_clear_difference_from_none(name):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [300, 40])
    good, bad = rng.random(340) < 0.9, rng.random(340) < 0.7
    clear = comparison.compare(Objective(name), labels, answers(labels, good), answers(labels, bad))
    assert clear.better and clear.p_value == 2 / (comparison.RESAMPLES + 1)
    assert clear.test == "paired bootstrap"
    same = comparison.compare(Objective(name), labels, answers(labels, good), answers(labels, good))
    assert not same.better and same.p_value == 1


@pytest.mark.parametrize("name", intervals.AVERAGES)
def test_short_way_to_an_average_is_the_long_one(name):
    rng = np.random.default_rng(2)
    labels, probabilities = rng.integers(0, 5, 60), rng.dirichlet(np.ones(5), 60)
    rows = rng.integers(0, 60, 60)
    expected = Objective(name).measure(labels[rows], probabilities[rows])
    assert comparison._scorer(Objective(name), labels, probabilities)(rows) == pytest.approx(expected)


def test_bootstrap_keeps_its_level():
    """Of 200 pairs of models that are equally good, about one in twenty differs significantly."""
    rng = np.random.default_rng(3)
    labels, found = np.repeat([0, 1], 60), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "RESAMPLES", 200)
        for _ in range(200):
            pair = [answers(labels, rng.random(120) < 0.8) for _ in range(2)]
            found += comparison.compare(Objective("loss"), labels, *pair).significant
    assert 2 <= found <= 20  # 10 expected; 0.3 % and 0.2 % of the binomial distribution lie outside


def test_model_without_finite_answers_loses():
    labels = np.repeat([0, 1], 30)
    fine, diverged = answers(labels, np.arange(60) % 3 > 0), np.full((60, 2), np.nan)
    assert comparison.compare(Objective("loss"), labels, fine, diverged).significant
    found = comparison.compare(Objective("loss"), labels, diverged, fine)
    assert not found.better and found.p_value < 0.01
    assert comparison.compare(Objective("loss"), labels, diverged, diverged).p_value == 1


def read(labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
    names = [str(number) for number in range(len(labels))]
    return Predictions.of(("cat", "dog"), names, labels, probabilities)


@pytest.mark.parametrize("name", ["loss", "macro_f1"])
def test_tail_keeps_its_level_and_reaches_small_values(name):
    """Of 200 pairs of equally good models, some 10 have a p-value below 0.05; 22 is four deviations off."""
    rng, labels = np.random.default_rng(3), np.repeat([0, 1], 100)
    objective, below = Objective(name), 0
    for seed in range(200):
        first, second = (read(labels, answers(labels, rng.random(200) < 0.8)) for _ in range(2))
        below += comparison.tail(objective, first, second, seed) < 0.05
    assert 1 <= below <= 22
    good, bad = (read(labels, answers(labels, rng.random(200) < share)) for share in (0.95, 0.6))
    assert comparison.tail(objective, good, bad) < 1e-6
    assert comparison.tail(objective, good, good) == 1


def test_tail_of_a_score_that_is_no_number_tells_nothing():
    labels = np.repeat([0, 1], 20)
    good, broken = read(labels, answers(labels, np.ones(40, bool))), read(labels, np.full((40, 2), np.nan))
    assert comparison.tail(Objective("loss"), good, broken) == 1


def test_tail_is_the_normal_distributions():
    random = np.random.default_rng(4)
    labels = np.arange(90) % 3
    first, second = (
        read(labels, random.dirichlet(np.ones(3), 90) + np.eye(3)[labels] * w) for w in (0.3, 0.5)
    )
    rows = comparison._resamples(labels, comparison.RESAMPLES_OF_A_DEVIATION, 5)

    def difference(drawn):
        scores = [f1_score(labels[drawn], model.answers[drawn], average="macro") for model in (first, second)]
        return scores[0] - scores[1]

    deviation = np.std([difference(drawn) for drawn in rows], ddof=1)
    expected = 2 * scipy.stats.norm.sf(abs(difference(np.arange(90))) / deviation)
    assert 1e-4 < expected < 0.9
    assert comparison.tail(Objective("macro_f1"), first, second, 5) == pytest.approx(expected)
