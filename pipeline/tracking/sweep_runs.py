"""The runs of a sweep and of its cells: create them, find them."""

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

FORMAT = "2"  # version of the tags and values of a sweep's runs; raise it when their meaning changes
# Steps of a sweep's nested runs; such a run has its values in a tag of the same name.
CELL, FINALIST = "cell", "finalist"
# Tags of a sweep's run: `true` if complete; time of its last start (ms since 1970); digest of its prepared
# images.
COMPLETE, STARTED, DATA = "complete", "started", "data_digest"
PAGE_RUNS = 1000  # per request of a search
ORIGIN = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")


@dataclass(frozen=True)
class Sweep:
    """A sweep's run, in which the runs of its cells are nested.

    Attributes:
        run_id: of the run.
        study: the study's full name, with its generation.
        experiment_id: of the run, and of its cells'.
        tags: of the run.
        metrics: of the run.
        params: of the run, from its first start, with dotted keys, as text.
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED.
        started: time of its last start, ms since 1970.
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
        """Whether each cell and each finalist is finished or has failed permanently."""
        if COMPLETE in self.tags:
            return self.tags[COMPLETE] == "true"
        return self.status == "FINISHED"

    def setting(self, key: str) -> Any:
        """The value of a grid's key (`learning_rate`) for cells that do not vary it.

        Raises:
            KeyError: the sweep's run has no such parameter.
        """
        text = self.params[f"{section_of(key)}.{key}"]
        try:
            return json.loads(text)
        except json.JSONDecodeError:  # text is logged without quotes
            return text

    def cells(self) -> list[CellRun]:
        """Its cells, oldest first; one run per cell."""
        return self._found(CELL)

    def new_cell(self, name: str, cell: str) -> str:
        """Create a cell's run, nested in this one; returns its id.

        Args:
            name: of the run.
            cell: the cell's values as JSON with sorted keys.
        """
        return self._new(name, {"step": CELL, CELL: cell})

    def finalists(self) -> list[CellRun]:
        """Its cells trained with another seed, oldest first; one run per seed, which is among its values."""
        return self._found(FINALIST)

    def new_finalist(self, name: str, values: str, cell_run_id: str) -> str:
        """Create a run to train a cell with another seed, nested in this one; returns its id.

        It has no tag `cell`, so that a search for cells finds each once.

        Args:
            name: of the run.
            values: the cell's values and the seed as JSON with sorted keys.
            cell_run_id: the cell's own run, with the first seed.
        """
        return self._new(name, {"step": FINALIST, FINALIST: values, "finalist_of": cell_run_id})

    def _found(self, step: str) -> list[CellRun]:
        """The runs of a step, one per combination of values, oldest first."""
        chosen, _ = self._group_runs(step)
        return [CellRun.from_run(run) for run in sorted(chosen, key=lambda run: run.info.start_time)]

    def delete_empty_duplicates(self) -> None:
        """Delete second runs of cells to which nothing was logged; only the driver may call this.

        A store that is killed after it creates a run, before its answer, causes a second run.
        """
        for step in (CELL, FINALIST):
            for run in self._group_runs(step)[1]:
                if not (run.data.params or run.data.metrics or runs.model_ids(run)):
                    MlflowClient().delete_run(run.info.run_id)

    def _group_runs(self, step: str) -> tuple[list[Run], list[Run]]:
        """The runs of a step: the finished or most complete one per combination of values; the rest."""
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
        """Create a nested run with its tags in one request, so that a killed process leaves none without."""
        # MLflow's fluent calls would add these tags too, but end the run with this process
        origin = {key: without_password(self.tags[key]) for key in ORIGIN if key in self.tags}
        nested = {"study": self.study, "mlflow.parentRunId": self.run_id}
        run = MlflowClient().create_run(self.experiment_id, tags={**origin, **nested, **tags}, run_name=name)
        run_id: str = run.info.run_id
        return run_id


def sweeps(data_digest: str | None = None) -> list[Sweep]:
    """The sweeps of the experiment, oldest run first; with a digest, those of these prepared images."""
    condition = "tags.step = 'sweep'" + (f" AND tags.{DATA} = '{data_digest}'" if data_digest else "")
    return [Sweep.from_run(run) for run in _search(store.experiment_id(), condition)]


def latest_sweep() -> Sweep | None:
    """The sweep that was started last, in any state; None if there is none."""
    return max(sweeps(), key=lambda sweep: sweep.started, default=None)


def new_study_name(study: str) -> str:
    """The full name of a study's next generation; the first generation has no number."""
    found = _search(store.experiment_id(), f"tags.step = 'sweep' AND tags.study LIKE '{study}%'")
    newest = max((generation(run.data.tags["study"]) for run in found), default=0)
    return f"{study}-{newest + 1}" if newest else study


def generation(study: str) -> int:
    """The generation in a study's full name, from 1.

    >>> generation("3f2a"), generation("3f2a-2")
    (1, 2)
    """
    return int(study.partition("-")[2] or 1)


def sweep_of(run_id: str) -> Sweep | None:
    """The sweep of a cell's run; None if the run is not a cell."""
    tags = runs.get(run_id).data.tags
    return Sweep.from_run(runs.get(tags["mlflow.parentRunId"])) if tags.get("step") == "cell" else None


def test_run_id_of(run_id: str) -> str | None:
    """The run that has the scores of a training's model on the test split of its own images.

    It is its sweep's run if it won the sweep, otherwise its newest `evaluate`; None if there is none. An
    `evaluate` of images that have changed since the training does not count: they are split anew.
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
    """The digests of a run's data sets."""
    return {used.dataset.digest for used in runs.dataset_inputs(run)}


def history(run_id: str, key: str) -> list[float]:
    """A run's values of a metric, one per epoch, in order."""
    history = MlflowClient().get_metric_history(run_id, key)
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]


def fail(run_id: str, reason: str) -> None:
    """Record a cell as FAILED, in place of its process, which has ended."""
    client = MlflowClient()
    client.set_tag(run_id, "reason", reason)
    client.set_terminated(run_id, "FAILED")


def is_deleted(run_id: str) -> bool:
    """Whether a run was deleted (`mlflow runs delete`) or removed (`mlflow gc`)."""
    try:
        return MlflowClient().get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise


def interrupt(run_id: str) -> None:
    """Record a cell as KILLED, after an interrupt."""
    MlflowClient().set_terminated(run_id, "KILLED")


def _search(experiment_id: str, condition: str) -> list[Run]:
    """All runs of an experiment that meet a condition, oldest first."""
    client, token = MlflowClient(), None
    found: list[Run] = []
    while True:
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=PAGE_RUNS,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            return found
