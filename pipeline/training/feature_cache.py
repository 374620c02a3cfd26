"""Features of a frozen network: computed once, kept on disk, reused by every later training.

Features are stored in chunks, each named by the digests of its own images: an image that gets another name,
and with it another row, never gets the features of another image.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from pipeline.runtime.console import Bar
from pipeline.runtime.files import disk_errors

CHUNK = 512  # images per file: a process that is killed loses at most this many


@dataclass(frozen=True)
class FeatureCache:
    """Where features of images are cached.

    Attributes:
        folder: of features, of any network.
        digests: (n,) bytes or str, of everything that a network sees of each image; indexed by row.
    """

    folder: Path
    digests: np.ndarray


class ChunkedFeatures:
    """Features in chunks that are read from their files on demand: they are never all in memory.

    Args:
        chunks: (size, channels) float32 each; the last may have fewer rows.
        size: rows per chunk.

    >>> features = ChunkedFeatures([np.zeros((2, 3)), np.ones((1, 3))], size=2)
    >>> features.shape, features[np.array([2, 0])][:, 0].tolist()
    ((3, 3), [1.0, 0.0])
    """

    def __init__(self, chunks: Sequence[np.ndarray], size: int):
        self._chunks, self._size = chunks, size
        self.shape = (sum(map(len, chunks)), chunks[0].shape[1])
        self.dtype = chunks[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Features of some rows: (k,) int -> (k, channels) float32, a copy."""
        features = np.empty((len(rows), self.shape[1]), self.dtype)
        for index, row in enumerate(rows.tolist()):
            features[index] = self._chunks[row // self._size][row % self._size]
        return features

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows in memory: (n, channels) float32."""
        return np.concatenate(self._chunks).astype(dtype or self.dtype, copy=False)


def cached_features(
    extractor: keras.Model,
    batches: Callable[[np.ndarray], keras.utils.PyDataset],
    rows: np.ndarray,
    cache: FeatureCache | None = None,
) -> ChunkedFeatures:
    """Features of some images, read from the cache if present, else computed and cached.

    Processes that need the same features share the work: each takes the next chunk that no other computes.

    Args:
        extractor: (batch, height, width, 3) uint8 -> (batch, channels) float32.
        batches: makes batches without labels of the images of some rows.
        rows: (k,) int64, the images.
        cache: where the features are cached; None: nowhere.

    Returns:
        (k, channels) float32.

    Raises:
        UserError: the features cannot be written to the disk.
    """
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]

    def compute(chunk: np.ndarray) -> np.ndarray:
        return np.asarray(extractor.predict(batches(chunk), verbose=0), np.float32)

    if not chunks:
        return ChunkedFeatures([np.empty((0, extractor.output.shape[-1]), np.float32)], CHUNK)
    if cache is None:
        return ChunkedFeatures([compute(chunk) for chunk in chunks], CHUNK)
    folder = cache.folder / _network_digest(extractor)
    size = 4 * len(rows) * extractor.output.shape[-1]  # bytes
    with (
        disk_errors(cache.folder, size, "features"),
        Bar(total=len(rows), desc="features", disable=None, leave=False) as progress,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{_chunk_digest(cache.digests[chunk])}.npy" for chunk in chunks]
        for wait in (False, True):  # first the chunks that no process has locked, then the others
            for file, chunk in zip(files, chunks, strict=True):
                if not file.exists() and _write_chunk(file, partial(compute, chunk), wait):
                    progress.update(len(chunk))
        # plain arrays over the maps: reading a row of a memmap takes ten times as long
        return ChunkedFeatures([np.asarray(np.load(file, mmap_mode="r")) for file in files], CHUNK)


def _write_chunk(file: Path, compute: Callable[[], np.ndarray], wait: bool) -> bool:
    """Compute and write one chunk under a lock; whether this process did it.

    Args:
        file: of the chunk.
        compute: gives its features.
        wait: whether to wait for a process that has the lock, or to return.
    """
    lock_file = file.with_suffix(".lock")
    try:
        with FileLock(lock_file, blocking=wait):
            if file.exists():
                return False
            partial_file = file.with_suffix(".partial")
            with partial_file.open("wb") as content:
                np.save(content, compute())
                content.flush()
                os.fsync(content.fileno())
            partial_file.replace(file)
    except Timeout:
        return False
    with contextlib.suppress(OSError):  # Windows: another process has it open
        lock_file.unlink()
    return True


def _chunk_digest(digests: np.ndarray) -> str:
    """Identifies a chunk by its images and their order."""
    return hashlib.sha256(np.ascontiguousarray(digests).tobytes()).hexdigest()[:32]


def _network_digest(extractor: keras.Model) -> str:
    """Identifies a network by its layers and its weights."""
    digest = hashlib.sha256(json.dumps(extractor.get_config(), sort_keys=True, default=str).encode())
    for array in extractor.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
