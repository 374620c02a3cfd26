"""Descriptions of models, read from the store before a model is loaded.

Nothing here imports Keras or TensorFlow: a step looks its model up, prepares the images, and then loads it.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo

from pipeline.runtime.console import few
from pipeline.runtime.errors import UserError
from pipeline.tracking import MISSING_CODES, first_line, runs

_MOST_NAMED = 4  # classes in a sentence


class ModelNotFound(UserError):
    """The store has no such model, or not its files."""


class ForeignModel(UserError):
    """This pipeline did not make the model."""


@dataclass(frozen=True)
class ModelDescription:
    """A model of this pipeline.

    Attributes:
        uri: As given to `look_up`.
        classes: Names in the order of the outputs.
        data_digest: Of the prepared images that it was trained on.
        image_size: Side of its square input images, px.
        run_id: The run that trained it; None if the model does not say.
        model_id: Of the logged model.
        flavors: MLflow's flavors, with the settings to load each.
    """

    uri: str
    classes: tuple[str, ...]
    data_digest: str
    image_size: int
    run_id: str | None
    model_id: str | None = None
    flavors: Mapping[str, Any] = field(default_factory=dict)

    def training(self) -> str:
        """The id of the run that trained it.

        Raises:
            UserError: The model does not name it, so its images cannot be found.
        """
        if self.run_id is None:
            raise UserError(f"{self.uri} does not say which run trained it; name another model")
        return self.run_id


def look_up(uri: str) -> ModelDescription:
    """The description of a model, from its metadata.

    Args:
        uri: `models:/ID`, `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `runs:/RUN/model`.

    Raises:
        ModelNotFound: There is no such model.
        ForeignModel: This pipeline did not make it.
        StoreError: The store fails.
    """
    try:
        info = mlflow.models.get_model_info(uri)
    except (MlflowException, OSError) as error:
        why = first_line(error)
        if getattr(error, "error_code", "") not in MISSING_CODES:
            if _has_description(uri):
                raise
            why = "its files were deleted"  # a server answers that the download failed
        raise ModelNotFound(
            f"{uri} cannot be found: {why}; `mlflow ui` shows the models with their versions and aliases"
        ) from error
    metadata = info.metadata or {}
    if not {"classes", "data_digest"} <= set(metadata) or (size := _image_size(uri, info, metadata)) is None:
        raise ForeignModel(
            f"{uri} was not made by this pipeline: its metadata has no classes, data_digest or image_size"
        )
    run_id = _training_run(info, metadata)
    return ModelDescription(
        uri, tuple(metadata["classes"]), metadata["data_digest"], size, run_id, info.model_id, info.flavors
    )


def _has_description(uri: str) -> bool:
    """Whether a model's file MLmodel exists.

    Raises:
        StoreError: The store fails.
    """
    files = mlflow.artifacts.list_artifacts(artifact_uri=uri)
    return "MLmodel" in {file.path.rpartition("/")[2] for file in files}


def _image_size(uri: str, info: ModelInfo, metadata: Mapping[str, Any]) -> int | None:
    """The side of the input images, px: from the metadata of `register`, or the signature of a training."""
    size: int | None = metadata.get("image_size")
    if size is not None:
        return size
    inputs = info.signature.inputs.inputs if info.signature and info.signature.inputs else []
    shape: tuple[int, ...] = getattr(inputs[0], "shape", ()) if inputs else ()
    return shape[1] if len(shape) == 4 else _size_of_network(uri, info)


def _size_of_network(uri: str, info: ModelInfo) -> int | None:
    """The network's own input size, px; earlier registered models have it nowhere else."""
    data = info.flavors.get("python_function", {}).get("data")
    if data is None:
        return None
    network = Path(mlflow.artifacts.download_artifacts(uri), data, "network.keras")
    if not network.is_file():
        return None
    with zipfile.ZipFile(network) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    size: int = layers[0]["config"]["batch_shape"][1]
    return size


def _training_run(info: ModelInfo, metadata: Mapping[str, Any]) -> str | None:
    """The run that trained a model; earlier registered models name the run of `register` instead."""
    if info.run_id is None or "tensorflow" in info.flavors or "image_size" in metadata:
        return info.run_id
    return runs.get(info.run_id).data.tags.get("registered_run_id", info.run_id)


def look_up_named(uri: str, key: str) -> ModelDescription:
    """`look_up` for a model that a parameter names.

    Args:
        uri: The parameter's value.
        key: The parameter, for the message.

    Raises:
        ModelNotFound: There is no such model.
        ForeignModel: This pipeline did not make it.
    """
    try:
        return look_up(uri)
    except (ModelNotFound, ForeignModel) as error:
        raise type(error)(f"{key}: {error}; name another model") from error


def requirements_of(uri: str) -> tuple[str, list[str]]:
    """What a logged model requires: the version of Python, and packages as `name==version`."""
    python = mlflow.models.get_model_info(uri).flavors["python_function"]["python_version"]
    logged = MlflowClient().get_logged_model(uri.removeprefix("models:/"))
    return python, mlflow.artifacts.load_text(f"{logged.artifact_location}/requirements.txt").split()


def of_run(run_id: str) -> str:
    """The URI of the model that a run logged.

    Raises:
        UserError: There is no such run, or it has no model.
    """
    run = runs.get(run_id)
    model_ids = runs.model_ids(run)
    if not model_ids:
        raise UserError(
            f"run {run_id} ({run.info.run_name}) has no model; allowed: a run of `train`, or a sweep's cell"
        )
    return f"models:/{model_ids[-1]}"


def class_mismatch(
    classes: Sequence[str], others: Sequence[str], name: str = "model", other: str = "data"
) -> str:
    """How a model's classes differ from others, for a message: a few classes that only one of them has.

    Args:
        classes: Names in the order of the model's outputs.
        others: Names to compare with.
        name: What has `classes`.
        other: What has `others`.

    >>> class_mismatch(("cat", "dog"), ("cat", "fox"))
    'class mismatch: model has dog, data has fox'
    >>> class_mismatch(("cat", "dog"), ("cat", "dog", "fox"))
    'class mismatch: only data has fox'
    """
    extra = [one for one in classes if one not in set(others)]
    missing = [one for one in others if one not in set(classes)]
    sides = [f"{who} has {few(some, _MOST_NAMED)}" for who, some in ((name, extra), (other, missing)) if some]
    only = "only " if len(sides) == 1 else ""
    return f"class mismatch: {only}{', '.join(sides) or 'the order differs'}"
