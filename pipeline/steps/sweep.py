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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data import splits
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.steps import command
from pipeline.sweep import warm

if TYPE_CHECKING:
    from pipeline.data.prepared import Prepared
    from pipeline.sweep.executors import Here, OnCluster
    from pipeline.sweep.lock import Fence
    from pipeline.sweep.ranking import Ranking
    from pipeline.tracking.trials import Sweep


def run(params: Params) -> "Ranking | None":
    """Sweep and record it; returns the ranking, or None of a plan.

    Raises:
        UserError: a cell failed, or is not settled; the others are recorded all the same.
        Interrupted: it was stopped; what is done is recorded.
    """
    from pipeline.data import prepared
    from pipeline.doctor import quick
    from pipeline.sweep import identity, lock, session

    asked = own_grid(params)
    if asked.sweep.cluster is None:  # its workers may have other files than this machine
        asked.check_files()
    pictures = prepared.prepare(asked.data, asked.seed)
    print(*quick.lines(pictures), sep="\n", flush=True)
    if asked.sweep.plan:
        session.print_plan(asked, pictures.digest)
        return None
    count = workers(asked)
    found = None if asked.sweep.fresh else identity.find(asked, pictures.digest)
    study = found.study if found else identity.study_name(asked, pictures.digest)
    with (
        lock.held(study, Path(asked.data.cache)),
        session.opened(asked, pictures, study) as (params, sweep, fence),
    ):
        ranking = _sweep(params, sweep, fence, pictures, count)
    if ranking.complete:
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


def workers(params: Params) -> int:
    """How many workers there will be on this machine; 0 where they are a cluster's.

    Raises:
        UserError: more than the machine can use, or a cluster whose workers could not reach the store.
    """
    from pipeline.sweep import cluster
    from pipeline.tracking import store

    if params.sweep.cluster is None:
        return cluster.workers(params.sweep)
    if where := store.local_part():
        raise UserError(
            f"sweep.cluster: its workers cannot reach {where}, which is on this machine alone; start an "
            "MLflow server that they reach (mlflow server --host 0.0.0.0) and set MLFLOW_TRACKING_URI to its "
            "address"
        )
    return 0


def _sweep(params: Params, sweep: "Sweep", fence: "Fence", pictures: "Prepared", count: int) -> "Ranking":
    """Drive the sweep and record it.

    Raises:
        UserError: it is not complete, or cells failed.
        Interrupted: it was stopped.
    """
    from pipeline.sweep import finalists, outcome, plan, session
    from pipeline.sweep.driver import Place
    from pipeline.tracking import artifacts, store

    planned = plan.of(params, sweep.cells())
    left = finalists.trainings_left(params, planned, sweep)
    with _executor(params, left, count) as (executor, versions):
        place = Place(executor, _where(params, sweep, pictures), store.uri(), versions)
        ended = session.drive(params, sweep, fence, planned, place)
        fence.check()
        images = len(pictures.indices(splits.VALIDATION))
        ranking, is_new = session.record(params, sweep, fence, ended, images)
        if ended.failed:  # no worker, no disk, no store: nothing else can be made
            raise ended.failed
        if ranking.cells and ranking.complete:
            outcome.measure(ranking, pictures, sweep, fence, place)
        if left or is_new or "report.html" not in artifacts.names(sweep.run_id, ""):
            outcome.show(ranking, sweep, fence, pictures, place)
        fence.check()  # before the run is closed
        session.conclude(ranking, ended)
    return ranking


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
    from pipeline.tracking import artifacts

    where = {
        "path": str(pictures.path.absolute()),
        "digest": pictures.digest,
        "cache": str(Path(params.data.cache).absolute()),
        "run_id": "",
    }
    if params.sweep.cluster is not None:
        names = {path.name for path in pictures.path.iterdir()}
        if not names <= artifacts.names(sweep.run_id, supply.FOLDER):
            artifacts.upload(pictures.path, supply.FOLDER)
        # a folder of the worker's own machine, relative to where it was started
        where |= {"run_id": sweep.run_id, "cache": params.data.cache}
    return where


def main() -> None:
    """Parse the command line and sweep."""
    command(run, warm.begin, logs_models=True)


if __name__ == "__main__":
    main()
