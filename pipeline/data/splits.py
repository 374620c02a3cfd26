"""Which pictures are used, and which of train, validation and test each belongs to. Pure functions."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def assign(
    identities: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    validation: float,
    test: float,
    seed: int,
) -> np.ndarray:
    """Splits pictures, class by class, by the rank of a seeded hash of their pixels.

    The outcome depends on the pictures, their labels and the seed alone, not on names, order or the size that
    they are prepared in, and a picture added later moves few others. Identical pictures stay together; where
    their labels differ, they count for the class of the lowest. Each class gets round(fraction * count)
    pictures in each split, as near as groups of identical pictures allow, and at least one.

    Args:
        identities: `pictures.identity` of each picture, length n: equal where all pixels in full size are.
            Images that are equal only once they are resized are others: grouped, they would make the split
            follow the size. `doctor` finds them as near duplicates.
        labels: int (n,), indices into `classes`.
        classes: Names of the classes.
        validation: Fraction, 0 < validation < 1.
        test: Fraction, 0 <= test < 1; 0: no test split.
        seed: Draws the splits.

    Returns:
        str (n,): TRAIN, VALIDATION or TEST.

    Raises:
        UserError: Nothing is left to train on, or a class has fewer different pictures than there are splits.
    """
    check_fractions(validation, test)
    groups = defaultdict(list)
    for index, identity in enumerate(identities):
        groups[identity].append(index)
    by_class = defaultdict(list)
    for identity in sorted(groups, key=lambda identity: _rank(seed, identity)):
        by_class[min(labels[index] for index in groups[identity])].append(identity)
    check_sizes({name: len(by_class[label]) for label, name in enumerate(classes)}, test)
    splits = np.full(len(identities), TRAIN, dtype=f"<U{len(VALIDATION)}")
    for ranked in by_class.values():
        sizes = [len(groups[identity]) for identity in ranked]
        for identity, split in zip(ranked, _cut(sizes, validation, test), strict=True):
            splits[groups[identity]] = split
    return splits


def draw(names: Sequence[str], labels: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """Draws at most `limit` pictures, evenly over the classes; where one has too few, the others make up.

    Args:
        names: Of the pictures, length n; their order does not matter.
        labels: The name of each one's class, length n.
        limit: At most so many; None: all.
        seed: Draws them.

    Returns:
        Indices into `names`, ascending.
    """
    if limit is None or limit >= len(names):
        return list(range(len(names)))
    by_class = defaultdict(list)
    for index in sorted(range(len(names)), key=lambda index: _rank(seed, names[index])):
        by_class[labels[index]].append(index)
    drawn, left = [], limit
    # The smallest class first: what it lacks is shared out among those that follow.
    for position, label in enumerate(sorted(by_class, key=lambda label: (len(by_class[label]), label))):
        share = left // (len(by_class) - position)
        drawn += by_class[label][:share]
        left -= min(share, len(by_class[label]))
    return sorted(drawn)


def check_fractions(validation: float, test: float) -> None:
    """Raises UserError where the fractions leave no training pictures."""
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise UserError(
            f"data.validation={validation} and data.test={test} cannot be: validation must be above 0, test "
            "at least 0, and their sum below 1, to leave pictures to train on"
        )


def check_sizes(counts: dict[str, int], test: float, limit: int | None = None) -> None:
    """Checks that every split can have a picture of every class.

    Args:
        counts: Different pictures of each class.
        test: The fraction; 0: no test split.
        limit: `data.limit`, where it brought the counts about.

    Raises:
        UserError: A class has too few.
    """
    wanted = [TRAIN, VALIDATION, TEST] if test else [TRAIN, VALIDATION]
    for name, count in sorted(counts.items()):
        if count < len(wanted):
            mend = f"raise data.limit={limit}" if limit is not None else "add pictures"
            drop = " or set data.test=0" if test and count == len(wanted) - 1 else ""
            pictures = "picture" if count == 1 else "different pictures"
            raise UserError(
                f"class {name!r} has {count} {pictures}, too few to split into {', '.join(wanted)}: it needs "
                f"at least {len(wanted)}; {mend}{drop}"
            )


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode()).digest()


def _cut(sizes: Sequence[int], validation: float, test: float) -> list[str]:
    """Gives each group of a class, in the order of rank, its split.

    Args:
        sizes: Pictures in each group; at least as many groups as there are splits.
        validation: Fraction.
        test: Fraction.
    """
    total = sum(sizes)
    room = {TEST: max(1, round(test * total)) if test else 0, VALIDATION: max(1, round(validation * total))}
    while sum(room.values()) >= total:
        room[max(room, key=room.get)] -= 1
    cut = [TRAIN] * len(sizes)
    for index, size in enumerate(sizes):
        fitting = [split for split in (TEST, VALIDATION) if size <= room[split]]
        if fitting:
            cut[index] = fitting[0]
            room[fitting[0]] -= size
    for split in (TEST, VALIDATION) if test else (VALIDATION,):
        _round_up(cut, sizes, split, room[split])
    _fill_empty(cut, sizes, [TRAIN, VALIDATION, TEST] if test else [TRAIN, VALIDATION])
    return cut


def _round_up(cut: list[str], sizes: Sequence[int], split: str, room: int) -> None:
    """Adds one group more than fits, where that ends nearer to the wanted size and training keeps one."""
    others = [index for index, given in enumerate(cut) if given == TRAIN]
    if room and len(others) > 1:
        smallest = min(others, key=lambda index: sizes[index])
        if sizes[smallest] - room < room:
            cut[smallest] = split


def _fill_empty(cut: list[str], sizes: Sequence[int], wanted: Sequence[str]) -> None:
    """Moves the smallest group that can be spared into each split that has none."""
    for split in wanted:
        held = Counter(cut)
        if not held[split]:
            spare = [index for index, given in enumerate(cut) if held[given] > 1]
            cut[min(spare, key=lambda index: sizes[index])] = split
