"""One store and one experiment, decided as MLflow's own client does: real SQLite stores, real commands."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT, Project, assert_user_error, forker
from mlflow import MlflowClient
from mlflow.utils import name_utils

from pipeline.runtime.files import prepare_lock
from pipeline.tracking import relocate, runs

SMALL = ("--data.limit=20", "--data.image_size=16")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a store; each test uses an experiment of its own."""
    project = Project(tmp_path_factory.mktemp("home"))
    result = project.run("prepare", *SMALL)
    assert result.returncode == 0, result.stderr
    return project


@pytest.fixture
def client(home: Project) -> MlflowClient:
    return MlflowClient(home.uri)


def runs_of(client: MlflowClient, name: str) -> list:
    return client.search_runs([client.get_experiment_by_name(name).experiment_id])


def test_experiment_by_name_is_created(home, client):
    result = home.run("prepare", *SMALL, MLFLOW_EXPERIMENT_NAME="not yet there")
    assert result.returncode == 0, result.stderr
    (run,) = runs_of(client, "not yet there")
    assert run.data.tags["step"] == "prepare"


def test_experiment_by_id(home, client):
    number = client.create_experiment("by id")
    assert home.run("prepare", *SMALL, MLFLOW_EXPERIMENT_ID=number).returncode == 0
    assert len(runs_of(client, "by id")) == 1


@pytest.mark.parametrize("step", ["register", "evaluate"])
def test_other_experiments_are_not_searched(home, client, step):
    """A sweep of the default experiment, another project's, is nobody's winner here."""
    sweep = client.create_run("0", tags={"step": "sweep", "best_run_id": "0" * 32})
    client.set_terminated(sweep.info.run_id)
    assert_user_error(home.run(step, MLFLOW_EXPERIMENT_NAME=f"new for {step}"), "no", "sweep")
    client.delete_run(sweep.info.run_id)


def test_run_of_mlflow_decides_the_experiment(home, client):
    """As where the shell exports a name, and `mlflow run --experiment-name` gives another one."""
    run = client.create_run(client.create_experiment("given"))
    result = home.run(
        "prepare",
        *SMALL,
        MLFLOW_RUN_ID=run.info.run_id,
        MLFLOW_EXPERIMENT_ID=run.info.experiment_id,
        MLFLOW_EXPERIMENT_NAME="exported",
    )
    assert result.returncode == 0, result.stderr
    assert [found.info.run_id for found in runs_of(client, "given")] == [run.info.run_id]
    assert client.get_experiment_by_name("exported") is None


def test_contradicting_variables_are_refused(home, client):
    """MLflow's client refuses them too."""
    client.create_experiment("one")
    other = client.create_experiment("two")
    result = home.run("prepare", MLFLOW_EXPERIMENT_NAME="one", MLFLOW_EXPERIMENT_ID=other)
    assert_user_error(result, "does not match", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


def test_experiment_that_does_not_exist(home):
    assert_user_error(home.run("prepare", MLFLOW_EXPERIMENT_ID="77"), "`77` does not exist")


@pytest.mark.parametrize("by", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"])
def test_deleted_experiment(home, client, by):
    name = f"deleted {by}"
    number = client.create_experiment(name)
    client.delete_experiment(number)
    result = home.run("prepare", "--data.cache=untouched", **{by: {"N": name, "I": number}[by[18]]})
    assert_user_error(result, repr(name), f"mlflow experiments restore -x {number}", home.uri)
    assert not (home.path / "untouched").exists()


def test_deleted_default_experiment(home, client):
    client.delete_experiment("0")
    try:
        assert_user_error(home.run("prepare"), "'Default'", "mlflow experiments restore -x 0")
    finally:
        client.restore_experiment("0")


@pytest.mark.slow
def test_mlflow_run_from_another_folder(home, tmp_path):
    """A relative URI means the folder where `mlflow run` is called, though MLflow runs the step elsewhere."""
    shutil.copy(home.path / "mlflow.db", tmp_path / "mine.db")
    command = [
        sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "prepare", "--env-manager", "local",
        "--experiment-name", "far", "--run-name", "resnet-baseline-2",
        "-P", "data.limit=20", "-P", "data.image_size=16", "-P", f"data.cache={tmp_path / 'data'}",
    ]  # fmt: skip
    variables = home.environment(
        MLFLOW_TRACKING_URI="sqlite:///mine.db",
        MLFLOW_EXPERIMENT_NAME="exported",
        PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin",
    )
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (ROOT / "mine.db").exists()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mine.db'}")
    (run,) = runs_of(client, "far")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "resnet-baseline-2")
    assert run.data.tags["step"] == "prepare"


def test_relative_store_without_the_run_of_mlflow(project):
    result = project.run("prepare", MLFLOW_TRACKING_URI="sqlite:///mine.db", MLFLOW_RUN_ID="0" * 32)
    assert_user_error(result, "relative path", "mine.db", "sqlite:////folder/mine.db")
    assert {path.name for path in project.path.iterdir()} == {"params.yaml"}


def test_file_store_is_refused_with_the_way_out(project):
    result = project.run("prepare", MLFLOW_TRACKING_URI="file:./mlruns")
    assert_user_error(result, "tracking store", "mlflow migrate-filestore")


@pytest.fixture
def moved(with_champion: Project, tmp_path: Path) -> Project:
    """A project with a champion whose folder was moved, artifacts and all."""
    before = tmp_path / "before"
    shutil.copytree(with_champion.path, before)
    assert relocate.relocate(before / "mlflow.db")  # a copy would still read the artifacts it was copied from
    before.rename(tmp_path / "after")
    return Project(tmp_path / "after")


def paths(project: Project) -> set[str]:
    """Every location of artifacts in a project's store."""
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:
        found = set()
        for table, column in relocate._COLUMNS:
            found |= {value for (value,) in store.execute(f"SELECT {column} FROM {table}") if value}
    return {value for value in found if not value.startswith("models:/")}


def content(database: Path) -> list[str]:
    """All that a SQLite file holds, as SQL."""
    with closing(sqlite3.connect(database)) as store:
        return list(store.iterdump())


@pytest.mark.slow
def test_moved_project_is_fixed_by_the_command_that_the_error_names(moved):
    for step in ("train", "evaluate"):
        result = moved.run(step)
        assert_user_error(result, "was moved", "before/mlruns", "python -m pipeline.tracking.relocate")
    assert not (moved.path.parent / "before").exists()
    before = content(moved.path / "mlflow.db")
    command = result.stderr[result.stderr.index("python -m") :].split("`")[0].split()
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, env=moved.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(f"{moved.path}/mlruns/") for path in paths(moved))
    assert before == content(moved.path / "mlflow.db.before-relocate-2")  # the first is the fixture's
    (run,) = MlflowClient(moved.uri).search_runs(["0"], "tags.step = 'train'")
    for step in ("evaluate", "register"):
        result = moved.run(step, f"--{step}.run_id={run.info.run_id}")
        assert result.returncode == 0, result.stderr
        assert "error" not in result.stderr


