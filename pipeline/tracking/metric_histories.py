"""Training curves and times of a sweep's cells, read from their runs."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from pipeline.runtime.errors import UserError
from pipeline.tracking import runs, sweep_runs

READERS = 8  # threads; MLflow reads the history of one metric per request


@dataclass(frozen=True)
class History:
    """A run's epochs.

    Attributes:
        name: Of the run.
        worker: The worker that trained it, from its tag; empty if missing.
        started: ms since 1970.
        ended: ms since 1970; of a run without an end, the time of its last epoch.
        training: `accuracy` of each epoch, in order.
        validation: `val_accuracy` of each epoch, in order.
    """

    name: str
    worker: str
    started: int
    ended: int
    training: list[Metric]
    validation: list[Metric]


def of(run_ids: Iterable[str]) -> dict[str, History]:
    """The histories of runs, by their ids."""
    client = MlflowClient()

    def read(run_id: str) -> History:
        run = client.get_run(run_id)
        training, validation = (
            sorted(client.get_metric_history(run_id, key), key=lambda metric: metric.step)
            for key in ("accuracy", "val_accuracy")
        )
        last = max((metric.timestamp for metric in validation), default=run.info.start_time)
        return History(
            run.info.run_name,
            run.data.tags.get("worker", ""),
            run.info.start_time,
            run.info.end_time or last,
            training,
            validation,
        )

    run_ids = list(run_ids)
    with ThreadPoolExecutor(READERS) as readers:
        return dict(zip(run_ids, readers.map(read, run_ids), strict=True))


def sweep_run(run_id: str | None) -> Run:
    """The run of a sweep, in any state.

    Args:
        run_id: of the sweep or of one of its cells; None: the sweep that was started last.

    Raises:
        UserError: there is no such run, it belongs to no sweep, or there is no sweep.
    """
    if run_id is None:
        newest = sweep_runs.latest_sweep()
        if newest is None:
            raise UserError("there is no sweep to report on; run `mlflow run . -e sweep` first")
        return runs.get(newest.run_id)
    run = runs.get(run_id)
    if other := run.data.tags.get("resumes") or run.data.tags.get("mlflow.parentRunId"):
        run = runs.get(other)
    if run.data.tags.get("step") != "sweep":
        raise UserError(
            f"report.run_id: run {run_id} ({run.info.run_name}) is not of a sweep; allowed: the run of a "
            "sweep, or of one of its cells; `mlflow ui` shows them"
        )
    return run
