"""The cells that workers have: each is submitted, followed, retried and recorded here."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.execution import failures, worker
from pipeline.execution.executors import DaskExecutor
from pipeline.execution.worker import Task
from pipeline.runtime.console import duration
from pipeline.sweep import plan
from pipeline.sweep.cell_queue import CellQueue
from pipeline.sweep.cells import Cell
from pipeline.sweep.context import Backend, SweepContext
from pipeline.sweep.plan import Plan
from pipeline.sweep.progress import Progress
from pipeline.sweep.study import Study
from pipeline.tracking import sweep_runs


@dataclass
class _Running:
    """A cell that a worker has.

    Attributes:
        cell: Its parameters.
        run_id: Its run.
        token: Of the task that trains it.
        deaths: How often its process died, or its worker left, since its last epoch.
        started: When its training began, by `time.monotonic`; None before that.
    """

    cell: Cell
    run_id: str
    token: str = ""
    deaths: int = 0
    started: float | None = None


class RunningCells:
    """The cells in training.

    Args:
        context: The open sweep.
        backend: Where cells run.
        planned: The sweep's cells.
        study: Receives the scores of cells.
        progress: Shows it.
        new_run: Creates a cell's run; returns its id.

    Attributes:
        draining: Whether cells that lose their process are left for later in place of a retry.
        broken: Why no cell can run, if so.
    """

    def __init__(
        self,
        context: SweepContext,
        backend: Backend,
        planned: Plan,
        study: Study,
        progress: Progress,
        new_run: Callable[[Cell], str],
    ):
        self._params, self._sweep, self._fence = context.params, context.sweep, context.fence
        self._backend, self._executor = backend, backend.executor
        self._study, self._progress, self._new_run = study, progress, new_run
        self._runs = {key: run.run_id for key, run in planned.existing.items()}
        self._running: dict[str, _Running] = {}  # by the token of the task
        self._stopped = self.draining = False
        self.broken = ""

    def __len__(self) -> int:
        """How many cells workers have."""
        return len(self._running)

    def start(self, cell: Cell) -> None:
        """Submit a cell, in its existing run or in a new one."""
        key = plan.identity(self._params, cell)
        if key not in self._runs:
            self._fence.check()
            self._runs[key] = self._new_run(cell)
        self._submit(_Running(cell, self._runs[key]))

    def stop(self) -> None:
        """Stop every cell at the end of its epoch."""
        if not self._stopped:
            self._stopped = True
            for token in self._running:
                self._executor.send_command(token, worker.STOP)

    def interrupt(self) -> None:
        """Record every cell as interrupted, if the store still accepts it."""
        for running in self._running.values():
            sweep_runs.interrupt(running.run_id)

    def release(self) -> None:
        """Leave every cell to be resumed later: no worker is there to stop it."""
        for running in [*self._running.values()]:
            self._end(running)
            self._running.pop(running.token)
            self._release(running)

    def end_overdue(self) -> None:
        """End the cells that take longer than `sweep.cell_timeout`; each counts as failed."""
        timeout = self._params.sweep.cell_timeout
        if timeout is None:
            return
        for running in [*self._running.values()]:
            if running.started is not None and time.monotonic() - running.started > timeout:
                self._end(running)
                self._fail(running, f"took longer than sweep.cell_timeout, {duration(timeout)}")

    def handle(self, event: Mapping[str, Any], queue: CellQueue) -> None:
        """Handle an event of an executor.

        Args:
            event: `started`, `epoch` or `ended`, with the task's token.
            queue: Gets a cell back whose run was deleted.
        """
        running = self._running.get(event["token"])
        if running is None:
            return  # a late event of a cell that has ended
        match event["event"]:
            case "started":
                self._count_start(running)
            case "epoch":
                self._report_epoch(running, event["epoch"], event["value"])
            case "ended":
                self._fence.check()
                del self._running[event["token"]]
                self._handle_result(running, event["result"], queue)

    def _submit(self, running: _Running) -> None:
        self._fence.check()
        token = uuid.uuid4().hex
        self._running[token] = running
        running.token, running.started = token, None
        cell, epochs = running.cell, self._params.epochs_of(running.cell.values)
        self._executor.submit(
            Task(
                token=token,
                session=self._fence.token,
                study=self._sweep.study,
                sweep_run_id=self._sweep.run_id,
                run_id=running.run_id,
                name=cell.name,
                params=self._params.with_cell(cell.values).model_dump(by_alias=True),
                store=self._backend.store,
                images=self._backend.images,
                epochs=epochs,
                pruning=self._params.sweep.pruner != "none",
                shared=self._params.sweep.cluster is not None,
                versions=self._backend.versions,
            )
        )
        self._progress.started(cell, epochs)

    def _count_start(self, running: _Running) -> None:
        if running.started is not None:  # Dask has restarted the task by itself
            running.deaths += 1
            if running.deaths > self._params.sweep.retries:
                self._end(running)
                self._fail(running, "its process died")
                return
        running.started = time.monotonic()
        if self._stopped:
            self._executor.send_command(running.token, worker.STOP)

    def _report_epoch(self, running: _Running, epoch: int, value: float) -> None:
        running.deaths = 0  # retries are counted from the last finished epoch
        self._progress.epoch(running.cell, epoch)
        self._study.report(running.cell, epoch, value)
        if self._params.sweep.pruner != "none" and epoch < self._params.epochs_of(running.cell.values):
            command = worker.PRUNE if self._study.prunes(running.cell) else worker.CONTINUE
            self._executor.send_command(running.token, command)

    def _handle_result(self, running: _Running, result: Mapping[str, Any], queue: CellQueue) -> None:
        state, reason = result["state"], result.get("reason", "")
        if state == failures.FINISHED:
            score = result["scores"][self._params.sweep.metric]
            self._study.tell(running.cell, running.run_id, score, result["pruned"])
            note = " (diverged)" if result["diverged"] else ""
            note += f" (pruned after epoch {result['epochs']})" if result["pruned"] else ""
            self._progress.ended(running.cell, score, note)
        elif state == failures.BROKEN:
            self._release(running)
            self.broken = self.broken or reason
        elif state in (failures.STOPPED, failures.FAILED) and sweep_runs.is_deleted(running.run_id):
            self._restart_cell(running, queue)
        elif state == failures.FAILED:
            self._study.tell(running.cell, running.run_id, None)
            self._progress.ended(running.cell, None, reason)
        else:
            self._retry(running, state, reason)

    def _retry(self, running: _Running, state: str, reason: str) -> None:
        """Submit a cell again whose process died or whose worker left; it resumes from its last epoch."""
        draining = self.draining or bool(self.broken)
        if state == failures.STOPPED and draining:
            self._release(running)
            return
        running.deaths += 1
        if running.deaths > self._params.sweep.retries:
            times = f" {running.deaths} times in the same epoch" if running.deaths > 1 else ""
            self._fail(running, f"{reason}{times}")
        elif draining:
            self._release(running)
        else:
            tries = f"try {running.deaths + 1} of {1 + self._params.sweep.retries}"
            self._progress.say(f"{running.cell.name}: {reason}; {tries}")
            self._submit(running)

    def _restart_cell(self, running: _Running, queue: CellQueue) -> None:
        """Return a cell to the queue for a new run: its own was deleted during training."""
        self._progress.say(
            f"{running.cell.name}: its run {running.run_id} was deleted; training restarts in a new run"
        )
        self._runs.pop(plan.identity(self._params, running.cell), None)
        self._release(running)
        queue.put_back(running.cell)

    def _fail(self, running: _Running, reason: str) -> None:
        """Record a cell as failed, in place of its process."""
        self._fence.check()
        self._running.pop(running.token, None)
        sweep_runs.fail(running.run_id, reason)
        self._study.tell(running.cell, running.run_id, None)
        self._progress.ended(running.cell, None, reason)

    def _release(self, running: _Running) -> None:
        """Leave a cell to be resumed later."""
        self._study.tell(running.cell, running.run_id, None)
        self._progress.left(running.cell)

    def _end(self, running: _Running) -> None:
        """End a cell at once. A cell of this process cannot be ended; `launch` uses workers for timeouts."""
        if isinstance(self._executor, DaskExecutor):
            self._executor.end(running.token)
