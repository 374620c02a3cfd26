"""Champions that `register` did not make, or that are gone, through real commands: one clear line in each."""

from collections.abc import Iterator

import mlflow
import pytest
from conftest import Project, assert_user_error, described_model
from mlflow import MlflowClient
from PIL import Image

from pipeline.tracking.registry import MADE_BY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(with_champion: Project) -> Iterator[MlflowClient]:
    mlflow.set_tracking_uri(with_champion.uri)  # by which MLflow's own client finds a version's model
    yield MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def training(with_champion: Project, client: MlflowClient) -> str:
    (run,) = client.search_runs(["0"], "tags.step = 'train'")
    Image.new("RGB", (20, 20), "red").save(with_champion.path / "red.png")
    return run.info.run_id


def crown(client: MlflowClient, name: str, uri: str, run_id: str | None = None) -> None:
    """Register a model by hand, as in MLflow's UI, and make it the champion."""
    client.create_registered_model(name)
    version = client.create_model_version(name, uri, run_id, model_id=uri.removeprefix("models:/"))
    client.set_registered_model_alias(name, "champion", version.version)


def champion(client: MlflowClient, name: str):
    return client.get_model_version_by_alias(name, "champion")


def test_champion_of_another_kind(with_champion, client, training, tmp_path):
    crown(client, "somebody's", described_model(client, None, tmp_path))
    name = "--register.name=somebody's"
    for step, key, arguments in (
        ("predict", "predict.model", ["--predict.source=red.png"]),
        ("explain", "explain.run_id", ["--explain.source=red.png"]),
        ("export", "export.model", []),
    ):
        result = with_champion.run(step, name, *arguments)
        assert_user_error(
            result, f"{key}: models:/somebody's/1 was not made by this pipeline", "name another"
        )
    result = with_champion.run("register", name, f"--register.run_id={training}")
    assert result.returncode == 0, result.stderr
    assert "models:/somebody's@champion is unchanged: version 1, the champion, cannot be" in result.stdout
    assert str(champion(client, "somebody's").version) == "1"
    assert len(client.search_model_versions(f"run_id = '{training}'")) >= 1


def test_raw_network_gives_way_to_its_served_form_and_that_can_be_made_again(with_champion, client, training):
    """A version that was made of the training's run in MLflow's UI, then deleted champions."""
    (model,) = client.get_run(training).outputs.model_outputs
    crown(client, "raw", f"models:/{model.model_id}", training)
    register = ("register", "--register.name=raw", f"--register.run_id={training}")
    predict = ("predict", "--register.name=raw", "--predict.source=red.png", "--predict.output=raw")
    assert with_champion.run(*predict).returncode == 0
    result = with_champion.run(*register)
    assert result.returncode == 0, result.stderr
    assert "was made by hand of the same network" in result.stdout
    served = champion(client, "raw")
    assert str(served.version) == "2" and MADE_BY in served.tags

    client.delete_logged_model(served.source.removeprefix("models:/"))
    assert_user_error(
        with_champion.run(*predict), "predict.model: models:/raw/2 cannot be found", "mlflow ui"
    )
    result = with_champion.run(*register)
    assert result.returncode == 0, result.stderr
    assert "version 2, the champion, is in the registry alone: its model was deleted" in result.stdout
    assert str(champion(client, "raw").version) == "3"

    client.delete_registered_model("raw")
    assert_user_error(with_champion.run(*predict), "no models:/raw@champion yet", "-e register")
