"""Label-error candidates by confident learning, and the folds for out-of-fold predictions.

C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021;
ranked by self-confidence. cleanlab finds the same images, but would be a dependency for a few lines.
"""

import numpy as np

FOLDS = 3


def folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Assign images to folds, stratified by class; the images of a group share a fold.

    Otherwise a duplicate of a mislabelled image would teach the model its wrong label.

    Args:
        labels: (n,) int64.
        groups: (n,) int64, for each image the lowest index in its group of duplicates.
        seed: Of the shuffling.

    Returns:
        (n,) int64, each image's fold, 0 to `FOLDS` - 1.
    """
    first = np.flatnonzero(groups == np.arange(len(groups)))  # of each group
    shuffled = first[np.random.default_rng(seed).permutation(len(first))]
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    numbers = np.zeros(len(labels), np.int64)
    numbers[by_class] = np.arange(len(by_class)) % FOLDS
    of_group: np.ndarray = numbers[groups]
    return of_group


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The images whose labels are likely wrong, the most doubtful first.

    An image is suspected if another class is more probable than its label, and at least as probable as that
    class is, on average, for its own images.

    Args:
        labels: (n,) int64, as given.
        probabilities: (n, num_classes) float, by a model that was not trained on the image.

    Returns:
        (k,) int64 rows, ascending by the probability of the label; ties keep their order.

    >>> import numpy as np
    >>> suspects(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [1]
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), labels]  # in the given label
    # A class without images has no threshold: no model was trained on it.
    count = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=confidence, minlength=probabilities.shape[1])
    thresholds = np.divide(sums, count, out=np.full(len(count), np.inf), where=count > 0)
    rows = np.flatnonzero((predicted != labels) & (probabilities.max(axis=1) >= thresholds[predicted]))
    return rows[np.argsort(confidence[rows], kind="stable")]
