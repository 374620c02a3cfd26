"""Labels that a model doubts which has not seen them: folds to predict each image by, and what is suspect.

Confident learning (C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", 2021) with the ranking by self-confidence. cleanlab finds the same images; for these lines it would
bring a package along.
"""

import numpy as np

FOLDS = 3


def folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Deals images out to folds, class by class; those of one group, which are the same, go together.

    Otherwise a copy of a wrongly labelled image would teach the model its label.

    Args:
        labels: (n,) int64.
        groups: (n,) int64, of each image the lowest index in its group.
        seed: shuffles them.

    Returns:
        (n,) int64: of each image the fold in which it is predicted, from 0 below `FOLDS`.
    """
    heads = np.flatnonzero(groups == np.arange(len(groups)))
    generator = np.random.default_rng(seed)
    shuffled = heads[generator.permutation(len(heads))]
    numbers = np.zeros(len(labels), np.int64)
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]  # one class after the other
    numbers[dealt] = np.arange(len(dealt)) % FOLDS
    return numbers[groups]


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The images whose labels are likely wrong, the most doubtful first.

    Those that are more likely of another class, and are as sure to be of it as its own images are on
    average.

    Args:
        labels: (n,) int64, as given.
        probabilities: (n, num_classes) float, by a model that has not seen the image.

    Returns:
        (k,) int64, by the probability of the given label, equals in order.
    """
    likely = probabilities.argmax(axis=1)
    given = probabilities[np.arange(len(labels)), labels]
    # A class without images cannot be likely: no model of it was trained.
    count = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=given, minlength=probabilities.shape[1])
    usual = np.divide(sums, count, out=np.full(len(count), np.inf), where=count > 0)
    doubted = np.flatnonzero((likely != labels) & (probabilities.max(axis=1) >= usual[likely]))
    return doubted[np.argsort(given[doubted], kind="stable")]
