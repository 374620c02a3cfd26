"""Runs: open one, log to it, find one again."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipeline import quiet
from pipeline.arguments import load
from pipeline.data import splits
from pipeline.data.prepared import Prepared
from pipeline.errors import Interrupted, UserError
from pipeline.params import Params

SERVER_TIMEOUT = 10  # seconds that a tracking server has to answer its first request
# What MLflow calls a run where the user gave no name: `bold-owl-34`.
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


def connect() -> None:
    """Check that the tracking store can be reached, and create the local one where there is none.

    Raises:
        UserError: a tracking server that gives no answer, whatever it is, within `SERVER_TIMEOUT` seconds,
            or a store that MLflow cannot open.
    """
    _quiet()
    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=SERVER_TIMEOUT)
        except requests.RequestException as error:
            raise UserError(
                f"the tracking server {uri} does not answer within {SERVER_TIMEOUT} s "
                f"({type(error).__name__}); start it, or change or unset MLFLOW_TRACKING_URI (unset: runs go "
                "to mlflow.db beside MLproject)"
            ) from None
    try:
        MlflowClient().search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(f"the tracking store {uri} cannot be used: {first_line(error)}") from None


def use(uri: str) -> None:
    """Work with a store that another process has checked, and says where it is."""
    _quiet()
    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)


def store() -> str:
    """The URI of the tracking store, as another process of this machine can use it."""
    return mlflow.get_tracking_uri()


def local_part() -> str:
    """What of the store another machine cannot reach: its database, its artifacts, or nothing (empty)."""
    uri = mlflow.get_tracking_uri()
    if uri.partition(":")[0] in ("sqlite", "file", "") or "://" not in uri:
        return f"the tracking store {uri}"
    place = MlflowClient().get_experiment(experiment_id()).artifact_location
    return f"the artifacts' folder {place}" if place.partition(":")[0] in ("file", place) else ""


def study_database(cache: Path) -> str:
    """The URL of the file that studies are kept in: beside the local store; with a server, in the cache."""
    uri = mlflow.get_tracking_uri()
    folder = Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else cache
    return f"sqlite:///{(folder / 'sweeps.db').absolute()}"


def _quiet() -> None:
    quiet.calm("alembic", "mlflow.store.db.utils", "mlflow.utils.environment", "mlflow.pyfunc")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar for each small file


@contextmanager
def run(name: str, params: Params, tags: Mapping[str, str]) -> Iterator[str]:
    """Open a run with all its parameters; close it as finished, as failed, or as killed by Ctrl-C.

    The outermost one is the run that `mlflow run` made, where it did; one within another is nested.

    Args:
        name: of the run; one that was given on MLflow's own command line stays.
        params: all are logged, dotted, but those that `mlflow run -P` has logged already.
        tags: set from the start.

    Yields:
        The run's id.
    """
    given = MlflowClient().get_run(os.environ["MLFLOW_RUN_ID"]) if "MLFLOW_RUN_ID" in os.environ else None
    known = given.data.params if given else {}
    active = mlflow.start_run(run_name=name, nested=mlflow.active_run() is not None)
    with _closed():
        if given and GENERATED_NAME.fullmatch(given.info.run_name or ""):
            mlflow.set_tag("mlflow.runName", name)
        mlflow.log_params({key: as_text(value) for key, value in params.flat().items() if key not in known})
        mlflow.set_tags(tags)
        yield active.info.run_id


@contextmanager
def _closed() -> Iterator[None]:
    """Close the open run with the block: as finished, as failed, or as killed where it was broken off."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        _end_broken("KILLED")
        raise
    except BaseException:
        _end_broken("FAILED")
        raise
    mlflow.end_run("FINISHED")


def _end_broken(status: str) -> None:
    """Close the open run after an error; where the store is what failed, that error says so already."""
    with suppress(MlflowException):
        mlflow.end_run(status)


@contextmanager
def reopened(run_id: str, params: Params | None = None) -> Iterator[Run]:
    """Go on with a run that was made before; close it as `run` does.

    Args:
        run_id: of the run; it may be in any state.
        params: those that it has not got yet are logged.

    Yields:
        The run as it was found.
    """
    found = MlflowClient().get_run(run_id)
    mlflow.start_run(run_id=run_id, nested=True)
    with _closed():
        if params is not None:
            known = found.data.params
            mlflow.log_params(
                {key: as_text(value) for key, value in params.flat().items() if key not in known}
            )
        yield found


@contextmanager
def started_by_mlflow(name: str, params: Params, tags: Mapping[str, str]) -> Iterator[None]:
    """Open the run that `mlflow run` made for this command, where it did; without one, make none."""
    if "MLFLOW_RUN_ID" not in os.environ:
        yield
        return
    with run(name, params, tags):
        yield


def logged_steps(run_id: str, name: str) -> set[int]:
    """The steps at which a run has a metric already."""
    return {metric.step for metric in MlflowClient().get_metric_history(run_id, name)}


