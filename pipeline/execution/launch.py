"""Where the cells of a sweep run: in this process, in workers of this machine, or on a cluster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.execution import cluster, dataset_fetch
from pipeline.execution.executors import Executor, InProcessExecutor
from pipeline.runtime.errors import UserError
from pipeline.tracking import artifacts, store
from pipeline.tracking.sweep_runs import Sweep


def workers(params: Params) -> int:
    """How many workers there will be on this machine; 0 where they are a cluster's.

    Raises:
        UserError: more than the machine can use, or a cluster whose workers could not reach the store.
    """
    if params.sweep.cluster is None:
        return cluster.workers(params.sweep)
    if where := store.local_part():
        raise UserError(
            f"sweep.cluster: its workers cannot reach {where}, which is on this machine alone; start an "
            "MLflow server that they reach (mlflow server --host 0.0.0.0) and set MLFLOW_TRACKING_URI to its "
            "address"
        )
    return 0


@contextmanager
def executor(params: Params, left: int, count: int) -> Iterator[tuple[Executor, Mapping[str, str]]]:
    """Where so many trainings run, and the packages that must be there."""
    versions: Mapping[str, str] = {}
    executor: Executor
    if params.sweep.cluster is not None:
        executor, versions = cluster.connect(params.sweep)
    # A cell that hangs can be ended only in a process of its own.
    elif left == 0 or (count == 1 and params.sweep.cell_timeout is None):
        executor = InProcessExecutor()
    else:
        executor = cluster.start(params.sweep, min(count, left), count)
    try:
        yield executor, versions
    finally:
        executor.close()


def dataset_location(params: Params, sweep: Sweep, prepared: Prepared) -> dict[str, Any]:
    """Where workers find the prepared images, which a cluster's may have to fetch from the sweep's run."""
    where = {
        "path": str(prepared.path.absolute()),
        "digest": prepared.digest,
        "cache": str(Path(params.data.cache).absolute()),
        "run_id": "",
    }
    if params.sweep.cluster is not None:
        names = {path.name for path in prepared.path.iterdir()}
        if not names <= artifacts.names(sweep.run_id, dataset_fetch.FOLDER):
            artifacts.upload(prepared.path, dataset_fetch.FOLDER)
        # a folder of the worker's own machine, relative to where it was started
        where |= {"run_id": sweep.run_id, "cache": params.data.cache}
    return where
