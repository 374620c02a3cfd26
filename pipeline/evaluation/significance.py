"""Paired tests of two classifiers on the same images.

The best of many cells is chosen by the very scores that are then compared: among equal ones, the luckiest
is far ahead of the unluckiest. So each of its comparisons counts as one of all pairs of cells, of which any
might have come to be looked at, and the level is shared out among these (`corrected`). Counting the winner's
own comparisons alone, by Holm's method too, would call one of 48 equal cells worse in every third sweep
(tests/test_significance.py has the figures); over all pairs, Holm's method would change the level by less
than a twentieth.
"""

import numpy as np


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test: the two-sided probability of so uneven a split, were both equally good.

    Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages
    (1947). Exact: of the images that one of the two has right and the other wrong, the share of either is
    binomial with 1/2. It keeps its level for any number of images, which the mid-p variant, of more power,
    does not promise (Fagerland, Lydersen and Laake, The McNemar test for binary matched-pairs data, 2013).

    Args:
        only_first: Images that the first has right and the second wrong.
        only_second: The other way round.

    Returns:
        0 to 1; 1 where they differ on no image.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    k = np.arange(1, fewer + 1)
    ratios = np.log((n - k + 1) / k)  # (fewer,): of each binomial coefficient to the one before it
    logarithms = np.append(0, np.cumsum(ratios)) - n * np.log(2)  # of the chances of 0, 1, …, fewer
    return min(1.0, 2 * float(np.exp(logarithms).sum()))


def corrected(p_value: float, cells: int) -> float:
    """A p-value as it counts where the first of the two is the best of `cells` (Bonferroni, all pairs).

    The chance that the winner is said to be better than any cell that is its equal is then at most the level,
    whichever cell won.

    Args:
        p_value: Of `mcnemar`.
        cells: How many the winner was chosen from, itself included.
    """
    return min(1.0, p_value * cells * (cells - 1) / 2)


def largest_p_value(right: int, other_right: int, images: int) -> float:
    """The largest p-value that two numbers of right answers allow, whichever images these were.

    The less two classifiers have in common, the less an edge of one says. If even that p-value is
    significant, their answers need not be looked at.

    Args:
        right: Images that the first has right.
        other_right: Those that the second has right.
        images: How many there are.
    """
    both = max(0, right + other_right - images)  # at least so many are right in both
    return mcnemar(right - both, other_right - both)
