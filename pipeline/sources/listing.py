"""The images of a folder, listed without reading them."""

import itertools
import os
import stat
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.sources.images import UnreadableImage
from pipeline.sources.layout import is_image
from pipeline.sources.zips import MAX_PICTURE_BYTES

# Deep enough for wrapper/train/cat/ and a stray folder below; loops of symbolic links end here at the latest.
_MAX_DEPTH = 5
_Above = frozenset[tuple[int, int]]  # device and inode of each folder above


class Listing:
    """The files below a folder, level by level. Symbolic links are followed, never back to a folder above."""

    def __init__(self, root: Path, max_depth: int | None = _MAX_DEPTH):
        self.images: dict[str, tuple[str, int, int]] = {}  # name: path, bytes, modification time in ns
        self.others: list[str] = []
        self.folders: list[str] = []
        level: list[tuple[str, str, _Above]] = [(str(root), "", frozenset())]
        depths = itertools.count() if max_depth is None else range(max_depth)
        for _ in depths:
            level = [inner for folder in level for inner in self._scan(*folder)]
            if not level:
                break
        self.too_deep = [name for _, name, _ in level]

    def _scan(self, path: str, name: str, above: _Above) -> list[tuple[str, str, _Above]]:
        """Lists one folder; returns the folders in it."""
        try:
            status = Path(path).stat()
            with os.scandir(path) as found:
                entries = list(found)
        except OSError as error:
            raise UserError(
                f"the folder {valid_name(path)} cannot be read ({error.strerror}): allow it to be "
                "read, or move it elsewhere"
            ) from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            return []
        inner = []
        for entry in entries:
            child = f"{name}/{valid_name(entry.name)}" if name else valid_name(entry.name)
            if entry.is_dir():
                inner.append((entry.path, child, above | {here}))
                self.folders.append(child)
            else:
                self._add(entry, child)
        return inner

    def _add(self, entry: os.DirEntry[str], name: str) -> None:
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere: reading it tells the reason
            status = None
        if not is_image(name) or (status and not stat.S_ISREG(status.st_mode)):
            self.others.append(name)
        elif status:
            self.images[name] = (entry.path, status.st_size, status.st_mtime_ns)
        else:
            self.images[name] = (entry.path, -1, -1)


def read_file(path: str) -> bytes:
    """The bytes of an image's file.

    Raises:
        UnreadableImage: It cannot be read, is no regular file, or is too large.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_PICTURE_BYTES:
                raise UnreadableImage("too large", f"{size:,} bytes")
            return file.read()
    except OSError as error:
        raise UnreadableImage("cannot be opened", error.strerror) from error


def valid_name(name: str) -> str:
    r"""A file's name as valid Unicode: bytes that are not UTF-8 show as \xNN, so every file can hold it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
