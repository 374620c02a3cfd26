"""With a tracking server, everything goes there: a real one, on loopback."""

import time

import pytest
from conftest import Project, Server, read_until
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

SMALL = ("--data.limit=40", "--data.image_size=16", "--train.epochs=1")
AWAY = 20  # seconds that the server is away


def test_everything_goes_to_the_server(project: Project, server: Server):
    for step, *arguments in (
        ("sweep", *SMALL, '--sweep.grid={"dropout":[0.3,0.5]}'),
        ("register",),
        ("evaluate",),
    ):
        result = project.run(step, *arguments, MLFLOW_TRACKING_URI=server.uri)
        assert result.returncode == 0, result.stderr
    client = MlflowClient(server.uri)
    (parent,) = client.search_runs(["0"], "tags.step = 'sweep'")
    assert parent.data.metrics["cells/finished"] == 2
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.csv", "leaderboard.md"} <= artifacts
    version = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    assert version.run_id == parent.data.tags["best_run_id"]
    (evaluated,) = client.search_runs(["0"], "tags.step = 'evaluate'")
    assert evaluated.data.metrics["test/accuracy"] == parent.data.metrics["test/accuracy"]
    assert {path.name for path in project.path.iterdir()} == {"params.yaml", "data"}


def test_server_is_killed_and_restarted_in_mid_sweep(project: Project, server: Server):
    grid = '--sweep.grid={"bias_initializer":[0.0,0.01,0.02,0.03,0.04,0.05]}'
    arguments = ("--data.limit=40", "--data.image_size=16", "--train.epochs=3", grid)
    process = project.start("sweep", *arguments, "--sweep.workers=2", MLFLOW_TRACKING_URI=server.uri)
    text = read_until(process, "cell 2/6")
    server.kill()
    time.sleep(AWAY)  # what is tested, not a way to wait for something
    assert process.poll() is None
    server.start()
    text += process.stdout.read()
    assert process.wait() == 0, text
    assert "failed" not in text
    client = MlflowClient(server.uri)
    runs = client.search_runs(["0"], "tags.step = 'cell'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["cell"] for run in runs}) == len(runs) == 6
    for run in runs:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]
