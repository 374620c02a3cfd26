"""The registry: versions of a model, and the alias that the best one carries."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.runtime.errors import UserError

# What every database holds of a version's description: MLflow's column is VARCHAR(5000). SQLite takes any
# length; PostgreSQL and MySQL count characters, SQL Server bytes.
DESCRIPTION_BYTES = 5000
MADE_BY = "register_run_id"  # tag of the versions that `register` makes, from the start: the run that did


def champion(name: str, alias: str) -> ModelVersion | None:
    """The version of a registered model that carries an alias; None where none does."""
    try:
        return MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # Neither a model nor an alias that is not there yet is an error here; a store that fails is.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def champion_uri(name: str, alias: str, key: str) -> str:
    """The URI of the version that an alias stands for now.

    Args:
        name: of the registered model.
        alias: that the version carries.
        key: the parameter that names another model, for the message.

    Raises:
        UserError: there is none.
    """
    version = champion(name, alias)
    if version is None:
        raise UserError(
            f"there is no models:/{name}@{alias} yet; run `mlflow run . -e register` first, or set {key}"
        )
    return f"models:/{name}/{version.version}"


def version_of(name: str, run_id: str) -> ModelVersion | None:
    """The version that `register` made of a run's model; None where there is none.

    A version that somebody made of the run's own model, in MLflow's UI perhaps, takes arrays of one size and
    has no preprocessing: it is not that one.
    """
    # MLflow's filter strings know no escape, and a name may have quotes of both kinds
    found = MlflowClient().search_model_versions(f"run_id = '{run_id}'")
    ours = [version for version in found if version.name == name and MADE_BY in version.tags]
    return max(ours, key=lambda version: int(version.version), default=None)


def add(name: str, uri: str, run_id: str, made_by: str) -> ModelVersion:
    """Register a served model as a new version of `name`, which is made where it does not exist.

    Args:
        name: Of the registered model.
        uri: Of the logged model.
        run_id: The run that trained it.
        made_by: The run of `register`.
    """
    client = MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        name, uri, run_id, tags={MADE_BY: made_by}, model_id=uri.removeprefix("models:/")
    )


def describe(version: ModelVersion, text: str) -> None:
    """Give a version its description: Markdown of at most `DESCRIPTION_BYTES`; the one before is lost."""
    MlflowClient().update_model_version(version.name, version.version, text)


def set_alias(name: str, alias: str, version: ModelVersion) -> None:
    """Give a version an alias, which it takes from the version that had it."""
    MlflowClient().set_registered_model_alias(name, alias, version.version)


def set_tags(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Set tags on a version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(version.name, version.version, key, value)
