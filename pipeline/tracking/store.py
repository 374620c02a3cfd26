"""The tracking store, and the experiment that runs go to: decided here, as MLflow's own client does."""

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import psutil
import requests
import urllib3
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.environment_variables import (
    MLFLOW_EXPERIMENT_ID,
    MLFLOW_EXPERIMENT_NAME,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_RUN_ID,
    MLFLOW_TRACKING_INSECURE_TLS,
)
from mlflow.exceptions import MlflowException

# Private, but what `mlflow run` itself asks; there is no public call that starts no run.
from mlflow.tracking.fluent import _get_experiment_id
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from urllib3.exceptions import InsecureRequestWarning

from pipeline.runtime import logs
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.tracking import relocate

SERVER_TIMEOUT = 10  # seconds to answer the first request, unless MLFLOW_HTTP_REQUEST_TIMEOUT is set
MODELS_SINCE = "3"  # the first MLflow version with logged models
# What MLflow says of an experiment that it cannot use; other errors are of the store as a whole.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
_CREATION_SECONDS = 3  # in which another command has made the tables of a new local store
_RETRY_INTERVAL_SECONDS = 0.2
# What SQLite says of a file that no waiting makes a store.
_PERMANENT = ("not a database", "unable to open", "readonly", "disk image is malformed")
_PROBE = "/api/2.0/mlflow/experiments/search"  # needs the same rights as what follows; /health needs none


def connect(logs_models: bool = False) -> None:
    """Check the tracking store, create the local one where there is none, and settle the experiment.

    Afterwards the store's URI is absolute, and this process and those it starts use one experiment.

    Args:
        logs_models: the command logs models, so a server that cannot keep them is refused.

    Raises:
        UserError: a tracking server that does not answer in time or refuses, a store that MLflow cannot open
            or that was moved, an experiment that does not exist or was deleted, or no logged models.
    """
    _quiet()
    uri = _absolute(mlflow.get_tracking_uri())
    if uri != mlflow.get_tracking_uri():
        mlflow.set_tracking_uri(uri)
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    try:
        _open(uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(f"the tracking store {shown(uri)} cannot be used: {first_line(error)}") from None
    experiment = _checked_experiment()
    if uri.startswith("sqlite:////"):
        relocate.check(Path(make_url(uri).database))
    # For what this process starts; a run of `mlflow run` may be in another one than the shell names.
    MLFLOW_EXPERIMENT_NAME.unset()
    MLFLOW_EXPERIMENT_ID.set(experiment)
    if logs_models:
        _check_logged_models(uri, experiment)


def _open(uri: str) -> None:
    """Ask the store for something; a local one is made by this, or by another command at the same time."""
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
    """Work with a store that another process has checked, and says where it is."""
    _quiet()
    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)


def uri() -> str:
    """The URI of the tracking store, as another process of this machine can use it."""
    return mlflow.get_tracking_uri()


def shown(uri: str | None = None) -> str:
    """The URI of the tracking store, or another one, without credentials."""
    return without_password(mlflow.get_tracking_uri() if uri is None else uri)


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


def experiment_id() -> str:
    """The experiment that this process's runs go to, and are searched in.

    It is that of the run that `mlflow run` made; otherwise the one MLflow's client decides on, from
    MLFLOW_EXPERIMENT_NAME (created if missing), MLFLOW_EXPERIMENT_ID, or its default.
    """
    if run_id := MLFLOW_RUN_ID.get():
        return MlflowClient().get_run(run_id).info.experiment_id
    return _get_experiment_id()


