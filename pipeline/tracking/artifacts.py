"""A run's artifacts and data sets: log them, read them back."""

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from pipeline.dataset.prepare import Prepared
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.sources import split_names
from pipeline.tracking import STORE_ERRORS, runs

# MLflow's name for the use of a split.
CONTEXTS = {split_names.TRAIN: "training", split_names.VALIDATION: "validation", split_names.TEST: "test"}


def log_files(files: Mapping[str, bytes], folder: str = "", run_id: str | None = None) -> None:
    """Log files, by name, as artifacts of the open run, or of `run_id`, under `folder`, in one call."""
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
    """Download a run's artifacts under `folder` into an existing folder.

    A temporary folder inside it holds them first, so that a killed process leaves nothing elsewhere.
    """
    client = MlflowClient()
    with tempfile.TemporaryDirectory(dir=path) as temporary:
        for file in Path(client.download_artifacts(run_id, folder, temporary)).iterdir():
            file.rename(path / file.name)


def read(run_id: str, path: str) -> bytes:
    """The content of a run's artifact.

    Raises:
        UserError: the run has no such artifact.
        StoreError: the store fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return Path(MlflowClient().download_artifacts(run_id, path, temporary)).read_bytes()
        except (*STORE_ERRORS, OSError):
            folder, _, name = path.rpartition("/")
            if name in names(run_id, folder):  # listed only now: it takes as long as the download
                raise
            raise UserError(
                f"run {run_id} has no artifact {path}: the run is not finished, or the artifact was deleted"
            ) from None


def location_of(run_id: str, path: str) -> str:
    """Where an artifact is, for a message: its file on this machine, or its name and its run."""
    uri = MlflowClient().get_run(run_id).info.artifact_uri
    scheme = uri.partition(":")[0]
    if scheme == "file" or "://" not in uri:
        return str(Path(uri.removeprefix("file://"), path))
    return f"artifact {path} of run {run_id}"


def names(run_id: str, folder: str) -> set[str]:
    """The names of a run's artifacts under `folder`."""
    return {Path(item.path).name for item in MlflowClient().list_artifacts(run_id, folder)}


def log_dataset(prepared: Prepared, source: str, *used: str) -> None:
    """Log splits of the prepared images as the open run's data sets, in one call to the store.

    The training split has the source's name, another split `NAME-SPLIT`. All have the first 16 characters of
    the prepared images' digest, which covers the splits too. `log_scores` finds a split by its context.

    Args:
        prepared: the images.
        source: `data.source`.
        used: the splits; none: the training split.
    """
    source = without_password(source)
    name = Path(source.partition("?")[0] if "://" in source else source).name or source
    chosen = used or (split_names.TRAIN,)
    mlflow.log_inputs(
        [
            MetaDataset(  # type: ignore[abstract]  # MLflow's own class does not define `profile`
                CodeDatasetSource({"source": source}),
                name=name if split == split_names.TRAIN else f"{name}-{split}",
                digest=prepared.digest[:16],  # MLflow takes up to 36 characters, and shows 8
            )
            for split in chosen
        ],
        [CONTEXTS[split] for split in chosen],
        [None] * len(chosen),
    )


def log_scores(run: Run, model_id: str | None, split: str, metrics: Mapping[str, float]) -> None:
    """Log a model's scores on a split to a run and to the model, linked to the split's data set.

    A NaN goes to the run alone: MLflow would store it as 0, the best loss, among the model's metrics.

    Args:
        run: that has the split among its data sets.
        model_id: of the logged model; None: the run alone gets the metrics.
        split: the predicted one.
        metrics: by name.
    """
    used, now = _dataset(run, split), int(time.time() * 1000)
    # Not mlflow.log_metrics, which makes another call to add the model to the run's inputs.
    MlflowClient().log_batch(
        run.info.run_id,
        [
            Metric(
                key,
                float(value),
                now,
                step=0,
                model_id=None if math.isnan(value) else model_id,
                dataset_name=used.name if used else None,
                dataset_digest=used.digest if used else None,
                run_id=run.info.run_id,
            )
            for key, value in metrics.items()
        ],
    )


def _dataset(run: Run, split: str) -> Dataset | None:
    """A run's data set of a split; None if missing, as in runs of earlier versions."""
    for used in runs.dataset_inputs(run):
        if {tag.key: tag.value for tag in used.tags}.get(MLFLOW_DATASET_CONTEXT) == CONTEXTS[split]:
            return used.dataset
    return None


def log_prepared(prepared: Prepared, source: str) -> None:
    """Log the prepared images to the open run: data sets, counts per split and rejected files."""
    counts = {split: len(prepared.indices(split)) for split in CONTEXTS}
    log_dataset(prepared, source, *(split for split, count in counts.items() if count))
    counts = {f"images/{split}": count for split, count in counts.items()}
    runs.log_metrics(counts | {"images/rejected": len(prepared.rejected)})
    files = ("metadata.json", "rejected.csv")
    log_files({name: (prepared.path / name).read_bytes() for name in files}, "data")
