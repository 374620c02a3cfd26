"""One file of a cache folder: complete and checked, or a part of it that can be resumed.

Beside the complete file `NAME` stand `NAME.json` (what is known of it), `NAME.lock` (empty; held by the
process that downloads) and, until the file is complete, `NAME.part` (what came so far).
"""

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from pipeline.runtime.files import file_lock


@dataclass(frozen=True)
class Remote:
    """A file behind an address.

    Attributes:
        url: http or https.
        size: Its bytes, where known beforehand.
        sha256: Its SHA-256 in hexadecimal, where known beforehand.
    """

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Record:
    """What is known of a file, kept as JSON.

    Attributes:
        validator: What the server calls this version of the file: a strong ETag, or Last-Modified. Without
            one a part cannot be resumed.
        size: Bytes of the whole file, where announced.
        sha256: Of the complete, checked file; None while there is only a part.
    """

    validator: str | None = None
    size: int | None = None
    sha256: str | None = None


class Entry:
    """One file of the cache folder, with what stands beside it."""

    def __init__(self, path: Path):
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._record = path.with_name(path.name + ".json")
        self._lock = path.with_name(path.name + ".lock")

    def holds(self, remote: Remote) -> bool:
        """Whether the complete file is here, and is the one that `remote` means."""
        recorded = self.recorded()
        return (
            recorded.sha256 is not None
            and self.path.is_file()
            and self.path.stat().st_size == recorded.size
            and mismatch(remote, recorded.size, recorded.sha256) is None
        )

    def recorded(self) -> Record:
        """What is recorded of the file, or of its part."""
        try:
            return Record(**json.loads(self._record.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # none yet, or a crash cut it short
            return Record()

    def have(self) -> int:
        """Bytes of the part on disk."""
        return self.part.stat().st_size if self.part.exists() else 0

    def note(self, recorded: Record) -> None:
        """Record what is known."""
        self._record.write_text(json.dumps(asdict(recorded)), "utf-8")

    def start(self, recorded: Record) -> None:
        """Empties the part; first, as it must never stand beside the validator of another version."""
        self.part.write_bytes(b"")
        self.note(recorded)

    def drop(self) -> None:
        """Remove the part, and what was known of it."""
        self.part.unlink(missing_ok=True)
        self.note(Record())

    def complete(self, recorded: Record) -> None:
        """Moves the part into place; a crash at any point leaves either all of the part or the file."""
        self.path.unlink(missing_ok=True)  # an earlier file, which the new record must not speak for
        self.note(recorded)
        self.part.replace(self.path)

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes and threads out; see `files.file_lock`."""
        return file_lock(self._lock, f"another process is downloading {self.path.name}; waiting for it", say)


def mismatch(remote: Remote, size: int | None, sha256: str) -> str | None:
    """What tells a file of this size and hash from the one that `remote` means; None where nothing does."""
    if remote.size not in (None, size):
        return f"it has {size:,} bytes instead of {remote.size:,}"
    if remote.sha256 is not None and remote.sha256.lower() != sha256:
        return f"its SHA-256 is {sha256} instead of {remote.sha256}"
    return None


def say(text: str) -> None:
    """Write a line to stderr, above a progress bar if one is shown."""
    tqdm.write(text, file=sys.stderr)
