"""Fresh stores without the wait: MLflow's empty database is made once in a process, and copied for each test.

What is copied is what MLflow itself made, migrations and all; they take 2 to 3 s each time. Steps that tests
start from a new interpreter (`Project.start`, `mlflow run`) make theirs themselves.
"""

import functools
import sqlite3
import tempfile
from pathlib import Path

import sqlalchemy
from mlflow.store.db import utils

_make = utils._initialize_tables


@functools.cache
def _template() -> sqlite3.Connection:
    """An empty database as MLflow makes it, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mlflow.db")
        engine = sqlalchemy.create_engine(f"sqlite:///{file}")
        _make(engine)
        engine.dispose()
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        with sqlite3.connect(file) as made:
            made.backup(copy)
        made.close()
    return copy


def _copied(engine: sqlalchemy.Engine) -> None:
    if engine.dialect.name != "sqlite":
        _make(engine)
        return
    connection = engine.raw_connection()
    try:
        _template().backup(connection.driver_connection)
    finally:
        connection.close()


def copy_fresh_stores() -> None:
    """Have this process, and those forked from it, copy the empty database."""
    _template()
    utils._initialize_tables = _copied
