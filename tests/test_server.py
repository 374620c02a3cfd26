"""With a tracking server, everything goes there: a real one, on loopback."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import Project
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

SMALL = ("--data.limit=40", "--data.image_size=16", "--train.epochs=1")
START = 60  # seconds that the server has to start


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server that keeps runs and artifacts in a folder of its own."""
    folder: Path = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--workers", "1",
        "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + START
            while not _answers(uri):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
            yield uri
        finally:
            process.terminate()


def _answers(uri: str) -> bool:
    try:
        return requests.get(f"{uri}/health", timeout=1).ok
    except requests.RequestException:
        return False


def test_everything_goes_to_the_server(project: Project, server: str):
    for step, *arguments in (
        ("sweep", *SMALL, '--sweep.grid={"dropout":[0.3,0.5]}'),
        ("register",),
        ("evaluate",),
    ):
        result = project.run(step, *arguments, MLFLOW_TRACKING_URI=server)
        assert result.returncode == 0, result.stderr
    client = MlflowClient(server)
    (parent,) = client.search_runs(["0"], "tags.step = 'sweep'")
    assert parent.data.metrics["cells/finished"] == 2
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.csv", "leaderboard.md"} <= artifacts
    version = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    assert version.run_id == parent.data.tags["best_run_id"]
    (evaluated,) = client.search_runs(["0"], "tags.step = 'evaluate'")
    assert evaluated.data.metrics["test/accuracy"] == parent.data.metrics["test/accuracy"]
    assert {path.name for path in project.path.iterdir()} == {"params.yaml", "data"}
