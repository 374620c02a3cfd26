"""Credentials in an address are in no run, file or message; what was recorded without them says so."""

import functools
import http.server
import json
import shutil
import threading

import mlflow
import pytest
from conftest import ROOT, Project, assert_user_error
from mlflow import MlflowClient
from test_bad_input import images

from pipeline.config.command_line import load
from pipeline.runtime.credentials import is_masked, without_password
from pipeline.runtime.errors import UserError
from pipeline.tracking import runs, store


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@host/p.zip?token=secret&x=1", "https://me:***@host/p.zip?token=***&x=1"),
        ("https://secret@host/p.zip", "https://***@host/p.zip"),
        ("HTTP://me:se/cr@secret@host/p.zip", "HTTP://me:***@host/p.zip"),
        (
            "https://b.s3.aws/k.zip?X-Amz-Date=1&X-Amz-Credential=secret&X-Amz-Signature=secret",
            "https://b.s3.aws/k.zip?X-Amz-Date=1&X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("https://blob/c.zip?sv=2&sig=secret%3D#access_token=secret", "https://blob/c.zip?sv=2&sig=***#access_token=***"),
        ("postgresql+psycopg2://me@home:secret@s/s:e@host:5432/db", "postgresql+psycopg2://me@home:***@host:5432/db"),
        ("mysql://me:two secret words@host/db", "mysql://me:***@host/db"),
        ("at https://me:secret@host/a: no, 'https://h?key=secret'", "at https://me:***@host/a: no, 'https://h?key=***'"),
        ("https://host:8080/cats@2x/p.zip?author=me&size=9", None),
        ("https://[::1]:8080/a@b.zip", None),
        ("postgresql://me@host/db", None),
        ("sqlite:////home/me@work/a:b@c.db", None),
        ("photos/a@b", None),
    ],
)  # fmt: skip
def test_masking(address, shown):
    assert without_password(address) == (shown or address)
    assert without_password(shown or address) == (shown or address)
    assert is_masked(shown or address) == (shown is not None)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """A zip of images behind an address with a password and a token."""
    folder = tmp_path_factory.mktemp("served")
    images(folder / "pets", cat=10, dog=10)
    shutil.make_archive(str(folder / "pets"), "zip", folder / "pets")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:secret@127.0.0.1:{server.server_port}/pets.zip?token=secret"
        server.shutdown()


@pytest.fixture(scope="module")
def prepared(address, tmp_path_factory) -> Project:
    """A project that has prepared them, in a run that `mlflow run -P data.source=…` has made."""
    project = Project(tmp_path_factory.mktemp("project"))
    client = MlflowClient(project.uri)
    tags = {"mlflow.source.name": "https://me:secret@host/repository", "mlflow.user": "me"}
    run = client.create_run("0", tags=tags, run_name="bold-owl-34")
    client.log_param(run.info.run_id, "data.source", address)
    project.given = run.info.run_id
    for variables in ({}, {"MLFLOW_RUN_ID": run.info.run_id}):
        result = project.run("prepare", f"--data.source={address}", "--data.image_size=16", **variables)
        assert result.returncode == 0, result.stderr
        assert "secret" not in result.stdout + result.stderr
    project.result = result
    return project


def test_nothing_that_a_run_holds_has_them(prepared):
    client = MlflowClient(prepared.uri)
    found = client.search_runs(["0"])
    assert len(found) == 2
    own = next(run for run in found if run.info.run_id != prepared.given)
    assert own.data.params["data.source"].endswith("/pets.zip?token=***")
    for run in found:
        content = run.to_dictionary()
        content["data"]["params"].pop("data.source")
        assert "secret" not in json.dumps(content)
        (dataset,) = {used.dataset.name.partition("-")[0] for used in run.inputs.dataset_inputs}
        assert dataset == "pets.zip"
    folders = (prepared.path / "mlruns", prepared.path / "data")
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        assert "secret" not in path.name and b"secret" not in path.read_bytes(), path


def test_what_mlflow_run_recorded_itself_is_warned_of(prepared):
    assert f"parameter of run {prepared.given}" in prepared.result.stderr
    assert "-P params=FILE" in prepared.result.stderr
    run = MlflowClient(prepared.uri).get_run(prepared.given)
    assert run.data.tags["mlflow.source.name"] == "https://me:***@host/repository"


def test_prepared_images_do_not_depend_on_them(prepared, address):
    """The download and the prepared set are found again by the recorded address, and by other credentials."""
    folders = set(prepared.path.glob("data/*/*"))
    for source in (without_password(address), address.replace("secret", "other")):
        result = prepared.run("prepare", f"--data.source={source}", "--data.image_size=16")
        assert result.returncode == 0, result.stderr
    assert set(prepared.path.glob("data/*/*")) == folders
    result = prepared.run("prepare", f"--data.source={without_password(address)}", "--data.cache=gone")
    assert_user_error(result, "without", "credentials", "set data.source")


def test_parameters_of_a_run_take_todays_credentials(prepared, address, monkeypatch):
    defaults = ROOT / "params.yaml"
    monkeypatch.chdir(ROOT)
    store.use(prepared.uri)
    try:
        own = next(run for run in MlflowClient().search_runs(["0"]) if run.info.run_id != prepared.given)
        again = runs.params_of(own.info.run_id, load([f"--data.source={address}"], defaults))
        assert again.data.source == address
        assert runs.params_of(own.info.run_id, load([], defaults)).data.source == without_password(address)
        bare = MlflowClient().create_run("0", tags={"step": "train"}, run_name="old").info.run_id
        MlflowClient().log_param(bare, "seed", "1")
        with pytest.raises(UserError, match=r"has no parameter data.source, .* …: .* another version"):
            runs.params_of(bare, load([], defaults))
    finally:
        mlflow.set_tracking_uri(None)
