"""Prepared images on disk: what the files of a set are, how they are written and read back.

A set is a folder with arrays, each with a row for each image: `images.npy`, `labels.npy`, `splits.npy`,
`digests.npy`, and `names.npy` with `name_ends.npy`; for people `index.csv` (name, label, split, digest) and
`rejected.csv` (name, reason); then `metadata.json` with the sums of the others; and last `stamps.json`, the
sizes and times of all of them when they were last known to be what was written. While these hold, a set is
opened without reading it: in milliseconds, however large it is.
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.sources.images import HALF_A_DIGEST
from pipeline.sources.layout import Rejection
from pipeline.sources.names import Names, packed

FORMAT = 3  # raise it when the files or their meaning change
IMAGES = "images.npy"

_LABELS, _SPLITS, _DIGESTS = "labels.npy", "splits.npy", "digests.npy"
_NAMES, _NAME_ENDS = "names.npy", "name_ends.npy"
_INDEX, _REJECTED, _METADATA, _STAMPS = "index.csv", "rejected.csv", "metadata.json", "stamps.json"
_SUMMED = (IMAGES, _LABELS, _SPLITS, _DIGESTS, _NAMES, _NAME_ENDS, _INDEX, _REJECTED)


class DamagedPrepared(ValueError):
    """A folder that is no whole set of prepared images. Its text says what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prepared images, in the order of their names.

    Attributes:
        path: Their folder.
        classes: The names of the classes, sorted.
        image_size: Side of the square images, px.
        digest: Changes when, and only when, an image's pixels, its label, its split or the size changes.
        images: uint8 (n, image_size, image_size, 3), RGB, a read-only memory map.
        labels: int64 (n,), indices into `classes`.
        names: Length n; as the source calls them.
        splits: str (n,): `split_names.TRAIN`, `VALIDATION` or `TEST`.
        image_digests: uint64 (n, 2): the halves of each one's `pixel_digest`. The first is its identity.
        rejected: The images that were left out, with reasons.
    """

    path: Path
    classes: tuple[str, ...]
    image_size: int
    digest: str
    images: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    splits: np.ndarray
    image_digests: np.ndarray
    rejected: tuple[Rejection, ...]

    def indices(self, split: str) -> np.ndarray:
        """The images of a split: int64 (k,), ascending."""
        return np.flatnonzero(self.splits == split)

    def counts(self, split: str) -> dict[str, int]:
        """The number of images of each class in a split."""
        counts = np.bincount(self.labels[self.indices(split)], minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    @cached_property
    def identical(self) -> tuple[tuple[int, ...], ...]:
        """Groups of two or more images with equal pixels in full size, as ascending indices."""
        identities = np.asarray(self.image_digests)[:, 0]
        order = np.argsort(identities, kind="stable")
        starts = np.flatnonzero(np.diff(identities[order], prepend=identities[order[:1]] + 1))
        ends = np.append(starts[1:], len(order))
        several = ends - starts > 1
        groups = [
            tuple(order[start:end].tolist())
            for start, end in zip(starts[several], ends[several], strict=True)
        ]
        return tuple(sorted(groups))

    @cached_property
    def conflicts(self) -> tuple[tuple[int, ...], ...]:
        """Those groups of `identical` whose labels differ."""
        return tuple(group for group in self.identical if len(set(self.labels[list(group)])) > 1)


def open_prepared(path: Path, verify: bool = False) -> Prepared:
    """Opens a set.

    Args:
        path: Its folder.
        verify: Compare every file with its sum. That is done anyway where sizes or times are not those that
            were noted: for a set that was damaged, edited, or copied from elsewhere, which is then noted.

    Raises:
        DamagedPrepared: A file is missing, half-written, damaged or of another version.
    """
    try:
        metadata = json.loads((path / _METADATA).read_text(encoding="utf-8"))
        if metadata["format"] != FORMAT:
            raise DamagedPrepared(f"its format is {metadata['format']}, not {FORMAT}")
        if verify or not _is_noted(path):
            _verify(path, metadata)
            note(path)
        return Prepared(
            path=path,
            classes=tuple(metadata["classes"]),
            image_size=metadata["image_size"],
            digest=metadata["digest"],
            images=_mapped(path / IMAGES),
            labels=np.load(path / _LABELS),
            names=Names(_mapped(path / _NAMES), _mapped(path / _NAME_ENDS)),
            splits=_mapped(path / _SPLITS),
            image_digests=_mapped(path / _DIGESTS),
            rejected=tuple(map(Rejection, *_read_columns(path / _REJECTED))),
        )
    except FileNotFoundError as error:
        raise DamagedPrepared(f"{Path(error.filename).name} is missing") from error
    except DamagedPrepared:
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedPrepared(f"{type(error).__name__}: {error}") from error


def digest_of(path: Path) -> str | None:
    """The digest of the set in a folder, by its metadata alone; None if there is no set of this version."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        metadata = json.loads((path / _METADATA).read_text(encoding="utf-8"))
        return metadata["digest"] if metadata["format"] == FORMAT else None
    return None


