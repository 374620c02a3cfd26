"""A run's artifacts, files and data sets: log them, read them back."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.exceptions import MlflowException

from pipeline.data import splits
from pipeline.data.prepared import Prepared
from pipeline.errors import UserError


def log_files(files: Mapping[str, bytes], folder: str = "", run_id: str | None = None) -> None:
    """Write files, by name, as artifacts of the open run, or another, under `folder`, in one call."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            Path(temporary, name).write_bytes(content)
        mlflow.log_artifacts(temporary, folder or None, run_id=run_id)


def log_file(path: Path) -> None:
    """Log a file of any size as an artifact of the open run."""
    mlflow.log_artifact(str(path))


def upload(path: Path, folder: str) -> None:
    """Log a folder's files as artifacts of the open run."""
    mlflow.log_artifacts(str(path), folder)


def download(run_id: str, folder: str, path: Path) -> None:
    """Fetch a run's artifacts under `folder` into a folder that is there."""
    client = MlflowClient()
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        for file in Path(client.download_artifacts(run_id, folder, temporary)).iterdir():
            file.rename(path / file.name)


def read(run_id: str, path: str) -> bytes:
    """What is in a file among a run's artifacts.

    Raises:
        UserError: the run has no such artifact.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return Path(MlflowClient().download_artifacts(run_id, path, temporary)).read_bytes()
        except (MlflowException, OSError):
            folder, _, name = path.rpartition("/")
            if name in names(run_id, folder):  # asked for only now, since it takes as long as the file
                raise
            raise UserError(
                f"run {run_id} has no artifact {path}: it is not finished, or it was deleted"
            ) from None


def place_of(run_id: str, path: str) -> str:
    """Where a person finds an artifact: its file on this machine, or its name and its run."""
    uri = MlflowClient().get_run(run_id).info.artifact_uri
    scheme = uri.partition(":")[0]
    if scheme == "file" or "://" not in uri:
        return str(Path(uri.removeprefix("file://"), path))
    return f"artifact {path} of run {run_id}"


def names(run_id: str, folder: str) -> set[str]:
    """The names of a run's artifacts under `folder`."""
    return {Path(item.path).name for item in MlflowClient().list_artifacts(run_id, folder)}


def log_dataset(prepared: Prepared, source: str) -> None:
    """Log the prepared pictures as the open run's dataset input, under the start of their digest."""
    dataset = MetaDataset(
        CodeDatasetSource({"source": source}),
        name=Path(source).name or source,
        digest=prepared.digest[:16],  # MLflow takes up to 36 characters, and shows 8
    )
    mlflow.log_input(dataset, context="training")


def log_prepared(prepared: Prepared, source: str) -> None:
    """Log the prepared pictures to the open run: dataset, counts, and the list of what was left out."""
    log_dataset(prepared, source)
    counts = {
        f"pictures/{split}": len(prepared.indices(split))
        for split in (splits.TRAIN, splits.VALIDATION, splits.TEST)
    }
    mlflow.log_metrics(counts | {"pictures/rejected": len(prepared.rejected)})
    files = ("metadata.json", "rejected.csv")
    log_files({name: (prepared.path / name).read_bytes() for name in files}, "data")
