"""One start of a sweep: open its run, drive its cells and finalists, record the outcome, say how it ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.evaluation.objective import Objective
from pipeline.execution.lock import Fence
from pipeline.runtime.console import counted
from pipeline.runtime.errors import Interrupted, UserError
from pipeline.sweep import cells, finalists, identity, outcome, plan
from pipeline.sweep import ranking as rankings
from pipeline.sweep import study as studies
from pipeline.sweep.cells import Cell
from pipeline.sweep.driver import Driver, Place
from pipeline.sweep.order import Rule
from pipeline.sweep.plan import Plan
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import StoreError, artifacts, runs, store, sweep_runs
from pipeline.tracking.sweep_runs import Sweep
from pipeline.training import mixed_precision


@dataclass(frozen=True)
class Ended:
    """How driving ended.

    Attributes:
        cells: what is done of the cells, and what is left.
        repeats: the same of the finalists' repeats.
        out_of_time: whether the time budget ended it.
        interrupted: where it was stopped by Ctrl-C or SIGTERM.
        failed: why it cannot go on, where what every cell needs failed; else None.
    """

    cells: Plan
    repeats: Plan
    out_of_time: bool
    interrupted: Interrupted | None
    failed: UserError | None

    @property
    def is_complete(self) -> bool:
        """Whether every cell, and every repeat, is finished or failed."""
        return self.cells.pending == self.repeats.pending == 0


@contextmanager
def open_sweep(asked: Params, prepared: Prepared, study: str) -> Iterator[tuple[Params, Sweep, Fence]]:
    """The study's one run, open: made by this very command, or by the first one that swept this study.

    Args:
        asked: the parameters.
        prepared: the prepared images.
        study: the study's name, whose lock is held.

    Yields:
        The parameters that its cells are trained with, the run, and the fence that keeps other drivers out.

    Raises:
        UserError: another driver is alive, or the finished cells cannot be ranked; the run stays as it is.
    """
    sweep = None if asked.sweep.restart else identity.find(asked, prepared.digest)
    if sweep and sweep.study != study:
        raise UserError(
            f"another sweep has just started study {sweep.study}; rerun the same command to resume it"
        )
    started = {sweep_runs.STARTED: str(round(1000 * time.time())), sweep_runs.COMPLETE: "false"}
    known = identity.tags(asked, sweep) | started
    if sweep:
        params = identity.resumed(asked, sweep)
        Ranking.make(Rule.of(params), sweep.cells(), [], 0, 0, False)  # where it cannot be ranked, it stays
        with (
            runs.started_by_mlflow("sweep", params, {"step": "resume", "resumes": sweep.run_id}),
            _fenced(sweep) as fence,
            runs.reopened(sweep.run_id),
        ):
            print(f"resuming study {sweep.study} (run {sweep.run_id})", flush=True)
            if (metric := Rule.read(sweep).metric) != params.sweep.metric:
                print(
                    f"ranking by {params.sweep.metric}; finished cells keep their best epoch by {metric} "
                    "(sweep.restart=true retrains them)",
                    flush=True,
                )
            runs.set_tags(known | Rule.of(params).tags)
            sweep.delete_empty_duplicates()
            yield params, Sweep.from_run(runs.get(sweep.run_id)), fence
        return
    params, because = mixed_precision.resolve(asked)
    if params is not asked:
        print(f"precision: {params.train.precision} ({because})", flush=True)
    name = sweep_runs.new_study_name(study)
    about = {"step": "sweep", "study": name, "format": sweep_runs.FORMAT, sweep_runs.DATA: prepared.digest}
    with runs.run("sweep", params, about | known | Rule.of(params).tags) as run_id:
        sweep = Sweep.from_run(runs.get(run_id))
        with _fenced(sweep) as fence:
            _refuse_second(asked, prepared, run_id)
            artifacts.log_prepared(prepared, params.data.source)
            yield params, sweep, fence


def _refuse_second(asked: Params, prepared: Prepared, run_id: str) -> None:
    """Leave a study to the driver whose run is older, where two have begun it at once.

    Raises:
        UserError: this one's run is the younger; it is none of a sweep any more.
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
        with suppress(StoreError, UserError):  # where the store fails, what failed first is told
            fence.release()


