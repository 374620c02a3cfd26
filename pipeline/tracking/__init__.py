"""Runs, models and the registry: the only modules that know MLflow.

The store is MLflow's own default (`mlflow.db` and `mlruns/` beside MLproject) or what MLFLOW_TRACKING_URI
names; nothing here chooses another.
"""

from mlflow.exceptions import MlflowException
from mlflow.exceptions import MlflowException as StoreError
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.runtime.credentials import without_password

# What a store that fails raises. MLflow wraps most, but not all, errors of its transport and its database.
STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)

__all__ = ["STORE_ERRORS", "StoreError", "first_line"]


def first_line(error: BaseException) -> str:
    """The line of an error's text that says what happened; MLflow's and SQLAlchemy's other ones do not."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for line in lines if not line.startswith("(raised as a result")), lines[0])
    return without_password(line)
