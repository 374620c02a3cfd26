"""Where a sweep's cells run: in a thread of this process, or on the workers of a Dask cluster.

Both take tasks and give events, in one queue: `started`, `epoch` and `ended`, as dicts with the task's token.
"""

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

import distributed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from pipeline.execution import failures, worker
from pipeline.execution.worker import Task
from pipeline.runtime import logs
from pipeline.runtime.console import duration
from pipeline.runtime.errors import UserError

_PREFIX = "cell-"  # of the keys of cells among a cluster's tasks
_LOOK = 2  # seconds between two looks at a cluster's workers


class InProcessExecutor:
    """Runs cells in this process, one after the other: no second import of TensorFlow."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def slots(self) -> int:
        """How many cells can run at once."""
        return 1

    def submit(self, task: Task) -> None:
        """Begin a cell."""

        def run() -> None:
            result = worker.run_cell(task, self._events.put)
            self._events.put({"event": "ended", "token": task.token, "result": result})

        # a daemon, so that a second Ctrl-C need not wait for it
        threading.Thread(target=run, daemon=True).start()

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next event, or None where none comes for so many seconds."""
        return _next(self._events, timeout)

    def send_command(self, token: str, command: str) -> None:
        """Send a cell `worker.CONTINUE`, `worker.PRUNE` or `worker.STOP`."""
        worker.send_command(token, command)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function where cells run, and wait for what it returns."""
        return function(*arguments)

    def close(self) -> None:
        """Nothing to close: a cell that still runs ends with the process."""


class DaskExecutor:
    """Runs cells on a Dask cluster's workers, one at a time on each.

    Args:
        client: connected to the cluster.
        worker_wait: seconds that `call` waits for a worker if none is present.
        close: closes the cluster, where it is this process's own.
    """

    def __init__(
        self, client: distributed.Client, worker_wait: float, close: Callable[[], object] | None = None
    ):
        self._client, self._worker_wait, self._close = client, worker_wait, close
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._futures: dict[str, distributed.Future[Any]] = {}
        self._workers: dict[str, tuple[str, int]] = {}  # address and process id, by token
        self._exits = _Exits()
        client.subscribe_topic(worker.TOPIC, lambda event: self._take(event[1]))

    def slots(self) -> int:
        """How many workers there are now: some may join later, or leave."""
        return len(self._client.nthreads())

    def submit(self, task: Task) -> None:
        """Begin a cell."""
        future = self._client.submit(worker.run_cell, task, key=f"{_PREFIX}{task.token}", pure=False)
        self._futures[task.token] = future
        future.add_done_callback(lambda future: self._done(task.token, future))

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next event, or None where none comes for so many seconds."""
        return _next(self._events, timeout)

    def send_command(self, token: str, command: str) -> None:
        """Send a cell `worker.CONTINUE`, `worker.PRUNE` or `worker.STOP`."""
        if token in self._workers:
            address, _ = self._workers[token]
            # A lost worker accepts no orders; its cell's end reports the loss.
            self._client.run(worker.send_command, token, command, workers=[address], on_error="ignore")

    def stop_others(self, study: str, session: str) -> list[str]:
        """Tell the cells that another driver of the study began to stop; returns those that still run."""
        answers = self._client.run(worker.stop_others, study, session, on_error="ignore")
        return [name for names in answers.values() for name in names]

    def end(self, token: str) -> None:
        """End a cell at once, by ending its worker's process, which Dask's nanny starts anew.

        Where another client's tasks run on that worker, the process stays: the cell stops at the
        end of its epoch, and its worker takes no other cell before.
        """
        if future := self._futures.pop(token, None):
            future.cancel(force=True)
        if token not in self._workers:
            return
        address, _ = self._workers[token]
        if self._close is None and self._is_shared(address):
            self._client.run(worker.send_command, token, worker.STOP, workers=[address], on_error="ignore")
        else:
            self._client.restart_workers([address], timeout=30, raise_for_error=False)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on a worker, and wait for what it returns.

        Raises:
            UserError: the worker's process died, there is no worker, or the cluster is gone.
        """
        future = self._client.submit(function, *arguments, pure=False)
        alone = time.monotonic()
        while True:
            try:
                return future.result(timeout=_LOOK)
            except TimeoutError:
                if future.done():  # the function's own
                    raise
                if self.slots():
                    alone = time.monotonic()
                elif time.monotonic() - alone >= self._worker_wait:
                    future.cancel(force=True)
                    raise UserError(
                        f"no worker has been there for {duration(self._worker_wait)} (sweep.worker_wait); "
                        "run the same command again"
                    ) from None
            except (KilledWorker, CancelledError, CommClosedError) as error:
                raise UserError(
                    f"the worker's process died, or the cluster is gone ({type(error).__name__}); every cell "
                    "is kept; run the same command again"
                ) from None

    def _is_shared(self, address: str) -> bool:
        """Whether a worker has tasks that are not of this driver, or whether nobody can say."""
        try:
            keys = self._client.processing([address]).get(address, ())
        except (OSError, TimeoutError, CommClosedError):
            return True
        return any(not str(key).startswith(_PREFIX) for key in keys)

    def close(self) -> None:
        """Leave the cluster; one of this process's own is closed, whatever runs there."""
        self._exits.close()
        self._client.close(timeout=5)
        if self._close:
            self._close()

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "started":
            self._workers[event["token"]] = event["worker"], event["pid"]
        self._events.put(event)

    def _done(self, token: str, future: distributed.Future[Any]) -> None:
        if self._futures.get(token) is not future:
            return  # it was ended on purpose
        self._events.put({"event": "ended", "token": token, "result": self._result(token, future)})
        del self._futures[token]

    def _result(self, token: str, future: distributed.Future[Any]) -> Mapping[str, Any]:
        error = future.exception() if future.status == "error" else None
        if future.status == "finished":
            result: Mapping[str, Any] = future.result()
            return result
        if isinstance(error, KilledWorker):
            _, pid = self._workers.get(token, ("", 0))
            how = self._exits.of(pid) if self._close else ""  # other machines' processes cannot be inspected
            return {"state": failures.DIED, "reason": f"its process died{how}"}
        if error is None:
            return {"state": failures.BROKEN, "reason": "the connection to the cluster was lost"}
        return {"state": failures.FAILED, "reason": f"{type(error).__name__}: {error}"}


