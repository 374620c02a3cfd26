"""Runs, models and the registry: the only modules that know MLflow.

The store is MLflow's own default (`mlflow.db` and `mlruns/` beside MLproject) or what MLFLOW_TRACKING_URI
names; nothing here chooses another.
"""

from mlflow.exceptions import MlflowException as StoreError

__all__ = ["StoreError"]
