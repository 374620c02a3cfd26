"""What a frozen network makes of images: computed once, kept on disk, reused by every training after.

Features are kept in chunks, each named by the digests of its own images: an image that gets another name,
and with it another row, never gets another one's features.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from filelock import FileLock, Timeout

from pipeline.runtime.console import Bar
from pipeline.runtime.files import disk_errors

CHUNK = 512  # images whose features are one file: what is computed anew where a process was killed


@dataclass(frozen=True)
class Cache:
    """Where features of images are kept.

    Attributes:
        folder: Of features, by whatever network.
        digests: bytes or str (n,), of all that a network sees of each image; indexed by row.
    """

    folder: Path
    digests: np.ndarray


class Chunked:
    """Features in chunks, read from their files when they are due: no process holds all of them.

    Args:
        chunks: (CHUNK, channels) float32 each; the last may have fewer rows.
        size: Rows of each chunk but the last.
    """

    def __init__(self, chunks: Sequence[np.ndarray], size: int):
        self._chunks, self._size = chunks, size
        self.shape = (sum(map(len, chunks)), chunks[0].shape[1])
        self.dtype = chunks[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Features of some rows: (k,) int -> (k, channels) float32, a copy."""
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        for place, row in enumerate(rows.tolist()):
            found[place] = self._chunks[row // self._size][row % self._size]
        return found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All of them in memory, for what cannot do with less."""
        return np.concatenate(self._chunks).astype(dtype or self.dtype, copy=False)


def compute(
    extractor: keras.Model,
    batches: Callable[[np.ndarray], keras.utils.PyDataset],
    rows: np.ndarray,
    cache: Cache | None = None,
) -> Chunked:
    """The features of some images, read from a folder as far as they are there.

    Several processes that want the same ones share the work: each takes the next chunk that nobody is at.

    Args:
        extractor: (batch, height, width, 3) uint8 -> (batch, channels) float32.
        batches: makes batches of the images of some rows, without labels.
        rows: (k,) int64, which images.
        cache: where they are kept; None: nothing is kept.

    Returns:
        (k, channels) float32.

    Raises:
        UserError: the disk does not take them.
    """
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]

    def features(chunk: np.ndarray) -> np.ndarray:
        return extractor.predict(batches(chunk), verbose=0).astype(np.float32)

    if not chunks:
        return Chunked([np.empty((0, extractor.output.shape[-1]), np.float32)], CHUNK)
    if cache is None:
        return Chunked([features(chunk) for chunk in chunks], CHUNK)
    own = cache.folder / _identity(extractor)
    size = 4 * len(rows) * extractor.output.shape[-1]
    with (
        disk_errors(cache.folder, size, "features"),
        Bar(total=len(rows), desc="features", disable=None, leave=False) as progress,
    ):
        own.mkdir(parents=True, exist_ok=True)
        files = [own / f"{_name(cache.digests[chunk])}.npy" for chunk in chunks]
        for wait in (False, True):  # first what nobody is at, then what others have not finished
            for file, chunk in zip(files, chunks, strict=True):
                if not file.exists() and _computed(file, lambda chunk=chunk: features(chunk), wait):
                    progress.update(len(chunk))
        # plain arrays on the maps: a row of a memmap costs ten times as much
        return Chunked([np.asarray(np.load(file, mmap_mode="r")) for file in files], CHUNK)


def _computed(file: Path, features: Callable[[], np.ndarray], wait: bool) -> bool:
    """Compute one chunk, unless another process is at it and is not to be waited for, or has done it."""
    lock_file = file.with_suffix(".lock")
    try:
        with FileLock(lock_file, blocking=wait):
            if file.exists():
                return False
            partial = file.with_suffix(".partial")
            with partial.open("wb") as content:
                np.save(content, features())
                content.flush()
                os.fsync(content.fileno())
            partial.rename(file)
    except Timeout:
        return False
    with contextlib.suppress(OSError):  # Windows: another process has it open
        lock_file.unlink()
    return True


def _name(digests: np.ndarray) -> str:
    """Names a chunk by its images, in their order."""
    return hashlib.sha256(np.ascontiguousarray(digests)).hexdigest()[:32]


def _identity(extractor: keras.Model) -> str:
    """Names features by all they depend on but the images: the network and its weights."""
    digest = hashlib.sha256(json.dumps(extractor.get_config(), sort_keys=True, default=str).encode())
    for array in extractor.get_weights():
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]
