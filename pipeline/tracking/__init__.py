"""Runs, models and the registry: the only modules that call MLflow.

The store is MLflow's own default (`mlflow.db` and `mlruns/` beside MLproject), or the one that
MLFLOW_TRACKING_URI names.
"""

from mlflow.exceptions import MlflowException
from mlflow.exceptions import MlflowException as StoreError
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.runtime.credentials import without_password

# Raised by a store that fails. MLflow wraps most, but not all, errors of its transport and its database.
STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)

# MLflow's error codes of a missing model, version, alias, run or file; others are of a store that fails.
MISSING_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

__all__ = ["MISSING_CODES", "STORE_ERRORS", "StoreError", "first_line"]


def first_line(error: BaseException) -> str:
    r"""The line of an error's text that says what happened, without credentials.

    >>> first_line(ValueError("(raised as a result of a query)\nno such table: runs"))
    'no such table: runs'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for line in lines if not line.startswith("(raised as a result")), lines[0])
    return without_password(line)
