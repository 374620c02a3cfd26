"""Train every cell of a grid, rank them, and measure the best one on the test split.

    mlflow run . -e sweep
    mlflow run . -e sweep -P 'sweep.grid={"batch_size":[16,64],"dropout":[0.3,0.5]}'
    mlflow run . -e sweep -P sweep.plan=true

Each cell is a run nested in the sweep's, with its metrics, report and model. The sweep's own run gets the
leaderboard, the best cell's id (tag `best_run_id`) and that cell's report on the test split, which nothing
else has touched; `verdict.json`, which says from which others the best one cannot be told; and a page of all
of it, `report.html`. With `sweep.finalists`, the best cells are trained again with other seeds, each in a
nested run, and their means rank them. The same command after a stop, however that came, goes on: finished
cells stay, and those that were training go on from their last epoch. The default, 48 cells on the drawn
sample, takes about 4 minutes on two cores.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import counted
from pipeline.errors import Interrupted, UserError
from pipeline.params import Params
from pipeline.steps import command, train
from pipeline.sweep import warm

if TYPE_CHECKING:
    from pipeline.data.prepared import Prepared
    from pipeline.sweep.cells import Cell
    from pipeline.sweep.executors import Here, OnCluster
    from pipeline.sweep.plan import Plan
    from pipeline.sweep.study import Study
    from pipeline.tracking.trials import CellRun, Sweep


def run(params: Params) -> "Sequence[CellRun]":
    """Sweep and record it; returns the finished cells, best first.

    Raises:
        UserError: a cell failed; the others are recorded all the same.
        Interrupted: it was stopped; what is done is recorded.
    """
    from pipeline.data import prepared
    from pipeline.doctor import quick
    from pipeline.sweep import finalists, lock, plan
    from pipeline.tracking import runs, trials

    params = own_grid(params)
    if params.sweep.cluster is None:  # its workers may have other files than this machine
        params.check_files()
    params = train.in_precision(params)
    pictures = prepared.prepare(params.data, params.seed)
    print(*quick.lines(pictures), sep="\n", flush=True)
    study = study_name(params, pictures.digest)
    if params.sweep.plan:
        found = None if params.sweep.fresh else trials.newest_sweep(study)
        planned = plan.of(params, found.cells() if found else [])
        _print_plan(params, planned)
        for line in finalists.plan_lines(params, planned, found):
            print(line)
        return []
    count = workers(params)
    with lock.held(study, Path(params.data.cache)), _opened(params, study) as (sweep, is_new):
        if is_new:
            runs.log_prepared(pictures, params.data.source)
        ranking, failed = _sweep(params, sweep, pictures, count)
        if failed:
            lines = [f"  {name}: {reason}" for name, reason in failed.items()]
            what = f"{counted(len(failed), 'cell')} failed; the same command tries just these again:"
            raise UserError("\n".join([what, *lines]))
    print("compare the cells with `mlflow ui`; register the best with `mlflow run . -e register`")
    return ranking


def own_grid(params: Params) -> Params:
    """The parameters without the keys of the grid that mean nothing to the network."""
    try:
        params, left_out = params.with_own_grid()
    except ValueError as error:
        raise UserError(str(error)) from None
    if left_out:
        names = ", ".join(params.sweep.grid.name or [params.model.name])
        print(f"sweep.grid: {', '.join(left_out)} left out, since they mean nothing to {names}", flush=True)
    return params


def study_name(params: Params, data_digest: str) -> str:
    """The study's name: what its cells depend on, but not the grid, decides it."""
    depends_on = [data_digest, params.seed, params.model.model_dump(), params.train.model_dump()]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]


def workers(params: Params) -> int:
    """How many workers there will be on this machine; 0 where they are a cluster's.

    Raises:
        UserError: more than the machine can use, or a cluster whose workers could not reach the store.
    """
    from pipeline.sweep import cluster
    from pipeline.tracking import runs

    if params.sweep.cluster is None:
        return cluster.workers(params.sweep)
    if where := runs.local_part():
        raise UserError(
            f"sweep.cluster: its workers cannot reach {where}, which is on this machine alone; start an "
            "MLflow server that they reach (mlflow server --host 0.0.0.0) and set MLFLOW_TRACKING_URI to its "
            "address"
        )
    return 0


@contextmanager
def _opened(params: Params, study: str) -> "Iterator[tuple[Sweep, bool]]":
    """The study's one run, open: made by this very command, or by the first one that swept this study.

    Yields:
        The run, and whether it is new.
    """
    from pipeline.sweep import plan
    from pipeline.tracking import runs, trials

    sweep = None if params.sweep.fresh else trials.newest_sweep(study)
    if sweep:
        plan.of(params, sweep.cells())  # where it cannot be gone on with, its run stays as it is
        with runs.started_by_mlflow("sweep", params, {"step": "resume", "resumes": sweep.run_id}):
            print(f"study {sweep.study} is there: going on with it in run {sweep.run_id}", flush=True)
            with runs.reopened(sweep.run_id):
                yield sweep, False
        return
    name = trials.next_generation(study)
    with runs.run("sweep", params, {"step": "sweep", "study": name, "format": trials.FORMAT}) as run_id:
        yield trials.Sweep.of(runs.get(run_id)), True


