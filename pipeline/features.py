"""What a frozen network makes of pictures: computed once, kept on disk, reused by every training after."""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from pipeline.console import Bar
from pipeline.data import workplace

CHUNK = 512  # pictures whose features are one file: what is computed anew where a process was killed


def compute(
    extractor: keras.Model,
    batches: Callable[[np.ndarray], keras.utils.PyDataset],
    rows: np.ndarray,
    folder: Path | None = None,
) -> np.ndarray:
    """The features of some pictures, read from a folder as far as they are there.

    Several processes that want the same ones share the work: each takes the next chunk that nobody is at.

    Args:
        extractor: (batch, height, width, 3) uint8 -> (batch, channels) float32.
        batches: makes batches of the pictures of some rows, without labels.
        rows: (k,) int64, which pictures.
        folder: of features of these very pictures, by whatever network; None: nothing is kept.

    Returns:
        (k, channels) float32.

    Raises:
        UserError: the disk does not take them.
    """
    chunks = np.array_split(rows, max(1, math.ceil(len(rows) / CHUNK)))

    def features(chunk: np.ndarray) -> np.ndarray:
        return extractor.predict(batches(chunk), verbose=0).astype(np.float32)

    if folder is None:
        return np.concatenate([features(chunk) for chunk in chunks])
    own = folder / _identity(extractor, rows)
    size = 4 * len(rows) * extractor.output.shape[-1]
    with (
        workplace.disk_errors(folder, size, "features"),
        Bar(total=len(rows), desc="features", disable=None, leave=False) as progress,
    ):
        own.mkdir(parents=True, exist_ok=True)
        files = [own / f"{number:05d}.npy" for number in range(len(chunks))]
        for wait in (False, True):  # first what nobody is at, then what others have not finished
            for file, chunk in zip(files, chunks, strict=True):
                if not file.exists() and _computed(file, lambda chunk=chunk: features(chunk), wait):
                    progress.update(len(chunk))
        return np.concatenate([np.load(file) for file in files])


def _computed(file: Path, features: Callable[[], np.ndarray], wait: bool) -> bool:
    """Compute one chunk, unless another process is at it and is not to be waited for, or has done it."""
    lock_file = file.with_suffix(".lock")
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        if file.exists():
            return False
        partial = file.with_suffix(".partial")
        with partial.open("wb") as content:
            np.save(content, features())
            content.flush()
            os.fsync(content.fileno())
        partial.rename(file)
        lock_file.unlink()
        return True


def _identity(extractor: keras.Model, rows: np.ndarray) -> str:
    """Names features by all they depend on but the pictures: the network, its weights, and which rows."""
    digest = hashlib.sha256(json.dumps(extractor.get_config(), sort_keys=True, default=str).encode())
    for array in (*extractor.get_weights(), rows):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]
