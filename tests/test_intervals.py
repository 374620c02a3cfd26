"""Intervals, against published values, against exact sums, and against images drawn one by one."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from pipeline.evaluation import intervals


# R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998),
# table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_values(successes, n, low, high):
    assert intervals.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert intervals.wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_by_hand_for_one_image():
    # with z² = 3.8415: (1 + z²/2) / (1 + z²) ± z (z²/4)^½ / (1 + z²), so 1 / (1 + z²) to 1
    assert intervals.wilson(1, 1) == (pytest.approx(1 / 4.841459, abs=1e-6), 1.0)
    assert intervals.wilson(0, 1) == (0.0, pytest.approx(3.841459 / 4.841459, abs=1e-6))


def test_wilson_holds_the_truth_19_times_in_20():
    """By the binomial distribution itself, which leaves nothing to chance: of 40 images, any true share."""
    n, covered = 40, []
    for truth in np.linspace(0.02, 0.98, 97):
        chances = [math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)]
        ends = [intervals.wilson(k, n) for k in range(n + 1)]
        covered.append(sum(p for p, (low, high) in zip(chances, ends, strict=True) if low <= truth <= high))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.89


def test_bootstrap_of_recall_by_exact_sums():
    """Weighted recall is the share of right answers: of each class, binomial, of one image less."""
    got = intervals.bootstrap(np.array([[25, 4], [6, 15]]), seed=0)
    shares, chances = [], []
    for one, other in np.ndindex(29, 21):  # right ones of the 28 and of the 20 that are drawn
        shares.append((one * 29 / 28 + other * 21 / 20) / 50)
        chances.append(
            math.comb(28, one) * (25 / 29) ** one * (4 / 29) ** (28 - one)
            * math.comb(20, other) * (15 / 21) ** other * (6 / 21) ** (20 - other)
        )  # fmt: skip
    assert np.dot(shares, chances) == pytest.approx(0.8)  # no bias
    order = np.argsort(shares)
    below = np.cumsum(np.array(chances)[order])
    expected = np.array(shares)[order][np.searchsorted(below, (0.025, 0.975))]
    assert got["recall"] == pytest.approx(expected, abs=0.02)  # one image


def test_bootstrap_is_that_of_images_drawn_one_by_one():
    """Against scikit-learn's sums of each resample; the third class is never predicted."""
    confusion = np.array([[70, 10, 0], [15, 60, 0], [9, 6, 0]])
    labels, predicted = (np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices(confusion.shape))
    rng = np.random.default_rng(1)
    members = [np.flatnonzero(labels == number) for number in range(3)]
    weights = np.repeat([80 / 79, 75 / 74, 15 / 14], [79, 74, 14])

    def averages(rows: np.ndarray, weights: np.ndarray | None = None) -> list[float]:
        keywords = {"labels": range(3), "sample_weight": weights, "zero_division": 0}
        return [
            value
            for average in ("weighted", "macro")
            for value in precision_recall_fscore_support(
                labels[rows], predicted[rows], average=average, **keywords
            )[:3]
        ]

    scores = [
        averages(np.concatenate([rng.choice(member, len(member) - 1) for member in members]), weights)
        for _ in range(500)
    ]
    ends = np.percentile(scores, (2.5, 97.5), axis=0)
    expected = averages(np.arange(len(labels))) + ends - np.mean(scores, axis=0)
    got = intervals.bootstrap(confusion, seed=0)
    assert list(got) == ["precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1"]
    assert np.transpose(list(got.values())) == pytest.approx(expected, abs=0.015)
    assert got["precision"] != got["recall"] != got["f1"]


def drawn(classes: int, images: int, rng: np.random.Generator) -> np.ndarray:
    """The confusion matrix of so many images of each class: 0.8 right, one in twenty of any class."""
    confusion = np.zeros((classes, classes), int)
    for number in range(classes):
        chances = np.full(images, 0.8)
        answers = np.where(rng.random(images) < chances, number, (number + 1) % classes)
        anything = rng.random(images) < 0.05
        answers[anything] = rng.integers(0, classes, anything.sum())
        np.add.at(confusion[number], answers, 1)
    return confusion


