"""From a source to prepared images: decoded, resized and split once, memory-mapped ever after.

A set lies in `<cache>/prepared/<key>/` (storage.py says what is in it). The key names the source's images
and the parameters that shape the set, so that a second `prepare` finds it. 8,000 photos of 200 x 200 px take
3 s on two cores, and 0.1 s to find again.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.schema import DataParams
from pipeline.dataset import splits, storage, summary
from pipeline.dataset.decode import keep_rows, write_images
from pipeline.dataset.storage import DamagedPrepared, Prepared, open_prepared
from pipeline.runtime.console import warn
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_directory, check_space, disk_errors, prepare_lock, remove_partial
from pipeline.sources import split_names
from pipeline.sources.images import identity
from pipeline.sources.layout import Rejection
from pipeline.sources.source import Source, SourceImage, open_source

__all__ = ["DamagedPrepared", "Prepared", "open_prepared", "prepare"]


def prepare(data: DataParams, seed: int) -> Prepared:
    """Prepares the images of a source, or finds them prepared, and tells about it on the console.

    Args:
        data: Which images, and how they are prepared.
        seed: Draws the splits, and the images where `data.limit` is set.

    Raises:
        UserError: The source is none, a class is too small, too many images cannot be read, or the disk
            does not take them. Then nothing is left behind but `<cache>/rejected.csv` where that tells why.
    """
    splits.check_fractions(data.validation, data.test)
    cache = Path(data.cache)
    source = open_source(data.source, cache, data.sha256, keep_splits=data.splits == "given")
    print(
        f"source: {source.description}", *source.notes, *summary.of_given(source, data), sep="\n", flush=True
    )
    drawn = _draw(source, data, seed)
    folder = cache / "prepared" / _key(source, data, seed)
    with disk_errors(cache, 0):
        remove_partial(folder.parent)
    try:
        prepared = open_prepared(folder, data.verify)
    except DamagedPrepared:
        prepared = _make_alone(folder, source, drawn, data, seed)
    if _too_many(prepared.rejected, source, len(drawn), data.max_rejected):
        raise UserError(_too_many_text(data.max_rejected, prepared.rejected, folder / "rejected.csv"))
    print(*summary.of_set(prepared, folder / "rejected.csv"), sep="\n", flush=True)
    for text in summary.warnings(prepared):
        warn(text)
    return prepared


def _draw(source: Source, data: DataParams, seed: int) -> list[SourceImage]:
    """The images of a source that are wanted; checks that each class has enough of them."""
    drawn = []
    for split in source.given or [""]:  # each has its share of the limit
        mine = [image for image in source.images if image.split == split]
        share = data.limit and max(1, data.limit * len(mine) // len(source.images))
        names, labels = [image.name for image in mine], [image.label for image in mine]
        drawn += [mine[index] for index in splits.draw(names, labels, share, seed)]
    counts = Counter(image.label for image in drawn if image.split in ("", split_names.TRAIN))
    limit = data.limit if len(drawn) < len(source.images) else None
    every_label = {image.label for image in source.images}
    splits.check_sizes(
        {label: counts[label] for label in every_label}, splits.to_cut(source.given, data.test), limit
    )
    return sorted(drawn, key=lambda image: image.name)


def _key(source: Source, data: DataParams, seed: int) -> str:
    """Names a set by all that shapes it: 16 hexadecimal digits."""
    parameters = [int(data.image_size), data.splits, data.validation, data.test, data.limit, seed]
    return hashlib.sha256(repr((storage.FORMAT, source.fingerprint, parameters)).encode()).hexdigest()[:16]


def _make_alone(
    folder: Path, source: Source, drawn: Sequence[SourceImage], data: DataParams, seed: int
) -> Prepared:
    """Makes a set while no other process can, and all or nothing."""
    cache = Path(data.cache)
    needed = len(drawn) * (3 * int(data.image_size) ** 2 + 500) + 50_000
    with disk_errors(cache, needed), prepare_lock(folder.parent):
        try:
            return open_prepared(folder, data.verify)  # the process that held the lock may have made it
        except DamagedPrepared as error:
            if folder.exists():
                warn(f"the prepared images in {folder} are damaged ({error}): made again")
        with atomic_directory(folder) as partial:
            check_space(cache, needed)
            _make(partial, source, drawn, data, seed)
        return open_prepared(folder)


def _make(partial: Path, source: Source, drawn: Sequence[SourceImage], data: DataParams, seed: int) -> None:
    """Decodes, splits and saves images into an empty folder."""
    with (partial / storage.IMAGES).open("x+b", buffering=0) as file, ThreadPoolExecutor(1) as background:
        decoded = write_images(drawn, int(data.image_size), file)
        flushed = background.submit(os.fsync, file.fileno())  # the disk is busy while the rest is computed
        rejected = sorted((*source.rejected, *decoded.rejected), key=lambda image: image.name)
        listed = Path(data.cache) / "rejected.csv"  # outlives the folder where this fails
        if _too_many(rejected, source, len(drawn), data.max_rejected):
            storage.save_rejected(listed, rejected)
            raise UserError(_too_many_text(data.max_rejected, rejected, listed))
        kept = [drawn[index] for index in decoded.kept]
        try:
            assigned = _assign(source, drawn, kept, decoded.digests, data, seed)
        except UserError as error:
            if not rejected:
                raise
            storage.save_rejected(listed, rejected)
            raise UserError(f"{error}; {summary.left_out(rejected, listed)}") from error
        rejected += _leaked(kept, decoded.digests, assigned)
        rows = np.flatnonzero(assigned != splits.LEFT_OUT)
        keep_rows(file, rows, len(kept), int(data.image_size))
        storage.save(
            partial,
            names=[kept[row].name for row in rows],
            labels=[kept[row].label for row in rows],
            splits=assigned[rows],
            digests=[decoded.digests[row] for row in rows],
            rejected=sorted(rejected, key=lambda image: image.name),
            image_size=int(data.image_size),
            about=_about(source, data, seed),
        )
        flushed.result()


def _assign(
    source: Source,
    drawn: Sequence[SourceImage],
    kept: Sequence[SourceImage],
    digests: Sequence[str],
    data: DataParams,
    seed: int,
) -> np.ndarray:
    """The split of each image that could be decoded. A class of which none could is still a class."""
    classes = sorted({image.label for image in drawn})
    number = {label: index for index, label in enumerate(classes)}
    labels = np.array([number[image.label] for image in kept])
    identities = [identity(digest) for digest in digests]
    if source.given:
        given = [image.split for image in kept]
        return splits.complete(identities, labels, classes, given, data.validation, data.test, seed)
    return splits.assign(identities, labels, classes, data.validation, data.test, seed)


def _leaked(kept: Sequence[SourceImage], digests: Sequence[str], assigned: np.ndarray) -> list[Rejection]:
    """The training images that are left out, each with the image that it is identical to."""
    rows = np.flatnonzero((assigned == split_names.VALIDATION) | (assigned == split_names.TEST))
    held_out = {identity(digests[row]): kept[row].name for row in rows[::-1].tolist()}
    return [
        Rejection(kept[row].name, f"{summary.LEAKED}: {held_out[identity(digests[row])]!r}")
        for row in np.flatnonzero(assigned == splits.LEFT_OUT).tolist()
    ]


def _about(source: Source, data: DataParams, seed: int) -> dict[str, Any]:
    parameters = {name: getattr(data, name) for name in ("source", "splits", "validation", "test", "limit")}
    parameters["source"] = without_password(data.source)
    return {
        "understood_as": without_password(source.description),
        "parameters": {**parameters, "seed": seed},
    }


def _too_many(rejected: Sequence[Rejection], source: Source, drawn: int, most: float) -> bool:
    """Whether more than the fraction `most` of the candidates is left out.

    A limit draws from the images that have labels; those without count by their share in the source.

    Args:
        rejected: All that are left out: without a label, or unreadable.
        source: Where they come from.
        drawn: How many images were to be decoded.
        most: `data.max_rejected`.
    """
    unlabelled = Fraction(len(source.rejected), len(source.rejected) + len(source.images))
    leaked = sum(image.reason.startswith(summary.LEAKED) for image in rejected)
    unreadable = Fraction(len(rejected) - leaked - len(source.rejected), drawn)
    # By the digits of `most`: 3 of 10 are not more than 0.3, though the float is a little less than that.
    return unlabelled + (1 - unlabelled) * unreadable > Fraction(str(most))


def _too_many_text(most: float, rejected: Sequence[Rejection], listed: Path) -> str:
    return (
        f"more images cannot be used than data.max_rejected={most} allows: "
        f"{summary.left_out(rejected, listed)}; fix or remove them, or raise data.max_rejected"
    )
