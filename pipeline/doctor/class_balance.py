"""Class imbalance and small classes of a prepared dataset, for the console. Imports nothing heavy."""

from collections.abc import Mapping

from pipeline.dataset.prepare import Prepared
from pipeline.runtime.console import few
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

MAX_IMBALANCE = 2.0  # images of the largest class per image of the smallest; a higher ratio is reported
MIN_VALIDATION_IMAGES = 10  # per class; below it, one image moves the recall by more than a tenth
_LISTED = 5  # classes


def lines(prepared: Prepared) -> list[str]:
    """Warnings on imbalance and small classes, and the command for all checks: one to three lines."""
    counts, found = class_counts(prepared), []
    if imbalance(counts) >= MAX_IMBALANCE:
        found.append(f"imbalanced classes: {imbalance_text(counts)}; consider train.class_weight=balanced")
    if small := small_classes(prepared):
        found.append(f"few validation images, so imprecise scores: {listed(small)}")
    return [*found, "run `mlflow run . -e doctor` to find near duplicates and label errors"]


def class_counts(prepared: Prepared) -> dict[str, int]:
    """The number of images of each class, over all splits."""
    counts = [prepared.counts(split) for split in (TRAIN, VALIDATION, TEST)]
    return {name: sum(count[name] for count in counts) for name in prepared.classes}


def imbalance(counts: Mapping[str, int]) -> float:
    """The ratio of the largest class to the smallest, 1 or more; an empty class counts as 1 image.

    >>> imbalance({"cat": 90, "dog": 30})
    3.0
    """
    return max(counts.values()) / max(1, min(counts.values()))


def imbalance_text(counts: Mapping[str, int]) -> str:
    """The imbalance, and the accuracy of always predicting the largest class, in words.

    >>> imbalance_text({"cat": 90, "dog": 30})
    'cat has 3.0 times as many images as dog; always predicting cat scores an accuracy of 0.75'
    """
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    share = counts[largest] / sum(counts.values())
    return (
        f"{largest} has {imbalance(counts):.1f} times as many images as {smallest}; always predicting "
        f"{largest} scores an accuracy of {share:.2f}"
    )


def small_classes(prepared: Prepared) -> dict[str, int]:
    """The classes with fewer than `MIN_VALIDATION_IMAGES` validation images, with their numbers."""
    counts = prepared.counts(VALIDATION)
    return {name: count for name, count in counts.items() if count < MIN_VALIDATION_IMAGES}


def listed(counts: Mapping[str, int]) -> str:
    """The first five classes with their numbers, and the number of other classes.

    >>> listed({"cat": 3, "dog": 1})
    'cat 3, dog 1'
    """
    return few([f"{name} {count:,}" for name, count in counts.items()], _LISTED)