def save(
    path: Path,
    names: Sequence[str],
    labels: Sequence[str],
    splits: np.ndarray,
    digests: Sequence[str],
    rejected: Sequence[Rejection],
    image_size: int,
    about: dict[str, Any],
) -> None:
    """Completes a set whose images are written: everything else, the metadata last.

    Args:
        path: The folder, with `IMAGES` in it.
        names: Of the images, length n.
        labels: The name of each one's class.
        splits: str (n,), the split of each.
        digests: The pixel digest of each.
        rejected: The images that were left out.
        image_size: Side of the square, px.
        about: What else the metadata records: JSON values.
    """
    classes = sorted(set(labels))
    number = {name: index for index, name in enumerate(classes)}
    numbers = np.array([number[label] for label in labels], np.int64)
    np.save(path / _LABELS, numbers)
    halves = np.array([(int(one[:HALF_A_DIGEST], 16), int(one[HALF_A_DIGEST:], 16)) for one in digests], "u8")
    text, ends = packed(names)
    arrays: dict[str, np.ndarray] = {_SPLITS: splits, _DIGESTS: halves, _NAMES: text, _NAME_ENDS: ends}
    for name, array in arrays.items():
        np.save(path / name, array)
    rows = zip(names, labels, splits.tolist(), digests, strict=True)
    _write_rows(path / _INDEX, [("name", "label", "split", "digest"), *rows])
    save_rejected(path / _REJECTED, rejected)
    metadata = {
        "format": FORMAT,
        "digest": data_digest(image_size, classes, numbers, splits, halves),
        "classes": classes,
        "image_size": image_size,
        "images": len(names),
        "rejected": len(rejected),
        **about,
        "files": {name: _sum(path / name) for name in _SUMMED},
    }
    (path / _METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    (path / _STAMPS).write_text(json.dumps(_stamps(path)), encoding="utf-8")


def note(path: Path) -> None:
    """Notes that the files are what was written; of no account where the folder cannot be written to."""
    partial = path / f"{_STAMPS}.{os.getpid()}"
    with suppress(OSError):
        partial.write_text(json.dumps(_stamps(path)), encoding="utf-8")
        partial.replace(path / _STAMPS)


def stamp(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Tells at once whether a set's files may have changed: name, inode, size and time of each.

    Raises:
        OSError: one is missing.
    """
    states = [(name, (path / name).stat()) for name in (*_SUMMED, _METADATA)]
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


def save_rejected(path: Path, rejected: Iterable[Rejection]) -> None:
    """Writes a CSV of the images that were left out: name, reason."""
    _write_rows(path, [("name", "reason"), *((image.name, image.reason) for image in rejected)])


def data_digest(
    image_size: int, classes: Sequence[str], labels: np.ndarray, splits: np.ndarray, digests: np.ndarray
) -> str:
    """Names a data set by its contents, whatever its files are called: 32 hexadecimal digits.

    Args:
        image_size: Side of the square, px.
        classes: Sorted names.
        labels: int64 (n,), indices into `classes`.
        splits: str (n,).
        digests: uint64 (n, 2).
    """
    names, numbers = np.unique(splits, return_inverse=True)
    order = np.lexsort((numbers, labels, digests[:, 1], digests[:, 0]))
    whole = hashlib.sha256(repr((image_size, list(classes), names.tolist())).encode())
    for column, kind in ((digests, ">u8"), (labels, ">i8"), (numbers, ">i8")):
        whole.update(np.ascontiguousarray(column[order], kind).data)
    return whole.hexdigest()[:32]


def _is_noted(path: Path) -> bool:
    """Whether sizes and times are those of the files when they were last known to be right."""
    try:
        return bool(json.loads((path / _STAMPS).read_text(encoding="utf-8")) == _stamps(path))
    except (FileNotFoundError, ValueError):
        return False


def _stamps(path: Path) -> dict[str, list[int]]:
    return {name: [size, time] for name, _, size, time in stamp(path)}


def _verify(path: Path, metadata: dict[str, Any]) -> None:
    for name in _SUMMED:
        if _sum(path / name) != metadata["files"][name]:
            raise DamagedPrepared(f"{name} is not what was written")
    arrays = (np.load(path / name) for name in (_LABELS, _SPLITS, _DIGESTS))
    if data_digest(metadata["image_size"], metadata["classes"], *arrays) != metadata["digest"]:
        raise DamagedPrepared(f"{_METADATA} and the arrays disagree")


def _mapped(path: Path) -> np.ndarray:
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


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
