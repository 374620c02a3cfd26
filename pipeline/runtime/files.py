"""Locks between processes, directories that are complete or absent, and errors of a full disk."""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.runtime.console import file_size
from pipeline.runtime.errors import UserError

_PARTIAL = ".partial"
_LOCK = ".lock"


@contextlib.contextmanager
def file_lock(file: Path, waiting: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds an exclusive lock; waits while another process or thread holds it.

    The system releases the lock when the process ends, even if it is killed.

    Args:
        file: The lock file. Its folder is created if missing; the file remains.
        waiting: Message, printed once if the lock is not free.
        say: Prints the message; None: to stdout.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        (say or functools.partial(print, flush=True))(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def prepare_lock(parent: Path) -> Iterator[None]:
    """Locks a folder of prepared images, and removes the partial ones in it.

    Only the holder of the lock writes partial folders, so each one found belongs to a killed process.
    """
    waiting = f"another process is preparing images in {parent}; waiting for it"
    with file_lock(parent / _LOCK, waiting):
        _remove_partial(parent)
        yield


def remove_partial(parent: Path) -> None:
    """Removes partial folders of killed processes; does nothing while another process is preparing images."""
    if not any(parent.glob(f"*{_PARTIAL}")):
        return
    with contextlib.suppress(Timeout), FileLock(parent / _LOCK, blocking=False):
        _remove_partial(parent)


def _remove_partial(parent: Path) -> None:
    for folder in parent.glob(f"*{_PARTIAL}"):
        shutil.rmtree(folder)


@contextlib.contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `folder` when the block ends, and removed if the block fails.

    Call it under `prepare_lock`. An existing `folder` is removed first, to free its space.
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
    """Raises UserError in place of an OSError of the block.

    Args:
        folder: The folder that the block writes to, for the message.
        needed: Bytes that the block writes in total, for the message.
        what: What the block writes, for the message.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {what} to {folder.absolute()}: {error.strerror or error}; they need "
            f"{file_size(needed)}, {file_size(_free(folder))} are free; {_NEXT_MOVE}"
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raises UserError if the disk of a folder has fewer than `needed` free bytes."""
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
    """Some file systems report a full disk, or write the names of files, only now."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
