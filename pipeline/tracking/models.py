"""Models: log one to a run, load one from the store."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from pipeline.dataset.prepare import Prepared
from pipeline.sources import sample, split_names
from pipeline.tracking import artifacts, catalog, runs
from served_image_classifier import classifier, inputs

NAME = "model"
SERVED_NAME = "served"
# What loads a saved model; its requirements pin the versions that trained it.
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")
SERVED_PACKAGES = (*PACKAGES, "pandas", "pillow")


@dataclass(frozen=True)
class Loaded:
    """A model from the store.

    Attributes:
        network: (batch, size, size, 3) uint8 -> (batch, num_classes) float32; not compiled.
        classes: names in the order of the outputs.
        data_digest: of the prepared images that it was trained on.
        model_id: of the logged model; None if it is not in the store.
    """

    network: keras.Model
    classes: tuple[str, ...]
    data_digest: str
    model_id: str | None = None


def log(run_id: str, model: keras.Model, prepared: Prepared, metrics: Mapping[str, float]) -> str:
    """Log a network and its scores to the open run.

    A call after an interrupted one logs what is missing: a run has one model, and each metric once.

    Args:
        run_id: of the open run.
        model: the network; it need not be compiled.
        prepared: the images that it was trained on.
        metrics: its scores on the validation split, logged last.

    Returns:
        The logged model's URI.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    logged = _logged_before(client, run) or _save(client, run, model, prepared)
    if logged.model_id not in runs.model_ids(run):
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    missing = {key: value for key, value in metrics.items() if key not in run.data.metrics}
    if missing:
        artifacts.log_scores(run, logged.model_id, split_names.VALIDATION, missing)
    return logged.model_uri


def _logged_before(client: MlflowClient, run: Run) -> LoggedModel | None:
    """The complete model that an interrupted run has logged, or None; incomplete models are deleted."""
    complete = None
    for model in client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' AND name = '{NAME}'"
    ):
        if model.status == LoggedModelStatus.READY:
            complete = model
        else:
            client.delete_logged_model(model.model_id)
    return complete


def _save(client: MlflowClient, run: Run, model: keras.Model, prepared: Prepared) -> LoggedModel:
    """The steps of MLflow's `log_model`, without the test of the input example and the link to the run.

    That test loads each model again, which takes as long as the other steps; the tests of this project do it.
    """
    logged = _create(client, run.info.experiment_id, NAME, run)
    described = _described(logged)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, NAME)
        mlflow.tensorflow.save_model(
            model,
            folder,
            mlflow_model=described,
            signature=_signature(prepared),
            input_example=np.asarray(prepared.images[:1]),
            # MLflow would take 9 s to infer them.
            pip_requirements=_pinned(PACKAGES),
            metadata={"classes": list(prepared.classes), "data_digest": prepared.digest},
        )
        client.log_model_artifacts(logged.model_id, str(folder))
    return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _create(client: MlflowClient, experiment_id: str, name: str, run: Run) -> LoggedModel:
    """Create a logged model with the parameters, network, study and cell of the run that trained it."""
    return client.create_logged_model(
        experiment_id,
        name,
        run.info.run_id,
        {key: run.data.tags[key] for key in ("study", "cell") if key in run.data.tags},
        run.data.params,
        run.data.params.get("model.name"),
    )


def _described(logged: LoggedModel) -> mlflow.models.Model:
    return mlflow.models.Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=logged.source_run_id,
        model_id=logged.model_id,
    )


def _pinned(packages: Sequence[str]) -> list[str]:
    return [f"{name}=={metadata.version(name)}" for name in packages]


def log_served(run_id: str, model: Loaded) -> str:
    """Log a network as a model to serve: encoded images of any size in, labels out.

    It has the parameters, scores and source run of the model that it wraps.

    Args:
        run_id: of the run that registers it, which gets the scores as well.
        model: a training's, as `load` returns it.

    Returns:
        The logged model's URI.

    Raises:
        ValueError: no run has logged the model.
    """
    client = MlflowClient()
    trained = client.get_logged_model(model.model_id) if model.model_id else None
    if trained is None or trained.source_run_id is None:
        raise ValueError("only a model that a run logged can be served")
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = _create(client, experiment_id, SERVED_NAME, client.get_run(trained.source_run_id))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, SERVED_NAME)
        classifier.save(Path(temporary, "classifier"), model.network, model.classes)
        mlflow.pyfunc.save_model(
            folder,
            loader_module=classifier.__name__,
            data_path=str(Path(temporary, "classifier")),
            code_paths=[str(Path(classifier.__file__).parent)],
            mlflow_model=_described(logged),
            signature=_served_signature(model.classes),
            input_example=_served_example(),
            pip_requirements=_pinned(SERVED_PACKAGES),
            metadata={
                "classes": list(model.classes),
                "data_digest": model.data_digest,
                "image_size": model.network.input_shape[1],
            },
        )
        client.log_model_artifacts(logged.model_id, str(folder))
    metrics = [_copy_metric(metric, logged.model_id, run_id) for metric in trained.metrics or ()]
    client.log_batch(run_id, metrics)
    return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY).model_uri


def _copy_metric(metric: Metric, model_id: str, run_id: str) -> Metric:
    """Copy a metric to another model and another run."""
    return Metric(
        metric.key,
        metric.value,
        metric.timestamp,
        metric.step,
        model_id=model_id,
        dataset_name=metric.dataset_name,
        dataset_digest=metric.dataset_digest,
        run_id=run_id,
    )


def _served_signature(classes: Sequence[str]) -> ModelSignature:
    """One column in, an answer's columns out; an MLflow schema with columns takes no arrays."""
    columns = [ColSpec("double", name) for name in classifier.class_columns(classes)]
    return ModelSignature(
        inputs.SCHEMA,
        Schema([ColSpec("string", "label", required=False), *columns, ColSpec("string", "error")]),
    )


def _served_example() -> pd.DataFrame:
    """A drawn image, since an image of the data set may be private."""
    png = io.BytesIO()
    sample.draw(sample.CLASSES[0], 0).resize((64, 64)).save(png, "PNG")
    return pd.DataFrame({"image": [png.getvalue()]})


def _signature(prepared: Prepared) -> ModelSignature:
    size = prepared.image_size
    return ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, len(prepared.classes)))]),
    )


def load(uri: str) -> Loaded:
    """Load the network of a logged or registered model by its URI (`models:/ID`, `models:/NAME@ALIAS`).

    Raises:
        catalog.ModelNotFound: there is no such model.
        catalog.ForeignModel: this pipeline did not make it.
    """
    description = catalog.look_up(uri)
    if "tensorflow" in description.flavors:
        network = mlflow.tensorflow.load_model(uri, keras_model_kwargs={"compile": False})
    else:
        folder = mlflow.artifacts.download_artifacts(uri)  # no copy, if it is on this machine
        network = classifier.load(Path(folder, description.flavors["python_function"]["data"])).network
    return Loaded(network, description.classes, description.data_digest, description.model_id)
