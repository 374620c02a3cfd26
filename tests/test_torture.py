"""A sweep that is killed, at random and in the middle of every kind of write, and gone on with."""

import signal
from pathlib import Path

import pytest
from conftest import Project, forker

from benchmarks import torture

pytestmark = pytest.mark.slow

GRID = '--sweep.grid={"learning_rate":[0.01,0.001,0.0001],"bias_initializer":[0.0,0.01,0.02,0.03]}'
CELLS = 12
SMALL = ("--data.limit=40", "--data.image_size=16", "--train.epochs=3", GRID)

# Each place dies once, half-way through its write, in a process that runs the sweep as the command does.
DYING = '''
import os, shutil, signal, sys
from pathlib import Path

where = sys.argv.pop(1)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half(source, target):
    """Copy a folder's files but for the last one, of which only the beginning."""
    Path(target).mkdir(parents=True, exist_ok=True)
    *whole, last = sorted(path for path in Path(source).rglob("*") if path.is_file())
    for path in whole:
        copy = Path(target, path.relative_to(source))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    Path(target, last.name).write_bytes(last.read_bytes()[: last.stat().st_size // 2])

def replace(owner, name, new):
    old = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: new(old, *args, **kwargs))

import mlflow, optuna
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

if where == "checkpoint":
    def write(old, path, content):
        if path.suffix == ".partial":
            old(path, content[: len(content) // 2])
            die()
        return old(path, content)
    replace(Path, "write_bytes", write)
elif where == "metrics":
    def log(old, store, run_id, metrics, params, tags):
        if metrics and metrics[0].step == 2:
            old(store, run_id, metrics[:2], params, tags)
            die()
        return old(store, run_id, metrics, params, tags)
    replace(SqlAlchemyStore, "log_batch", log)
elif where == "between metrics and checkpoint":
    from pipeline.tracking.checkpoints import Checkpoints
    Checkpoints.save = die
elif where in ("report", "leaderboard", "test report"):
    names = {"report": "learning_curves.png", "leaderboard": "leaderboard.csv"}
    def log(old, repository, folder, path=None):
        if Path(folder, names.get(where, "roc_curve.png")).exists():
            half(folder, Path(repository.artifact_dir, path or ""))
            die()
        return old(repository, folder, path)
    replace(LocalArtifactRepository, "log_artifacts", log)
elif where == "model":
    def log(old, client, model_id, folder):
        half(folder, client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
        die()
    replace(mlflow.MlflowClient, "log_model_artifacts", log)
elif where == "link to the model":
    mlflow.MlflowClient.log_outputs = die
elif where == "scores":
    def log(old, store, run_id, metrics, params, tags):
        if metrics and metrics[0].key.startswith("report/"):
            old(store, run_id, metrics[:1], params, tags)
            die()
        return old(store, run_id, metrics, params, tags)
    replace(SqlAlchemyStore, "log_batch", log)
elif where == "a cell's run":
    def create(old, store, *args, **kwargs):
        run = old(store, *args, **kwargs)
        if "cell" in run.data.tags:
            die()
        return run
    replace(SqlAlchemyStore, "create_run", create)
elif where == "status":
    def end(old, status):
        return die() if status == "FINISHED" else old(status)
    replace(mlflow, "end_run", end)
elif where == "study":
    optuna.Study.tell = die
elif where == "enqueued trial":
    def enqueue(old, study, *args, **kwargs):
        old(study, *args, **kwargs)
        die()
    replace(optuna.Study, "enqueue_trial", enqueue)
else:
    raise ValueError(where)

from pipeline.steps import sweep
sweep.main()
'''
PLACES = (
    "a cell's run", "checkpoint", "metrics", "between metrics and checkpoint", "report", "model",
    "link to the model", "scores", "status", "study", "enqueued trial", "leaderboard", "test report",
)  # fmt: skip


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory) -> torture.Sweep:
    """The same sweep on two workers, left in peace."""
    sweep = torture.Sweep(tmp_path_factory.mktemp("peaceful"), (*SMALL, "--sweep.workers=2"))
    assert sweep.start().wait(600) == 0, sweep.log.read_text()
    sweep.check(CELLS)
    return sweep


def test_killed_in_the_middle_of_every_kind_of_write(tmp_path):
    project = Project(tmp_path)
    arguments = (*SMALL, "--sweep.workers=1")
    for where in PLACES:
        done = forker().run(DYING, (where, *arguments), tmp_path, project.environment())
        assert done.returncode == -signal.SIGKILL, f"{where}: {done.stdout}{done.stderr}"
    result = project.run("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    killed = torture.Sweep(tmp_path, arguments)
    killed.check(CELLS)
    Path(tmp_path / "peaceful").mkdir()
    calm = torture.Sweep(tmp_path / "peaceful", arguments)
    calm.finish()
    assert killed.leaderboard() == calm.leaderboard()


def test_killed_at_random(tmp_path, peaceful):
    sweep = torture.Sweep(tmp_path, peaceful.arguments)
    done = torture.torture(sweep, kills=6, seed=3, longest=8)
    sweep.finish()
    assert done.total() >= 4, done
    sweep.check(CELLS)
    assert sweep.leaderboard() == peaceful.leaderboard()
