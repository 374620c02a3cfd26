"""The entry points: each file has `run(params, …) -> result`, and a `main()` that parses and calls it.

What takes seconds to import (MLflow, TensorFlow) is imported inside `run`, so that `--help` and a mistyped
key answer at once.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.command_line import load
from pipeline.config.params import Params
from pipeline.runtime import logs
from pipeline.runtime.console import RED, styled
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import Interrupted, UserError

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
# What a disk or a folder refuses, wherever a step meets it; other errors of the system are defects of ours.
_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY,
}  # fmt: skip


def command(
    run: Callable[[Params], Any],
    begin: Callable[[Params], None] = lambda params: None,
    logs_models: bool = False,
) -> None:
    """Run a step as a command: parsed parameters in, an exit status out, a sentence for a user's error.

    Args:
        run: the step.
        begin: called before anything heavy is imported, with what can go on meanwhile.
        logs_models: the step logs models: a store that keeps none is refused first.
    """
    try:
        params = load()
        logs.configure(params.log)
        begin(params)
        from pipeline.tracking import STORE_ERRORS, store

        try:
            store.connect(logs_models)
            run(params)
        except STORE_ERRORS as error:
            raise UserError(
                f"the tracking store failed: {store.first_line(error)}; fix that and run the same command "
                "again"
            ) from error
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            place = f": {error.filename}" if error.filename else ""
            raise UserError(f"{error.strerror}{place}; fix that and run the same command again") from error
    except UserError as error:
        if logs.debugging():
            _print_causes(error)
        sys.exit(f"{styled('error:', RED, sys.stderr)} {without_password(str(error))}")
    except (Interrupted, KeyboardInterrupt) as error:
        print(str(error) or "stopped", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # not waiting for a thread that still trains


def write(files: Mapping[str, bytes], folder: Path, key: str) -> None:
    """Write files by their names into a folder, which is made where it is not there.

    Args:
        files: contents by name.
        folder: to write to.
        key: the setting that names the folder, for the error.

    Raises:
        UserError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        place = Path(error.filename or folder).absolute()
        raise UserError(f"{key}: {place} cannot be written: {error.strerror}") from None


def _print_causes(error: BaseException) -> None:
    """Print an error's traceback with all that led to it, also where it was raised `from None`."""
    inner: BaseException | None = error
    while inner is not None:
        inner.__suppress_context__ = False
        inner = inner.__context__
    print(without_password("".join(traceback.format_exception(error))), file=sys.stderr, end="")
