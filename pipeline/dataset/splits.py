"""Which images are used, and which of train, validation and test each belongs to. Pure functions."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pipeline.runtime.errors import UserError
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

LEFT_OUT = ""  # in no split

_DTYPE = f"<U{len(VALIDATION)}"


def assign(
    identities: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    validation: float,
    test: float,
    seed: int,
) -> np.ndarray:
    """Splits images, class by class, by the rank of a seeded hash of their pixels.

    The outcome depends on the images, their labels and the seed alone, not on names, order or the size that
    they are prepared in, and an image added later moves few others. Identical images stay together; where
    their labels differ, they count for the class of the lowest. Each class gets round(fraction * count)
    images in each split, as near as groups of identical images allow, and at least one.

    Args:
        identities: `images.identity` of each image, length n: equal where all pixels in full size are.
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
        UserError: Nothing is left to train on, or a class has fewer different images than there are splits.
    """
    check_fractions(validation, test)
    return _assign(identities, labels, classes, _missing((), validation, test), seed)


def complete(
    identities: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    given: Sequence[str],
    validation: float,
    test: float,
    seed: int,
) -> np.ndarray:
    """Keeps given splits, and cuts those that are missing from the training images, as `assign` does.

    Args:
        identities: As in `assign`.
        labels: As in `assign`.
        classes: As in `assign`.
        given: The split of each image, TRAIN among them.
        validation: Fraction of the training images; of no account where a validation split is given.
        test: The same of the test split; 0: none is cut.
        seed: Draws what is cut.

    Returns:
        str (n,): TRAIN, VALIDATION, TEST; or LEFT_OUT: a training image that is identical to one of another
        given split.

    Raises:
        UserError: A class has fewer different training images than there are splits to make of them.
    """
    splits = np.array(given, dtype=_DTYPE)
    trained = splits == TRAIN
    held_out = {identities[row] for row in np.flatnonzero(~trained).tolist()}
    splits[trained & np.array([identity in held_out for identity in identities], bool)] = LEFT_OUT
    training = np.flatnonzero(splits == TRAIN)
    fractions = _missing(set(given), validation, test)
    own = [identities[row] for row in training.tolist()]
    splits[training] = _assign(own, labels[training], classes, fractions, seed)
    return splits


def to_cut(given: Collection[str], test: float) -> list[str]:
    """The splits that training images are divided into: TRAIN, and those that are not given.

    Args:
        given: The splits that a source gives; none where all are drawn.
        test: The fraction; 0: no test split is cut.
    """
    return [TRAIN, *_missing(given, 1.0, test)]


def _missing(given: Collection[str], validation: float, test: float) -> dict[str, float]:
    """The fractions of the splits that are not given."""
    wanted = {VALIDATION: validation} | ({TEST: test} if test else {})
    return {split: fraction for split, fraction in wanted.items() if split not in given}


def _assign(
    identities: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
) -> np.ndarray:
    """Cuts splits of these fractions from images; TRAIN is what remains."""
    groups, group_of = np.unique(np.array(identities, str), return_inverse=True)  # of each image
    sizes, class_of = np.bincount(group_of), np.full(len(groups), len(classes))
    np.minimum.at(class_of, group_of, labels)
    counts = np.bincount(class_of, minlength=len(classes))
    check_sizes(dict(zip(classes, counts.tolist(), strict=True)), [TRAIN, *fractions])
    ranks = [_rank(seed, identity) for identity in groups.tolist()]
    ranked = np.array(sorted(range(len(groups)), key=ranks.__getitem__))
    ranked = ranked[np.argsort(class_of[ranked], kind="stable")]  # class by class, each in the order of rank
    splits = np.full(len(groups), TRAIN, dtype=_DTYPE)
    for mine in np.split(ranked, np.cumsum(counts)[:-1]):
        splits[mine] = _cut(sizes[mine].tolist(), fractions)
    return splits[group_of]


def draw(names: Sequence[str], labels: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """Draws at most `limit` images, evenly over the classes; where one has too few, the others make up.

    Args:
        names: Of the images, length n; their order does not matter.
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
    """Raises UserError where the fractions leave no training images."""
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise UserError(
            f"data.validation={validation} and data.test={test} cannot be: validation must be above 0, test "
            "at least 0, and their sum below 1, to leave images to train on"
        )


def check_sizes(counts: Mapping[str, int], wanted: Sequence[str], limit: int | None = None) -> None:
    """Checks that every split can have an image of every class.

    Args:
        counts: Different images of each class, to be divided into splits.
        wanted: The splits, TRAIN among them.
        limit: `data.limit`, where it brought the counts about.

    Raises:
        UserError: A class has too few.
    """
    for name, count in sorted(counts.items()):
        if count < len(wanted):
            fix = f"raise data.limit={limit}" if limit is not None else "add images"
            drop = " or set data.test=0" if TEST in wanted and count == len(wanted) - 1 else ""
            images = "image" if count == 1 else "different images"
            raise UserError(
                f"class {name!r} has {count} {images}, too few to split into {', '.join(wanted)}: it needs "
                f"at least {len(wanted)}; {fix}{drop}"
            )


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode()).digest()


def _cut(sizes: Sequence[int], fractions: Mapping[str, float]) -> list[str]:
    """Gives each group of a class, in the order of rank, its split.

    Args:
        sizes: Images in each group; at least as many groups as there are splits.
        fractions: Of each split but TRAIN.
    """
    total = sum(sizes)
    room = {
        split: max(1, round(fractions[split] * total)) for split in (TEST, VALIDATION) if split in fractions
    }
    while sum(room.values()) >= total:
        room[max(room, key=room.__getitem__)] -= 1
    cut = [TRAIN] * len(sizes)
    for index, size in enumerate(sizes):
        fitting = [split for split in room if size <= room[split]]
        if fitting:
            cut[index] = fitting[0]
            room[fitting[0]] -= size
    for split in room:
        _round_up(cut, sizes, split, room[split])
    _fill_empty(cut, sizes, [TRAIN, *(split for split in (VALIDATION, TEST) if split in room)])
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