Executor = InProcessExecutor | DaskExecutor


class _Exits(logging.Handler):
    """How this machine's workers ended: Dask's nannies tell it in their log alone."""

    MESSAGE = re.compile(r"Worker process (\d+) (was killed by signal|exited with status) (\d+)")
    SIGNALS: Mapping[str, str] = {"9": "killed, perhaps for lack of memory", "11": "a segmentation fault"}

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._how: dict[int, str] = {}
        self._logger = logging.getLogger("distributed.nanny")
        self._before = self._logger.level, self._logger.propagate
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = logs.debugging()

    def emit(self, record: logging.LogRecord) -> None:
        if found := self.MESSAGE.search(record.getMessage()):
            pid, how, number = found.groups()
            meaning = self.SIGNALS.get(number) if "signal" in how else None
            self._how[int(pid)] = f" ({how} {number}{': ' + meaning if meaning else ''})"

    def of(self, pid: int) -> str:
        """How a process ended, in brackets; empty where its nanny does not tell within a second or two."""
        for _ in range(20):
            if pid in self._how:
                break
            time.sleep(0.1)
        return self._how.get(pid, "")

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._before[0])
        self._logger.propagate = self._before[1]
        super().close()


def _next(events: "queue.SimpleQueue[dict[str, Any]]", timeout: float) -> dict[str, Any] | None:
    try:
        return events.get(timeout=timeout)
    except queue.Empty:
        return None