def estimates(confusion: np.ndarray) -> dict[str, float]:
    """The averages as a report has them, by scikit-learn."""
    true, answers = np.nonzero(confusion)
    labels, predicted = (np.repeat(side, confusion[true, answers]) for side in (true, answers))
    found = {}
    for prefix, average in (("", "weighted"), ("macro_", "macro")):
        values = precision_recall_fscore_support(
            labels, predicted, labels=range(len(confusion)), average=average, zero_division=0
        )
        found |= dict(zip([f"{prefix}precision", f"{prefix}recall", f"{prefix}f1"], values[:3], strict=True))
    return found


@pytest.mark.parametrize("images", [1, 2, 5, 40])
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_interval_contains_its_estimate(classes, images):
    confusion = drawn(classes, images, np.random.default_rng(classes + images))
    got = intervals.bootstrap(confusion, 0)
    for name, estimate in estimates(confusion).items():
        low, high = got[name]
        assert 0 <= low <= estimate + 1e-12, name
        assert estimate - 1e-12 <= high <= 1, name
        if classes >= 100:  # and no end is the estimate itself
            assert low < estimate < high, name


def test_macro_recall_of_a_thousand_classes_of_two_by_hand():
    """Of 400 classes one of two is right: variances of 1/4 / (2 - 1) each, of a mean over 1,000."""
    confusion = 2 * np.eye(1000, dtype=int)
    for number in range(400):
        confusion[number, [number, number + 1]] = 1
    half = intervals.QUANTILE * math.sqrt(400 / 4) / 1000
    low, high = intervals.bootstrap(confusion, 0)["macro_recall"]
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.002), pytest.approx(0.8 + half, abs=0.002))


def test_classes_of_one_image_vary_as_all_images_do():
    """Of 100 classes of one image 80 are right: binomial."""
    confusion = np.eye(100, dtype=int)
    confusion[:20] = np.roll(confusion[:20], 1, axis=1)
    half = intervals.QUANTILE * math.sqrt(0.8 * 0.2 / 100)
    assert intervals.bootstrap(confusion, 0)["macro_recall"] == pytest.approx(
        (0.8 - half, 0.8 + half), abs=0.02
    )


@pytest.mark.parametrize(("classes", "images"), [(2, 20), (30, 3)])
def test_bootstrap_holds_the_expected_score_19_times_in_20(classes, images):
    """Of 120 sets of images drawn alike, whatever the bias of the score."""
    rng, repeats = np.random.default_rng(classes), 120
    scores = [list(estimates(drawn(classes, images, rng)).values()) for _ in range(400)]
    ends = [list(intervals.bootstrap(drawn(classes, images, rng), seed).values()) for seed in range(repeats)]
    low, high = np.moveaxis(ends, 2, 0)  # both (repeats, 6)
    expected = np.mean(scores, axis=0)
    held = np.mean((low <= expected) & (expected <= high), axis=0)
    assert min(held) > 0.88, held
    # nor are they far too wide
    wide = np.mean(high - low, axis=0) / (2 * intervals.QUANTILE * np.std(scores, axis=0))
    assert 0.8 < min(wide) < max(wide) < 1.4, wide


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


def test_bootstrap_leaves_out_a_class_without_images_as_a_report_does():
    assert intervals.bootstrap(np.diag([20, 0, 7]), 0)["macro_f1"] == pytest.approx((2 / 3, 2 / 3))


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


def test_every_resample_answers_each_image_once():
    confusion = np.array([[0, 1, 0, 0], [0, 1, 0, 0], [2, 0, 3, 1], [0, 0, 0, 4]])  # classes of 1, 1, 6 and 4
    hits, answered = intervals._resamples(confusion, np.random.default_rng(0))
    np.testing.assert_allclose(answered.sum(axis=0), 12)
    assert (hits <= answered + 1e-9).all()
    assert (hits <= confusion.sum(axis=1)[:, None] + 1e-9).all()
