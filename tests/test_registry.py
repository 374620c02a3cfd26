"""The registry, in a real store: names of all kinds, and versions that somebody else made."""

from collections.abc import Iterator

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from pipeline.tracking import registry


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[MlflowClient]:
    """A store of its own, which is the one in use."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")
    yield MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def uri(client) -> str:
    """Of a logged model."""
    logged = client.create_logged_model("0", "model")
    return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY).model_uri


@pytest.mark.parametrize("name", ["o'hara", 'say "hi" to o\'hara', "名 #1 100%", "n" * 256])
def test_names_that_the_schema_takes_work_throughout(client, uri, name):
    run_id = client.create_run("0").info.run_id
    assert registry.champion(name, "champion") is None
    assert registry.version_of(name, run_id) is None
    made = registry.add(name, uri, run_id, "register's")
    registry.add("another", uri, run_id, "register's")
    registry.set_alias(name, "champion", made)
    found = registry.version_of(name, run_id)
    assert (found.name, found.version) == (name, made.version)
    assert registry.champion(name, "champion").version == made.version
    assert registry.champion_uri(name, "champion", "key") == f"models:/{name}/{made.version}"


def test_version_made_by_hand_is_not_taken_for_ours(client, uri):
    run_id = client.create_run("0").info.run_id
    client.create_registered_model("by hand")
    client.create_model_version("by hand", uri, run_id)
    assert registry.version_of("by hand", run_id) is None
    ours = registry.add("by hand", uri, run_id, "register's")
    client.create_model_version("by hand", uri, run_id)
    assert registry.version_of("by hand", run_id).version == ours.version
    client.delete_model_version("by hand", ours.version)
    assert registry.version_of("by hand", run_id) is None
