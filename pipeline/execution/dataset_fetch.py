"""The prepared images of a sweep, as a worker gets them: from its disk, or else from the sweep's run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.dataset import prepare, storage
from pipeline.dataset.prepare import Prepared
from pipeline.runtime import files
from pipeline.runtime.errors import ChangedImages
from pipeline.tracking import artifacts

FOLDER = "data/prepared"  # of the artifacts of a sweep's run, for workers that have no such folder

_datasets: dict[tuple[Any, ...], Prepared] = {}


def open_dataset(images: Mapping[str, Any]) -> Prepared:
    """The prepared images of a task, from this machine's disk or else from the sweep's run.

    Raises:
        ChangedImages: they are not the images that the sweep started with.
    """
    path, digest = Path(images["path"]), images["digest"]
    try:
        if not path.exists() and images["run_id"]:
            path = Path(images["cache"], "prepared", path.name)
            if not path.exists():
                _fetch(images["run_id"], path, digest)
        stamp = storage.stamp(path)
        if (path, stamp) not in _datasets:
            found = prepare.open_prepared(path)
            if found.digest != digest:
                raise prepare.DamagedPrepared("other images")
            _datasets.clear()
            _datasets[path, stamp] = found
        return _datasets[path, stamp]
    except (prepare.DamagedPrepared, FileNotFoundError) as error:
        raise ChangedImages(
            f"the prepared images in {path} changed while the sweep ran ({error}); rerun the same "
            "command to prepare them again and resume"
        ) from None


def _fetch(run_id: str, path: Path, digest: str) -> None:
    """Download prepared images once, whichever worker of this machine comes first."""
    with files.prepare_lock(path.parent):
        if path.exists():
            return
        with files.atomic_directory(path) as partial:
            artifacts.download(run_id, FOLDER, partial)
            found = prepare.open_prepared(partial)
            if found.digest != digest:
                raise prepare.DamagedPrepared(f"run {run_id} has others, {found.digest}")
