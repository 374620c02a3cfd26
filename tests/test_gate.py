"""The champion's gate on a real store: which champions a newcomer is compared with, on which images.

The models are their descriptions alone, as the store has them: nothing is loaded up to the contest itself.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import described_model
from mlflow import MlflowClient

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation import comparison
from pipeline.evaluation.objective import Objective
from pipeline.inference import gate
from pipeline.runtime.errors import UserError
from pipeline.tracking import catalog, registry

CLASSES = ("cat", "dog")
EXPERIMENT = "1"  # the first of a store after its own


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[MlflowClient]:
    """A store of its own, which is the one in use."""
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    client = MlflowClient()
    assert client.create_experiment("gate", artifact_location=str(folder / "artifacts")) == EXPERIMENT
    yield client
    mlflow.set_tracking_uri(None)


def a_run(client: MlflowClient) -> str:
    return client.create_run(EXPERIMENT).info.run_id


def images(size: int, digest: str = "d", names: tuple[str, ...] = ("a", "b")) -> Prepared:
    return Prepared(
        path=Path("nowhere"),
        classes=CLASSES,
        image_size=size,
        digest=digest,
        images=np.zeros((len(names), size, size, 3), np.uint8),
        labels=np.arange(len(names)) % 2,
        names=names,
        splits=np.array(["validation"] * len(names)),
        image_digests=names,
        rejected=(),
    )


NEWCOMER = catalog.ModelDescription("models:/m-new", CLASSES, "d", 32, "newcomer")


def find(name: str, prepared: Prepared | UserError | None = None, prepare=None, newcomer=NEWCOMER):
    """What `gate.find` says of the version that is the champion of a name."""
    given = images(32) if prepared is None else prepared
    return gate.find(registry.champion(name, "champion"), "champion", newcomer, given, prepare)


def crown(client: MlflowClient, name: str, uri: str, run_id: str | None, by_hand: bool) -> None:
    """Make a model the champion of a name, as `register` does or as a user does."""
    if by_hand:
        client.create_registered_model(name)
        version = client.create_model_version(name, uri, run_id)
    else:
        version = registry.add(name, uri, run_id, "register's")
    registry.set_alias(name, "champion", version)


def ours(client: MlflowClient, path: Path, size: int = 32, classes=CLASSES, **more) -> tuple[str, str]:
    run_id = a_run(client)
    metadata = {"classes": list(classes), "data_digest": "d", "image_size": size} | more
    return described_model(client, run_id, path, EXPERIMENT, **metadata), run_id


def test_first_version_takes_the_alias(client):
    assert find("nobody") == gate.Decision(True, "there was no champion")


def test_champion_is_measured_on_images_of_its_own_size(client, tmp_path):
    uri, run_id = ours(client, tmp_path, size=16)
    crown(client, "other size", uri, run_id, by_hand=False)
    asked = []

    def prepare(size: int) -> Prepared:
        asked.append(size)
        return images(size, "digest at 16 px")

    contest = find("other size", prepare=prepare)
    assert asked == [16]
    assert (contest.ours.image_size, contest.theirs.image_size) == (32, 16)
    assert contest.champion.uri == "models:/other size/1"
    same = find("other size", images(16))
    assert same.ours is same.theirs
    with pytest.raises(UserError, match="changed while they were prepared"):
        find("other size", prepare=lambda size: images(size, names=("a", "c")))


def test_alias_moves_on_a_better_objective_and_on_a_significant_one_where_that_is_asked(client, tmp_path):
    uri, run_id = ours(client, tmp_path, size=16)
    crown(client, "judged", uri, run_id, by_hand=False)
    contest = find("judged", prepare=lambda size: images(size))

    def judge(value: float, p_value: float, only_significant: bool, metric: str = "accuracy"):
        found = comparison.Comparison(Objective(metric), value, 0.8, 40, p_value, "McNemar")
        return contest.decide_from(found, only_significant)

    takes = {
        (value, p_value, only): judge(value, p_value, only).takes
        for value in (0.9, 0.8, 0.7)
        for p_value in (0.01, 0.2)
        for only in (False, True)
    }
    assert [case for case, taken in takes.items() if taken] == [
        (0.9, 0.01, False), (0.9, 0.01, True), (0.9, 0.2, False),
    ]  # fmt: skip
    refused = judge(0.9, 0.2, True)
    assert refused.reason == (
        "better, but not significantly, which register.significant asks for: accuracy 0.9000 against 0.8000 "
        "of version 1, the champion, on the same 40 validation images, each model at its own size (16 and 32 "
        "px); "
        "the difference is not significant (McNemar, p = 0.2)"
    )
    assert refused.tags["compared_p_value"] == "0.2" and refused.tags["compared_with_version"] == "1"
    loss = judge(0.7, 0.01, True, "loss")
    assert loss.takes and "of version 1, the champion (lower is better)" in loss.reason
    other_split = replace(contest, theirs=images(16, "another digest")).decide_from(
        comparison.Comparison(Objective("f1"), 0.7, 0.8, 40, 0.5, "paired bootstrap"), False
    )
    assert "trained on other images or another split, and may have seen some" in other_split.reason


def test_images_are_needed_for_a_contest_alone(client, tmp_path):
    uri, run_id = ours(client, tmp_path)
    crown(client, "no images", uri, run_id, by_hand=False)
    with pytest.raises(UserError, match="no folder photos"):
        find("no images", UserError("no folder photos"))
    assert find("nobody", UserError("no folder photos")).takes


def test_same_run_is_the_champion_already(client, tmp_path):
    uri, run_id = ours(client, tmp_path)
    description = catalog.look_up(uri)
    assert description.run_id == run_id
    crown(client, "itself", uri, run_id, by_hand=False)
    assert find("itself", newcomer=description) == gate.Decision(True, "it is the champion already")


def test_raw_network_of_the_same_run_gives_way(client, tmp_path):
    """A version that somebody made of the cell's run in MLflow's UI has no preprocessing."""
    uri, run_id = ours(client, tmp_path)
    crown(client, "raw", uri, run_id, by_hand=True)
    decision = find("raw", newcomer=catalog.look_up(uri))
    assert (
        decision.takes and "version 1, the champion, was made by hand of the same network" in decision.reason
    )


def test_model_knows_its_training_where_the_version_does_not(client, tmp_path):
    """As where somebody registers it by its URI."""
    uri, run_id = ours(client, tmp_path)
    crown(client, "copied", uri, None, by_hand=True)
    assert find("copied").champion.run_id == run_id


def test_champion_of_another_kind_keeps_the_alias(client, tmp_path):
    crown(client, "foreign", described_model(client, None, tmp_path, EXPERIMENT), None, by_hand=True)
    decision = find("foreign")
    assert not decision.takes
    for words in ("version 1, the champion", "not made by this pipeline", "register.name or register.alias"):
        assert words in decision.reason
    with pytest.raises(UserError, match=r"^predict.model: models:/foreign/1 was not made by this pipeline"):
        catalog.look_up_named("models:/foreign/1", "predict.model")


def test_champion_whose_model_was_deleted_gives_way(client, tmp_path):
    uri, run_id = ours(client, tmp_path)
    crown(client, "deleted", uri, run_id, by_hand=False)
    client.delete_run(run_id)
    assert isinstance(find("deleted"), gate.Contest), "a deleted run has left its model"
    client.delete_logged_model(uri.removeprefix("models:/"))
    others, _ = ours(client, tmp_path)
    decision = find("deleted")
    assert decision.takes and "its model was deleted" in decision.reason
    with pytest.raises(UserError, match=r"^export.model: models:/deleted/1 cannot be found"):
        catalog.look_up_named("models:/deleted/1", "export.model")
    shutil.rmtree(client.get_logged_model(others.removeprefix("models:/")).artifact_location)
    with pytest.raises(catalog.ModelNotFound, match="cannot be found"):
        catalog.look_up(others)
    client.delete_model_version("deleted", "1")
    assert find("deleted") == gate.Decision(True, "there was no champion")


def test_other_classes_are_named_in_a_few_words(client, tmp_path):
    many = [f"class {number:03}" for number in range(1000)]
    uri, run_id = ours(client, tmp_path, classes=["cat", *many])
    crown(client, "classes", uri, run_id, by_hand=False)
    decision = find("classes")
    assert not decision.takes
    assert (
        "class mismatch: champion has class 000, class 001, class 002, class 003 and 996 more, "
        "new model has dog; set another register.name"
    ) in decision.reason
    assert len(decision.reason) < 300


def test_classes_that_differ():
    assert catalog.class_mismatch(("a", "b"), ("a", "c")) == "class mismatch: model has b, data has c"
    assert catalog.class_mismatch(("a",), ("a", "c")) == "class mismatch: only data has c"
    assert catalog.class_mismatch(("a", "b"), ("a",)) == "class mismatch: only model has b"
    assert catalog.class_mismatch(("a", "b"), ("b", "a")) == "class mismatch: the order differs"
