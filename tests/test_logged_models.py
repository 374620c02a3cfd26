"""Logged models as MLflow searches them: by parameters, network, and scores on a data set."""

import contextlib
import math

import keras
import mlflow
import pytest
from conftest import ROOT
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from pipeline import models
from pipeline.config.command_line import load
from pipeline.dataset import prepare
from pipeline.dataset.prepare import Prepared
from pipeline.inference import evaluate
from pipeline.sources import split_names
from pipeline.tracking import artifacts, catalog, runs
from pipeline.tracking import models as logged

ACCURACIES = {"0.1": 0.5, "0.01": 0.75, "0.001": 0.625}  # by learning rate; on the validation split


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Prepared:
    """Prepared images, and a store of their own."""
    folder = tmp_path_factory.mktemp("logged")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    with contextlib.chdir(folder):
        yield prepare.prepare(read().data, seed=1)
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def uris(images) -> dict[str, str]:
    """Three networks as `train` records them, by learning rate."""
    found = {}
    for rate, accuracy in ACCURACIES.items():
        params = read(f"--train.learning_rate={rate}")
        with runs.run("train", params, {"step": "train"}) as run_id:
            artifacts.log_dataset(images, params.data.source, split_names.TRAIN, split_names.VALIDATION)
            loss = math.nan if rate == "0.1" else 1 - accuracy  # a diverged network has no loss
            scores = {"report/accuracy": accuracy, "report/loss": loss}
            found[rate] = logged.log(run_id, network(), images, scores)
    return found


def read(*arguments: str):
    return load(["--data.limit=30", "--data.image_size=16", *arguments], ROOT / "params.yaml")


def network() -> keras.Model:
    return models.build(read().model, 16, 2, seed=1)


def search(filter_string: str | None = None, **options) -> list[LoggedModel]:
    return mlflow.search_logged_models(["0"], filter_string, output_format="list", **options)


def rates(found: list[LoggedModel]) -> list[str]:
    return [model.params["train.learning_rate"] for model in found]


def validation(images: Prepared) -> dict[str, str]:
    return {"dataset_name": "sample-validation", "dataset_digest": images.digest[:16]}


def test_models_are_found_by_parameter_network_and_score(images, uris):
    assert rates(search("params.`train.learning_rate` = '0.01'")) == ["0.01"]
    assert len(search("model_type = 'simple_cnn' AND name = 'model'")) == 3
    assert search("model_type = 'transfer'") == []
    good = search("metrics.`report/accuracy` > 0.6", datasets=[validation(images)])
    assert sorted(rates(good)) == ["0.001", "0.01"]
    other = validation(images) | {"dataset_digest": "0" * 16}
    assert search("metrics.`report/accuracy` > 0.6", datasets=[other]) == []


@pytest.mark.parametrize("ascending", [True, False])
def test_models_are_ranked_on_the_same_images(images, uris, ascending):
    key = {"field_name": "metrics.report/accuracy", "ascending": ascending, **validation(images)}
    ranked = rates(search("name = 'model'", order_by=[key]))
    assert ranked == sorted(ACCURACIES, key=ACCURACIES.get, reverse=not ascending)


def test_diverged_model_does_not_rank_first_by_its_loss(images, uris):
    key = {"field_name": "metrics.report/loss", "ascending": True, **validation(images)}
    assert rates(search("name = 'model'", order_by=[key])) == ["0.01", "0.001", "0.1"]
    run = MlflowClient().get_logged_model(model_id(uris["0.1"])).source_run_id
    assert math.isnan(MlflowClient().get_run(run).data.metrics["report/loss"])


def test_run_has_its_splits_as_data_sets_and_its_model_as_output_alone(images, uris):
    client = MlflowClient()
    run = client.get_run(client.get_logged_model(model_id(uris["0.1"])).source_run_id)
    used = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert {context: data.name for context, data in used.items()} == {
        "training": "sample",
        "validation": "sample-validation",
    }
    assert {data.digest for data in used.values()} == {images.digest[:16]}
    assert run.inputs.model_inputs == []
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id(uris["0.1"])]
    assert run.data.metrics.keys() == {"report/accuracy", "report/loss"}


def test_recording_again_adds_nothing(images, uris):
    before = MlflowClient().get_logged_model(model_id(uris["0.1"]))
    again = logged.log(before.source_run_id, network(), images, {"report/accuracy": 0.5, "report/loss": 0.5})
    assert again == uris["0.1"]
    after = MlflowClient().get_logged_model(before.model_id)
    assert after.metrics == before.metrics
    assert len(search("params.`train.learning_rate` = '0.1' AND name = 'model'")) == 1


def test_evaluation_adds_the_test_split(images, uris):
    model = logged.load(uris["0.01"])
    with runs.run("evaluate", read(), {"step": "evaluate"}) as run_id:
        artifacts.log_dataset(images, "sample", split_names.TEST)
        result = evaluate.evaluate(model, images, split_names.TEST)
        evaluate.record(result, images, split_names.TEST, "test split", run_id)
    accuracy = result.report.accuracy
    assert MlflowClient().get_run(run_id).data.metrics["test/accuracy"] == accuracy
    (found,) = search(
        "metrics.`test/accuracy` >= 0 AND name = 'model'", datasets=[{"dataset_name": "sample-test"}]
    )
    assert found.model_id == model.model_id
    scores = {(metric.key, metric.dataset_name): metric.value for metric in found.metrics}
    assert scores["test/accuracy", "sample-test"] == accuracy
    assert scores["report/accuracy", "sample-validation"] == ACCURACIES["0.01"]


def test_served_model_has_what_its_network_has(images, uris):
    with runs.run("register", read(), {"step": "register"}) as run_id:
        served = logged.log_served(run_id, logged.load(uris["0.001"]))
    client = MlflowClient()
    ours, theirs = (client.get_logged_model(model_id(uri)) for uri in (served, uris["0.001"]))
    assert ours.params == theirs.params
    assert (ours.name, ours.model_type) == ("served", "simple_cnn")
    assert ours.source_run_id == theirs.source_run_id == catalog.look_up(served).run_id
    assert scores_of(ours) == scores_of(theirs) != set()
    assert client.get_run(run_id).data.metrics["report/accuracy"] == ACCURACIES["0.001"]


def scores_of(model: LoggedModel) -> set[tuple]:
    return {(found.key, found.value, found.dataset_name, found.dataset_digest) for found in model.metrics}


def model_id(uri: str) -> str:
    return uri.removeprefix("models:/")