def _sweep(
    params: Params, sweep: "Sweep", pictures: "Prepared", count: int
) -> "tuple[list[CellRun], dict[str, str]]":
    """Drive the sweep and record it; returns the ranking, and why cells failed, by their names."""
    from pipeline.data import splits
    from pipeline.sweep import finalists, leaderboard, outcome, plan, study
    from pipeline.sweep.cells import Cell
    from pipeline.tracking import runs, trials

    planned = plan.of(params, sweep.cells())
    left = finalists.trainings_left(params, planned, sweep)
    with _executor(params, left, count) as (executor, versions):
        # while workers import TensorFlow
        asked = study.Study(
            sweep.study,
            params.sweep,
            params.seed,
            params.epochs,
            params.sweep.storage or runs.study_database(Path(params.data.cache)),
            planned.done,
            trials.validation_accuracies,
        )
        where = _where(params, sweep, pictures)
        planned, again, stopped = _drive(params, sweep, planned, asked, executor, versions, where)
        failed = {Cell(run.values).name: run.reason for run in [*planned.failed, *again.failed]}
        runs.log_metrics(
            {
                "cells/total": planned.total,
                "cells/finished": len(planned.done),
                "cells/failed": len(planned.failed),
            }
        )
        repeated = finalists.of(params, planned.done, again.done)
        means = finalists.means(repeated, params.sweep.metric)
        ranking = leaderboard.ranked(planned.done, params.sweep.metric, means)
        if ranking:
            outcome.record(ranking, repeated, params, len(pictures.indices(splits.VALIDATION)))
            # of the winner alone, which is not known while repeats wait for another time
            if not stopped and again.total == len(again.done) + len(again.failed):
                outcome.measure(ranking[0], params, sweep, executor, where)
        if left or "report.html" not in runs.artifacts(sweep.run_id, ""):
            outcome.show(ranking, params, sweep, pictures, executor, where, stopped is not None)
        if stopped:
            print(f"{len(planned.done):,} of {counted(planned.total, 'cell')} are done")
            if again.total:
                print(f"{len(again.done):,} of {counted(again.total, 'repeat')} of the finalists are done")
            raise stopped
    return ranking, failed


def _drive(
    params: Params,
    sweep: "Sweep",
    planned: "Plan",
    study: "Study",
    executor: "Here | OnCluster",
    versions: Mapping[str, str],
    where: Mapping[str, Any],
) -> "tuple[Plan, Plan, Interrupted | None]":
    """Run the cells, then the finalists again; returns what is done of both, and how it was stopped if so."""
    from pipeline.sweep import driver, finalists, plan
    from pipeline.tracking import runs

    start = time.monotonic()

    def drive(planned: "Plan", new_run: "Callable[[Cell], str]") -> Interrupted | None:
        driving = driver.Driver(
            params, sweep, new_run, planned, study, executor, where, runs.store(), versions, start
        )
        try:
            driving.drive()
        except Interrupted as interrupted:
            return interrupted
        except KeyboardInterrupt:
            executor.close()
            driving.give_up()
            raise Interrupted("stopped at once; the same command goes on from the last epochs kept") from None
        return None

    stopped = drive(planned, lambda cell: sweep.new_cell(cell.name, cell.key))
    planned = plan.of(params, sweep.cells())
    again = finalists.planned(params, planned.done, sweep.finalists())
    if again.total > len(again.done) and not stopped:
        print(finalists.announcement(params), flush=True)
        of = finalists.originals(params, planned.done)
        stopped = drive(again, lambda cell: sweep.new_finalist(cell.name, cell.key, of[cell]))
        again = finalists.planned(params, planned.done, sweep.finalists())
    return planned, again, stopped


@contextmanager
def _executor(
    params: Params, left: int, count: int
) -> "Iterator[tuple[Here | OnCluster, Mapping[str, str]]]":
    """Where so many trainings run, and the packages that must be there."""
    from pipeline.sweep import cluster
    from pipeline.sweep.executors import Here

    versions: Mapping[str, str] = {}
    if params.sweep.cluster is not None:
        executor, versions = cluster.connect(params.sweep)
    # A cell that hangs can be ended only in a process of its own.
    elif left == 0 or (count == 1 and params.sweep.cell_timeout is None):
        executor = Here()
    else:
        executor = cluster.start(params.sweep, min(count, left), count)
    try:
        yield executor, versions
    finally:
        executor.close()


def _where(params: Params, sweep: "Sweep", pictures: "Prepared") -> dict[str, Any]:
    """Where workers find the prepared pictures, which a cluster's may have to fetch from the sweep's run."""
    from pipeline.sweep import supply
    from pipeline.tracking import runs

    where = {
        "path": str(pictures.path.absolute()),
        "digest": pictures.digest,
        "cache": str(Path(params.data.cache).absolute()),
        "run_id": "",
    }
    if params.sweep.cluster is not None:
        names = {path.name for path in pictures.path.iterdir()}
        if not names <= runs.artifacts(sweep.run_id, supply.FOLDER):
            runs.upload(pictures.path, supply.FOLDER)
        # a folder of the worker's own machine, relative to where it was started
        where |= {"run_id": sweep.run_id, "cache": params.data.cache}
    return where


def _print_plan(params: Params, planned: "Plan") -> None:
    from pipeline.sweep import cells, plan
    from pipeline.sweep.cells import Cell

    def state(key: str) -> str:
        run = planned.known.get(key)
        if run is None:
            return "to train"
        if run.trial:
            return f"done, {params.sweep.metric} {run.trial.scores[params.sweep.metric]:.4f}"
        return f"failed, to try again: {run.reason}" if run.status == "FAILED" else "begun"

    wanted = cells.cells(params.sweep.grid) if params.sweep.sampler == "grid" else []
    named = {plan.identity(params, cell): cell.name for cell in wanted}
    for key, run in planned.known.items():
        named.setdefault(key, Cell(run.values).name)
    for key, name in named.items():
        print(f"{name}: {state(key)}")
    drawn = planned.total - len(named)
    if drawn:
        print(f"and {drawn:,} that {params.sweep.sampler} will draw")
    print(planned.summary())


def main() -> None:
    """Parse the command line and sweep."""
    command(run, warm.begin, logs_models=True)


if __name__ == "__main__":
    main()
