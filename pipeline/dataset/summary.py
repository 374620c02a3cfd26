"""What the console tells about a prepared set: counts, splits, what was left out, what is doubtful."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.dataset import splits
from pipeline.dataset.storage import Prepared
from pipeline.runtime.console import counted, few
from pipeline.sources import split_names
from pipeline.sources.layout import Rejection
from pipeline.sources.source import Source

LEAKED = "identical to a validation or test image"  # the reason why a training image was left out

_SHOWN_CONFLICTS = 5  # groups listed on the console; `Prepared.conflicts` has them all


class Fractions(Protocol):
    """What is cut from training images where a source does not give it."""

    validation: float
    test: float


def of_given(source: Source, data: Fractions) -> list[str]:
    """What the console tells about the splits that a source has."""
    if not source.given:
        return []
    there = ", ".join(f"{split} {folder!r}" for split, folder in source.given.items())
    keys = {split_names.VALIDATION: data.validation, split_names.TEST: data.test}
    cut = [
        f"{split} is cut from the training images (data.{split}={keys[split]:g})"
        for split in splits.to_cut(source.given, data.test)
        if split not in source.given
    ]
    if not data.test and split_names.TEST not in source.given:
        cut.append("no test split (data.test=0)")
    return [f"splits as given: {'; '.join([there, *cut])}"]


def warnings(prepared: Prepared) -> list[str]:
    """What to warn of."""
    return [*_conflicts(prepared), *_absent(prepared)]


def _absent(prepared: Prepared) -> list[str]:
    """Splits without an image of some class."""
    counts = {split: prepared.counts(split) for split in (split_names.VALIDATION, split_names.TEST)}
    lacking = {
        split: [name for name, number in count.items() if not number]
        for split, count in counts.items()
        if any(count.values())
    }
    return [
        f"{split} has no image of {few([repr(name) for name in names])}: no score tells about it"
        for split, names in lacking.items()
        if names
    ]


def of_set(prepared: Prepared, listed: Path) -> list[str]:
    """What the console tells about a prepared set, whose rejected images are listed in a file."""
    counts = {
        split: prepared.counts(split)
        for split in (split_names.TRAIN, split_names.VALIDATION, split_names.TEST)
    }
    classes = [f"{name} {sum(count[name] for count in counts.values()):,}" for name in prepared.classes]
    sizes = [f"{sum(count.values()):,} {split}" for split, count in counts.items() if any(count.values())]
    lines = []
    if prepared.rejected:
        lines.append(left_out(prepared.rejected, listed))
    if leaked := [image for image in prepared.rejected if image.reason.startswith(LEAKED)]:
        pairs = [f"{image.name!r} ({image.reason.removeprefix(LEAKED + ': ')})" for image in leaked]
        lines.append(f"{counted(len(leaked), 'training image')} left out as {LEAKED}: {few(pairs)}")
    if prepared.identical:
        groups, images = counted(len(prepared.identical), "group"), sum(map(len, prepared.identical))
        lines.append(f"{images:,} images in {groups} of identical ones{_together(prepared)}")
    counted_all = f"{len(prepared.names):,} images in {len(classes)} classes ({few(classes, 10)})"
    return [*lines, f"{counted_all}: {', '.join(sizes)}"]


def _together(prepared: Prepared) -> str:
    """Whether each group of identical images is in one split: given ones may share theirs."""
    apart = sum(len(set(prepared.splits[list(group)])) > 1 for group in prepared.identical)
    if apart:
        return f", {apart:,} of them in validation and test at once, as given"
    return ", each kept in one split"


def _conflicts(prepared: Prepared) -> list[str]:
    """Identical images with different labels."""
    lines = []
    for group in prepared.conflicts[:_SHOWN_CONFLICTS]:
        images = [
            f"{prepared.names[index]!r} ({prepared.classes[prepared.labels[index]]})" for index in group
        ]
        lines.append(f"{len(group):,} identical images carry different labels: {few(images)}")
    if more := prepared.conflicts[_SHOWN_CONFLICTS:]:
        lines.append(f"and {counted(len(more), 'group')} more with different labels")
    return lines


def left_out(rejected: Sequence[Rejection], listed: Path) -> str:
    """How many images were left out for each kind of reason, and the file that lists them."""
    kinds = Counter(image.reason.partition(":")[0] for image in rejected)
    reasons = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return f"{counted(len(rejected), 'image')} left out, listed in {listed.absolute()}: {reasons}"
