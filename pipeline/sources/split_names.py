"""Folders that are named like splits: train/, val/, test/ in all the spellings that data sets use."""

import posixpath
import re
from collections.abc import Collection

from pipeline.runtime.console import few
from pipeline.runtime.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"

UNLABELLED = "unlabelled"  # what data sets call seg_pred or prediction: images to predict

_WORDS = {
    TRAIN: "train|training",
    VALIDATION: "val|valid|validation|dev",
    TEST: "test|testing|eval|evaluation|holdout",
    UNLABELLED: "pred|prediction|predictions",
}
_NAME = re.compile(  # train, Training, train_set, seg_train, train2017
    rf"(?:seg[ _-]?)?(?:{'|'.join(f'(?P<{split}>{words})' for split, words in _WORDS.items())})"
    r"(?:[ _-]?(?:set|split|data))?\d*",
    re.IGNORECASE,
)


def split_of(folder: str) -> str | None:
    """The split that a folder is named after, or UNLABELLED; None for any other folder.

    >>> split_of("hymenoptera/Training_Set"), split_of("cat")
    ('train', None)
    """
    found = _NAME.fullmatch(posixpath.basename(folder))
    return found.lastgroup if found else None


def by_split(where: str, folders: Collection[str]) -> dict[str, str]:
    """The folder of each split, in the order TRAIN, VALIDATION, TEST.

    Args:
        where: What holds the folders, for messages.
        folders: All named after splits.

    Raises:
        UserError: Two are named after one split.
    """
    given: dict[str, str] = {}
    for folder in sorted(folders):
        split = split_of(folder) or ""
        if split in given:
            raise UserError(
                f"{where} has two folders of {split} images, {given[split]!r} and {folder!r}: rename or "
                "remove one"
            )
        given[split] = folder
    return {split: given[split] for split in _WORDS if split in given and split != UNLABELLED}


def check_training(where: str, given: dict[str, str]) -> None:
    """Raises UserError where none of the given splits is the one to train on."""
    if TRAIN not in given:
        raise UserError(
            f"{where} has given splits ({', '.join(map(repr, given.values()))}), and none to train on: name "
            "that folder `train`, or set data.splits=random, which draws the splits from all images"
        )


def check_classes(where: str, split: str, classes: Collection[str], trained: Collection[str]) -> None:
    """Raises UserError where a split has images of classes that the training images lack."""
    if strange := sorted(set(classes) - set(trained)):
        raise UserError(
            f"{where} has {split} images of {few(map(repr, strange), 3)}, of which there are no "
            f"training images: those are of {few(map(repr, sorted(set(trained))), 10)}; name the "
            "folders alike, or set data.splits=random, which draws the splits from all images"
        )
