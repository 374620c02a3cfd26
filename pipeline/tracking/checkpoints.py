"""A training's newest checkpoint: a file on this machine, and on a cluster an artifact of the run."""

import os
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipeline.training.checkpoint import Checkpoint

FOLDER = "checkpoint"  # of a run's artifacts


class Checkpoints:
    """The checkpoints of one run; only the newest is kept.

    Args:
        run_id: of the run.
        cache: `data.cache`; its folder `checkpoints` has one file per run.
        shared: keep the checkpoint in the run's artifacts too, so that another machine can resume.
    """

    def __init__(self, run_id: str, cache: Path, shared: bool):
        self._run_id, self._shared = run_id, shared
        self._file = cache / "checkpoints" / f"{run_id}.npz"

    def newest(self, objective: str) -> Checkpoint | None:
        """The complete checkpoint of the latest epoch; None if there is none for this objective.

        A checkpoint of another objective has another best epoch: the training starts again.
        """
        contents = [self._file.read_bytes()] if self._file.exists() else []
        if self._shared:
            contents += self._downloaded()
        complete = [checkpoint for content in contents if (checkpoint := _parsed(content))]
        found = [checkpoint for checkpoint in complete if checkpoint.objective == objective]
        return max(found, key=lambda checkpoint: checkpoint.epoch, default=None)

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; if the process is killed, the old or the new one is complete."""
        content = checkpoint.dump()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(content)
        partial.replace(self._file)
        if self._shared:
            # Two names in turn: an interrupted upload may leave half a file.
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary, f"{checkpoint.epoch % 2}.npz")
                path.write_bytes(content)
                mlflow.MlflowClient().log_artifact(self._run_id, str(path), FOLDER)

    def clear(self) -> None:
        """Delete the checkpoints, once the training is recorded."""
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
                    continue  # half a file, which the store refuses; the other file is complete
        return contents


def _parsed(content: bytes) -> Checkpoint | None:
    """The checkpoint in a file; None of an incomplete file."""
    try:
        return Checkpoint.load(content)
    except ValueError:
        return None
