"""A real server with a self-signed certificate and users, and one without logged models, on loopback."""

import base64
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from conftest import Project, Server, assert_user_error, free_port
from mlflow import MlflowClient

from pipeline.sources import sample

pytestmark = pytest.mark.slow

ADMIN, PASSWORD = "admin", "a long enough password"
SMALL = ("--data.limit=40", "--data.image_size=16")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate, with its key beside it."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def secure(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("secure")
    settings = (Path(mlflow.__file__).parent / "server/auth/basic_auth.ini").read_text()
    # a password is hashed once a minute, not for each request
    (folder / "auth.ini").write_text(f"{settings}\nauth_cache_ttl_seconds = 60\n")
    server = Server(
        folder,
        "--app-name",
        "basic-auth",
        certificate=certificate,
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
        MLFLOW_FLASK_SERVER_SECRET_KEY="for tests",
        MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
    )
    yield server
    server.kill()


@pytest.fixture(scope="module")
def trusted(secure: Server, certificate: Path) -> dict[str, str]:
    """The variables that a user of the server sets."""
    return {
        "MLFLOW_TRACKING_URI": secure.uri,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate),
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }


@pytest.fixture
def client(trusted: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    for name, value in trusted.items():
        monkeypatch.setenv(name, value)
    return MlflowClient(trusted["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="module")
def registered(trusted: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose sweep, on two forked workers, and champion are in an experiment of the server."""
    project = Project(tmp_path_factory.mktemp("project"))
    training = ("--train.epochs=1", "--train.precision=float32", '--sweep.grid={"dropout":[0.3,0.5]}')
    for step, *arguments in (("sweep", *SMALL, *training, "--sweep.workers=2"), ("register",), ("evaluate",)):
        result = project.run(step, *arguments, **trusted, MLFLOW_EXPERIMENT_NAME="secure")
        assert result.returncode == 0, result.stderr
    return project


def test_everything_goes_to_the_server(registered, client):
    experiment = client.get_experiment_by_name("secure").experiment_id
    (parent,) = client.search_runs([experiment], "tags.step = 'sweep'")
    assert parent.data.metrics["cells/finished"] == 2
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.csv", "leaderboard.md"} <= artifacts
    version = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    assert version.run_id == parent.data.tags["best_run_id"]
    (evaluated,) = client.search_runs([experiment], "tags.step = 'evaluate'")
    assert evaluated.data.metrics["test/accuracy"] == parent.data.metrics["test/accuracy"]
    assert {path.name for path in registered.path.iterdir()} == {"params.yaml", "data"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "cat.png"
    sample.draw("cat", 0).save(path)
    return path


def test_predict(registered, trusted, image):
    arguments = (f"--predict.source={image}", "--predict.output=data/predictions")
    result = registered.run("predict", *arguments, **trusted)
    assert result.returncode == 0, result.stderr
    assert (registered.path / "data/predictions/predictions.csv").is_file()


def test_serve(registered, trusted, image, tmp_path):
    """MLflow's own server of models fetches the champion from the registry behind TLS."""
    port = free_port()
    command = ["models", "serve", "-m", "models:/dogs-vs-cats@champion", "--env-manager", "local"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--port", str(port), "--workers", "1"],
            cwd=tmp_path,
            env=registered.environment(**trusted, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        data = [[base64.b64encode(image.read_bytes()).decode()]]
        asked = {"dataframe_split": {"columns": ["image"], "data": data}}
        answer = requests.post(f"http://127.0.0.1:{port}/invocations", json=asked, timeout=60)
        (row,) = answer.json()["predictions"]
        assert row["label"] in ("cat", "dog")
        assert row["cat"] + row["dog"] == pytest.approx(1, abs=1e-6)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=1).ok
    except requests.RequestException:
        return False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": None}, ["certificate", "MLFLOW_TRACKING_SERVER_CERT_PATH"]),
        (
            {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/nowhere.pem"},
            ["/nowhere.pem", "check MLFLOW_"],
        ),
        ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, ["401", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"]),
        ({"MLFLOW_TRACKING_PASSWORD": None}, ["401", "MLFLOW_TRACKING_USERNAME"]),
    ],
)
def test_refused(project, trusted, change, words):
    variables = {name: value for name, value in (trusted | change).items() if value is not None}
    assert_user_error(project.run("train", **variables), trusted["MLFLOW_TRACKING_URI"], *words)
    assert {path.name for path in project.path.iterdir()} == {"params.yaml"}


def test_credentials_in_the_uri_and_any_certificate(project, secure, client):
    uri = secure.uri.replace("//", f"//{ADMIN}:{PASSWORD.replace(' ', '%20')}@")
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_INSECURE_TLS": "true"}
    result = project.run("prepare", *SMALL, **variables, MLFLOW_EXPERIMENT_NAME="by uri")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (run,) = client.search_runs([client.get_experiment_by_name("by uri").experiment_id])
    assert "password" not in str(run.to_dictionary())
    wrong = uri.replace("long", "wrong")
    assert_user_error(
        project.run("prepare", **variables | {"MLFLOW_TRACKING_URI": wrong}), "admin:***@", "401"
    )


class Proxy(http.server.ThreadingHTTPServer):
    """Forwards requests to a server, without TLS; it can hide paths, the version, and break the connection.

    Attributes:
        uri: its address.
        missing: paths that contain it are answered with 404.
        version: that it reports; None: the server's own.
        left: number of requests to a run that it still forwards before it breaks the connection; None: all.
    """

    def __init__(self, server: str, certificate: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.server, self.certificate = server, certificate
        self.uri = f"http://127.0.0.1:{self.server_port}"
        self.missing, self.version, self.left = "", None, None
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def hand_on(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.asked.append(f"{self.command} {self.path}")
        if proxy.left is not None and "/runs/" in self.path:
            proxy.left -= 1
        if proxy.left is not None and proxy.left < 0:
            self.close_connection = True
            return
        if proxy.missing and proxy.missing in self.path:
            self.answer(404, b"")
        elif proxy.version and self.path == "/version":
            self.answer(200, proxy.version.encode())
        else:
            kept = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            url = f"{proxy.server}{self.path}"
            verify = str(proxy.certificate)
            answer = requests.request(self.command, url, data=body, headers=kept, verify=verify, timeout=60)
            self.answer(answer.status_code, answer.content, answer.headers.get("Content-Type", "text/plain"))

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = hand_on

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def proxy(secure: Server, certificate: Path) -> Iterator[Proxy]:
    with Proxy(secure.uri, certificate) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


USER = {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": PASSWORD}


def test_server_without_logged_models(project, proxy):
    proxy.missing, proxy.version = "logged-models", "2.22.0"
    variables = USER | {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_EXPERIMENT_NAME": "old"}
    for step in ("main", "sweep"):
        result = project.run(step, *SMALL, **variables)
        assert_user_error(result, proxy.uri, "logged models", "MLflow 2.22.0", "mlflow>=3")
    assert {path.name for path in project.path.iterdir()} == {"params.yaml"}
    assert not any("runs/create" in request for request in proxy.asked)
    result = project.run("prepare", *SMALL, **variables)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("left", [0, 2])
def test_store_that_breaks_off_midway(project, proxy, left):
    proxy.left = left
    variables = USER | {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    result = project.run("prepare", *SMALL, **variables, MLFLOW_EXPERIMENT_NAME="broken")
    assert_user_error(result, "the tracking store failed", "rerun the same command")


def test_something_else_than_mlflow(project):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{other.server_port}"
        assert_user_error(
            project.run("prepare", MLFLOW_TRACKING_URI=uri), uri, "not answer as an MLflow server"
        )
        other.shutdown()


class Other(Handler):
    """A page for whatever is asked, as a portal that wants a login gives it."""

    def hand_on(self) -> None:
        self.answer(200, b"<html>Please log in</html>", "text/html")

    do_GET = do_POST = hand_on
