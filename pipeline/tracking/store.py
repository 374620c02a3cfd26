"""The tracking store: which one is used, whether it answers, and the experiment that runs go to."""

import os
from pathlib import Path

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipeline import quiet
from pipeline.errors import UserError

SERVER_TIMEOUT = 10  # seconds that a tracking server has to answer its first request


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


def uri() -> str:
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


def _quiet() -> None:
    quiet.calm("alembic", "mlflow.store.db.utils", "mlflow.utils.environment", "mlflow.pyfunc")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar for each small file
