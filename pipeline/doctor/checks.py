"""The kinds of things that are found in images: each function takes what was seen, and tells of one."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    from pipeline.doctor.baseline import Answers  # which imports TensorFlow

# Of the labels that a first model agrees with: with fewer, most of its doubts are its own mistakes.
KNOWS = 0.9


def left_out(rejected: Sequence[Rejection], labels: dict[str, str]) -> list[Finding]:
    """Images that cannot be used, and why.

    Args:
        rejected: all of them.
        labels: of the source's images, by name; one without a label has none here.
    """
    if not rejected:
        return []
    kinds = Counter(image.reason.partition(":")[0] for image in rejected)
    return [
        Finding(
            "left_out",
            f"{counted(len(rejected), 'image')} cannot be used",
            len(rejected),
            to_do=True,
            meaning="They are left out of everything: "
            + ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
            + ".",
            advice="Mend or remove them; where there are too many, data.max_rejected stops the sweep.",
            rows=tuple(
                Row("left_out", image.name, labels.get(image.name, ""), detail=image.reason)
                for image in rejected
            ),
            has_images=False,
        )
    ]


def classes(prepared: Prepared) -> list[Finding]:
    """Classes that are much smaller than others, or have too few images to be measured by."""
    counts, scarce, found = class_balance.class_counts(prepared), class_balance.few(prepared), []
    if class_balance.unevenness(counts) >= class_balance.UNEVEN:
        text = class_balance.imbalance(counts)
        found.append(
            Finding(
                "imbalance",
                "The classes are uneven",
                1,
                to_do=True,
                meaning=f"{text[0].upper()}{text[1:]}. A network learns the frequent classes first, and "
                "accuracy hides what becomes of the rare ones.",
                advice="Set train.class_weight=balanced, or add images of the rare classes; compare by the "
                "mean F1 of the classes (sweep.metric=macro_f1).",
                rows=tuple(
                    Row("imbalance", "", name, detail=f"{count} images") for name, count in _fewest(counts)
                ),
                has_images=False,
            )
        )
    if scarce:
        found.append(
            Finding(
                "few_images",
                f"{counted(len(scarce), 'class', 'classes')} with under {class_balance.FEW} "
                "validation images",
                len(scarce),
                to_do=True,
                meaning=f"One image moves their scores by a tenth or more: {class_balance.some(scarce)}.",
                advice="Add images, or raise data.validation.",
                rows=tuple(
                    Row("few_images", "", name, split=VALIDATION, detail=f"{count} images")
                    for name, count in _fewest(scarce)
                ),
                has_images=False,
            )
        )
    return found


def duplicates(prepared: Prepared, pairs: Sequence[Pair], complete: bool) -> list[Finding]:
    """The same image under two labels, in two splits, or twice in one; and identical ones.

    Args:
        prepared: the images.
        pairs: near duplicates, one of each group of identical images standing for them all.
        complete: whether these are all.
    """
    identical = [
        _pair(prepared, "exact_duplicate", group[0], other, "the same pixels")
        for group in prepared.identical
        for other in group[1:]
    ]
    ranked = sorted(pairs, key=lambda pair: -pair.correlation)
    near = [_pair(prepared, "near_duplicate", pair.first, pair.second, _likeness(pair)) for pair in ranked]
    torn = [row for row in (*identical, *near) if row.label != row.other_label]
    leaks = [row for row in near if row.label == row.other_label and row.split != row.other_split]
    leaks.sort(key=lambda row: TRAIN not in (row.split, row.other_split))
    within = [row for row in near if row.label == row.other_label and row.split == row.other_split]
    same = [row for row in identical if row.label == row.other_label]
    at_least = "" if complete else "at least "
    found = [
        Finding(
            "same_image_two_labels",
            f"{counted(len(torn), 'pair')} of the same image with different labels",
            len(torn),
            to_do=True,
            meaning="One of the two labels is wrong, or the image shows both.",
            advice="Give both the right label, or remove both.",
            rows=tuple(torn),
        ),
        Finding(
            "leaks",
            f"{at_least}{counted(len(leaks), 'near duplicate')} across splits",
            len(leaks),
            to_do=True,
            meaning=f"{_leaking(leaks)} A network is rewarded there for remembering, and the score is higher "
            "than new images will give.",
            advice="Keep one of each pair, and remove the other. Identical copies need nothing: those always "
            "stay in one split.",
            rows=tuple(leaks),
        ),
        Finding(
            "near_duplicates",
            f"{at_least}{counted(len(within), 'near duplicate')} within a split",
            len(within),
            to_do=False,
            meaning="They count twice, and do no other harm; another seed may put them into two splits.",
            advice="Keep one of each pair where you remove those across splits.",
            rows=tuple(within),
        ),
        Finding(
            "exact_duplicates",
            f"{counted(len(same), 'identical copy', 'identical copies')}",
            len(same),
            to_do=False,
            meaning="The same pixels in full size, whatever the file. No copy of a training image is in "
            "another split, so nothing leaks; they only count more than once.",
            advice="Remove the copies, if you like.",
            rows=tuple(same),
        ),
    ]
    return [finding for finding in found if finding.count]


def suspected_labels(prepared: Prepared, answers: "Answers", suspects: np.ndarray) -> list[Finding]:
    """Labels that a first model doubts.

    Args:
        prepared: the images.
        answers: of the first model.
        suspects: (k,) int, the images whose labels it doubts, the most doubtful first.
    """
    if not len(suspects):
        return []
    agrees = float((answers.probabilities.argmax(axis=1) == prepared.labels).mean())
    knows = agrees >= KNOWS
    rows = []
    for row in suspects.tolist():
        likely = int(answers.probabilities[row].argmax())
        given = int(prepared.labels[row])
        rows.append(
            Row(
                "suspected_label",
                prepared.names[row],
                prepared.classes[given],
                other_label=prepared.classes[likely],
                split=str(prepared.splits[row]),
                detail=f"{prepared.classes[likely]} {answers.probabilities[row, likely]:.3f}, "
                f"{prepared.classes[given]} {answers.probabilities[row, given]:.3f}",
            )
        )
    return [
        Finding(
            "suspected_labels",
            f"{counted(len(rows), 'label')} that a {'first' if knows else 'weak first'} model doubts",
            len(rows),
            to_do=knows,
            meaning=f"The model is {answers.by}, asked about images it was not trained on. It agrees with "
            f"{agrees:.1%} of the labels: the nearer to all, the more its doubts are worth. Many of these "
            "labels are right, and the images hard.",
            advice="Look through them, the most doubtful first, and mend what is wrong."
            if knows
            else "It knows too little of these images to be trusted. A network that was trained before "
            "knows more: model.name=transfer with a model.backbone that is at hand.",
            rows=tuple(rows),
        )
    ]


def enlarged(prepared: Prepared, sizes: np.ndarray, smaller: np.ndarray) -> list[Finding]:
    """Images that have fewer pixels than the network takes.

    Args:
        prepared: the images.
        sizes: (n, 2) int, width and height of their files.
        smaller: (k,) int, those that have to be enlarged.
    """
    if not len(smaller):
        return []
    return [
        Finding(
            "enlarged",
            f"{counted(len(smaller), 'image')} smaller than {prepared.image_size} px",
            len(smaller),
            to_do=False,
            meaning=f"They are enlarged to {prepared.image_size} px, which adds nothing to be seen.",
            advice="Where these are most of your images, lower data.image_size.",
            rows=tuple(
                Row(
                    "enlarged",
                    prepared.names[row],
                    prepared.classes[prepared.labels[row]],
                    split=str(prepared.splits[row]),
                    detail=f"{sizes[row, 0]} x {sizes[row, 1]} px",
                )
                for row in smaller.tolist()
            ),
            has_images=False,
        )
    ]


def _fewest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Classes with their images, the smallest first."""
    return sorted(counts.items(), key=lambda item: item[1])


def _pair(prepared: Prepared, kind: str, one: int, other: int, detail: str) -> Row:
    return Row(
        kind,
        prepared.names[one],
        prepared.classes[prepared.labels[one]],
        prepared.names[other],
        prepared.classes[prepared.labels[other]],
        str(prepared.splits[one]),
        str(prepared.splits[other]),
        detail,
    )


def _likeness(pair: Pair) -> str:
    mirrored = ", mirrored" if pair.mirrored else ""
    return f"correlation {pair.correlation:.3f}, {pair.distance} of 64 bits differ{mirrored}"


def _leaking(leaks: Sequence[Row]) -> str:
    """How many images of each split have a near duplicate among the training images."""
    sides = [(row.image, row.split, row.other_split) for row in leaks]
    sides += [(row.other, row.other_split, row.split) for row in leaks]
    there = Counter(split for _, split, other in set(sides) if other == TRAIN)
    if not there:
        return "They are in the validation and the test split."
    told = " and ".join(f"{count:,} {split}" for split, count in sorted(there.items()))
    one = there.total() == 1
    return f"{told} {'image has' if one else 'images have'} a near duplicate among the training images."
