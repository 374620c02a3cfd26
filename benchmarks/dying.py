"""A sweep that is killed half-way through one kind of write: `python -m benchmarks.dying PLACE ARGUMENTS`.

The process runs the sweep as the command does, and gets SIGKILL the first time that it comes to the place.
`benchmarks/torture.py --kind writes` goes through all of them, `tests/test_torture.py` through some.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import optuna
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pipeline.steps import sweep
from pipeline.tracking.checkpoints import Checkpoints

PLACES = (
    "a cell's run", "checkpoint", "metrics", "between metrics and checkpoint", "report", "model",
    "link to the model", "scores", "status", "study", "enqueued trial", "leaderboard", "test report",
)  # fmt: skip
# Artifacts are recognised by a file among them.
_FILES = {"report": "learning_curves.png", "leaderboard": "leaderboard.csv", "test report": "roc_curve.png"}


def main() -> None:
    """Run the sweep until it dies."""
    _prepare(sys.argv.pop(1))
    sweep.main()


def _prepare(place: str) -> None:
    """Have this process die at a place."""
    if place == "checkpoint":

        def write(old: Callable, path: Path, content: bytes) -> int:
            if path.suffix == ".partial":
                old(path, content[: len(content) // 2])
                _die()
            return old(path, content)

        _replace(Path, "write_bytes", write)
    elif place in ("metrics", "scores"):
        count = 2 if place == "metrics" else 1

        def log(old: Callable, store: Any, run_id: str, metrics: list, params: list, tags: list) -> None:
            is_score = metrics and metrics[0].key.startswith("report/")
            if metrics and (is_score if place == "scores" else metrics[0].step == 2):
                old(store, run_id, metrics[:count], params, tags)
                _die()
            old(store, run_id, metrics, params, tags)

        _replace(SqlAlchemyStore, "log_batch", log)
    elif place == "between metrics and checkpoint":
        Checkpoints.save = _die
    elif place in _FILES:

        def log_artifacts(old: Callable, repository: Any, folder: str, path: str | None = None) -> None:
            if Path(folder, _FILES[place]).exists():
                _copy_half(Path(folder), Path(repository.artifact_dir, path or ""))
                _die()
            old(repository, folder, path)

        _replace(LocalArtifactRepository, "log_artifacts", log_artifacts)
    elif place == "model":

        def log_model(old: Callable, client: mlflow.MlflowClient, model_id: str, folder: str) -> None:
            location = client.get_logged_model(model_id).artifact_location
            _copy_half(Path(folder), Path(location.removeprefix("file://")))
            _die()

        _replace(mlflow.MlflowClient, "log_model_artifacts", log_model)
    elif place == "link to the model":
        mlflow.MlflowClient.log_outputs = _die
    elif place == "a cell's run":

        def create(old: Callable, store: Any, *args: Any, **kwargs: Any) -> Any:
            run = old(store, *args, **kwargs)
            if "cell" in run.data.tags:
                _die()
            return run

        _replace(SqlAlchemyStore, "create_run", create)
    elif place == "status":
        _replace(mlflow, "end_run", lambda old, status: _die() if status == "FINISHED" else old(status))
    elif place == "study":
        optuna.Study.tell = _die
    elif place == "enqueued trial":

        def enqueue(old: Callable, study: optuna.Study, *args: Any, **kwargs: Any) -> None:
            old(study, *args, **kwargs)
            _die()

        _replace(optuna.Study, "enqueue_trial", enqueue)
    else:
        raise ValueError(f"{place!r} is not one of {', '.join(PLACES)}")


def _die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL ends this process")


def _replace(owner: Any, name: str, new: Callable) -> None:
    """Put a function in the place of an attribute, which it gets as its first argument."""
    old = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: new(old, *args, **kwargs))


def _copy_half(source: Path, target: Path) -> None:
    """Copy a folder's files, of the last one the first half."""
    target.mkdir(parents=True, exist_ok=True)
    *whole, last = sorted(path for path in source.rglob("*") if path.is_file())
    for path in whole:
        copy = Path(target, path.relative_to(source))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    Path(target, last.name).write_bytes(last.read_bytes()[: last.stat().st_size // 2])


if __name__ == "__main__":
    main()
