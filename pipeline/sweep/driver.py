"""The driver: runs every unfinished cell of a sweep once, and records each result.

Finished cells are read from the tracking store, so a sweep that was killed at any point can be resumed. Only
this process creates cells' runs and writes the study; only the worker that trains a cell writes to its run.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from pipeline.execution.executors import DaskExecutor
from pipeline.runtime.console import counted, duration
from pipeline.runtime.errors import Interrupted, UserError
from pipeline.sweep import plan, stop_signals
from pipeline.sweep.cell_queue import CellQueue
from pipeline.sweep.cells import Cell
from pipeline.sweep.context import Backend, SweepContext
from pipeline.sweep.plan import Plan
from pipeline.sweep.progress import Progress
from pipeline.sweep.running_cells import RunningCells
from pipeline.sweep.study import DatabaseError, Study

TICK_SECONDS = 0.5  # between two checks of clocks and signals
IDLE_NOTICE_SECONDS = 5  # without any worker; a worker whose process died restarts sooner


class Driver:
    """Drives a sweep until its cells are done or it is stopped.

    Args:
        context: The open sweep.
        backend: Where cells run.
        planned: The sweep's cells.
        study: Proposes cells.
        new_run: Creates a cell's run; returns its id.
        start: When the time budget began, by `time.monotonic`.

    Attributes:
        out_of_time: Whether the time budget ended the sweep.
    """

    def __init__(
        self,
        context: SweepContext,
        backend: Backend,
        planned: Plan,
        study: Study,
        new_run: Callable[[Cell], str],
        start: float,
    ):
        self._params, self._context = context.params, context
        self._executor, self._study, self._start = backend.executor, study, start
        epochs = plan.epochs_left(self._params, planned)
        self._progress = Progress(self._params.sweep.metric, planned, epochs, self._params.epochs)
        self._queue = CellQueue(self._params, planned, study)
        self._running = RunningCells(context, backend, planned, study, self._progress, new_run)
        self._stopping: Literal["", "interrupted", "budget"] = ""
        self._idle_since: float | None = None
        self._idle_reported = self.out_of_time = False
        self._summary = self._summarize(planned)

    @property
    def exhausted(self) -> bool:
        """Whether the sampler has no further cell."""
        return self._queue.exhausted

    def drive(self) -> None:
        """Run cells until none is left.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; every cell is recorded up to its last epoch.
            KeyboardInterrupt: A second one; running cells were left at once.
            UserError: What every cell needs failed: the store, the disk, the cluster or the images. Or
                another driver has taken the sweep over.
        """
        try:
            with stop_signals.handled(self._interrupt):
                self._progress.say(self._summary)
                self._stop_others()
                while True:
                    self._fill()
                    self._watch_workers()
                    if not self._running and (self._halted or not self._queue):
                        break
                    if self._stopping == "interrupted" or self._running.broken:
                        self._running.stop()  # at the end of the time budget, cells run to their end
                    self._prefetch()
                    if event := self._executor.next(TICK_SECONDS):
                        self._running.handle(event, self._queue)
                    self._running.end_overdue()
        except DatabaseError as error:
            self._running.broken = f"the study's database failed: {error.__cause__ or error}".splitlines()[0]
        finally:
            self._progress.close()
            # If this fails too, the first failure is already on its way to the user.
            with suppress(DatabaseError):
                self._study.close()
        if self._running.broken:
            raise UserError(f"{self._running.broken}; fix that and rerun the same command to resume")
        if self._stopping == "interrupted":
            raise Interrupted("stopped; rerun the same command to resume")

    def abort(self) -> None:
        """Record the running cells as interrupted, if the store still accepts it."""
        self._running.interrupt()

    @property
    def _halted(self) -> bool:
        """Whether no further cell is started."""
        return bool(self._stopping or self._running.broken)

    def _summarize(self, planned: Plan) -> str:
        """The line printed before cells run: cells, finished cells, workers, study."""
        parts = [planned.summary()]
        if planned.begun:
            parts.append(f"{len(planned.begun):,} resumed from a checkpoint")
        where = f" of {self._params.sweep.cluster}" if self._params.sweep.cluster else ""
        parts.append(f"{counted(self._executor.slots(), 'worker')}{where}")
        return f"{', '.join(parts)}; study {self._context.sweep.study}"

    def _interrupt(self) -> None:
        self._stop("interrupted")  # before the message: the next signal may come at once
        self._progress.say(
            "stopping: running cells finish and checkpoint their current epoch; Ctrl-C again aborts"
        )

    def _stop(self, why: Literal["interrupted", "budget"]) -> None:
        if self._stopping != "interrupted":
            self._stopping = why
        self._running.draining = True

    def _stop_others(self) -> None:
        """Stop cells that a killed driver left on a cluster: two workers would write to one run."""
        reported = False
        while isinstance(self._executor, DaskExecutor) and not self._stopping:
            names = self._executor.stop_others(self._context.sweep.study, self._context.fence.token)
            if not names:
                return
            if not reported:
                self._progress.say(f"waiting for cells of a previous driver to stop: {', '.join(names)}")
            reported = True
            time.sleep(TICK_SECONDS)

    def _watch_workers(self) -> None:
        """Wait for a worker if there is none, up to `sweep.worker_wait`: one may return or be starting."""
        limit, now = self._params.sweep.worker_wait, time.monotonic()
        if self._executor.slots() or self._running.broken or not (self._running or self._queue):
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since, self._idle_reported = now, False
        if not self._idle_reported and now - self._idle_since >= IDLE_NOTICE_SECONDS:
            self._idle_reported = True
            self._progress.say(f"no worker is connected; waiting up to {duration(limit)} (sweep.worker_wait)")
        if self._stopping or now - self._idle_since >= limit:
            if not self._stopping:
                self._running.broken = f"no worker was connected for {duration(limit)} (sweep.worker_wait)"
            self._running.release()

    def _fill(self) -> None:
        """Give every free worker a cell."""
        budget = self._params.sweep.time_budget
        if budget and time.monotonic() - self._start >= budget and not self._stopping:
            self._progress.say("the time budget is used up: no further cell is started")
            self._stop("budget")
            self.out_of_time = True
        if self._halted:
            return
        slots = self._executor.slots()
        if isinstance(self._params.sweep.workers, int):
            slots = min(slots, self._params.sweep.workers)
        while len(self._running) < slots and (cell := self._queue.next()):
            self._running.start(cell)

    def _prefetch(self) -> None:
        """Ask for the next cell while others train; a sampler that learns is asked as late as possible."""
        early = self._params.sweep.sampler == "grid" or len(self._running) < self._executor.slots()
        if early and not self._stopping:
            self._queue.prefetch()
