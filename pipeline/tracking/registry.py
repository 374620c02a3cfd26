"""The registry: versions of a model, and the alias of the best one."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.runtime.errors import UserError
from pipeline.tracking import MISSING_CODES

# The longest description that every database stores: MLflow's column is VARCHAR(5000). SQLite takes any
# length; PostgreSQL and MySQL count characters, SQL Server bytes.
DESCRIPTION_BYTES = 5000
MADE_BY = "register_run_id"  # tag of a version that `register` makes: its run


def champion(name: str, alias: str) -> ModelVersion | None:
    """The version of a registered model that has an alias; None if the model or the alias is missing.

    Raises:
        StoreError: the store fails.
    """
    try:
        return MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in MISSING_CODES:
            return None
        raise


def champion_uri(name: str, alias: str, key: str) -> str:
    """The URI of the version that has an alias now.

    Args:
        name: of the registered model.
        alias: of the version.
        key: the parameter that can name another model, for the message.

    Raises:
        UserError: no version has the alias.
    """
    version = champion(name, alias)
    if version is None:
        raise UserError(
            f"there is no models:/{name}@{alias} yet; run `mlflow run . -e register` first, or set {key}"
        )
    return f"models:/{name}/{version.version}"


def version_of(name: str, run_id: str) -> ModelVersion | None:
    """The newest version that `register` made of a run's model; None if missing.

    A version of the run's own model, as MLflow's UI makes it, does not count: it takes arrays of one size and
    has no preprocessing.
    """
    # filtered by name here: MLflow's filter strings have no escape, and a name may have both kinds of quotes
    found = MlflowClient().search_model_versions(f"run_id = '{run_id}'")
    ours = [version for version in found if version.name == name and MADE_BY in version.tags]
    return max(ours, key=lambda version: int(version.version), default=None)


def add(name: str, uri: str, run_id: str, made_by: str) -> ModelVersion:
    """Register a served model as a new version of `name`, which is created if missing.

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
    """Set a version's description: Markdown of at most `DESCRIPTION_BYTES` bytes of UTF-8."""
    MlflowClient().update_model_version(version.name, version.version, text)


def set_alias(name: str, alias: str, version: ModelVersion) -> None:
    """Move an alias to a version."""
    MlflowClient().set_registered_model_alias(name, alias, version.version)


def set_tags(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Set tags on a version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(version.name, version.version, key, value)