def drive(params: Params, sweep: Sweep, fence: Fence, planned: Plan, place: Place) -> Ended:
    """Run the cells, then the finalists again; returns what is done of both, and how it ended."""
    start, objective = time.monotonic(), Objective(params.sweep.metric)
    runs.log_metrics({"cells/total": planned.total})  # known, whatever is killed from here on
    study = studies.Study(
        sweep.study,
        params.sweep,
        params.seed,
        params.most_epochs,
        params.sweep.storage or store.study_database(Path(params.data.cache)),
        planned.done,
        lambda run_id: sweep_runs.history(run_id, objective.key),
    )
    interrupted = failed = None
    out_of_time = False

    def run(planned: Plan, new_run: Callable[[Cell], str]) -> bool:
        """Drive a plan's cells; returns whether the sampler had no more."""
        nonlocal out_of_time, interrupted, failed
        driver = Driver(params, sweep, fence, new_run, planned, study, place, start)
        try:
            driver.drive()
        except Interrupted as stop:
            interrupted = stop
        except KeyboardInterrupt:
            place.executor.close()
            driver.abort()
            interrupted = Interrupted("aborted; rerun the same command to resume from the last checkpoints")
        except UserError as error:
            fence.check()  # where the sweep is another driver's, nothing more is written
            failed = error
        out_of_time |= driver.out_of_time
        return driver.exhausted

    exhausted = False
    try:
        exhausted = run(planned, lambda cell: sweep.new_cell(cell.name, cell.key))
        planned = plan.of(params, sweep.cells(), exhausted)
        again = finalists.planned(params, planned.done, sweep.finalists())
        if again.total > len(again.done) and planned.pending == 0 and not (interrupted or failed):
            print(finalists.announcement(params), flush=True)
            of = finalists.originals(params, planned.done)
            run(again, lambda cell: sweep.new_finalist(cell.name, cell.key, of[cell]))
    except KeyboardInterrupt:  # while no driver takes signals
        interrupted = Interrupted("stopped; rerun the same command to resume")
    planned = plan.of(params, sweep.cells(), exhausted)
    again = finalists.planned(params, planned.done, sweep.finalists())
    return Ended(planned, again, out_of_time, interrupted, failed)


def record(params: Params, sweep: Sweep, fence: Fence, ended: Ended, images: int) -> tuple[Ranking, bool]:
    """Rank the cells once, and log the ranking and the counts to the sweep's run.

    Args:
        params: those in force.
        sweep: its run, open.
        fence: keeps other drivers out.
        ended: how driving ended.
        images: of the validation split.

    Returns:
        The ranking, and whether it is another than the run had before.
    """
    planned, repeats = ended.cells, sweep.finalists()
    ranking = Ranking.make(
        Rule.of(params),
        [*planned.done, *planned.failed],
        repeats,
        planned.total,
        images,
        ended.is_complete,
    )
    before = rankings.stored(sweep.run_id)
    is_new = (
        before is None or before.as_json() != ranking.as_json()
    )  # which NaN does not keep from being equal
    fence.check()
    runs.log_metrics(
        {
            "cells/total": planned.total,
            "cells/finished": len(planned.done),
            "cells/failed": len(planned.failed),
            "cells/pruned": sum(run.trial.pruned for run in planned.done),
        }
    )
    if ranking.cells:
        outcome.record(ranking, params, fence)
    fence.check()
    runs.set_tags({sweep_runs.COMPLETE: "true" if ranking.complete else "false"})
    return ranking, is_new


def conclude(ranking: Ranking, ended: Ended) -> None:
    """Say how the sweep ended.

    Raises:
        UserError: cells failed, or are not settled though nobody stopped the sweep.
        Interrupted: it was stopped.
    """
    planned, again = ended.cells, ended.repeats
    if not ranking.complete:
        print(f"{len(planned.done):,} of {counted(planned.total, 'cell')} finished", flush=True)
        if again.total:
            print(f"{len(again.done):,} of {counted(again.total, 'repeat')} of the finalists finished")
    if ended.interrupted:
        raise ended.interrupted
    if ended.failed:
        raise ended.failed
    failed = {Cell(run.values).name: run.reason for run in [*planned.failed, *again.failed]}
    if failed:
        lines = [f"  {name}: {reason}" for name, reason in failed.items()]
        what = f"{counted(len(failed), 'cell')} failed; rerun the same command to retry them:"
        raise UserError("\n".join([what, *lines]))
    if not ranking.complete and not ended.out_of_time:
        raise UserError("the sweep is not complete; rerun the same command to resume")


def print_plan(asked: Params, data_digest: str) -> None:
    """Print the cells of the sweep that parameters ask for, and what is done; trains and records nothing."""
    sweep = None if asked.sweep.restart else identity.find(asked, data_digest)
    params = identity.resumed(asked, sweep) if sweep else asked
    if sweep:
        Ranking.make(Rule.of(params), sweep.cells(), [], 0, 0, False)  # whether it can be ranked
    planned = plan.of(params, sweep.cells() if sweep else [])
    objective = Objective(params.sweep.metric)

    def state(key: str) -> str:
        run = planned.known.get(key)
        if run is None:
            return "to train"
        if run.trial:
            return f"done, {objective.name} {objective.of_report(run.trial.scores):.4f}"
        return f"failed, to retry: {run.reason}" if run.status == "FAILED" else "to resume"

    wanted = cells.cells(params.sweep.grid) if params.sweep.sampler == "grid" else []
    named = {plan.identity(params, cell): cell.name for cell in wanted}
    for key, run in planned.known.items():
        named.setdefault(key, Cell(run.values).name)
    for key, name in named.items():
        print(f"{name}: {state(key)}")
    if drawn := planned.total - len(named):
        print(f"and {drawn:,} to be sampled ({params.sweep.sampler})")
    print(planned.summary())
    for line in finalists.plan_lines(params, planned, sweep):
        print(line)
