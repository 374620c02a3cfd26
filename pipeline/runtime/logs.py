"""What is printed of what libraries say: nothing that no user can act on, or all of it with `log: debug`.

What is left out is named here, each with its reason; anything else that a library says comes through.
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VARIABLE = "PIPELINE_LOG"  # of the environment, which workers and other processes of ours inherit

# The least serious lines that are shown of a library's logger.
LEVELS: Mapping[str, int] = {
    "alembic": logging.WARNING,  # the store's tables, as they are made
    "mlflow.store.db.utils": logging.CRITICAL,  # the same; its errors come as exceptions all the same
    "mlflow.utils.environment": logging.ERROR,  # an environment without pip: uv makes none
    "mlflow.pyfunc": logging.WARNING,  # examples of a model's input
    "optuna": logging.CRITICAL,  # each trial, which the sweep tells itself; its errors come as exceptions
    "tensorflow": logging.ERROR,  # many models, each traced once, which it takes for one traced too often
    "tf2onnx": logging.CRITICAL,  # what it cannot translate, which ONNX's checker tells once more
}


def choose(log: str) -> None:
    """Print so much from here on, in this process and those that it starts: `info` or `debug`.

    Call it before MLflow and TensorFlow are imported: they read what is set here only then.
    """
    os.environ[VARIABLE] = log
    begin()


def begin() -> None:
    """Do in this process what `choose` has chosen in it, or in the one that started it."""
    if not debugging():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of its native code: nothing but what ends it
        os.environ.setdefault(
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
        )  # two lines a run, on a server
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "DEBUG"
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("distributed").setLevel(logging.DEBUG)  # which has a level of its own
    warnings.simplefilter("default")


def debugging() -> bool:
    """Whether everything that libraries say is shown."""
    return os.environ.get(VARIABLE) == "debug"


def calm(*names: str) -> None:
    """Hold back the lines of libraries' loggers, those of `LEVELS`; call it when the library is imported."""
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG if debugging() else LEVELS[name])


def ignore(category: type[Warning], message: str = "", module: str = "") -> None:
    """Leave out one kind of Python's warnings, as `warnings.filterwarnings` tells it by."""
    if not debugging():
        warnings.filterwarnings("ignore", message, category, module)


@contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Hold back what TensorFlow's native code writes to stderr while it is first imported.

    It tells of processor features and of GPU libraries that are not there, past Python's own stderr and past
    TF_CPP_MIN_LOG_LEVEL, which it reads too late. Where the import fails, all of it is shown.
    """
    if debugging():
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
