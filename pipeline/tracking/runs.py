"""Runs: open one, log to it, find one."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Run, RunTag
from mlflow.environment_variables import MLFLOW_RUN_ID
from mlflow.exceptions import MlflowException
from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES

from pipeline.config.command_line import load
from pipeline.config.params import Params
from pipeline.runtime.console import warn
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import Interrupted, TakenOver, UserError
from pipeline.tracking import STORE_ERRORS, first_line
from pipeline.tracking.store import experiment_id, shown

# The words of the run names that MLflow generates; it has no public function for them.
_PREDICATES, _NOUNS = (
    {word.lower() for word in words} for words in (_GENERATOR_PREDICATES, _GENERATOR_NOUNS)
)


@contextmanager
def run(name: str, params: Params, tags: Mapping[str, str]) -> Iterator[str]:
    """Open a run with all its parameters; close it as FINISHED, FAILED, or KILLED (Ctrl-C, SIGTERM).

    The outermost run is the one that `mlflow run` created, if present; a run within another is nested.

    Args:
        name: of the run, unless MLflow's command line (`--run-name`) has named it.
        params: logged with dotted keys, without those that `mlflow run -P` has logged.
        tags: set at the start.

    Yields:
        The run's id.
    """
    given = MlflowClient().get_run(run_id) if (run_id := MLFLOW_RUN_ID.get()) else None
    existing = given.data.params if given else {}
    has_name = given is not None and not is_generated(given.info.run_name or "")
    active = mlflow.start_run(run_name=None if has_name else name, nested=mlflow.active_run() is not None)
    with _closed():
        _log_missing(params, existing)
        mlflow.set_tags(dict(tags))
        if given:
            _hide_credentials(given)
        yield active.info.run_id


def _log_missing(params: Params, existing: Mapping[str, str]) -> None:
    """Log the parameters that the open run does not have; MLflow refuses to change the others."""
    mlflow.log_params({key: as_text(value) for key, value in params.flat().items() if key not in existing})


def is_generated(name: str) -> bool:
    """Whether MLflow generated a run's name.

    >>> is_generated("bold-owl-34"), is_generated("my-run-34")
    (True, False)
    """
    predicate, noun, number = [*name.split("-"), "", ""][:3]
    words = predicate in _PREDICATES and noun in _NOUNS
    return words and number.isdecimal() and name == f"{predicate}-{noun}-{number}"


def _hide_credentials(given: Run) -> None:
    """Mask the credentials in the tags that `mlflow run` has set; warn of those in its parameters."""
    masked = {key: without_password(value) for key, value in given.data.tags.items()}
    mlflow.set_tags({key: value for key, value in masked.items() if value != given.data.tags[key]})
    exposed = [key for key, value in given.data.params.items() if without_password(value) != value]
    if exposed:
        warn(
            f"`mlflow run -P {exposed[0]}=…` has recorded {', '.join(exposed)} with its credentials as a "
            f"parameter of run {given.info.run_id}, which MLflow cannot change: put it into a file of "
            "parameters (-P params=FILE), delete this run (`mlflow runs delete`, `mlflow gc`), and change "
            "the credentials if others can read the store"
        )


@contextmanager
def _closed() -> Iterator[None]:
    """Close the open run with the block: as FINISHED, FAILED, or KILLED if it was interrupted."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        _end_broken("KILLED")
        raise
    except TakenOver:
        mlflow.tracking.fluent._active_run_stack.get().pop()  # `end_run` would write a status
        raise
    except BaseException:
        _end_broken("FAILED")
        raise
    mlflow.end_run("FINISHED")


def _end_broken(status: str) -> None:
    """Close the open run after an error. An error of the store is ignored: the first one counts."""
    with suppress(*STORE_ERRORS):
        mlflow.end_run(status)


@contextmanager
def reopened(run_id: str, params: Params | None = None) -> Iterator[Run]:
    """Resume an existing run; close it as `run` does.

    Args:
        run_id: of a run in any state.
        params: logged, without those that the run has.

    Yields:
        The run as it was found.
    """
    found = MlflowClient().get_run(run_id)
    mlflow.start_run(run_id=run_id, nested=True)
    with _closed():
        if params is not None:
            _log_missing(params, found.data.params)
        yield found


@contextmanager
def started_by_mlflow(name: str, params: Params, tags: Mapping[str, str]) -> Iterator[None]:
    """Open the run that `mlflow run` created for this command, if present; create none."""
    if not MLFLOW_RUN_ID.get():
        yield
        return
    with run(name, params, tags):
        yield


def logged_steps(run_id: str, name: str) -> set[int]:
    """The steps at which a run has a metric."""
    return {metric.step for metric in MlflowClient().get_metric_history(run_id, name)}


def as_text(value: Any) -> str:
    """A parameter as a command line takes it: text unchanged, other values as JSON.

    >>> as_text("cat"), as_text([0.1, None])
    ('cat', '[0.1, null]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def log_metrics(metrics: Mapping[str, float], step: int | None = None, run_id: str | None = None) -> None:
    """Log values to the open run, or to `run_id`, in one call to the store."""
    mlflow.log_metrics({key: float(value) for key, value in metrics.items()}, step=step, run_id=run_id)


def set_tags(tags: Mapping[str, str], run_id: str | None = None) -> None:
    """Set tags on the open run, or on `run_id`."""
    if run_id is None:
        mlflow.set_tags(dict(tags))
    else:
        MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def delete_tag(key: str, run_id: str) -> None:
    """Delete a tag of a run."""
    MlflowClient().delete_tag(run_id, key)


def get(run_id: str) -> Run:
    """A run by its id.

    Raises:
        UserError: there is no such run.
    """
    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"no run {run_id!r} in {shown()}: {first_line(error)}; `mlflow ui` shows the runs with their ids"
        ) from None


def model_ids(run: Run) -> list[str]:
    """The ids of the models that a run has logged, oldest first."""
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def dataset_inputs(run: Run) -> list[DatasetInput]:
    """The data sets that a run has logged, with their contexts."""
    return run.inputs.dataset_inputs if run.inputs else []


def params_of(run_id: str, params: Params) -> Params:
    """The current parameters, with the seed and the `data` section of a run.

    `data.cache` keeps its current value; so does `data.source` if the run's differs only in its credentials,
    which are not recorded. The sections `model` and `train` are not read, so that runs of versions with other
    keys there can be evaluated, explained, exported and registered.

    Raises:
        UserError: There is no such run, or it lacks data parameters of this version of the pipeline.
    """
    run = get(run_id)
    logged = run.data.params
    keys = [key for key in params.flat() if key.split(".")[0] in ("seed", "data")]
    missing = [key for key in keys if key not in logged]
    if missing:
        names = f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"
        made = "by another version of this pipeline" if "step" in run.data.tags else "by another program"
        raise UserError(
            f"run {run_id} ({run.info.run_name}) has no parameter {names}: it was made {made}; allowed: a "
            "run of this version, so train again, or use the version that made it"
        )
    kept = {"data.cache": as_text(params.data.cache)}
    if logged["data.source"] == without_password(params.data.source):
        kept["data.source"] = params.data.source
    return load([f"--{key}={(logged | kept)[key]}" for key in keys])


def newest(step: str) -> Run | None:
    """The run of a step that was started last in the experiment, in any state; None if there is none."""
    found = MlflowClient().search_runs(
        [experiment_id()],
        f"tags.step = '{step}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return found[0] if found else None
