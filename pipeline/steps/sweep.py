"""Train every cell of a grid, rank them, and measure the best one on the test split.

    mlflow run . -e sweep
    mlflow run . -e sweep -P 'sweep.grid={"batch_size":[16,64],"dropout":[0.3,0.5]}'
    mlflow run . -e sweep -P sweep.dry_run=true

Each cell is a run nested in the sweep's run, with its metrics, report and model. The sweep's run gets the
leaderboard, the id of the best cell's run (tag `best_run_id`), that cell's report on the test split, which
nothing else reads, `verdict.json`, which lists the cells that are not significantly worse than the best, and
the sweep report, `report.html`. With `sweep.finalists`, the best cells are retrained with other seeds, each
in a nested run, and their means rank them. Rerun the same command after any stop to resume: finished cells
are kept, and unfinished cells resume from their last epoch. The default, 48 cells on the drawn sample, takes
about 4 minutes on two cores.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.execution import forkserver
from pipeline.sources import split_names
from pipeline.steps import command

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.sweep.context import SweepContext
    from pipeline.sweep.ranking import Ranking


def run(params: Params) -> "Ranking | None":
    """Sweep and record it; returns the ranking, or None of a plan.

    Raises:
        UserError: A cell failed or is unfinished; the others are recorded.
        Interrupted: It was stopped; finished cells are recorded.
    """
    from pipeline.dataset import prepare
    from pipeline.doctor import class_balance
    from pipeline.execution import lock
    from pipeline.sweep import dry_run, identity, plan, session

    asked = plan.own_grid(params)
    if asked.sweep.cluster is None:  # its workers may have other files than this machine
        asked.check_files()
    prepared = prepare.prepare(asked.data, asked.seed)
    print(*class_balance.lines(prepared), sep="\n", flush=True)
    if asked.sweep.dry_run:
        dry_run.print_plan(asked, prepared.digest)
        return None
    from pipeline.execution import launch

    count = launch.workers(asked)
    found = None if asked.sweep.restart else identity.find(asked, prepared.digest)
    study = found.study if found else identity.study_name(asked, prepared.digest)
    with (
        lock.study_lock(study, Path(asked.data.cache)),
        session.open_sweep(asked, prepared, study) as context,
    ):
        ranking = _sweep(context, prepared, count)
    if ranking.complete:
        print("compare the cells with `mlflow ui`; register the best with `mlflow run . -e register`")
    return ranking


def _sweep(context: "SweepContext", prepared: "Prepared", count: int) -> "Ranking":
    """Drive an open sweep and record it.

    Raises:
        UserError: It is not complete, or cells failed.
        Interrupted: It was stopped.
    """
    from pipeline.execution import launch
    from pipeline.reports import sweep_outcome
    from pipeline.sweep import finalists, outcome, plan, session
    from pipeline.sweep.context import Backend
    from pipeline.tracking import artifacts, store

    params, sweep, fence = context.params, context.sweep, context.fence
    planned = plan.of(params, sweep.cells())
    left = finalists.trainings_left(params, planned, sweep)
    with launch.executor(params, left, count) as (executor, versions):
        backend = Backend(executor, launch.dataset_location(params, sweep, prepared), store.uri(), versions)
        ended = session.drive(context, backend, planned)
        fence.check()
        images = len(prepared.indices(split_names.VALIDATION))
        ranking, is_new = session.record(context, ended, images)
        if ended.failed:  # no worker, no disk, no store: nothing else can be made
            raise ended.failed
        if ranking.cells and ranking.complete:
            outcome.measure(ranking, prepared, context, backend)
        if left or is_new or "report.html" not in artifacts.names(sweep.run_id, ""):
            sweep_outcome.show(ranking, prepared, context, backend)
        fence.check()  # before the run is closed
        session.conclude(ranking, ended)
    return ranking


def main() -> None:
    """Parse the command line and sweep."""
    command(run, forkserver.start, logs_models=True)


if __name__ == "__main__":
    main()
