"""What can be told of prepared pictures at once: classes that are rare, or small. Imports nothing heavy."""

from collections.abc import Mapping

from pipeline import console
from pipeline.data import splits
from pipeline.data.prepared import Prepared

UNEVEN = 2.0  # times as many pictures as the smallest class has: from here the largest is worth a word
FEW = 10  # validation pictures; with fewer, one picture moves a class's recall by more than a tenth


def lines(prepared: Prepared) -> list[str]:
    """What `prepare` does not tell of its pictures, in at most three lines for the console."""
    counts = class_counts(prepared)
    told = []
    if unevenness(counts) >= UNEVEN:
        told.append(
            f"the classes are uneven: {imbalance(counts)}; train.class_weight=balanced evens them out"
        )
    if scarce := few(prepared):
        told.append(f"few validation pictures, so rough scores: {some(scarce)}")
    told.append("`mlflow run . -e doctor` looks closer at the pictures: near duplicates, doubtful labels")
    return told


def class_counts(prepared: Prepared) -> dict[str, int]:
    """The pictures of each class, over all splits."""
    counts = [prepared.counts(split) for split in (splits.TRAIN, splits.VALIDATION, splits.TEST)]
    return {name: sum(count[name] for count in counts) for name in prepared.classes}


def unevenness(counts: Mapping[str, int]) -> float:
    """How many times as many pictures as the smallest class the largest has."""
    return max(counts.values()) / max(1, min(counts.values()))


def imbalance(counts: Mapping[str, int]) -> str:
    """The largest and the smallest class, and what always answering the largest would score, in words."""
    largest, smallest = max(counts, key=counts.get), min(counts, key=counts.get)
    share = counts[largest] / sum(counts.values())
    return (
        f"{largest} has {unevenness(counts):.1f} times as many pictures as {smallest}; always answering "
        f"{largest} would score {share:.2f}"
    )


def few(prepared: Prepared) -> dict[str, int]:
    """The classes with fewer than `FEW` validation pictures, and how many each has."""
    counts = prepared.counts(splits.VALIDATION)
    return {name: count for name, count in counts.items() if count < FEW}


def some(counts: Mapping[str, int]) -> str:
    """The first few classes with their counts, and how many more there are."""
    return console.few([f"{name} {count:,}" for name, count in counts.items()], 5)
