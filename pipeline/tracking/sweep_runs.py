"""The runs of a sweep and of its cells: create them, find them again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from pipeline.config.params import section_of
from pipeline.runtime.credentials import without_password
from pipeline.tracking import runs, store
from pipeline.tracking.trials import CellRun

FORMAT = "2"  # of what is written to a sweep's runs; raise it when their meaning changes
# Steps of a sweep's nested runs; each such run has its values under a tag of the same name.
CELL, FINALIST = "cell", "finalist"
# Tags of a sweep's run: whether it is complete; when it was started last (ms since 1970); which images its
# cells are trained on.
COMPLETE, STARTED, DATA = "complete", "started", "data_digest"
PAGE = 1000  # runs a search returns at once
ORIGIN = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")


@dataclass(frozen=True)
class Sweep:
    """The run that a study's cells are nested in.

    Attributes:
        run_id: of the run.
        study: the study's full name, its generation included.
        experiment_id: of the run, and of its cells'.
        tags: of the run.
        metrics: of the run.
        params: of the run: those of its first start, dotted, as text.
        status: MLflow's, as of a cell.
        started: when it was started last, ms since 1970.
    """

    run_id: str
    study: str
    experiment_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    status: str
    started: int

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Read a sweep's run."""
        tags = run.data.tags
        return cls(
            run.info.run_id,
            tags.get("study", ""),
            run.info.experiment_id,
            tags,
            run.data.metrics,
            run.data.params,
            run.info.status,
            int(tags.get(STARTED, run.info.start_time)),
        )

    @property
    def complete(self) -> bool:
        """Whether each of its cells, and of its repeats, is finished or failed for good."""
        if COMPLETE in self.tags:
            return self.tags[COMPLETE] == "true"
        return self.status == "FINISHED"

    def setting(self, key: str) -> Any:
        """The value of a grid's key (`learning_rate`) that cells without that key were trained with."""
        text = self.params[f"{section_of(key)}.{key}"]
        try:
            return json.loads(text)
        except json.JSONDecodeError:  # text is logged as it is
            return text

    def cells(self) -> list[CellRun]:
        """Its cells, oldest first; one run each."""
        return self._found(CELL)

    def new_cell(self, name: str, cell: str) -> str:
        """Make a cell's run, nested in this one; gives its id.

        Args:
            name: of the run.
            cell: the cell's values as JSON with sorted keys.
        """
        return self._new(name, {"step": CELL, CELL: cell})

    def finalists(self) -> list[CellRun]:
        """Its cells that were trained again, oldest first; one run for each, the seed among its values."""
        return self._found(FINALIST)

    def new_finalist(self, name: str, values: str, cell_run_id: str) -> str:
        """Make a run for training a cell again, nested in this one; gives its id.

        It carries no tag `cell`, so that whoever looks for cells finds each once.

        Args:
            name: of the run.
            values: the cell's and the seed as JSON with sorted keys.
            cell_run_id: the run of the cell, with its first seed.
        """
        return self._new(name, {"step": FINALIST, FINALIST: values, "finalist_of": cell_run_id})

    def _found(self, step: str) -> list[CellRun]:
        """The runs of a step, one for each combination of values; of several, the finished or fuller one."""
        chosen, _ = self._group_runs(step)
        return [CellRun.from_run(run) for run in sorted(chosen, key=lambda run: run.info.start_time)]

    def delete_empty_duplicates(self) -> None:
        """Delete second runs of cells that nothing was ever logged to; for the driver alone.

        There may be one where a store was killed between making a run and saying so.
        """
        for step in (CELL, FINALIST):
            for run in self._group_runs(step)[1]:
                if not (run.data.params or run.data.metrics or runs.model_ids(run)):
                    MlflowClient().delete_run(run.info.run_id)

    def _group_runs(self, step: str) -> tuple[list[Run], list[Run]]:
        """The runs of a step: the one that counts for each combination of values, and all others."""
        found = _search(
            self.experiment_id,
            f"tags.study = '{self.study}' AND tags.step = '{step}' "
            f"AND tags.mlflow.parentRunId = '{self.run_id}'",
        )
        chosen: dict[str, Run] = {}
        for run in sorted(
            found,
            key=lambda run: (run.info.status != "FINISHED", not run.data.params, run.info.start_time),
        ):
            chosen.setdefault(run.data.tags[step], run)
        kept = {run.info.run_id for run in chosen.values()}
        return [*chosen.values()], [run for run in found if run.info.run_id not in kept]

    def _new(self, name: str, tags: Mapping[str, str]) -> str:
        """Make a nested run; its tags come in one step, so that it is found whatever is killed afterwards."""
        # who and what started it; MLflow's fluent calls would add this, and end the run with this process
        origin = {key: without_password(self.tags[key]) for key in ORIGIN if key in self.tags}
        nested = {"study": self.study, "mlflow.parentRunId": self.run_id}
        run = MlflowClient().create_run(self.experiment_id, tags={**origin, **nested, **tags}, run_name=name)
        run_id: str = run.info.run_id
        return run_id