def first_line(error: BaseException) -> str:
    """The line of an error's text that says what happened; MLflow's and SQLAlchemy's other ones do not."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for line in lines if not line.startswith("(raised as a result")), lines[0])
    return without_password(line)


def _quiet() -> None:
    logs.silence("alembic", "mlflow.store.db.utils", "mlflow.utils.environment", "mlflow.pyfunc")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar for each small file
    if MLFLOW_TRACKING_INSECURE_TLS.get():
        urllib3.disable_warnings(InsecureRequestWarning)  # one for each request, of what the user asked for


def _checked_experiment() -> str:
    """The experiment of `experiment_id`, after a check that runs can go to it.

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
    """A SQLite store's URI with its file's absolute path; another URI as it is.

    `mlflow run` starts this process in the project's folder, with the URI as it was given: a relative path
    then means the folder that `mlflow run` was started in, where the run is.

    Raises:
        UserError: no folder of a calling process has the database with the run.
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
        folders = [folder, *_folders_of_callers()]
        folder = next((one for one in folders if _has_run(one / path, run_id)), None)
        if folder is None:
            raise UserError(
                f"MLFLOW_TRACKING_URI={uri} is a relative path, and run {run_id}, made by `mlflow run`, is "
                f"not in {Path.cwd() / path}: `mlflow run` was started in another folder; give the absolute "
                f"path, as in MLFLOW_TRACKING_URI=sqlite:////folder/{Path(path).name}"
            )
    return url.set(database=str((folder / path).resolve())).render_as_string(hide_password=False)


def _folders_of_callers() -> list[Path]:
    """The working directories of the processes that this one was started by, nearest first."""
    folders = []
    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # it ended meanwhile, or is somebody else's
            folders.append(Path(process.cwd()))
    return folders


def _has_run(database: Path, run_id: str) -> bool:
    """Whether a SQLite store has a run; creates nothing, as opening a store by MLflow would."""
    if not database.is_file():
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as store:
        return store.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone() is not None
    return False


def _check_server(uri: str) -> None:
    """Ask a server one small thing, as MLflow's client would, once and with a limit of time.

    Raises:
        UserError: it does not answer, does not trust us or is not trusted, or is no MLflow server.
    """
    timeout = MLFLOW_HTTP_REQUEST_TIMEOUT.get() if MLFLOW_HTTP_REQUEST_TIMEOUT.is_set() else SERVER_TIMEOUT
    try:
        answer = http_request(
            get_default_host_creds(uri),
            _PROBE,
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=timeout,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise UserError(_no_answer(uri, error, timeout)) from None
    server, status = f"the tracking server {shown(uri)}", answer.status_code
    if status in (401, 403):
        raise UserError(
            f"{server} refuses access ({status} {answer.reason}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that may use it"
        )
    if status == 200 and _is_json(answer):
        return
    if status >= 500 or status == 429:
        raise UserError(
            f"{server} answers {status} {answer.reason}; run the same command again when it works"
        )
    raise UserError(
        f"{server} does not answer as an MLflow server ({status} {answer.reason} for {_PROBE}); change or "
        "unset MLFLOW_TRACKING_URI"
    )


def _no_answer(uri: str, error: MlflowException, timeout: float) -> str:
    """The message where there was no answer at all."""
    server, cause = f"the tracking server {shown(uri)}", error.__context__
    if isinstance(cause, requests.exceptions.SSLError) or "SSL" in str(cause):
        reason = _innermost(cause)
        return (
            f"{server} cannot be reached by TLS ({reason}); set MLFLOW_TRACKING_SERVER_CERT_PATH to a file "
            "with the certificate to trust, the server's own or its authority's (PEM); "
            "MLFLOW_TRACKING_CLIENT_CERT_PATH if it asks for yours; MLFLOW_TRACKING_INSECURE_TLS=true trusts "
            "any server"
        )
    if isinstance(cause, requests.ConnectionError | requests.Timeout):
        return (
            f"{server} does not answer within {timeout:g} s ({type(cause).__name__}); start it, or change or "
            "unset MLFLOW_TRACKING_URI (unset: runs go to mlflow.db beside MLproject)"
        )
    return (
        f"{server} cannot be used: {first_line(cause or error)}; check MLFLOW_TRACKING_SERVER_CERT_PATH and "
        "MLFLOW_TRACKING_CLIENT_CERT_PATH (absolute paths, since `mlflow run` works in the project's folder) "
        "and the other MLFLOW_TRACKING_ variables"
    )


def _innermost(error: BaseException | None) -> str:
    """What TLS says of a failure, without the layers around it."""
    text = first_line(error) if error else ""
    return text[text.rfind("[") :].rstrip("')\" ") if "[" in text else text


def _is_json(answer: requests.Response) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except requests.JSONDecodeError:
        return False


def _check_logged_models(uri: str, experiment: str) -> None:
    """Refuse a server without logged models: it would fail after the first training.

    Raises:
        UserError: it has none.
    """
    try:
        MlflowClient().search_logged_models([experiment], max_results=1)
    except MlflowException as error:
        if error.get_http_status_code() != 404 and "404" not in str(error):
            raise
        raise UserError(
            f"the tracking server {shown(uri)} has no logged models, which trained models are stored as; it "
            f"{_version(uri)}: upgrade it to mlflow>={MODELS_SINCE}, or change or unset MLFLOW_TRACKING_URI"
        ) from None


def _version(uri: str) -> str:
    """What a server says of its version."""
    with suppress(MlflowException):
        answer = http_request(
            get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=SERVER_TIMEOUT
        )
        if answer.status_code == 200 and len(answer.text) < 30:
            return f"says that it is MLflow {answer.text.strip()}"
    return "does not say its version"
