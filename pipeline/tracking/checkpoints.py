"""Where a training's newest checkpoint is kept: on this machine, and on a cluster with its run."""

import os
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipeline.training.checkpoint import Checkpoint

FOLDER = "checkpoint"


class Checkpoints:
    """The checkpoints of one run; only the newest is wanted.

    Args:
        run_id: of the run.
        cache: the folder under which this machine keeps prepared images, and checkpoints beside them.
        shared: keep them in the run's artifacts too, since another machine may have to go on.
    """

    def __init__(self, run_id: str, cache: Path, shared: bool):
        self._run_id, self._shared = run_id, shared
        self._file = cache / "checkpoints" / f"{run_id}.npz"

    def newest(self, objective: str) -> Checkpoint | None:
        """The one of the latest epoch that is whole, or None.

        One whose best epoch another objective chose is of no use: the training starts again.
        """
        contents = [self._file.read_bytes()] if self._file.exists() else []
        if self._shared:
            contents += self._downloaded()
        whole = [checkpoint for content in contents if (checkpoint := _whole(content))]
        found = [checkpoint for checkpoint in whole if checkpoint.objective == objective]
        return max(found, key=lambda checkpoint: checkpoint.epoch, default=None)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint in place of the one before; whatever breaks this off, one of them is whole."""
        content = checkpoint.dump()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(content)
        partial.replace(self._file)
        if self._shared:
            # Two names in turn: a store may be left with half a file where it is broken off.
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary, f"{checkpoint.epoch % 2}.npz")
                path.write_bytes(content)
                mlflow.MlflowClient().log_artifact(self._run_id, str(path), FOLDER)

    def clear(self) -> None:
        """Remove them: the training is recorded."""
        for path in self._file.parent.glob(f"{self._run_id}.*"):
            path.unlink(missing_ok=True)
        if self._shared:
            repository = get_artifact_repository(
                mlflow.MlflowClient().get_run(self._run_id).info.artifact_uri
            )
            if repository.list_artifacts(FOLDER):
                repository.delete_artifacts(FOLDER)

    def _downloaded(self) -> list[bytes]:
        client = mlflow.MlflowClient()
        contents = []
        for item in client.list_artifacts(self._run_id, FOLDER):
            with tempfile.TemporaryDirectory() as temporary:
                try:
                    contents.append(
                        Path(client.download_artifacts(self._run_id, item.path, temporary)).read_bytes()
                    )
                except MlflowException:
                    continue  # half a file, which the store itself refuses; the other one is whole
        return contents


def _whole(content: bytes) -> Checkpoint | None:
    try:
        return Checkpoint.load(content)
    except ValueError:
        return None
