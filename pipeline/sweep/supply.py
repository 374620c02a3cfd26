"""The prepared pictures of a sweep, as a worker gets them: from its disk, or else from the sweep's run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data import prepared, storage, workplace
from pipeline.data.prepared import Prepared
from pipeline.errors import ChangedPictures
from pipeline.tracking import artifacts

FOLDER = "data/prepared"  # of the artifacts of a sweep's run, for workers that have no such folder

_opened: dict[tuple, Prepared] = {}


def opened(pictures: Mapping[str, Any]) -> Prepared:
    """The prepared pictures of a task, from this machine's disk or else from the sweep's run.

    Raises:
        ChangedPictures: they are not what the sweep began with.
    """
    path, digest = Path(pictures["path"]), pictures["digest"]
    try:
        if not path.exists() and pictures["run_id"]:
            path = Path(pictures["cache"], "prepared", path.name)
            if not path.exists():
                _fetch(pictures["run_id"], path, digest)
        stamp = storage.stamp(path)
        if (path, stamp) not in _opened:
            found = prepared.open_prepared(path)
            if found.digest != digest:
                raise prepared.DamagedPrepared("other pictures")
            _opened.clear()
            _opened[path, stamp] = found
        return _opened[path, stamp]
    except (prepared.DamagedPrepared, FileNotFoundError) as error:
        raise ChangedPictures(
            f"the prepared pictures in {path} changed while the sweep ran ({error}); the same command makes "
            "them anew and goes on"
        ) from None


def _fetch(run_id: str, path: Path, digest: str) -> None:
    """Download prepared pictures once, whichever worker of this machine comes first."""
    with workplace.exclusive(path.parent):
        if path.exists():
            return
        with workplace.appearing(path) as partial:
            artifacts.download(run_id, FOLDER, partial)
            found = prepared.open_prepared(partial)
            if found.digest != digest:
                raise prepared.DamagedPrepared(f"run {run_id} has others, {found.digest}")
