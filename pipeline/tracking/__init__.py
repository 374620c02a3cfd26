"""Runs, models and the registry: the only modules that know MLflow.

The store is MLflow's own default (`mlflow.db` and `mlruns/` beside MLproject) or what MLFLOW_TRACKING_URI
names; nothing here chooses another.
"""

from mlflow.exceptions import MlflowException
from mlflow.exceptions import MlflowException as StoreError
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

# What a store that fails raises. MLflow wraps most, but not all, errors of its transport and its database.
STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)

__all__ = ["STORE_ERRORS", "StoreError"]
