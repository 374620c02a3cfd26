"""What can be told of prepared images at once: classes that are rare, or small. Imports nothing heavy."""

from collections.abc import Mapping

from pipeline.dataset.prepare import Prepared
from pipeline.runtime import console
from pipeline.sources import split_names

UNEVEN = 2.0  # times as many images as the smallest class has: from here the largest is worth a word
FEW = 10  # validation images; with fewer, one image moves a class's recall by more than a tenth


def lines(prepared: Prepared) -> list[str]:
    """What `prepare` does not tell of its images, in at most three lines for the console."""
    counts = class_counts(prepared)
    told = []
    if unevenness(counts) >= UNEVEN:
        told.append(
            f"the classes are uneven: {imbalance(counts)}; train.class_weight=balanced evens them out"
        )
    if scarce := few(prepared):
        told.append(f"few validation images, so rough scores: {some(scarce)}")
    told.append("`mlflow run . -e doctor` looks closer at the images: near duplicates, doubtful labels")
    return told


def class_counts(prepared: Prepared) -> dict[str, int]:
    """The images of each class, over all splits."""
    counts = [
        prepared.counts(split) for split in (split_names.TRAIN, split_names.VALIDATION, split_names.TEST)
    ]
    return {name: sum(count[name] for count in counts) for name in prepared.classes}


def unevenness(counts: Mapping[str, int]) -> float:
    """How many times as many images as the smallest class the largest has."""
    return max(counts.values()) / max(1, min(counts.values()))


def imbalance(counts: Mapping[str, int]) -> str:
    """The largest and the smallest class, and what always answering the largest would score, in words."""
    largest, smallest = max(counts, key=counts.get), min(counts, key=counts.get)
    share = counts[largest] / sum(counts.values())
    return (
        f"{largest} has {unevenness(counts):.1f} times as many images as {smallest}; always answering "
        f"{largest} would score {share:.2f}"
    )


def few(prepared: Prepared) -> dict[str, int]:
    """The classes with fewer than `FEW` validation images, and how many each has."""
    counts = prepared.counts(split_names.VALIDATION)
    return {name: count for name, count in counts.items() if count < FEW}


def some(counts: Mapping[str, int]) -> str:
    """The first few classes with their counts, and how many more there are."""
    return console.few([f"{name} {count:,}" for name, count in counts.items()], 5)
