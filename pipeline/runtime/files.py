"""Folders that appear whole or not at all, on a disk that may fill up."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.runtime.console import file_size
from pipeline.runtime.errors import UserError

_PARTIAL = ".partial"


@contextlib.contextmanager
def exclusive(parent: Path) -> Iterator[None]:
    """Makes a folder that holds prepared sets, and keeps other processes from writing to it meanwhile.

    The lock goes with the process, however that ends. So whoever holds it may take every partial folder for
    the remains of one that was killed, and removes them.
    """
    with alone(parent, "preparing images"):
        _remove_remains(parent)
        yield


def clean(parent: Path) -> None:
    """Removes what killed processes left among prepared sets, unless one is being made just now."""
    if not any(parent.glob(f"*{_PARTIAL}")):
        return
    with (parent / ".lock").open("w") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_remains(parent)


def _remove_remains(parent: Path) -> None:
    for remains in parent.glob(f"*{_PARTIAL}"):
        shutil.rmtree(remains)


@contextlib.contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Makes a folder, and waits until no other process is in such a block with it.

    The lock goes with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is {doing} in {folder}: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` when the block ends, and is gone if it fails.

    Only within `exclusive`. What stood at `folder` is removed first: its space may be needed.
    """
    partial = folder.with_name(folder.name + _PARTIAL)
    if folder.exists():
        shutil.rmtree(folder)
    partial.mkdir()
    try:
        yield partial
        for path in (*partial.iterdir(), partial):
            _flush_to_disk(path)
        partial.rename(folder)
        _flush_to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def disk_errors(folder: Path, needed: int, what: str = "prepared images") -> Iterator[None]:
    """Turns what the disk refuses while the block writes into a UserError.

    Args:
        folder: Where is written, for the message.
        needed: Bytes that the whole takes, for the message.
        what: What is written, for the message.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {what} to {folder.absolute()}: {error.strerror or error}; they need "
            f"{file_size(needed)}, {file_size(_free(folder))} are free; {_NEXT_MOVE}"
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raises UserError where the disk of a folder has less than `needed` bytes free."""
    if (free := _free(folder)) < needed:
        raise UserError(
            f"the disk of {folder.absolute()} is too full: prepared images need {file_size(needed)}, "
            f"{file_size(free)} are free; {_NEXT_MOVE}"
        )


_NEXT_MOVE = "free some space, lower data.limit or data.image_size, or set data.cache to a folder elsewhere"


def _free(folder: Path) -> int:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def _flush_to_disk(path: Path) -> None:
    """Some file systems tell that they are full, or lose names, only now."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
