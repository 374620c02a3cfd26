"""Point a SQLite store at the artifacts beside it, after its folder was moved.

    python -m pipeline.tracking.relocate [mlflow.db]

MLflow records where artifacts are as absolute paths. After `mlflow.db` and `mlruns/` have moved together,
these paths name the old folder. This command rewrites them in one transaction and keeps a copy of the store.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.runtime.console import warn
from pipeline.runtime.errors import UserError

# The columns with paths of artifacts; a version's `source` may be a URI such as `models:/ID` instead.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_ROOT = "mlruns"  # MLflow's name for the folder of artifacts


def check(database: Path) -> None:
    """Check that a SQLite store names the folder `mlruns/` beside it; warn if it names that of a copy.

    Args:
        database: the store's file.

    Raises:
        UserError: the recorded artifacts are missing.
    """
    with closing(_connect(database)) as store:
        elsewhere = _elsewhere(store, database)
    advice = (
        f"run `python -m pipeline.tracking.relocate {database}` in the project's folder to use "
        f"{database.parent / _ROOT} instead (a copy of the store is kept)"
    )
    if moved := [folder for folder, is_gone in elsewhere.items() if is_gone]:
        raise UserError(
            f"the project was moved: {database} names artifacts in {', '.join(moved)}, which are missing; "
            f"{advice}, or move the folder back"
        )
    if elsewhere:
        warn(f"the project was copied: its artifacts still go to {', '.join(elsewhere)}; {advice}")


def relocate(database: Path) -> tuple[int, Path] | None:
    """Rewrite the paths of artifacts after the store and its artifacts were moved or copied.

    Args:
        database: the store's file; `mlruns/` is beside it.

    Returns:
        The number of rewritten paths, and the copy of the old store; None if all paths are right.

    Raises:
        UserError: there is no such store, or it cannot be written.
    """
    if not database.is_file():
        raise UserError(f"there is no store {database}; give the path of the project's mlflow.db")
    try:
        with closing(_connect(database)) as store:
            elsewhere = _elsewhere(store, database)
            if not elsewhere:
                return None
            copy = _back_up(store, database)
            with store:  # one transaction
                store.execute("BEGIN IMMEDIATE")
                return sum(_rewrite(store, old, database) for old in elsewhere), copy
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"the store {database} cannot be rewritten: {error}; it is unchanged") from None


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)


def _elsewhere(store: sqlite3.Connection, database: Path) -> dict[str, bool]:
    """The recorded folders other than `mlruns/` beside the store; whether their artifacts are missing."""
    here = (database.parent / _ROOT).resolve()
    found: dict[str, bool] = {}
    for recorded, tail in _recorded(store):
        root = recorded.removesuffix(f"/{tail}")
        folder = _path(root)
        if root == recorded or folder is None or folder == here:
            continue
        is_gone = not (folder / tail).exists()
        if (here / tail).exists():
            found[root] = found.get(root, False) or is_gone
        elif folder.name == _ROOT and not folder.parent.exists():
            found[root] = True
    return found


def _recorded(store: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Each path of artifacts, and its end in MLflow's layout."""
    for experiment, location in store.execute("SELECT experiment_id, artifact_location FROM experiments"):
        yield location or "", str(experiment)
    for experiment, run, location in store.execute("SELECT experiment_id, run_uuid, artifact_uri FROM runs"):
        yield location or "", f"{experiment}/{run}/artifacts"


@cache
def _path(location: str) -> Path | None:
    """The local folder of a recorded location, with links resolved; None if it is not local."""
    if location.startswith("file:"):
        location = unquote(urlsplit(location).path)
    return Path(location).resolve() if location.startswith("/") else None


def _back_up(store: sqlite3.Connection, database: Path) -> Path:
    """Copy a store, even while another process has it open."""
    number, copy = 1, database.with_name(f"{database.name}.before-relocate")
    while copy.exists():
        number += 1
        copy = database.with_name(f"{database.name}.before-relocate-{number}")
    with closing(sqlite3.connect(copy)) as target:
        store.backup(target)
    return copy


def _rewrite(store: sqlite3.Connection, old: str, database: Path) -> int:
    """Replace one folder at the start of every path; returns the number of replaced paths."""
    here = database.parent / _ROOT
    new = here.as_uri() if old.startswith("file:") else str(here)
    return sum(
        store.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (new, len(old) + 1, len(old) + 1, f"{old}/"),
        ).rowcount
        for table, column in _COLUMNS
    )


def main() -> None:
    """Relocate the store that the command line names; default: mlflow.db of this folder."""
    database = Path(sys.argv[1] if len(sys.argv) > 1 else "mlflow.db").absolute()
    try:
        done = relocate(database)
    except UserError as error:
        sys.exit(f"error: {error}")
    if done is None:
        print(f"{database}: its artifacts are in their folder; nothing to do")
    else:
        count, copy = done
        print(f"{database}: {count:,} paths now name {database.parent / _ROOT}; old store: {copy}")


if __name__ == "__main__":
    main()
