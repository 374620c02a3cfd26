"""The driver: runs every unfinished cell of a sweep once, and records each result.

Finished cells are read from the tracking store, so a sweep that was killed at any point can be resumed. Only
this process creates cells' runs and writes the study; only the worker that trains a cell writes to its run.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.config.params import Params
from pipeline.execution import failures, worker
from pipeline.execution.executors import DaskExecutor, Executor
from pipeline.execution.lock import Fence
from pipeline.execution.worker import Task
from pipeline.runtime.console import counted, duration
from pipeline.runtime.errors import Interrupted, UserError
from pipeline.sweep import cells, plan
from pipeline.sweep.cells import Cell
from pipeline.sweep.plan import Plan
from pipeline.sweep.progress import Progress
from pipeline.sweep.study import DatabaseError, Study
from pipeline.tracking import sweep_runs
from pipeline.tracking.sweep_runs import Sweep

# Ctrl-C in a terminal reaches this process as SIGINT, and again as SIGTERM through `mlflow run`: within this
# time, both are one request.
SIGNAL_MERGE_SECONDS = 5
TICK_SECONDS = 0.5  # between two checks of clocks and signals
IDLE_NOTICE_SECONDS = 5  # without any worker; a worker whose process died restarts sooner


def _summary(params: Params, sweep: Sweep, planned: Plan, workers: int) -> str:
    """The line printed before cells run: cells, finished cells, workers, study."""
    parts = [planned.summary()]
    if planned.begun:
        parts.append(f"{len(planned.begun):,} resumed from a checkpoint")
    where = f" of {params.sweep.cluster}" if params.sweep.cluster else ""
    parts.append(f"{counted(workers, 'worker')}{where}")
    return f"{', '.join(parts)}; study {sweep.study}"


@dataclass
class _Running:
    """A cell in flight, and how often its process died, or left it, since its last epoch."""

    cell: Cell
    run_id: str
    token: str = ""
    deaths: int = 0
    started: float | None = None


@dataclass(frozen=True)
class Place:
    """Where cells run, and what they run on.

    Attributes:
        executor: runs them.
        images: of the tasks: where the prepared images are, and what they must be.
        store: MLflow's tracking URI.
        versions: of packages, that workers must have; none for workers of this machine.
    """

    executor: Executor
    images: Mapping[str, Any]
    store: str
    versions: Mapping[str, str]


class Driver:
    """Drives one sweep to its end, or to where it is stopped.

    Args:
        params: those in force.
        sweep: the sweep's run.
        fence: keeps other drivers out.
        new_run: makes a cell's run; gives its id.
        planned: its cells.
        study: proposes cells.
        place: where they run.
        start: what the time budget counts from, by `time.monotonic`.
    """

    def __init__(
        self,
        params: Params,
        sweep: Sweep,
        fence: Fence,
        new_run: Callable[[Cell], str],
        planned: Plan,
        study: Study,
        place: Place,
        start: float,
    ):
        self._params, self._sweep, self._fence, self._study = params, sweep, fence, study
        self._place, self._executor = place, place.executor
        self._new_run, self._start = new_run, start
        self._runs = {key: run.run_id for key, run in planned.known.items()}
        self._seen = {key for key, run in planned.known.items() if run.trial}
        self._waiting = list(planned.open)
        self._seen |= {plan.identity(params, cell) for cell in planned.open}
        self._left = planned.total - len(planned.done) - len(planned.open)
        self._reserve: list[Cell] = []
        self._running: dict[str, _Running] = {}
        self._stopping, self._broken, self._stop_sent = "", "", False
        self._idle_since: float | None = None
        self._idle_reported = False
        self.exhausted = self.out_of_time = False
        self._summary = _summary(params, sweep, planned, self._executor.slots())
        self._progress = Progress(params.sweep.metric, planned, _epochs_of(params, planned), params.epochs)

    def drive(self) -> None:
        """Run cells until none is left.

        `exhausted` then says whether the sampler had no more, `out_of_time` whether the time budget ended it.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; with all cells recorded as far as they have come.
            KeyboardInterrupt: a second one; cells in flight were left at once.
            UserError: what every cell needs failed: the store, the disk, the cluster, the images; or another
                driver has taken the sweep over.
        """
        try:
            with self._signals():
                self._progress.say(self._summary)
                self._stop_others()
                while True:
                    self._fill()
                    self._watch_workers()
                    if not self._running and (self._stopping or self._broken or not self._has_more()):
                        break
                    self._pass_on_stop()
                    self._prefetch()
                    if event := self._executor.next(TICK_SECONDS):
                        self._handle(event)
                    self._end_overdue()
        except DatabaseError as error:
            self._broken = f"the study's database failed: {error.__cause__ or error}".splitlines()[0]
        finally:
            self._progress.close()
            # Where this fails, what made it fail is on its way to be told.
            with suppress(DatabaseError):
                self._study.close()
        if self._broken:
            raise UserError(f"{self._broken}; fix that and rerun the same command to resume")
        if self._stopping == "interrupted":
            raise Interrupted("stopped; rerun the same command to resume")

    def abort(self) -> None:
        """Record cells that were left at once, as far as the store still takes it."""
        for running in self._running.values():
            sweep_runs.interrupt(running.run_id)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM once: stop at the end of the epoch; again: at once."""
        first: tuple[int, float] | None = None

        def handle(number: int, frame: object) -> None:
            nonlocal first
            now = time.monotonic()
            if first and number == signal.SIGTERM != first[0] and now - first[1] < SIGNAL_MERGE_SECONDS:
                return
            if self._stopping == "interrupted":
                raise KeyboardInterrupt
            first = number, now
            self._stop("interrupted")  # before it is said: the next one may come at once
            self._progress.say(
                "stopping: running cells finish and checkpoint their current epoch; Ctrl-C again aborts"
            )

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, why: str) -> None:
        if self._stopping != "interrupted":  # which also ends what a time budget lets end by itself
            self._stopping = why

    def _pass_on_stop(self) -> None:
        if (self._stopping == "interrupted" or self._broken) and not self._stop_sent:
            self._stop_sent = True
            for token in self._running:
                self._executor.send_command(token, worker.STOP)

    def _stop_others(self) -> None:
        """Have cells stop that a killed driver left behind on a cluster: two would write to one run."""
        said = False
        while isinstance(self._executor, DaskExecutor) and not self._stopping:
            names = self._executor.stop_others(self._sweep.study, self._fence.token)
            if not names:
                return
            if not said:
                self._progress.say(f"waiting for cells of a previous driver to stop: {', '.join(names)}")
            said = True
            time.sleep(TICK_SECONDS)

    def _watch_workers(self) -> None:
        """Wait for a worker where there is none, but not for ever: it may come back, or be on its way."""
        limit, now = self._params.sweep.worker_wait, time.monotonic()
        unfinished = self._running or self._has_more()
        if self._executor.slots() or not unfinished or self._broken:
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since, self._idle_reported = now, False
        if not self._idle_reported and now - self._idle_since >= IDLE_NOTICE_SECONDS:
            self._idle_reported = True
            self._progress.say(f"no worker is connected; waiting up to {duration(limit)} (sweep.worker_wait)")
        if self._stopping or now - self._idle_since >= limit:
            if not self._stopping:
                self._broken = f"no worker was connected for {duration(limit)} (sweep.worker_wait)"
            for running in [*self._running.values()]:  # none of them can be told to stop
                self._executor.end(running.token)
                self._running.pop(running.token)
                self._release(running)

    def _has_more(self) -> bool:
        """Whether there are cells that no worker has been given."""
        return bool(self._waiting or self._reserve or self._left > 0)

    def _fill(self) -> None:
        """Give every free worker a cell."""
        budget = self._params.sweep.time_budget
        if budget and time.monotonic() - self._start >= budget and not self._stopping:
            self._progress.say("the time budget is used up: no further cell is started")
            self._stop("budget")
            self.out_of_time = True
        if self._stopping or self._broken:
            return
        slots = self._executor.slots()
        if isinstance(self._params.sweep.workers, int):
            slots = min(slots, self._params.sweep.workers)
        while len(self._running) < slots and (cell := self._next()):
            key = plan.identity(self._params, cell)
            if key not in self._runs:
                self._fence.check()
                self._runs[key] = self._new_run(cell)
            self._submit(_Running(cell, self._runs[key]))

    def _next(self) -> Cell | None:
        if self._waiting:
            return self._study.enqueue(self._waiting.pop(0))
        self._prefetch()
        return self._reserve.pop() if self._reserve else None

    def _prefetch(self) -> None:
        """Ask for a cell of a grid while others train: a worker that is free then need not wait for it."""
        ahead = self._params.sweep.sampler == "grid" or len(self._running) < self._executor.slots()
        if self._reserve or self._waiting or self._left <= 0 or self._stopping or not ahead:
            return
        cell = self._study.ask(lambda cell: plan.identity(self._params, cell) in self._seen)
        if cell is None:
            self._left, self.exhausted = 0, True
            return
        self._left -= 1
        self._seen.add(plan.identity(self._params, cell))
        self._reserve.append(cell)

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
                store=self._place.store,
                images=self._place.images,
                epochs=epochs,
                pruning=self._params.sweep.pruner != "none",
                shared=self._params.sweep.cluster is not None,
                versions=self._place.versions,
            )
        )
        self._progress.started(cell, epochs)

    def _handle(self, event: Mapping[str, Any]) -> None:
        running = self._running.get(event["token"])
        if running is None:
            return  # of a cell that was ended or has ended: an event can be late
        match event["event"]:
            case "started":
                self._count_start(running)
            case "epoch":
                self._report_epoch(running, event["epoch"], event["value"])
            case "ended":
                self._fence.check()
                del self._running[event["token"]]
                self._handle_result(running, event["result"])

    def _count_start(self, running: _Running) -> None:
        if running.started is not None:  # Dask has tried it again by itself
            running.deaths += 1
            if running.deaths > self._params.sweep.retries:
                self._executor.end(running.token)
                self._fail(running, "its process died")
                return
        running.started = time.monotonic()
        if self._stop_sent:
            self._executor.send_command(running.token, worker.STOP)

    def _report_epoch(self, running: _Running, epoch: int, value: float) -> None:
        running.deaths = 0  # it comes on: a death before that does not count any more
        self._progress.epoch(running.cell, epoch)
        self._study.report(running.cell, epoch, value)
        if self._params.sweep.pruner != "none" and epoch < self._params.epochs_of(running.cell.values):
            verdict = worker.PRUNE if self._study.prunes(running.cell) else worker.CONTINUE
            self._executor.send_command(running.token, verdict)

    def _handle_result(self, running: _Running, result: Mapping[str, Any]) -> None:
        state, reason = result["state"], result.get("reason", "")
        if state == failures.FINISHED:
            score = result["scores"][self._params.sweep.metric]
            self._study.tell(running.cell, running.run_id, score, result["pruned"])
            note = " (diverged)" if result["diverged"] else ""
            note += f" (pruned after epoch {result['epochs']})" if result["pruned"] else ""
            self._progress.ended(running.cell, score, note)
        elif state == failures.BROKEN:
            self._release(running)
            self._broken = self._broken or reason
        elif state in (failures.STOPPED, failures.FAILED) and sweep_runs.is_deleted(running.run_id):
            self._restart_cell(running)
        elif state == failures.FAILED:
            self._study.tell(running.cell, running.run_id, None)
            self._progress.ended(running.cell, None, reason)
        else:
            self._try_again(running, state, reason)

    def _try_again(self, running: _Running, state: str, reason: str) -> None:
        """Submit a cell again whose process died, or whose worker left; it resumes from its last epoch."""
        if state == failures.STOPPED and (self._stopping or self._broken):
            self._release(running)
            return
        running.deaths += 1
        if running.deaths > self._params.sweep.retries:
            times = f" {running.deaths} times in the same epoch" if running.deaths > 1 else ""
            self._fail(running, f"{reason}{times}")
        elif self._stopping or self._broken:
            self._release(running)
        else:
            tries = f"try {running.deaths + 1} of {1 + self._params.sweep.retries}"
            self._progress.say(f"{running.cell.name}: {reason}; {tries}")
            self._submit(running)

    def _restart_cell(self, running: _Running) -> None:
        """Give a cell another run, since its own was deleted while it was trained."""
        self._progress.say(
            f"{running.cell.name}: its run {running.run_id} was deleted; training restarts in a new run"
        )
        key = plan.identity(self._params, running.cell)
        self._runs.pop(key, None)
        self._release(running)
        self._waiting.append(running.cell)

    def _fail(self, running: _Running, reason: str) -> None:
        """Record a cell as failed whose process cannot do it."""
        self._fence.check()
        self._running.pop(running.token, None)
        sweep_runs.fail(running.run_id, reason)
        self._study.tell(running.cell, running.run_id, None)
        self._progress.ended(running.cell, None, reason)

    def _release(self, running: _Running) -> None:
        """A cell that is to be resumed another time."""
        self._study.tell(running.cell, running.run_id, None)
        self._progress.left(running.cell)

    def _end_overdue(self) -> None:
        timeout = self._params.sweep.cell_timeout
        for running in [*self._running.values()] if timeout else []:
            if running.started is not None and time.monotonic() - running.started > timeout:
                self._executor.end(running.token)
                self._fail(running, f"took longer than sweep.cell_timeout, {duration(timeout)}")


def _epochs_of(params: Params, planned: Plan) -> Mapping[str, int]:
    """How many epochs the cells that are not done have at most, by their keys, as far as they are known."""
    wanted = list(planned.open)
    if params.sweep.sampler == "grid" and planned.noun == "cell":
        done = {plan.identity(params, run.values) for run in planned.done}
        wanted += [cell for cell in cells.cells(params.sweep.grid) if plan.identity(params, cell) not in done]
    return {cell.key: params.epochs_of(cell.values) for cell in wanted}
