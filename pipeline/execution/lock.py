"""One driver per sweep: a second one would train the same cells.

On one machine a file lock keeps a second driver out. Between machines that share a store, a token on the
sweep's run does: each driver reads it back before it writes, and stops where it is another's. What is left is
the moment between that reading and the write (one request, some milliseconds): a driver that loses the sweep
in it may still make that one write.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.runtime.errors import TakenOver, UserError
from pipeline.tracking import StoreError, runs

BEAT = 15  # seconds between two signs of life
# Seconds that the tag of a driver on another machine is watched: without a new sign of life, that driver is
# taken for dead. Nobody's clock is compared with another's.
WATCH = 40
TAG = "driver"


@contextmanager
def study_lock(study: str, cache: Path) -> Iterator[None]:
    """Holds the lock of a study on this machine: a second driver is refused until this process ends.

    `<cache>/sweeps/<study>.json` beside the lock file describes the process that holds the lock.

    Raises:
        UserError: another process holds the lock, which the message names; or no lock file can be written.
    """
    file = cache / "sweeps" / f"{study}.lock"
    holder = file.with_suffix(".json")
    lock = FileLock(file, blocking=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(_refusal(study, _parsed(_text(holder)))) from None
    except OSError as error:
        raise UserError(
            f"data.cache: the sweep's lock {file.absolute()} cannot be written: {error.strerror}; free some "
            "space, or name another folder that can be written"
        ) from None
    try:
        with suppress(OSError):  # a full disk: the lock holds, but a second driver cannot name its holder
            holder.write_text(json.dumps(_self()), "utf-8")
        yield
    finally:
        lock.release()


class Fence:
    """A driver's token on its sweep's run, renewed by a thread while the driver works.

    Args:
        run_id: the sweep's run.
        study: the study's name, for messages.
        beat: seconds between two signs of life.
        watch: seconds that a driver on another machine has to give one.

    Raises:
        UserError: another driver is alive.
    """

    def __init__(self, run_id: str, study: str, beat: float = BEAT, watch: float = WATCH):
        self.token = uuid.uuid4().hex
        self._run_id, self._study, self._beat = run_id, study, beat
        self._stopped, self._beats = threading.Event(), 0
        self._refuse_living(watch)
        self._write()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the sweep is still this driver's; called before each write to it.

        Raises:
            TakenOver: another driver has taken it over.
        """
        if (other := self._read()).get("token") != self.token:
            self._stopped.set()
            raise TakenOver(
                f"{_who(other)} has taken over study {self._study}; this one stops and leaves the cells to it"
            )

    def release(self) -> None:
        """Say that this driver is done; what another one has written stays."""
        self._stopped.set()
        self._thread.join()
        if self._read().get("token") == self.token:
            runs.delete_tag(TAG, self._run_id)

    def _refuse_living(self, watch: float) -> None:
        """Raise UserError where the driver that the tag names is alive; wait until that is known."""
        first = self._read()
        if not first or _is_gone(first):
            return
        if not _is_here(first):
            print(
                f"{_who(first)} was driving study {self._study}; waiting {watch:g} s for a sign of life",
                flush=True,
            )
            deadline = time.monotonic() + watch
            while (now := self._read()) == first:
                if time.monotonic() > deadline:
                    return
                time.sleep(min(1, watch / 10))
            if not now:
                return
        raise UserError(_refusal(self._study, first))

    def _renew(self) -> None:
        while not self._stopped.wait(self._beat):
            with suppress(StoreError, UserError):  # the driver meets it as well, and says so
                self.check()
                self._write()

    def _write(self) -> None:
        self._beats += 1
        tag = _self() | {"token": self.token, "beat": self._beats}
        runs.set_tags({TAG: json.dumps(tag)}, self._run_id)

    def _read(self) -> dict[str, Any]:
        return _parsed(runs.get(self._run_id).data.tags.get(TAG, ""))


def token_of(run_id: str) -> str:
    """The token of the driver that has a sweep; empty where none has."""
    return str(_parsed(runs.get(run_id).data.tags.get(TAG, "")).get("token", ""))


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""


def _parsed(text: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(text)
    except ValueError:  # nothing, or cut off by a full disk
        return {}
    return content


def _self() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "folder": str(Path.cwd()),
    }


def _machine() -> str:
    """What tells this machine, and this container's own list of processes, from others of the same name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # macOS
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str:
    """When a process of this machine started, in a form to compare: its id may be another's by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_here(other: dict[str, Any]) -> bool:
    return other.get("machine") == _machine()


def _is_gone(other: dict[str, Any]) -> bool:
    """Whether a driver of this machine has ended; False of one that cannot be looked at from here."""
    if not _is_here(other):
        return False
    try:
        os.kill(other["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # one of this very process was broken off
    return bool(other["pid"] == os.getpid()) or _started(other["pid"]) != other["started"]


def _who(other: dict[str, Any]) -> str:
    return f"a sweep in process {other.get('pid', '?')} on {other.get('host', 'another machine')}"


def _refusal(study: str, other: dict[str, Any]) -> str:
    return (
        f"another sweep drives study {study}: process {other.get('pid')} on {other.get('host')}, since "
        f"{other.get('since')}, in {other.get('folder')}; wait for it, or stop it (kill {other.get('pid')}) "
        "and run the same command again"
    )
