"""A sweep that is complete, or says that it is not: epochs in the grid, deleted runs, drivers, metrics."""

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import (
    Project,
    assert_error_text,
    cell_runs,
    leaderboard,
    read_until,
    steps,
    sweep_run,
)
from mlflow import MlflowClient
from PIL import Image

from pipeline.sources import sample

pytestmark = pytest.mark.slow

TINY = ("--data.limit=40", "--data.image_size=16", "--train.epochs=2", "--sweep.workers=1")


def artifact(run, name: str) -> str:
    return Path(run.info.artifact_uri.removeprefix("file://"), name).read_text()


def test_pruner_with_epochs_in_the_grid(project: Project):
    """Each cell is judged until its own last epoch, be it after or before that of the base parameters."""
    grid = '--sweep.grid={"epochs":[1,3],"bias_initializer":[0.0,0.01,0.02]}'
    arguments = (*TINY, grid, "--sweep.pruner=median", "--sweep.workers=2")
    result = project.run("sweep", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    parent, runs = sweep_run(project), cell_runs(project)
    assert {run.info.status for run in runs.values()} == {"FINISHED"} and len(runs) == 6
    for name, run in runs.items():
        trained, most = steps(project, run), int(run.data.params["train.epochs"])
        pruned = run.data.tags.get("pruned") == "true"
        assert trained == list(range(1, len(trained) + 1)), name
        assert (len(trained) < most) == pruned, name
    counts = {
        name: parent.data.metrics[f"cells/{name}"] for name in ("total", "finished", "failed", "pruned")
    }
    pruned = sum(run.data.tags.get("pruned") == "true" for run in runs.values())
    assert counts == {"total": 6, "finished": 6, "failed": 0, "pruned": pruned}
    assert parent.data.tags["complete"] == "true"
    assert "test/accuracy" in parent.data.metrics


def test_cell_whose_run_is_deleted_begins_anew(project: Project):
    grid = '--sweep.grid={"bias_initializer":[0.0,0.01]}'
    process = project.start("sweep", *TINY, grid, "--train.epochs=120")
    read_until(process, "epochs trained")
    client = MlflowClient(project.uri)
    (training,) = client.search_runs(["0"], "tags.step = 'cell'")
    client.delete_run(training.info.run_id)
    text = process.stdout.read()
    assert process.wait() == 0, text
    assert f"its run {training.info.run_id} was deleted; training restarts in a new run" in text
    runs = cell_runs(project)
    assert len(runs) == 2 and training.info.run_id not in {run.info.run_id for run in runs.values()}
    assert all(steps(project, run) == list(range(1, 121)) for run in runs.values())
    assert sweep_run(project).data.tags["complete"] == "true"


def test_driver_whose_sweep_was_taken_over_stops_and_writes_nothing_more(project: Project):
    arguments = (*TINY, '--sweep.grid={"bias_initializer":[0.0,0.01]}', "--train.epochs=120")
    process = project.start("sweep", *arguments)
    read_until(process, "epochs trained")
    client, sweep = MlflowClient(project.uri), sweep_run(project)
    (cell,) = client.search_runs(["0"], "tags.step = 'cell'")
    theirs = {
        "token": "t",
        "host": "another",
        "machine": "another",
        "pid": 1,
        "beat": 1,
        "since": "",
        "folder": "",
    }
    client.set_tag(sweep.info.run_id, "driver", json.dumps(theirs))
    text = process.stdout.read()
    assert_error_text(process.wait(), text, "process 1 on another", "has taken over study", "stops")
    after = client.get_run(sweep.info.run_id)
    assert json.loads(after.data.tags["driver"]) == theirs
    assert (after.info.status, after.data.tags["complete"]) == ("RUNNING", "false")
    assert client.get_run(cell.info.run_id).info.status == "RUNNING", "it is the other driver's to end"
    assert "leaderboard.json" not in {item.path for item in client.list_artifacts(sweep.info.run_id)}


def test_sweep_stopped_amid_its_finalists_has_a_report(project: Project):
    """Before the first repeat is done, a finalist has neither mean nor spread."""
    grid = '--sweep.grid={"bias_initializer":[0.0,0.01]}'
    arguments = (*TINY, grid, "--sweep.finalists=2", "--sweep.repeats=1", "--train.epochs=40")
    process = project.start("sweep", *arguments)
    text = read_until(process, "retraining the best 2 cells with seeds")
    os.killpg(process.pid, signal.SIGINT)
    text += process.stdout.read()
    assert process.wait() == 130, text
    assert "Traceback" not in text and "0 of 2 repeats of the finalists finished" in text
    parent = sweep_run(project)
    assert parent.data.tags["complete"] == "false" and "test/accuracy" not in parent.data.metrics
    page = artifact(parent, "report.html")
    assert "Finalists, retrained" in page and "0 of 2 repeats of the finalists are finished" in page
    result = project.run("report")
    assert (result.returncode, result.stderr) == (0, "")

    # the same command to the end, then ranked by another metric: one winner wherever it is named
    for metric in ("accuracy", "loss"):
        result = project.run("sweep", *arguments, f"--sweep.metric={metric}")
        assert (result.returncode, result.stderr) == (0, "")
        parent = sweep_run(project)
        assert parent.data.tags["complete"] == "true" and f"test/{metric}" in parent.data.metrics
        assert_one_winner(project, metric)
    assert "finished cells keep their best epoch by accuracy" in result.stdout
    repeats = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'finalist'")
    assert sorted(run.data.params["train.seed"] for run in repeats) == ["43", "43"]


def assert_one_winner(project: Project, metric: str) -> None:
    """The sweep's run, its files and its page name the same winner."""
    parent = sweep_run(project)
    stored, verdict = (json.loads(artifact(parent, name)) for name in ("leaderboard.json", "verdict.json"))
    winner = stored["cells"][0]
    assert stored["rule"]["metric"] == verdict["metric"] == metric
    ids = {winner["run_id"], verdict["winner"]["run_id"], leaderboard(parent)[0]["run_id"]}
    tags = {parent.data.tags[name] for name in ("best_run_id", "tested_run_id")}
    assert ids == tags and len(ids) == 1
    values = [cell["value"] for cell in stored["cells"]]
    assert values == sorted(values, reverse=stored["direction"] == "maximize")
    assert parent.data.metrics[f"best/{metric}"] == winner["scores"][metric]
    page = artifact(parent, "report.html")
    chosen = page[page.index('<section id="best">') :]
    assert chosen.index(winner["name"]) < chosen.index("selected by " + metric)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """A folder of 300 drawn cats and 40 drawn dogs."""
    folder = tmp_path_factory.mktemp("uneven")
    for name, count in zip(sample.CLASSES, (300, 40), strict=True):
        (folder / name).mkdir()
        for number in range(count):
            image: Image.Image = sample.draw(name, number).resize((24, 24))
            image.save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("metric", ["macro_f1", "loss"])
def test_metric_means_the_same_from_the_epoch_to_the_registry(project: Project, uneven: Path, metric: str):
    arguments = (
        f"--data.source={uneven}", "--data.image_size=16", "--train.epochs=3", "--sweep.workers=1",
        '--sweep.grid={"learning_rate":[0.05,0.0001]}', f"--sweep.metric={metric}",
    )  # fmt: skip
    result = project.run("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    assert_one_winner(project, metric)
    best = min if metric == "loss" else max
    client = MlflowClient(project.uri)
    for run in cell_runs(project).values():
        history = client.get_metric_history(run.info.run_id, f"val_{metric}")
        values = [point.value for point in sorted(history, key=lambda point: point.step)]
        assert len(values) == 3
        assert values[int(run.data.tags["best_epoch"]) - 1] == best(values)
        assert run.data.metrics[f"report/{metric}"] == best(values)
    winner = sweep_run(project).data.tags["best_run_id"]
    done = project.run("register")
    assert done.returncode == 0, done.stderr
    assert f"model of run {winner}" in done.stdout
    version = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    assert f"by validation {metric}" in version.description
