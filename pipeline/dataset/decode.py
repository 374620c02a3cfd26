"""Many images at once: decoded and resized on all cores, written one after the other.

On Linux in processes: Pillow gives up the GIL while it works, but handing it to and fro costs threads a
fifth of the time on two cores and more on many, and images that are drawn in Python gain nothing from
them. The processes are forked: that takes milliseconds, and they inherit what reads the images. Elsewhere
forking is unsafe or unknown, and threads do the same work.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from pipeline.runtime.console import Bar
from pipeline.runtime.errors import UserError
from pipeline.runtime.hardware import cores
from pipeline.sources.images import UnreadableImage, decode, pixel_digest, resize
from pipeline.sources.layout import Rejection
from pipeline.sources.source import SourceImage

_CHUNK = 32  # images per task
_CHUNK_BYTES = 4 << 20  # and at most so many bytes of resized pixels, where images are large

# The images of each pass that is under way. Forked processes inherit them: functions cannot be sent.
_passes: dict[int, Sequence[SourceImage]] = {}
_pass_numbers = itertools.count()


@dataclass(frozen=True)
class Decoded:
    """What became of some images, in their order.

    Attributes:
        kept: The indices of those that could be decoded.
        digests: The pixel digest of each of them.
        rejected: Those that could not be decoded.
    """

    kept: list[int]
    digests: list[str]
    rejected: list[Rejection]


def write_images(images: Sequence[SourceImage], size: int, file: BinaryIO) -> Decoded:
    """Decodes images and writes them, resized, as one .npy array: uint8 (n, size, size, 3), n those kept.

    Each chunk of images is written by who decodes it, where it belongs if none is rejected; after a
    rejection the following chunks are moved down. Memory holds one chunk for each core. The file is written,
    not mapped: on a full disk a write fails with an error, a map with SIGBUS.

    Args:
        images: In the order of the array.
        size: Side of the square, px.
        file: Open for reading and writing, empty, unbuffered.

    Raises:
        OSError: The file cannot be written.
        UserError: A process that decodes was killed.
    """
    _write_header(file, len(images), size)
    start, row = file.tell(), 3 * size * size
    everything = Decoded([], [], [])
    with Bar(total=len(images), desc="prepare", mininterval=0.5, disable=None) as bar:
        for first, decoded in _in_order(images, size, file.fileno(), start):
            if len(everything.kept) < first:
                chunk = os.pread(file.fileno(), row * len(decoded.kept), start + row * first)
                _write_at(file.fileno(), chunk, start + row * len(everything.kept))
            everything.kept.extend(decoded.kept)
            everything.digests.extend(decoded.digests)
            everything.rejected.extend(decoded.rejected)
            bar.update(len(decoded.kept) + len(decoded.rejected))
    file.truncate(start + row * len(everything.kept))
    file.seek(0)
    _write_header(file, len(everything.kept), size)
    assert file.tell() == start, "numpy leaves room in the header for another count"
    return everything


def keep_rows(file: BinaryIO, rows: np.ndarray, count: int, size: int) -> None:
    """Drops all other rows of an array that `write_images` wrote.

    Args:
        file: As `write_images` left it.
        rows: int (k,), ascending.
        count: Rows that the array has.
        size: Side of the square, px.
    """
    if len(rows) == count:
        return
    file.seek(0)
    _write_header(file, len(rows), size)
    start, row = file.tell(), 3 * size * size
    for place, kept in enumerate(rows.tolist()):
        if place != kept:
            _write_at(file.fileno(), os.pread(file.fileno(), row, start + row * kept), start + row * place)
    file.truncate(start + row * len(rows))


def read_images(images: Sequence[SourceImage], size: int, batch: int) -> Iterator[tuple[np.ndarray, Decoded]]:
    """Decodes images in threads, and yields them in batches: memory holds two, whatever their number.

    In threads, since what takes the batches has TensorFlow running, and such a process cannot be forked.

    Args:
        images: In the order of the batches.
        size: Side of the square, px.
        batch: Images taken at once; fewer come out where some cannot be decoded.

    Yields:
        uint8 (k, size, size, 3), those that could be decoded, and what became of all, without digests.
    """
    with ThreadPoolExecutor(cores()) as executor:
        pending: deque[tuple[int, list[Future[np.ndarray | str]]]] = deque()
        for first in range(0, len(images), batch):
            read = [executor.submit(_read_image, image, size) for image in images[first : first + batch]]
            pending.append((first, read))
            if len(pending) > 1:
                yield _gathered(pending.popleft(), images, size)
        while pending:
            yield _gathered(pending.popleft(), images, size)


def _read_image(image: SourceImage, size: int) -> np.ndarray | str:
    """The resized pixels, or the reason why there are none."""
    try:
        return resize(decode(image.read()), size)
    except UnreadableImage as error:
        return str(error)


def _gathered(
    batch: tuple[int, Sequence[Future[np.ndarray | str]]], images: Sequence[SourceImage], size: int
) -> tuple[np.ndarray, Decoded]:
    decoded, arrays = Decoded([], [], []), []
    first, read = batch
    for index, future in enumerate(read, first):
        image = future.result()
        if isinstance(image, str):
            decoded.rejected.append(Rejection(images[index].name, image))
        else:
            decoded.kept.append(index)
            arrays.append(image)
    return np.stack(arrays) if arrays else np.empty((0, size, size, 3), np.uint8), decoded


def _in_order(
    images: Sequence[SourceImage], size: int, file: int, start: int
) -> Iterator[tuple[int, Decoded]]:
    """Decodes and writes chunks on all cores; yields the index of each one's first image, and the rest."""
    length = max(1, min(_CHUNK, _CHUNK_BYTES // (3 * size * size)))
    workers = min(cores(), -(-len(images) // length))
    with _shared(images) as number, _executor(workers) as executor:
        pending: deque[tuple[int, Future[Decoded]]] = deque()
        try:
            for first in range(0, len(images), length):
                chunk = executor.submit(_decode_chunk, number, first, first + length, size, file, start)
                pending.append((first, chunk))
            while pending:
                first, chunk = pending.popleft()
                yield first, chunk.result()
        except BrokenExecutor as error:
            raise UserError(
                "a process that decodes images was killed, most likely because memory ran out: try again "
                "with more memory, or with a lower data.image_size"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _shared(images: Sequence[SourceImage]) -> Iterator[int]:
    number = next(_pass_numbers)
    _passes[number] = images
    try:
        yield number
    finally:
        del _passes[number]


def _executor(workers: int) -> Executor:
    if sys.platform != "linux":
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _configure_process)


def _configure_process() -> None:
    """Leaves Ctrl-C to the parent, and ends with it: Python lets orphans wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _decode_chunk(number: int, first: int, stop: int, size: int, file: int, start: int) -> Decoded:
    """Decodes the images first .. stop - 1 of a pass, and writes those that can be, without holes.

    Args:
        number: Of the pass.
        first: Index of the first image.
        stop: Index after the last one.
        size: Side of the square, px.
        file: Descriptor of the file that the array is written to.
        start: Where in it the array's row 0 begins.
    """
    images = _passes[number][first:stop]
    rows = np.empty((len(images), size, size, 3), np.uint8)
    decoded = Decoded([], [], [])
    for index, image in enumerate(images, first):
        try:
            pixels = decode(image.read())
        except UnreadableImage as error:
            decoded.rejected.append(Rejection(image.name, str(error)))
            continue
        rows[len(decoded.kept)] = resized = resize(pixels, size)
        decoded.kept.append(index)
        decoded.digests.append(pixel_digest(pixels, resized))
    _write_at(file, rows[: len(decoded.kept)], start + first * 3 * size * size)
    return decoded


def _write_at(file: int, data: np.ndarray | bytes, position: int) -> None:
    rest = (
        memoryview(data if isinstance(data, bytes) else data.data).cast("B") if len(data) else memoryview(b"")
    )
    while rest:  # a disk that is nearly full takes a part, and refuses the next
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    shape = (count, size, size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
