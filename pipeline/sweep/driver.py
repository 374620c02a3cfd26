"""Drives a sweep: has every cell that is not done run, once, and settles what becomes of each.

What is done is read from the runs, so it does not matter what was killed before, nor where. Only this process
makes cells' runs and writes the study; only the worker that has a cell writes to its run.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.console import counted, duration
from pipeline.errors import Interrupted, UserError
from pipeline.params import Params
from pipeline.sweep import plan, worker
from pipeline.sweep.cells import Cell
from pipeline.sweep.executors import Here, OnCluster
from pipeline.sweep.lock import Heartbeat
from pipeline.sweep.plan import Plan
from pipeline.sweep.progress import Progress
from pipeline.sweep.study import DatabaseError, Study
from pipeline.sweep.worker import Task
from pipeline.tracking import StoreError, trials
from pipeline.tracking.trials import Sweep

# Ctrl-C in a terminal reaches this process as SIGINT, and through `mlflow run` once more as SIGTERM: so many
# seconds after the first, that is no second wish.
SAME_STOP = 5
TICK = 0.5  # seconds between two looks at clocks and signals


def _summary(params: Params, sweep: Sweep, planned: Plan, workers: int) -> str:
    """What is said before cells run: how many, how many are done, on how many workers."""
    parts = [planned.summary()]
    if planned.begun:
        parts.append(f"{len(planned.begun):,} of them begun")
    where = f" of {params.sweep.cluster}" if params.sweep.cluster else ""
    parts.append(f"{counted(workers, 'worker')}{where}")
    return f"{', '.join(parts)}; study {sweep.study}"


@dataclass
class _Running:
    """A cell in flight."""

    cell: Cell
    run_id: str
    token: str
    deaths: int = 0
    started: float | None = None


class Driver:
    """Drives one sweep to its end, or to where it is stopped.

    Args:
        params: those in force.
        sweep: the sweep's run.
        new_run: makes a cell's run; gives its id.
        planned: its cells.
        study: proposes cells.
        executor: runs them.
        pictures: of the tasks.
        store: MLflow's tracking URI.
        versions: that workers must have; none for workers of this machine.
        start: what the time budget counts from, by `time.monotonic`.
    """

    def __init__(
        self,
        params: Params,
        sweep: Sweep,
        new_run: Callable[[Cell], str],
        planned: Plan,
        study: Study,
        executor: Here | OnCluster,
        pictures: Mapping[str, Any],
        store: str,
        versions: Mapping[str, str],
        start: float,
    ):
        self._params, self._sweep, self._study, self._executor = params, sweep, study, executor
        self._pictures, self._store, self._versions = pictures, store, versions
        self._new_run, self._start = new_run, start
        self._session = uuid.uuid4().hex
        self._runs = {key: run.run_id for key, run in planned.known.items()}
        self._seen = {key for key, run in planned.known.items() if run.trial}
        self._waiting = list(planned.open)
        self._seen |= {plan.identity(params, cell) for cell in planned.open}
        self._left = planned.total - len(planned.done) - len(planned.open)
        self._reserve: list[Cell] = []
        self._running: dict[str, _Running] = {}
        self._stopping, self._broken, self._told_to_stop = "", "", False
        self._summary = _summary(params, sweep, planned, executor.slots())
        best = max((run.trial.scores[params.sweep.metric] for run in planned.done), default=None)
        self._progress = Progress(
            planned.total, len(planned.done), params.epochs, params.sweep.metric, best, planned.noun
        )

    def drive(self) -> None:
        """Run cells until none is left.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; with all cells recorded as far as they have come.
            KeyboardInterrupt: a second one; cells in flight were left at once.
            UserError: what every cell needs failed: the store, the disk, the cluster, the pictures.
        """
        heartbeat = Heartbeat(self._sweep.run_id, self._sweep.study)
        try:
            with self._signals():
                self._progress.say(self._summary)
                self._stop_others()
                while True:
                    self._fill()
                    if not self._running:
                        break
                    self._pass_on_stop()
                    self._look_ahead()
                    if event := self._executor.next(TICK):
                        self._handle(event)
                    self._end_overdue()
                    heartbeat.beat()
        except DatabaseError as error:
            self._broken = f"the study's database failed: {error.__cause__ or error}".splitlines()[0]
        finally:
            self._progress.close()
            # Where one of these fails, what made it fail is on its way to be told.
            with suppress(DatabaseError):
                self._study.close()
            with suppress(StoreError):
                heartbeat.stop()
        if self._broken:
            raise UserError(f"{self._broken}; mend that, and the same command goes on")
        if self._stopping == "interrupted":
            raise Interrupted("stopped; the same command goes on where the cells were left")

    def give_up(self) -> None:
        """Record cells that were left at once, as far as the store still takes it."""
        for running in self._running.values():
            trials.interrupt(running.run_id)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM once: stop at the end of the epoch; again: at once."""
        first: tuple[int, float] | None = None

        def handle(number: int, frame: object) -> None:
            nonlocal first
            now = time.monotonic()
            if first and number == signal.SIGTERM != first[0] and now - first[1] < SAME_STOP:
                return
            if self._stopping == "interrupted":
                raise KeyboardInterrupt
            first = number, now
            self._stop("interrupted")  # before it is said: the next one may come at once
            self._progress.say(
                "stopping: cells that train end their epoch and keep it; once more (Ctrl-C) stops at once"
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
        if (self._stopping == "interrupted" or self._broken) and not self._told_to_stop:
            self._told_to_stop = True
            for token in self._running:
                self._executor.order(token, worker.STOP)

    def _stop_others(self) -> None:
        """Have cells stop that a killed driver left behind on a cluster: two would write to one run."""
        said = False
        while isinstance(self._executor, OnCluster) and not self._stopping:
            names = self._executor.stop_others(self._sweep.study, self._session)
            if not names:
                return
            if not said:
                self._progress.say(f"waiting for cells of an earlier driver to stop: {', '.join(names)}")
            said = True
            time.sleep(TICK)

    def _fill(self) -> None:
        """Give every free worker a cell."""
        budget = self._params.sweep.time_budget
        if budget and time.monotonic() - self._start >= budget and not self._stopping:
            self._progress.say("the time budget is used up: no more cells are started")
            self._stop("budget")
        if self._stopping or self._broken:
            return
        slots = self._executor.slots()
        if isinstance(self._params.sweep.workers, int):
            slots = min(slots, self._params.sweep.workers)
        while len(self._running) < slots and (cell := self._next()):
            key = plan.identity(self._params, cell)
            if key not in self._runs:
                self._runs[key] = self._new_run(cell)
            self._submit(_Running(cell, self._runs[key], ""))

    def _next(self) -> Cell | None:
        if self._waiting:
            return self._study.take(self._waiting.pop(0))
        self._look_ahead()
        return self._reserve.pop() if self._reserve else None

    def _look_ahead(self) -> None:
        """Ask for a cell of a grid while others train: a worker that is free then need not wait for it."""
        ahead = self._params.sweep.sampler == "grid" or len(self._running) < self._executor.slots()
        if self._reserve or self._waiting or self._left <= 0 or self._stopping or not ahead:
            return
        cell = self._study.ask(lambda cell: plan.identity(self._params, cell) in self._seen)
        if cell is None:
            self._left = 0
            return
        self._left -= 1
        self._seen.add(plan.identity(self._params, cell))
        self._reserve.append(cell)

    def _submit(self, running: _Running) -> None:
        token = uuid.uuid4().hex
        self._running[token] = running
        running.token, running.started = token, None
        cell = running.cell
        self._executor.submit(
            Task(
                token=token,
                session=self._session,
                study=self._sweep.study,
                run_id=running.run_id,
                name=cell.name,
                params=self._params.with_cell(cell.values).model_dump(by_alias=True),
                store=self._store,
                pictures=self._pictures,
                judged=self._params.sweep.pruner != "none",
                shared=self._params.sweep.cluster is not None,
                versions=self._versions,
            )
        )
        self._progress.started(cell)

    def _handle(self, event: Mapping[str, Any]) -> None:
        running = self._running.get(event["token"])
        if running is None:
            return  # of a cell that was ended or has ended: an event can be late
        match event["event"]:
            case "started":
                self._count_start(running)
            case "epoch":
                self._judge(running, event["epoch"], event["value"])
            case "ended":
                del self._running[event["token"]]
                self._settle(running, event["result"])

    def _count_start(self, running: _Running) -> None:
        if running.started is not None:  # Dask has tried it again by itself
            running.deaths += 1
            if running.deaths > self._params.sweep.retries:
                self._executor.end(running.token)
                self._fail(running, "its process died")
                return
        running.started = time.monotonic()
        if self._told_to_stop:
            self._executor.order(running.token, worker.STOP)

    def _judge(self, running: _Running, epoch: int, value: float) -> None:
        running.deaths = 0  # it comes on: a death before that does not count any more
        self._progress.epoch(running.cell, epoch)
        self._study.report(running.cell, epoch, value)
        if self._params.sweep.pruner != "none" and epoch < self._params.epochs:
            verdict = worker.PRUNE if self._study.prunes(running.cell) else worker.GO
            self._executor.order(running.token, verdict)

    def _settle(self, running: _Running, result: Mapping[str, Any]) -> None:
        state, reason = result["state"], result.get("reason", "")
        if state == worker.FINISHED:
            score = result["scores"][self._params.sweep.metric]
            self._study.tell(running.cell, running.run_id, score, result["pruned"])
            note = " (diverged)" if result["diverged"] else ""
            note += f" (pruned after epoch {result['epochs']})" if result["pruned"] else ""
            self._progress.ended(running.cell, score, note)
        elif state == worker.DIED:
            running.deaths += 1
            tries = running.deaths + 1
            if running.deaths > self._params.sweep.retries:
                times = f" {running.deaths} times in the same epoch" if running.deaths > 1 else ""
                self._fail(running, f"{reason}{times}")
            elif self._stopping or self._broken:
                self._leave(running)
            else:
                self._progress.say(
                    f"{running.cell.name}: {reason}; try {tries} of {1 + self._params.sweep.retries}"
                )
                self._submit(running)
        elif state == worker.FAILED:
            self._study.tell(running.cell, running.run_id, None)
            self._progress.ended(running.cell, None, reason)
        else:
            self._leave(running)
            if state == worker.BROKEN:
                self._broken = self._broken or reason

    def _fail(self, running: _Running, reason: str) -> None:
        """Record a cell as failed whose process cannot do it."""
        self._running.pop(running.token, None)
        trials.fail(running.run_id, reason)
        self._study.tell(running.cell, running.run_id, None)
        self._progress.ended(running.cell, None, reason)

    def _leave(self, running: _Running) -> None:
        """A cell that is to be gone on with another time."""
        self._study.tell(running.cell, running.run_id, None)
        self._progress.left(running.cell)

    def _end_overdue(self) -> None:
        timeout = self._params.sweep.cell_timeout
        for running in [*self._running.values()] if timeout else []:
            if running.started is not None and time.monotonic() - running.started > timeout:
                self._executor.end(running.token)
                self._fail(running, f"took longer than sweep.cell_timeout, {duration(timeout)}")
