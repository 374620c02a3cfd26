"""Models: log one to the open run, load one again."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.models import ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from pipeline.data.prepared import Prepared
from pipeline.errors import UserError
from pipeline.tracking import runs

NAME = "model"
# What a saved model needs to be loaded; the versions are those of the environment that trained it.
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Loaded:
    """A model from the store.

    Attributes:
        network: (batch, size, size, 3) uint8 -> (batch, num_classes) float32; not compiled.
        classes: names in the order of the outputs.
        data_digest: of the prepared pictures that it was trained on.
    """

    network: keras.Model
    classes: tuple[str, ...]
    data_digest: str


def log(run_id: str, model: keras.Model, prepared: Prepared, metrics: Mapping[str, float]) -> str:
    """Log a network, which need not be compiled, and what it scores to the open run.

    Where that was broken off before, it is completed: a run has one model, and each metric once.

    Args:
        run_id: of the open run.
        model: the network.
        prepared: the pictures that it was trained on.
        metrics: its scores, logged last.

    Returns:
        The logged model's URI.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    logged = _whole_one(client, run) or _save(client, run, model, prepared)
    if logged.model_id not in {output.model_id for output in run.outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    missing = {key: value for key, value in metrics.items() if key not in run.data.metrics}
    if missing:
        mlflow.log_metrics(missing, model_id=logged.model_id)
    return logged.model_uri


def _whole_one(client: MlflowClient, run: Run) -> LoggedModel | None:
    """The model that a run made before it was broken off; half ones are deleted."""
    whole = None
    for model in client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    ):
        if model.status == LoggedModelStatus.READY:
            whole = model
        else:
            client.delete_logged_model(model.model_id)
    return whole


def _save(client: MlflowClient, run: Run, model: keras.Model, prepared: Prepared) -> LoggedModel:
    """The steps of MLflow's own `log_model` but one, and the link to the run.

    That loads each model again to try its input example, which would take as long here as the rest of the
    recording; the tests do it once for all.
    """
    logged = client.create_logged_model(run.info.experiment_id, NAME, run.info.run_id)
    described = mlflow.models.Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=run.info.run_id,
        model_id=logged.model_id,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, NAME)
        mlflow.tensorflow.save_model(
            model,
            folder,
            mlflow_model=described,
            signature=_signature(prepared),
            input_example=np.asarray(prepared.images[:1]),
            # Given, since MLflow would take nine seconds to infer them.
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in PACKAGES],
            metadata={"classes": list(prepared.classes), "data_digest": prepared.digest},
        )
        client.log_model_artifacts(logged.model_id, str(folder))
    return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _signature(prepared: Prepared) -> ModelSignature:
    size = prepared.image_size
    return ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, len(prepared.classes)))]),
    )


def load(uri: str) -> Loaded:
    """Load a logged or registered model by its URI (`models:/ID`, `models:/NAME@ALIAS`)."""
    known = describe(uri)
    network = mlflow.tensorflow.load_model(uri, keras_model_kwargs={"compile": False})
    return Loaded(network, tuple(known["classes"]), known["data_digest"])


def describe(uri: str) -> dict[str, Any]:
    """What a model's metadata says, without loading its network: `classes` and `data_digest`."""
    return mlflow.models.get_model_info(uri).metadata


def of_run(run_id: str) -> str:
    """The URI of the model that a run logged.

    Raises:
        UserError: there is no such run, or it has no model.
    """
    run = runs.get(run_id)
    if not run.outputs or not run.outputs.model_outputs:
        raise UserError(
            f"run {run_id} ({run.info.run_name}) has no model; allowed: a run of `train`, or a sweep's cell"
        )
    return f"models:/{run.outputs.model_outputs[-1].model_id}"
