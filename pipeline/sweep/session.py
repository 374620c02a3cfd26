"""One start of a sweep: open its run, drive its cells and finalists, record the outcome."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.evaluation.objective import Objective
from pipeline.execution.lock import Fence
from pipeline.runtime.console import counted
from pipeline.runtime.errors import Interrupted, UserError
from pipeline.sweep import finalists, identity, outcome, plan
from pipeline.sweep import ranking as rankings
from pipeline.sweep.cells import Cell
from pipeline.sweep.context import Backend, SweepContext
from pipeline.sweep.driver import Driver
from pipeline.sweep.order import Rule
from pipeline.sweep.plan import Plan
from pipeline.sweep.ranking import Ranking
from pipeline.sweep.study import Study
from pipeline.tracking import StoreError, artifacts, runs, store, sweep_runs
from pipeline.tracking.sweep_runs import Sweep
from pipeline.training import mixed_precision


@dataclass
class Ended:
    """How driving ended.

    Attributes:
        cells: The cells, finished and left.
        repeats: The repeats of the finalists, finished and left.
        out_of_time: Whether the time budget ended it.
        interrupted: Ctrl-C or SIGTERM; None if neither came.
        failed: Why no cell could run; None if cells could.
    """

    cells: Plan
    repeats: Plan
    out_of_time: bool = False
    interrupted: Interrupted | None = None
    failed: UserError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every cell, and every repeat, is finished or failed."""
        return self.cells.pending == self.repeats.pending == 0


@contextmanager
def open_sweep(asked: Params, prepared: Prepared, study: str) -> Iterator[SweepContext]:
    """Open the run of a study: the run of its first sweep, or a new one.

    Args:
        asked: The parameters as given.
        prepared: The prepared images.
        study: The study's name, whose lock is held.

    Yields:
        The open sweep.

    Raises:
        UserError: Another driver is alive, or the finished cells cannot be ranked; the run is unchanged.
    """
    sweep = None if asked.sweep.restart else identity.find(asked, prepared.digest)
    if sweep and sweep.study != study:
        raise UserError(
            f"another sweep has just started study {sweep.study}; rerun the same command to resume it"
        )
    started = {sweep_runs.STARTED: str(round(1000 * time.time())), sweep_runs.COMPLETE: "false"}
    tags = identity.tags(asked, sweep) | started
    with _resumed(asked, sweep, tags) if sweep else _new(asked, prepared, study, tags) as context:
        yield context


@contextmanager
def _resumed(asked: Params, sweep: Sweep, tags: dict[str, str]) -> Iterator[SweepContext]:
    params = identity.resumed(asked, sweep)
    rule = Rule.of(params)
    Ranking.make(rule, sweep.cells(), [], 0, 0, False)  # raises before anything is written
    with (
        runs.started_by_mlflow("sweep", params, {"step": "resume", "resumes": sweep.run_id}),
        _fenced(sweep) as fence,
        runs.reopened(sweep.run_id),
    ):
        print(f"resuming study {sweep.study} (run {sweep.run_id})", flush=True)
        if (metric := Rule.read(sweep).metric) != rule.metric:
            print(
                f"ranking by {rule.metric}; finished cells keep their best epoch by {metric} "
                "(sweep.restart=true retrains them)",
                flush=True,
            )
        runs.set_tags(tags | rule.tags)
        sweep.delete_empty_duplicates()
        yield SweepContext(params, Sweep.from_run(runs.get(sweep.run_id)), fence)


@contextmanager
def _new(asked: Params, prepared: Prepared, study: str, tags: dict[str, str]) -> Iterator[SweepContext]:
    params, because = mixed_precision.resolve(asked)
    if params is not asked:
        print(f"precision: {params.train.precision} ({because})", flush=True)
    name = sweep_runs.new_study_name(study)
    about = {"step": "sweep", "study": name, "format": sweep_runs.FORMAT, sweep_runs.DATA: prepared.digest}
    with runs.run("sweep", params, about | tags | Rule.of(params).tags) as run_id:
        sweep = Sweep.from_run(runs.get(run_id))
        with _fenced(sweep) as fence:
            _refuse_second(asked, prepared, run_id)
            artifacts.log_prepared(prepared, params.data.source)
            yield SweepContext(params, sweep, fence)


def _refuse_second(asked: Params, prepared: Prepared, run_id: str) -> None:
    """Leave a study to the driver with the older run, if two have started it at the same time.

    Raises:
        UserError: This driver's run is the younger one; it no longer counts as a sweep's.
    """
    first = None if asked.sweep.restart else identity.oldest(asked, prepared.digest)
    if first and first.run_id != run_id:
        runs.set_tags({"step": "refused"})
        raise UserError(
            f"another sweep has just started this study (run {first.run_id}); wait for it or stop it, then "
            "rerun the same command"
        )


