"""Log output of libraries: silenced unless a user can act on it; `log: debug` shows all of it.

Every silenced logger is listed here with the reason.
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VARIABLE = "PIPELINE_LOG"  # environment variable, inherited by workers and other child processes

# The lowest level that is shown of a library's logger.
LEVELS: Mapping[str, int] = {
    "alembic": logging.WARNING,  # creation of the store's tables
    "mlflow.store.db.utils": logging.CRITICAL,  # the same; errors are raised as exceptions too
    "mlflow.utils.environment": logging.ERROR,  # an environment without pip, as uv creates it
    "mlflow.pyfunc": logging.WARNING,  # input examples of models
    "optuna": logging.CRITICAL,  # each trial, which the sweep prints; errors are raised as exceptions too
    "tensorflow": logging.ERROR,  # retracing warnings: many models are each traced once
    "tf2onnx": logging.CRITICAL,  # unsupported operations, which ONNX's checker reports too
}


def configure(log: str) -> None:
    """Sets the log output of this process and of its child processes.

    Call it before MLflow and TensorFlow are imported: they read the environment on import.

    Args:
        log: `info` or `debug`.
    """
    os.environ[VARIABLE] = log
    configure_process()


def configure_process() -> None:
    """Applies the log output that `configure` has set in this process or in its parent."""
    if not debugging():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # native code: fatal errors only
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines per run
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "DEBUG"
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("distributed").setLevel(logging.DEBUG)  # it sets a level of its own
    warnings.simplefilter("default")


def debugging() -> bool:
    """Whether all log output of libraries is shown."""
    return os.environ.get(VARIABLE) == "debug"


def silence(*names: str) -> None:
    """Sets loggers to their level in `LEVELS`; call it where the library is imported."""
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG if debugging() else LEVELS[name])


def ignore(category: type[Warning], message: str = "", module: str = "") -> None:
    """Filters out one kind of warnings, selected as in `warnings.filterwarnings`."""
    if not debugging():
        warnings.filterwarnings("ignore", message, category, module)


@contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Silences the native code of TensorFlow during its first import.

    It writes about processor features and missing GPU libraries to the file descriptor of stderr, before it
    reads TF_CPP_MIN_LOG_LEVEL. If the import fails, its output is shown.
    """
    if debugging():
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
