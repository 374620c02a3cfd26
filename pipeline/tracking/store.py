"""The tracking store and the experiment of runs, chosen as MLflow's own client chooses them."""

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import psutil
import urllib3
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.environment_variables import (
    MLFLOW_EXPERIMENT_ID,
    MLFLOW_EXPERIMENT_NAME,
    MLFLOW_RUN_ID,
    MLFLOW_TRACKING_INSECURE_TLS,
)
from mlflow.exceptions import MlflowException

# Private, but `mlflow run` calls it; every public function for this starts a run.
from mlflow.tracking.fluent import _get_experiment_id
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from urllib3.exceptions import InsecureRequestWarning

from pipeline.runtime import logs
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.tracking import first_line, relocate, server

# MLflow's error codes of an experiment that cannot be used; other codes are of the whole store.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
_CREATION_SECONDS = 3  # within which another command creates the tables of a new local store
_RETRY_INTERVAL_SECONDS = 0.2
# SQLite's messages about a file that is no database, or that cannot be used; waiting does not help.
_PERMANENT = ("not a database", "unable to open", "readonly", "disk image is malformed")


def connect(logs_models: bool = False) -> None:
    """Check the tracking store, create the local one if missing, and fix the experiment.

    Afterwards the store's URI is absolute, and this process and its child processes use one experiment.

    Args:
        logs_models: the command logs models; a server that does not store them is refused.

    Raises:
        UserError: a tracking server does not answer in time or refuses access, MLflow cannot open the store,
            the store was moved, the experiment is missing or was deleted, or the server stores no models.
    """
    _silence_mlflow()
    uri = _absolute(mlflow.get_tracking_uri())
    if uri != mlflow.get_tracking_uri():
        mlflow.set_tracking_uri(uri)
    if uri.startswith(("http://", "https://")):
        server.check(uri)
    try:
        _open(uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(f"the tracking store {shown(uri)} cannot be used: {first_line(error)}") from None
    experiment = _checked_experiment()
    if uri.startswith("sqlite:////"):
        relocate.check(Path(make_url(uri).database or ""))
    # For child processes; the run of `mlflow run` may be in another experiment than the shell's.
    MLFLOW_EXPERIMENT_NAME.unset()
    MLFLOW_EXPERIMENT_ID.set(experiment)
    if logs_models:
        server.check_logged_models(uri, experiment)


def _open(uri: str) -> None:
    """Query the store, which creates a local one; retry while another command creates it."""
    client, deadline = MlflowClient(), time.monotonic() + _CREATION_SECONDS
    while True:
        try:
            client.search_experiments(max_results=1)
            return
        except (MlflowException, SQLAlchemyError) as error:
            permanent = any(words in str(error) for words in _PERMANENT)
            if permanent or not uri.startswith("sqlite:") or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_INTERVAL_SECONDS)


def use(uri: str) -> None:
    """Use a store that another process has checked."""
    _silence_mlflow()
    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)


def uri() -> str:
    """The URI of the tracking store, for other processes of this machine."""
    return mlflow.get_tracking_uri()


def shown(uri: str | None = None) -> str:
    """A URI without credentials, for messages; default: the tracking store's."""
    return without_password(mlflow.get_tracking_uri() if uri is None else uri)


def local_part() -> str:
    """The part of the store that other machines cannot reach: database or artifacts; empty if none."""
    uri = mlflow.get_tracking_uri()
    if uri.partition(":")[0] in ("sqlite", "file", "") or "://" not in uri:
        return f"the tracking store {uri}"
    location = MlflowClient().get_experiment(experiment_id()).artifact_location
    return f"the artifacts' folder {location}" if location.partition(":")[0] in ("file", location) else ""


def study_database(cache: Path) -> str:
    """The SQLAlchemy URL of the file of studies: beside a local store; with a server, in `cache`."""
    uri = mlflow.get_tracking_uri()
    folder = Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else cache
    return f"sqlite:///{(folder / 'sweeps.db').absolute()}"


def experiment_id() -> str:
    """The experiment in which this process creates and searches runs.

    It is that of the run that `mlflow run` created; otherwise the one of MLflow's client, from
    MLFLOW_EXPERIMENT_NAME (created if missing), MLFLOW_EXPERIMENT_ID, or its default.
    """
    if run_id := MLFLOW_RUN_ID.get():
        return MlflowClient().get_run(run_id).info.experiment_id
    return _get_experiment_id()  # type: ignore[return-value]  # the default has an id


def _silence_mlflow() -> None:
    logs.silence("alembic", "mlflow.store.db.utils", "mlflow.utils.environment", "mlflow.pyfunc")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per small file
    if MLFLOW_TRACKING_INSECURE_TLS.get():
        urllib3.disable_warnings(InsecureRequestWarning)  # one per request; the user has set this variable


def _checked_experiment() -> str:
    """The experiment of `experiment_id`, after a check that it accepts runs.

    Raises:
        UserError: it does not exist, was deleted, or MLflow's variables contradict each other.
    """
    try:
        found = experiment_id()
        experiment = MlflowClient().get_experiment(found)
    except MlflowException as error:
        if error.error_code not in _REFUSALS:
            raise
        raise UserError(
            f"the experiment cannot be used: {first_line(error)}; change or unset MLFLOW_EXPERIMENT_NAME, "
            f"MLFLOW_EXPERIMENT_ID or {MLFLOW_RUN_ID.name}, or name another one with --experiment-name "
            f"(store: {shown()})"
        ) from None
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"the experiment {experiment.name!r} was deleted; restore it with `MLFLOW_TRACKING_URI={shown()} "
            f"mlflow experiments restore -x {experiment.experiment_id}`, or name another one with "
            "MLFLOW_EXPERIMENT_NAME or --experiment-name"
        )
    return found


def _absolute(uri: str) -> str:
    """A SQLite store's URI with the absolute path of its file; another URI unchanged.

    `mlflow run` starts this process in the project's folder with an unchanged URI, whose relative path starts
    at the folder of `mlflow run`. That folder is found by the run in its database.

    Raises:
        UserError: no parent process has a working directory with such a database.
    """
    try:
        url = make_url(uri)
    except ArgumentError:  # a path, or a name such as `databricks`
        return uri
    path = url.database
    if url.get_backend_name() != "sqlite" or not path or path == ":memory:" or Path(path).is_absolute():
        return uri
    folder, run_id = Path.cwd(), MLFLOW_RUN_ID.get()
    if run_id:
        folders = [one for one in (folder, *_folders_of_callers()) if _has_run(one / path, run_id)]
        if not folders:
            raise UserError(
                f"MLFLOW_TRACKING_URI={uri} is a relative path, and run {run_id}, made by `mlflow run`, is "
                f"not in {Path.cwd() / path}: `mlflow run` was started in another folder; give the absolute "
                f"path, as in MLFLOW_TRACKING_URI=sqlite:////folder/{Path(path).name}"
            )
        folder = folders[0]
    return url.set(database=str((folder / path).resolve())).render_as_string(hide_password=False)


def _folders_of_callers() -> list[Path]:
    """The working directories of the parent processes, nearest first."""
    folders = []
    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # it has ended, or belongs to another user
            folders.append(Path(process.cwd()))
    return folders


def _has_run(database: Path, run_id: str) -> bool:
    """Whether a SQLite store has a run; read-only, since MLflow would create a missing store."""
    if not database.is_file():
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as store:
        return store.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone() is not None
    return False