@contextmanager
def _fenced(sweep: Sweep) -> Iterator[Fence]:
    fence = Fence(sweep.run_id, sweep.study)
    try:
        yield fence
    finally:
        with suppress(StoreError, UserError):  # the first failure of the store is already on its way
            fence.release()


def drive(context: SweepContext, backend: Backend, planned: Plan) -> Ended:
    """Run the cells, then the repeats of the finalists.

    Args:
        context: The open sweep.
        backend: Where cells run.
        planned: The sweep's cells.
    """
    params, sweep, start = context.params, context.sweep, time.monotonic()
    objective = Objective(params.sweep.metric)
    runs.log_metrics({"cells/total": planned.total})  # recorded even if the sweep is killed
    study = Study(
        sweep.study,
        params,
        params.sweep.storage or store.study_database(Path(params.data.cache)),
        planned.done,
        lambda run_id: sweep_runs.history(run_id, objective.key),
    )
    ended = Ended(planned, repeats=Plan(0, {}, [], noun="repeat"))
    exhausted = False
    try:
        driver = Driver(
            context, backend, planned, study, lambda cell: sweep.new_cell(cell.name, cell.key), start
        )
        _run(driver, context, backend, ended)
        exhausted = driver.exhausted
        planned = plan.of(params, sweep.cells(), exhausted)
        repeats = finalists.planned(params, planned.done, sweep.finalists())
        left = repeats.total - len(repeats.done)
        if left and planned.pending == 0 and not (ended.interrupted or ended.failed):
            print(finalists.announcement(params), flush=True)
            of = finalists.originals(params, planned.done)

            def new_repeat(cell: Cell) -> str:
                return sweep.new_finalist(cell.name, cell.key, of[cell])

            _run(Driver(context, backend, repeats, study, new_repeat, start), context, backend, ended)
    except KeyboardInterrupt:  # between the two, no driver handles signals
        ended.interrupted = Interrupted("stopped; rerun the same command to resume")
    ended.cells = plan.of(params, sweep.cells(), exhausted)
    ended.repeats = finalists.planned(params, ended.cells.done, sweep.finalists())
    return ended


def _run(driver: Driver, context: SweepContext, backend: Backend, ended: Ended) -> None:
    """Drive cells, and note how that ended."""
    try:
        driver.drive()
    except Interrupted as stop:
        ended.interrupted = stop
    except KeyboardInterrupt:
        backend.executor.close()
        driver.abort()
        ended.interrupted = Interrupted("aborted; rerun the same command to resume from the last checkpoints")
    except UserError as error:
        context.fence.check()  # nothing more is written to a sweep that another driver has taken over
        ended.failed = error
    ended.out_of_time |= driver.out_of_time


def record(context: SweepContext, ended: Ended, images: int) -> tuple[Ranking, bool]:
    """Rank the cells, and log the ranking and the counts to the sweep's run.

    Args:
        context: The open sweep.
        ended: How driving ended.
        images: The number of images in the validation split.

    Returns:
        The ranking, and whether it differs from the stored one.
    """
    sweep, planned = context.sweep, ended.cells
    ranking = Ranking.make(
        Rule.of(context.params),
        [*planned.done, *planned.failed],
        sweep.finalists(),
        planned.total,
        images,
        ended.is_complete,
    )
    before = rankings.stored(sweep.run_id)
    # Compared as JSON, since NaN is not equal to itself.
    is_new = before is None or before.as_json() != ranking.as_json()
    context.fence.check()
    runs.log_metrics(
        {
            "cells/total": planned.total,
            "cells/finished": len(planned.done),
            "cells/failed": len(planned.failed),
            "cells/pruned": sum(run.result.pruned for run in planned.done),
        }
    )
    if ranking.cells:
        outcome.record(ranking, context)
    context.fence.check()
    runs.set_tags({sweep_runs.COMPLETE: "true" if ranking.complete else "false"})
    return ranking, is_new


def conclude(ranking: Ranking, ended: Ended) -> None:
    """Report how the sweep ended.

    Raises:
        UserError: Cells failed, or are unfinished though nobody stopped the sweep.
        Interrupted: The sweep was stopped.
    """
    planned, repeats = ended.cells, ended.repeats
    if not ranking.complete:
        print(f"{len(planned.done):,} of {counted(planned.total, 'cell')} finished", flush=True)
        if repeats.total:
            print(f"{len(repeats.done):,} of {counted(repeats.total, 'repeat')} of the finalists finished")
    if ended.interrupted:
        raise ended.interrupted
    if ended.failed:
        raise ended.failed
    failed = {Cell(run.values).name: run.reason for run in [*planned.failed, *repeats.failed]}
    if failed:
        lines = [f"  {name}: {reason}" for name, reason in failed.items()]
        what = f"{counted(len(failed), 'cell')} failed; rerun the same command to retry them:"
        raise UserError("\n".join([what, *lines]))
    if not ranking.complete and not ended.out_of_time:
        raise UserError("the sweep is not complete; rerun the same command to resume")
