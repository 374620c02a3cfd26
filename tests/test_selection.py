"""Which training a command takes, of runs made by hand in a real store: never an older one in silence."""

import json
import os
from collections.abc import Iterator

import mlflow
import pytest
from conftest import ROOT, described_model
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

from pipeline.config.command_line import load
from pipeline.reports import card_sections, collect_card
from pipeline.runtime.errors import UserError
from pipeline.steps import evaluate, explain, export, register
from pipeline.sweep import selection
from pipeline.tracking import catalog, metric_histories
from pipeline.tracking.sweep_runs import Sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[MlflowClient]:
    """A store of its own, which is the one in use."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        yield MlflowClient()
        mlflow.set_tracking_uri(None)


@pytest.fixture
def client(store, monkeypatch) -> MlflowClient:
    """The store with an experiment of the test's own, which is the one in use."""
    number = len(store.search_experiments())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", store.create_experiment(f"experiment {number}"))
    return store


_NOW = iter(range(1, 1_000_000))  # starts of runs, ms


def begin(client: MlflowClient, **tags: str) -> str:
    """A run of the experiment in use, started after those before; gives its id."""
    experiment = os.environ["MLFLOW_EXPERIMENT_ID"]
    return client.create_run(experiment, start_time=next(_NOW), tags=tags).info.run_id


def finish(client: MlflowClient, run_id: str, tmp_path, **scores: float) -> None:
    """Give a run what a finished training has, and end it."""
    metadata = {"classes": ["cat", "dog"], "data_digest": "d", "image_size": 16}
    uri = described_model(client, run_id, tmp_path, client.get_run(run_id).info.experiment_id, **metadata)
    client.log_outputs(run_id, [LoggedModelOutput(uri.removeprefix("models:/"), step=0)])
    trained = {"best_epoch": "1", "epochs": "4", "best_val_loss": "0.5"}
    client.log_batch(
        run_id,
        metrics=[Metric(f"report/{key}", value, 0, 0) for key, value in scores.items()],
        tags=[RunTag(key, value) for key, value in trained.items()],
        params=[Param("sweep.metric", "accuracy")],
    )
    client.set_terminated(run_id)


def sweep(
    client: MlflowClient,
    tmp_path,
    status: str,
    complete: bool,
    metric: str = "accuracy",
    **cells: float | None,
) -> tuple[str, dict[str, str]]:
    """A sweep with these cells and their accuracies, None for a failed one; gives its run and theirs."""
    rule = {"metric": metric, "finalists": 0, "repeats": 1, "seed": 42}
    run_id = begin(
        client, step="sweep", study="abc", complete=str(complete).lower(), ranked_by=json.dumps(rule)
    )
    client.log_param(run_id, "sweep.metric", "accuracy")
    found = Sweep.from_run(client.get_run(run_id))
    runs = {}
    for number, (name, accuracy) in enumerate(cells.items()):
        runs[name] = found.new_cell(name, json.dumps({"learning_rate": 1 + number}))
        if accuracy is None:
            client.set_terminated(runs[name], "FAILED")
        else:
            finish(client, runs[name], tmp_path, accuracy=accuracy, loss=accuracy)
    client.log_metric(run_id, "cells/total", 4)
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return run_id, runs


@pytest.mark.parametrize("status", ["KILLED", "FAILED", "RUNNING"])
def test_newest_sweep_that_is_unfinished_stops_the_command(client, tmp_path, status):
    """Also where an older one is complete, and ended later."""
    _, older = sweep(client, tmp_path, "FINISHED", True, a=0.9)
    assert selection.select(None, "register.run_id", "sweep") == older["a"]
    newest, cells = sweep(client, tmp_path, status, False, a=0.5, b=0.6)
    for key, steps in (
        ("register.run_id", ["sweep"]),
        ("evaluate.run_id", ["train", "sweep"]),
        ("explain.run_id", ["train", "sweep"]),
    ):
        with pytest.raises(UserError) as error:
            selection.select(None, key, *steps)
        for words in (newest, "2 of 4 cells finished", f"set {key}={newest}", "rerun the sweep to resume it"):
            assert words in str(error.value)
        assert ("running" in str(error.value)) == (status == "RUNNING")
    (model,) = client.get_run(cells["b"]).outputs.model_outputs
    with pytest.raises(UserError, match=f"set export.model=models:/{model.model_id} to use its best"):
        selection.select(None, "export.model", "sweep")
    assert metric_histories.sweep_run(None).info.run_id == newest


def test_unfinished_sweep_that_is_named_gives_its_best_finished_cell(client, tmp_path, capsys):
    newest, cells = sweep(client, tmp_path, "KILLED", False, a=0.5, b=0.6)
    assert selection.select(newest, "register.run_id", "sweep") == cells["b"]
    assert f"the sweep {newest} is unfinished (2 of 4 cells finished)" in capsys.readouterr().err
    resumed = begin(client, step="resume", resumes=newest)  # what `mlflow run` made for a resumed sweep
    assert selection.select(resumed, "register.run_id", "sweep") == cells["b"]
    entry = collect_card._entry(cells["b"])
    assert (entry.rank, entry.sweep_ended) == (1, False)


