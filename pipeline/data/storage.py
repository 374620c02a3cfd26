"""Prepared pictures on disk: what the files of a set are, how they are written and read back.

A set is a folder with `images.npy`, `labels.npy`, `index.csv` (name, label, split, digest), `rejected.csv`
(name, reason) and, written last, `metadata.json` with the sums of the others.
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.layout import Rejection
from pipeline.data.pictures import identity

FORMAT = 2  # raise it when the files or their meaning change
IMAGES = "images.npy"

_LABELS, _INDEX, _REJECTED, _METADATA = "labels.npy", "index.csv", "rejected.csv", "metadata.json"


class DamagedPrepared(ValueError):
    """A folder that is no whole set of prepared pictures. Its text says what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prepared pictures, in the order of their names.

    Attributes:
        path: Their folder.
        classes: The names of the classes, sorted.
        image_size: Side of the square pictures, px.
        digest: Changes when, and only when, a picture's pixels, its label, its split or the size changes.
        images: uint8 (n, image_size, image_size, 3), RGB, a read-only memory map.
        labels: int64 (n,), indices into `classes`.
        names: Length n; as the source calls them.
        splits: str (n,): `splits.TRAIN`, `VALIDATION` or `TEST`.
        picture_digests: `pixel_digest` of each, length n.
        rejected: The pictures that were left out, with reasons.
    """

    path: Path
    classes: tuple[str, ...]
    image_size: int
    digest: str
    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    splits: np.ndarray
    picture_digests: tuple[str, ...]
    rejected: tuple[Rejection, ...]

    def indices(self, split: str) -> np.ndarray:
        """The pictures of a split: int64 (k,), ascending."""
        return np.flatnonzero(self.splits == split)

    def counts(self, split: str) -> dict[str, int]:
        """The number of pictures of each class in a split."""
        counts = np.bincount(self.labels[self.indices(split)], minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    @cached_property
    def identical(self) -> tuple[tuple[int, ...], ...]:
        """Groups of two or more pictures with equal pixels in full size, as ascending indices."""
        groups = defaultdict(list)
        for index, digest in enumerate(self.picture_digests):
            groups[identity(digest)].append(index)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @cached_property
    def conflicts(self) -> tuple[tuple[int, ...], ...]:
        """Those groups of `identical` whose labels differ."""
        return tuple(group for group in self.identical if len(set(self.labels[list(group)])) > 1)


def open_prepared(path: Path, verify: bool = True) -> Prepared:
    """Opens a set.

    Args:
        path: Its folder.
        verify: Compare every file with its sum (0.1 s for 8,000 pictures of 64 px). False only for a set
            that this process has just written.

    Raises:
        DamagedPrepared: A file is missing, half-written, damaged or of another version.
    """
    try:
        metadata = json.loads((path / _METADATA).read_text(encoding="utf-8"))
        if metadata["format"] != FORMAT:
            raise DamagedPrepared(f"its format is {metadata['format']}, not {FORMAT}")
        for name in (IMAGES, _LABELS, _INDEX, _REJECTED):
            if verify and _sum(path / name) != metadata["files"][name]:
                raise DamagedPrepared(f"{name} is not what was written")
        names, labels, splits, digests = _read_columns(path / _INDEX)
        if data_digest(metadata["image_size"], labels, splits, digests) != metadata["digest"]:
            raise DamagedPrepared(f"{_METADATA} and {_INDEX} disagree")
        return Prepared(
            path=path,
            classes=tuple(sorted(set(labels))),
            image_size=metadata["image_size"],
            digest=metadata["digest"],
            images=np.load(path / IMAGES, mmap_mode="r"),
            labels=np.load(path / _LABELS),
            names=names,
            splits=np.array(splits),
            picture_digests=digests,
            rejected=tuple(map(Rejection, *_read_columns(path / _REJECTED))),
        )
    except FileNotFoundError as error:
        raise DamagedPrepared(f"{Path(error.filename).name} is missing") from error
    except (OSError, KeyError, TypeError, AttributeError, UnicodeError, json.JSONDecodeError) as error:
        raise DamagedPrepared(f"{type(error).__name__}: {error}") from error


def save(
    path: Path,
    names: Sequence[str],
    labels: Sequence[str],
    splits: Sequence[str],
    digests: Sequence[str],
    rejected: Sequence[Rejection],
    image_size: int,
    about: dict[str, Any],
) -> None:
    """Completes a set whose images are written: everything else, the metadata last.

    Args:
        path: The folder, with `IMAGES` in it.
        names: Of the pictures, length n.
        labels: The name of each one's class.
        splits: The split of each.
        digests: The pixel digest of each.
        rejected: The pictures that were left out.
        image_size: Side of the square, px.
        about: What else the metadata records: JSON values.
    """
    classes = sorted(set(labels))
    number = {name: index for index, name in enumerate(classes)}
    np.save(path / _LABELS, np.array([number[label] for label in labels], np.int64))
    rows = zip(names, labels, splits, digests, strict=True)
    _write_rows(path / _INDEX, [("name", "label", "split", "digest"), *rows])
    save_rejected(path / _REJECTED, rejected)
    metadata = {
        "format": FORMAT,
        "digest": data_digest(image_size, labels, splits, digests),
        "classes": classes,
        "image_size": image_size,
        "pictures": len(names),
        "rejected": len(rejected),
        **about,
        "files": {name: _sum(path / name) for name in (IMAGES, _LABELS, _INDEX, _REJECTED)},
    }
    (path / _METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def stamp(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Tells at once whether a set's files may have changed: name, inode, size and time of each.

    Raises:
        OSError: one is missing.
    """
    states = [(name, (path / name).stat()) for name in (IMAGES, _LABELS, _INDEX, _REJECTED, _METADATA)]
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


def save_rejected(path: Path, rejected: Iterable[Rejection]) -> None:
    """Writes a CSV of the pictures that were left out: name, reason."""
    _write_rows(path, [("name", "reason"), *((picture.name, picture.reason) for picture in rejected)])


def data_digest(image_size: int, labels: Sequence[str], splits: Sequence[str], digests: Sequence[str]) -> str:
    """Names a data set by its contents, whatever its files are called: 32 hexadecimal digits."""
    records = sorted(zip(digests, labels, splits, strict=True))
    return hashlib.sha256(repr((image_size, records)).encode()).hexdigest()[:32]


def _sum(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _read_columns(path: Path) -> list[tuple[str, ...]]:
    """The columns of a CSV without their headings."""
    with path.open(newline="", encoding="utf-8") as file:
        return [column[1:] for column in zip(*csv.reader(file), strict=True)]