def as_text(value: Any) -> str:
    """A parameter as it can be typed again on a command line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def log_metrics(metrics: Mapping[str, float], step: int | None = None, run_id: str | None = None) -> None:
    """Log values to the open run, or another, in one call to the store."""
    mlflow.log_metrics({key: float(value) for key, value in metrics.items()}, step=step, run_id=run_id)


def set_tags(tags: Mapping[str, str], run_id: str | None = None) -> None:
    """Set tags on the open run, or another."""
    if run_id is None:
        mlflow.set_tags(tags)
    else:
        MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def delete_tag(key: str, run_id: str) -> None:
    """Take a tag from a run."""
    MlflowClient().delete_tag(run_id, key)


def log_files(files: Mapping[str, bytes], folder: str = "", run_id: str | None = None) -> None:
    """Write files, by name, as artifacts of the open run, or another, under `folder`, in one call."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            Path(temporary, name).write_bytes(content)
        mlflow.log_artifacts(temporary, folder or None, run_id=run_id)


def log_file(path: Path) -> None:
    """Log a file of any size as an artifact of the open run."""
    mlflow.log_artifact(str(path))


def upload(path: Path, folder: str) -> None:
    """Log a folder's files as artifacts of the open run."""
    mlflow.log_artifacts(str(path), folder)


def download(run_id: str, folder: str, path: Path) -> None:
    """Fetch a run's artifacts under `folder` into a folder that is there."""
    client = MlflowClient()
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        for file in Path(client.download_artifacts(run_id, folder, temporary)).iterdir():
            file.rename(path / file.name)


def read(run_id: str, path: str) -> bytes:
    """What is in a file among a run's artifacts.

    Raises:
        UserError: the run has no such artifact.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return Path(MlflowClient().download_artifacts(run_id, path, temporary)).read_bytes()
        except (MlflowException, OSError):
            folder, _, name = path.rpartition("/")
            if name in artifacts(run_id, folder):  # asked for only now, since it takes as long as the file
                raise
            raise UserError(
                f"run {run_id} has no artifact {path}: it is not finished, or it was deleted"
            ) from None


def place_of(run_id: str, path: str) -> str:
    """Where a person finds an artifact: its file on this machine, or its name and its run."""
    uri = get(run_id).info.artifact_uri
    scheme = uri.partition(":")[0]
    if scheme == "file" or "://" not in uri:
        return str(Path(uri.removeprefix("file://"), path))
    return f"artifact {path} of run {run_id}"


def artifacts(run_id: str, folder: str) -> set[str]:
    """The names of a run's artifacts under `folder`."""
    return {Path(item.path).name for item in MlflowClient().list_artifacts(run_id, folder)}


def log_dataset(prepared: Prepared, source: str) -> None:
    """Log the prepared pictures as the open run's dataset input, under the start of their digest."""
    dataset = MetaDataset(
        CodeDatasetSource({"source": source}),
        name=Path(source).name or source,
        digest=prepared.digest[:16],  # MLflow takes up to 36 characters, and shows 8
    )
    mlflow.log_input(dataset, context="training")


def log_prepared(prepared: Prepared, source: str) -> None:
    """Log the prepared pictures to the open run: dataset, counts, and the list of what was left out."""
    log_dataset(prepared, source)
    counts = {
        f"pictures/{split}": len(prepared.indices(split))
        for split in (splits.TRAIN, splits.VALIDATION, splits.TEST)
    }
    log_metrics(counts | {"pictures/rejected": len(prepared.rejected)})
    files = ("metadata.json", "rejected.csv")
    log_files({name: (prepared.path / name).read_bytes() for name in files}, "data")


def get(run_id: str) -> Run:
    """A run by its id.

    Raises:
        UserError: there is none.
    """
    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"no run {run_id!r} in {mlflow.get_tracking_uri()}: {first_line(error)}; "
            "`mlflow ui` shows the runs with their ids"
        ) from None


def params_of(run_id: str, params: Params) -> Params:
    """The parameters that a run was made with, but for where pictures are cached: that is today's.

    Raises:
        UserError: there is no such run, or it was not made by this pipeline.
    """
    logged = get(run_id).data.params
    keys = [key for key in params.flat() if key.split(".")[0] in ("seed", "data", "model", "train")]
    missing = [key for key in keys if key not in logged]
    if missing:
        raise UserError(f"run {run_id} has no parameter {missing[0]}: it was not made by this pipeline")
    kept = {"data.cache": as_text(params.data.cache)}
    return load([f"--{key}={(logged | kept)[key]}" for key in keys])


def newest(*steps: str) -> Run | None:
    """The run of any of these steps (`train`, `sweep`, …) that finished last in the experiment, or None.

    Not the one that started last: a sweep that was extended ends anew.
    """
    client = MlflowClient()
    found = [
        run
        for step in steps
        for run in client.search_runs(
            [experiment_id()],
            f"tags.step = '{step}' and attributes.status = 'FINISHED'",
            order_by=["attributes.end_time DESC"],
            max_results=1,
        )
    ]
    return max(found, key=lambda run: run.info.end_time, default=None)


def experiment_id() -> str:
    """The experiment that MLflow's variables name, or its default one."""
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        experiment = mlflow.get_experiment_by_name(name)
        return experiment.experiment_id if experiment else "0"
    return os.environ.get("MLFLOW_EXPERIMENT_ID", "0")


def first_line(error: Exception) -> str:
    """The line of an error's text that says what happened; MLflow's and SQLAlchemy's other ones do not."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if not line.startswith("(raised as a result")), lines[0])