def test_sweep_with_failed_cells_has_ended(client, tmp_path, capsys):
    """Its status is FAILED, since its command fails; its winner is taken all the same."""
    _, cells = sweep(client, tmp_path, "FAILED", True, a=0.5, b=0.6, c=None)
    assert selection.select(None, "register.run_id", "sweep") == cells["b"]
    assert "1 cell of the sweep" in capsys.readouterr().err
    entry = collect_card._entry(cells["a"])
    assert (entry.rank, entry.cells, entry.sweep_ended, entry.failed) == (2, 2, True, 1)


def test_winner_and_place_follow_the_metric_that_ranks_now(client, tmp_path):
    """The cells' own parameters have the metric of the first start."""
    _, cells = sweep(client, tmp_path, "FINISHED", True, metric="loss", a=0.5, b=0.6)
    assert selection.select(None, "register.run_id", "sweep") == cells["a"]
    entry = collect_card._entry(cells["b"])
    assert (entry.rank, entry.metric, entry.value, entry.other) == (2, "loss", 0.6, ("LR_1", 0.5))
    assert card_sections._ranked_by(entry) == "loss (lower is better)"


def test_every_command_takes_the_newest_sweep(client, tmp_path):
    """Without a champion: each step by its own way in."""
    _, older = sweep(client, tmp_path, "FINISHED", True, a=0.9)
    newest, cells = sweep(client, tmp_path, "FINISHED", True, a=0.5, b=0.6)
    params = load([], ROOT / "params.yaml")

    def taken() -> list[str]:
        models = [export._champion_or_winner(params), explain._model(params).uri]
        runs = [register._best(None), evaluate._run_id(None)]
        reported = metric_histories.sweep_run(None).info.run_id
        return [*runs, *(run_of[uri] for uri in models), reported]

    run_of = {catalog.of_run(run_id): run_id for run_id in (*older.values(), *cells.values())}
    assert taken() == [cells["b"]] * 4 + [newest]
    unfinished, _ = sweep(client, tmp_path, "KILLED", False, a=0.7)
    for step, ask in (
        ("register.run_id", lambda: register._best(None)),
        ("evaluate.run_id", lambda: evaluate._run_id(None)),
        ("explain.run_id", lambda: explain._model(params)),
        ("export.model", lambda: export._champion_or_winner(params)),
    ):
        with pytest.raises(UserError, match=f"run {unfinished}, is unfinished .*or set {step}="):
            ask()
    assert metric_histories.sweep_run(None).info.run_id == unfinished


def test_sweep_without_a_finished_cell(client, tmp_path):
    run_id, _ = sweep(client, tmp_path, "FAILED", True, a=None)
    with pytest.raises(UserError, match=f"the sweep {run_id} has no finished cell"):
        selection.select(None, "register.run_id", "sweep")
    newest, _ = sweep(client, tmp_path, "RUNNING", False)
    with pytest.raises(UserError, match=f"run {newest}, is running.*or set register.run_id to another run"):
        selection.select(None, "register.run_id", "sweep")


def test_newest_of_trainings_and_sweeps_is_the_one_started_last(client, tmp_path):
    assert selection.select(None, "evaluate.run_id", "train", "sweep") is None
    training = begin(client, step="train")
    _, cells = sweep(client, tmp_path, "FINISHED", True, a=0.5)
    finish(client, training, tmp_path, accuracy=0.5)  # ended last, but started first
    assert selection.select(None, "evaluate.run_id", "train", "sweep") == cells["a"]
    newer = begin(client, step="train")
    with pytest.raises(UserError, match=f"training, run {newer}, is not finished .*set evaluate.run_id"):
        selection.select(None, "evaluate.run_id", "train", "sweep")
    finish(client, newer, tmp_path, accuracy=0.5)
    assert selection.select(None, "evaluate.run_id", "train", "sweep") == newer
    assert selection.select(None, "register.run_id", "sweep") == cells["a"]
    client.delete_run(newer)
    assert selection.select(None, "evaluate.run_id", "train", "sweep") == cells["a"]


def test_run_that_is_no_training_is_refused(client, tmp_path):
    with pytest.raises(UserError, match="no run 'abc'"):
        selection.select("abc", "register.run_id", "sweep")
    for step, words in (("evaluate", "has no model"), ("prepare", "has no model"), ("train", "not finished")):
        with pytest.raises(UserError, match=f"^register.run_id: run .* {words}.*allowed: a finished run of"):
            selection.select(begin(client, step=step), "register.run_id", "sweep")
    deleted = begin(client, step="train")
    finish(client, deleted, tmp_path, accuracy=0.5)
    assert selection.select(deleted, "register.run_id", "sweep") == deleted
    client.delete_run(deleted)
    with pytest.raises(UserError, match=f"register.run_id: run {deleted} was deleted"):
        selection.select(deleted, "register.run_id", "sweep")
