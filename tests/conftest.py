"""What tests share: a project folder with a store of its own, small parameters, the real photos."""

import csv
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model
from playwright.sync_api import Browser, sync_playwright
from stores import copy_fresh_stores
from warm import Forker, Process

copy_fresh_stores()

# Of the run that `mlflow run -e test` has made, in a store that no test uses.
for _name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(_name, None)

# Files that take longest, so that no worker is left alone with one of them at the end.
LONGEST = (
    "cluster", "failures", "torture", "workers", "complete", "documents", "secure_server", "server",
    "main_job", "serving", "models", "training",
)  # fmt: skip

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real photos, beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the real photos are not there: no folder {SHARED / 'data'}")
    return SHARED


@functools.cache
def forker() -> Forker:
    """The process that steps are forked from."""
    return Forker()


class Project:
    """A folder to run steps in: its own store and data, the checkout's code and params.yaml.

    Attributes:
        path: where `mlflow.db`, `mlruns` and `data` go.
    """

    def __init__(self, path: Path):
        self.path = path
        (path / "params.yaml").write_text((ROOT / "params.yaml").read_text())

    def run(
        self, step: str, *arguments: str, fresh: bool = False, **variables: str
    ) -> subprocess.CompletedProcess:
        """Run a step as a command, in a process of its own; stdout and stderr are kept apart as text.

        Args:
            step: its name.
            arguments: its command line.
            fresh: run it in a new interpreter, as is done with other code in PYTHONPATH.
            variables: more of its environment.
        """
        module, environment = f"pipeline.steps.{step}", self.environment(**variables)
        if not fresh and "PYTHONPATH" not in variables:
            return forker().run(module, arguments, self.path, environment)
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def start(
        self, step: str, *arguments: str, fresh: bool = False, **variables: str
    ) -> subprocess.Popen | Process:
        """Start a step in a process group of its own; stdout and stderr come as lines of one text stream."""
        module, environment = f"pipeline.steps.{step}", self.environment(PYTHONUNBUFFERED="1", **variables)
        if not fresh:
            return forker().start(module, arguments, self.path, environment)
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables of a step's process: the checkout's code, nothing of MLflow's but what is given."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return kept | {"PYTHONPATH": str(ROOT)} | variables

    @property
    def uri(self) -> str:
        """The tracking URI of the folder's store."""
        return f"sqlite:///{self.path / 'mlflow.db'}"


def sweep_run(project: Project):
    """The one sweep's run of a project."""
    (run,) = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'sweep'")
    return run


def cell_runs(project: Project) -> dict[str, object]:
    """The runs of a project's cells by name; fails where a cell has two."""
    runs = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'cell'", max_results=1000)
    assert len({run.data.tags["cell"] for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def leaderboard(run) -> list[dict[str, str]]:
    """The rows of a sweep's leaderboard.csv."""
    with Path(run.info.artifact_uri.removeprefix("file://"), "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def predictions(folder: Path) -> list[dict]:
    """The rows of predictions.parquet in a folder of artifacts."""
    table = pd.read_parquet(folder / "predictions.parquet")
    return table.astype({"label": str, "prediction": str}).to_dict("records")


def steps(project: Project, run, name: str = "loss") -> list[int]:
    """The steps at which a run has a metric."""
    return [point.step for point in MlflowClient(project.uri).get_metric_history(run.info.run_id, name)]


def described_model(
    client: MlflowClient, run_id: str | None, folder: Path, experiment: str = "0", **told
) -> str:
    """Log a model that is its description alone, with this metadata; gives its URI."""
    model = client.create_logged_model(experiment, "model", source_run_id=run_id)
    flavors = {"python_function": {"loader_module": "nothing", "python_version": "3.11"}}
    described = Model(run_id=run_id, model_id=model.model_id, flavors=flavors, metadata=told or None)
    described.save(str(folder / "MLmodel"))
    client.log_model_artifacts(model.model_id, str(folder))
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY).model_uri


class Server:
    """An MLflow server on loopback that keeps runs and artifacts in a folder of its own.

    Args:
        folder: for its runs, artifacts and log.
        options: more of `mlflow server`.
        certificate: what it shows; with one it speaks TLS, with the key `key.pem` beside it.
        variables: more of its environment.

    Attributes:
        uri: its address; the same after it was killed and started again.
    """

    def __init__(self, folder: Path, *options: str, certificate: Path | None = None, **variables: str):
        self.folder = folder
        self.port = free_port()
        self._options, self._certificate, self._variables = [*options], certificate, variables
        if certificate:
            files = f"--ssl-keyfile {certificate.with_name('key.pem')} --ssl-certfile {certificate}"
            self._options += ["--uvicorn-opts", files]
        self.uri = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--workers", "1",
            "--host", "127.0.0.1", "--port", str(self.port),
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"), *self._options,
        ]  # fmt: skip
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                # seven processes for jobs, not used
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | self._variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()

    def kill(self) -> None:
        """Kill it with all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=1, verify=self._certificate or True).ok
        except requests.RequestException:
            return False


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running MLflow server."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


def read_until(process: subprocess.Popen | Process, words: str) -> str:
    """What a started step prints up to the line with these words; fails where it ends without them."""
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    raise AssertionError(f"no {words!r} in:\n{text}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project folder."""
    return Project(tmp_path)


@pytest.fixture(scope="session")
def with_champion(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a champion: a network of 16 px that has seen few images. Tests add runs and files."""
    project = Project(tmp_path_factory.mktemp("champion"))
    training = project.run("train", "--data.limit=60", "--data.image_size=16", "--train.epochs=1")
    assert training.returncode == 0, training.stderr
    (run,) = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'train'")
    result = project.run("register", f"--register.run_id={run.info.run_id}")
    assert result.returncode == 0, result.stderr
    return project


def assert_user_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """A clear error: status 1, no traceback, and a last line or lines with all these words."""
    assert_error_text(result.returncode, result.stderr, *words)


def assert_error_text(returncode: int, stderr: str, *words: str) -> None:
    """As `assert_user_error`, for a step that was started."""
    assert returncode == 1, stderr
    assert "Traceback" not in stderr
    message = stderr[stderr.rindex("error: ") :]
    for word in words:
        assert word in message, message
