"""One driver a study: a second one would train the same cells."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import runs

BEAT = 15  # seconds between two signs of life
DEAD = 60  # seconds without one after which a driver on another machine is taken for dead
TAG = "driver"


@contextmanager
def held(study: str, cache: Path) -> Iterator[None]:
    """Be the only driver of a study on this machine; the lock goes with the process, however that ends.

    Raises:
        UserError: another process has it; the text names it.
    """
    file = cache / "sweeps" / f"{study}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(_refusal(study, json.loads(lock.read() or "{}"))) from None
        lock.truncate(0)
        lock.write(json.dumps(_self()))
        lock.flush()
        yield


class Heartbeat:
    """Signs of life on a sweep's run, for drivers on other machines that use the same store.

    Args:
        run_id: the sweep's run.

    Raises:
        UserError: another driver has given one not long ago.
    """

    def __init__(self, run_id: str, study: str):
        self._run_id, self._last = run_id, 0.0
        other = json.loads(runs.get(run_id).data.tags.get(TAG, "{}"))
        if other and time.time() - other["beat"] < DEAD and not _is_gone(other):
            raise UserError(_refusal(study, other))
        self.beat()

    def beat(self) -> None:
        """Give a sign of life where the last one is old."""
        if time.time() - self._last >= BEAT:
            self._last = time.time()
            runs.set_tags({TAG: json.dumps(_self() | {"beat": self._last})}, self._run_id)

    def stop(self) -> None:
        """Say that this driver is done."""
        runs.delete_tag(TAG, self._run_id)


def _self() -> dict:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "folder": str(Path.cwd()),
    }


def _is_gone(other: dict) -> bool:
    if other["host"] != socket.gethostname():
        return False
    try:
        os.kill(other["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return other["pid"] == os.getpid()


def _refusal(study: str, other: dict) -> str:
    return (
        f"another sweep drives study {study}: process {other.get('pid')} on {other.get('host')}, since "
        f"{other.get('since')}, in {other.get('folder')}; wait for it, or stop it (kill {other.get('pid')}) "
        "and run the same command again"
    )