def test_copied_project_says_where_its_artifacts_go(home, tmp_path):
    shutil.copytree(home.path, tmp_path / "copy")
    result = Project(tmp_path / "copy").run("prepare", *SMALL)
    assert result.returncode == 0
    assert f"was copied: its artifacts still go to {home.path}/mlruns" in result.stderr
    assert "pipeline.tracking.relocate" in result.stderr


def test_project_behind_a_link_was_not_moved(home, tmp_path):
    (tmp_path / "link").symlink_to(home.path)
    result = home.run("prepare", *SMALL, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/link/mlflow.db")
    assert (result.returncode, result.stderr) == (0, "")


def test_relocate_leaves_a_store_in_its_place_alone(home):
    before = (home.path / "mlflow.db").read_bytes()
    assert relocate.relocate(home.path / "mlflow.db") is None
    assert (home.path / "mlflow.db").read_bytes() == before


KILLED = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from pipeline.runtime.files import atomic_directory, prepare_lock
from pipeline.tracking import artifacts, store

fetch = MlflowClient.download_artifacts
def killed(*arguments):
    fetch(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
MlflowClient.download_artifacts = killed
store.use(os.environ["STORE"])
with prepare_lock(Path("prepared")), atomic_directory(Path("prepared/set")) as partial:
    artifacts.download(os.environ["RUN"], "data", partial)
"""


def test_download_that_is_killed_leaves_nothing_for_good(home, client, tmp_path):
    """What it has written is removed by the next one that prepares images there."""
    (run, *_) = client.search_runs(["0"], "tags.step = 'prepare'")
    variables = home.environment(STORE=home.uri, RUN=run.info.run_id)
    assert forker().run(KILLED, (), tmp_path, variables).returncode == -signal.SIGKILL
    folder = tmp_path / "prepared"
    assert {path.name for path in folder.iterdir()} == {".lock", "set.partial"}
    assert list((folder / "set.partial").rglob("metadata.json"))
    with prepare_lock(folder):
        assert {path.name for path in folder.iterdir()} == {".lock"}


def test_artifacts_that_cannot_be_written_are_an_error_in_a_line(project):
    (project.path / "mlruns").write_text("no folder")
    assert_user_error(project.run("prepare", *SMALL), "mlruns", "rerun the same command")


def test_name_that_mlflow_generated_is_recognised():
    assert all(runs.is_generated(name_utils._generate_random_name()) for _ in range(200))
    for name in (
        "resnet-baseline-2",
        "bold-owl",
        "bold-owl-34-again",
        "my run",
        "owl-bold-3",
        "Bold-Owl-3",
        "",
    ):
        assert not runs.is_generated(name), name
