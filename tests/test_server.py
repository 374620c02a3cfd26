"""A tracking server that goes away while a sweep runs: a real one, on loopback."""

import time

import pytest
from conftest import Project, Server, read_until
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

AWAY = 3  # seconds that the server is away, before the seconds that it takes to start
# MLflow's client waits 0, 2, 4, 8, ... s between its tries: half of its default, in all still two minutes.
RETRIES = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}


def test_server_is_killed_and_restarted_in_mid_sweep(project: Project, server: Server):
    grid = '--sweep.grid={"bias_initializer":[0.0,0.01,0.02,0.03,0.04,0.05]}'
    arguments = ("--data.limit=40", "--data.image_size=16", "--train.epochs=3", grid)
    process = project.start(
        "sweep", *arguments, "--sweep.workers=2", MLFLOW_TRACKING_URI=server.uri, **RETRIES
    )
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
