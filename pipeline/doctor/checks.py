"""The checks: each function takes what was measured and returns findings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dataset.prepare import Prepared
from pipeline.doctor import class_balance
from pipeline.doctor.duplicates import Pair
from pipeline.doctor.findings import Finding, Row
from pipeline.runtime.console import counted
from pipeline.sources.layout import Rejection
from pipeline.sources.split_names import TRAIN, VALIDATION

if TYPE_CHECKING:
    from pipeline.doctor.baseline import BaselinePredictions  # which imports TensorFlow

# Accuracy of the baseline model; below it, most label-error candidates are its own errors.
MIN_AGREEMENT = 0.9


def left_out(rejected: Sequence[Rejection], labels: Mapping[str, str]) -> list[Finding]:
    """Images that cannot be used, and why.

    Args:
        rejected: All of them.
        labels: Of the source's images, by name; images without a label are missing.
    """
    if not rejected:
        return []
    kinds = Counter(image.reason.partition(":")[0] for image in rejected)
    reasons = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return [
        Finding(
            "left_out",
            f"{counted(len(rejected), 'image')} cannot be used",
            len(rejected),
            is_warning=True,
            meaning=f"They are in no split: {reasons}.",
            advice="Fix or remove them. The sweep fails if their share exceeds data.max_rejected.",
            rows=tuple(
                Row("left_out", image.name, labels.get(image.name, ""), detail=image.reason)
                for image in rejected
            ),
            has_images=False,
        )
    ]


def classes(prepared: Prepared) -> list[Finding]:
    """Imbalanced classes, and classes with few validation images."""
    counts, small, found = class_balance.class_counts(prepared), class_balance.small_classes(prepared), []
    if class_balance.imbalance(counts) >= class_balance.MAX_IMBALANCE:
        text = class_balance.imbalance_text(counts)
        found.append(
            Finding(
                "imbalance",
                "Imbalanced classes",
                1,
                is_warning=True,
                meaning=f"{text[0].upper()}{text[1:]}. A network learns the frequent classes first, and "
                "accuracy hides the errors on rare classes.",
                advice="Set train.class_weight=balanced, or add images of the rare classes; rank by the "
                "mean F1 of the classes (sweep.metric=macro_f1).",
                rows=_class_rows("imbalance", counts),
                has_images=False,
            )
        )
    if small:
        found.append(
            Finding(
                "few_images",
                f"{counted(len(small), 'class', 'classes')} with fewer than "
                f"{class_balance.MIN_VALIDATION_IMAGES} validation images",
                len(small),
                is_warning=True,
                meaning=f"One image changes their scores by a tenth or more: {class_balance.listed(small)}.",
                advice="Add images, or raise data.validation.",
                rows=_class_rows("few_images", small, VALIDATION),
                has_images=False,
            )
        )
    return found


def duplicates(prepared: Prepared, pairs: Sequence[Pair], complete: bool) -> list[Finding]:
    """Duplicates with different labels, across splits, and within a split; and identical copies.

    Args:
        prepared: The dataset.
        pairs: Near duplicates; the first image represents each group of identical images.
        complete: Whether `pairs` has all of them.
    """
    identical = [
        _pair(prepared, "exact_duplicate", group[0], other, "the same pixels")
        for group in prepared.identical
        for other in group[1:]
    ]
    ranked = sorted(pairs, key=lambda pair: -pair.correlation)
    near = [_pair(prepared, "near_duplicate", pair.first, pair.second, _similarity(pair)) for pair in ranked]
    same_label = [row for row in near if row.label == row.other_label]
    leaks = [row for row in same_label if row.split != row.other_split]
    leaks.sort(key=lambda row: TRAIN not in (row.split, row.other_split))
    at_least = "" if complete else "at least "
    found = [
        conflicting_labels([row for row in (*identical, *near) if row.label != row.other_label]),
        _leaks(leaks, at_least),
        _within_split([row for row in same_label if row.split == row.other_split], at_least),
        _identical([row for row in identical if row.label == row.other_label]),
    ]
    return [finding for finding in found if finding.count]


def conflicting_labels(rows: Sequence[Row]) -> Finding:
    """Pairs of the same image with different labels."""
    return Finding(
        "same_image_two_labels",
        f"{counted(len(rows), 'pair')} of the same image with different labels",
        len(rows),
        is_warning=True,
        meaning="One of the two labels is wrong, or the image shows both classes.",
        advice="Correct the label, or remove both images.",
        rows=tuple(rows),
    )


def _leaks(rows: Sequence[Row], at_least: str) -> Finding:
    return Finding(
        "leaks",
        f"{at_least}{counted(len(rows), 'near duplicate')} across splits",
        len(rows),
        is_warning=True,
        meaning=f"{_leak_counts(rows)} The model may have memorised them, so the score is higher than on new "
        "images.",
        advice="Remove one image of each pair. Identical copies are always in one split and need no action.",
        rows=tuple(rows),
    )


def _within_split(rows: Sequence[Row], at_least: str) -> Finding:
    return Finding(
        "near_duplicates",
        f"{at_least}{counted(len(rows), 'near duplicate')} within a split",
        len(rows),
        is_warning=False,
        meaning="Each counts twice. With another seed, they may fall into different splits.",
        advice="Remove one image of each pair when you remove those across splits.",
        rows=tuple(rows),
    )


def _identical(rows: Sequence[Row]) -> Finding:
    return Finding(
        "exact_duplicates",
        f"{counted(len(rows), 'identical copy', 'identical copies')}",
        len(rows),
        is_warning=False,
        meaning="The pixels are the same at full size; file names and formats may differ. Copies of an image "
        "are always in one split, so none leaks from training to validation or test. Each counts more than "
        "once.",
        advice="Removing the copies is optional.",
        rows=tuple(rows),
    )


def suspected_labels(
    prepared: Prepared, baseline: "BaselinePredictions", suspects: np.ndarray
) -> list[Finding]:
    """Label-error candidates: labels that the baseline model contradicts.

    Args:
        prepared: n images.
        baseline: Predictions of the n images.
        suspects: (k,) int64 rows, the most doubtful first.
    """
    if not len(suspects):
        return []
    agreement = float((baseline.probabilities.argmax(axis=1) == prepared.labels).mean())
    is_reliable = agreement >= MIN_AGREEMENT
    rows = []
    for row in suspects.tolist():
        predicted = int(baseline.probabilities[row].argmax())
        label = int(prepared.labels[row])
        rows.append(
            Row(
                "suspected_label",
                prepared.names[row],
                prepared.classes[label],
                other_label=prepared.classes[predicted],
                split=str(prepared.splits[row]),
                detail=f"{prepared.classes[predicted]} {baseline.probabilities[row, predicted]:.3f}, "
                f"{prepared.classes[label]} {baseline.probabilities[row, label]:.3f}",
            )
        )
    model = "baseline model" if is_reliable else "weak baseline model"
    return [
        Finding(
            "suspected_labels",
            f"{counted(len(rows), 'label')} contradicted by a {model}",
            len(rows),
            is_warning=is_reliable,
            meaning=f"The model is {baseline.model}. It predicts images it was not trained on, and agrees "
            f"with {agreement:.1%} of the labels. Candidates are only as good as the model: many of these "
            "labels are right, and the images difficult.",
            advice="Review them, the most doubtful first, and fix the wrong labels."
            if is_reliable
            else "The model is too weak to rely on. Use a pretrained network: model.name=transfer, with a "
            "local file as model.backbone.",
            rows=tuple(rows),
        )
    ]


def upsampled(prepared: Prepared, sizes: np.ndarray, rows: np.ndarray) -> list[Finding]:
    """Images smaller than the network's input.

    Args:
        prepared: The dataset.
        sizes: (n, 2) int, width and height of the files in px.
        rows: (k,) int, the images that are upsampled.
    """
    if not len(rows):
        return []
    return [
        Finding(
            "upsampled",
            f"{counted(len(rows), 'image')} smaller than {prepared.image_size} px",
            len(rows),
            is_warning=False,
            meaning=f"They are upsampled to {prepared.image_size} px, which adds no information.",
            advice="If most of your images are listed, lower data.image_size.",
            rows=tuple(
                Row(
                    "upsampled",
                    prepared.names[row],
                    prepared.classes[prepared.labels[row]],
                    split=str(prepared.splits[row]),
                    detail=f"{sizes[row, 0]} x {sizes[row, 1]} px",
                )
                for row in rows.tolist()
            ),
            has_images=False,
        )
    ]


def _class_rows(kind: str, counts: Mapping[str, int], split: str = "") -> tuple[Row, ...]:
    """A row per class, the smallest first."""
    ranked = sorted(counts.items(), key=lambda item: item[1])
    return tuple(Row(kind, "", name, split=split, detail=f"{count} images") for name, count in ranked)


def _pair(prepared: Prepared, kind: str, first: int, second: int, detail: str) -> Row:
    return Row(
        kind,
        prepared.names[first],
        prepared.classes[prepared.labels[first]],
        prepared.names[second],
        prepared.classes[prepared.labels[second]],
        str(prepared.splits[first]),
        str(prepared.splits[second]),
        detail,
    )


def _similarity(pair: Pair) -> str:
    mirrored = ", mirrored" if pair.mirrored else ""
    return f"correlation {pair.correlation:.3f}, {pair.distance} of 64 bits differ{mirrored}"


def _leak_counts(leaks: Iterable[Row]) -> str:
    """The number of images of each split with a near duplicate in the training split, as a sentence."""
    sides = {(row.image, row.split, row.other_split) for row in leaks}
    sides |= {(row.other, row.other_split, row.split) for row in leaks}
    counts = Counter(split for _, split, other in sides if other == TRAIN)
    if not counts:
        return "They are in the validation and the test split."
    images = " and ".join(f"{count:,} {split}" for split, count in sorted(counts.items()))
    verb = "image has" if counts.total() == 1 else "images have"
    return f"{images} {verb} a near duplicate in the training split."