def sweeps(data_digest: str | None = None) -> list[Sweep]:
    """The sweeps of the experiment, of the images of a digest where one is given; oldest run first."""
    condition = "tags.step = 'sweep'" + (f" AND tags.{DATA} = '{data_digest}'" if data_digest else "")
    return [Sweep.from_run(run) for run in _search(store.experiment_id(), condition)]


def latest_sweep() -> Sweep | None:
    """The sweep that was started last, whatever its state; None where there is none."""
    return max(sweeps(), key=lambda sweep: sweep.started, default=None)


def new_study_name(study: str) -> str:
    """The full name of a study's next generation; the first one has no number."""
    found = _search(store.experiment_id(), f"tags.step = 'sweep' AND tags.study LIKE '{study}%'")
    newest = max((generation(run.data.tags["study"]) for run in found), default=0)
    return f"{study}-{newest + 1}" if newest else study


def generation(study: str) -> int:
    """Which generation a study's full name names, from 1."""
    return int(study.partition("-")[2] or 1)


def sweep_of(run_id: str) -> Sweep | None:
    """The sweep that a run is a cell of; None where it is none."""
    tags = runs.get(run_id).data.tags
    return Sweep.from_run(runs.get(tags["mlflow.parentRunId"])) if tags.get("step") == "cell" else None


def test_run_id_of(run_id: str) -> str | None:
    """The run in which a training's model was measured on the test split of its own images.

    That is its sweep's, where it won that, or else its newest `evaluate`; None where there is none. Images
    that have changed since the training are split anew: what was measured on them does not count.
    """
    sweep = sweep_of(run_id)
    if sweep and sweep.tags.get("tested_run_id") == run_id:
        return sweep.run_id
    run = runs.get(run_id)
    evaluations = _search(
        run.info.experiment_id,
        f"tags.step = 'evaluate' AND tags.evaluated_run_id = '{run_id}' AND attributes.status = 'FINISHED'",
    )
    same = [
        found.info.run_id
        for found in evaluations
        if "test/accuracy" in found.data.metrics and _digests(found) == _digests(run)
    ]
    return same[-1] if same else None


def _digests(run: Run) -> set[str]:
    return {used.dataset.digest for used in runs.dataset_inputs(run)}


def history(run_id: str, key: str) -> list[float]:
    """A run's values of a metric after each epoch, in order."""
    history = MlflowClient().get_metric_history(run_id, key)
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]


def fail(run_id: str, reason: str) -> None:
    """Record a cell as failed, for a process that cannot do it itself any more."""
    client = MlflowClient()
    client.set_tag(run_id, "reason", reason)
    client.set_terminated(run_id, "FAILED")


def is_deleted(run_id: str) -> bool:
    """Whether a run was deleted, in the UI perhaps, and by now even for good."""
    try:
        return MlflowClient().get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise


def interrupt(run_id: str) -> None:
    """Record that a cell was broken off."""
    MlflowClient().set_terminated(run_id, "KILLED")


def _search(experiment_id: str, condition: str) -> list[Run]:
    client, token = MlflowClient(), None
    found: list[Run] = []
    while True:
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            return found
