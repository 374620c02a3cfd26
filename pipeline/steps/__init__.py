"""The entry points: each module has `run(params, …) -> result`, and `main()`, which parses and calls it.

Slow imports (MLflow, TensorFlow) are inside `run`, so that `--help` and an unknown key answer at once.
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

INTERRUPTED = 130  # exit status after Ctrl-C, as shells report it
# Errors of disks and folders, which a user can fix; any other OSError is a defect of the pipeline.
_FIXABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY,
}  # fmt: skip


def command(
    run: Callable[[Params], Any],
    before_imports: Callable[[Params], None] = lambda params: None,
    logs_models: bool = False,
) -> None:
    """Run a step as a command: parses the command line, and exits with an error line if the user can fix it.

    Args:
        run: The step.
        before_imports: Called before slow imports, to start work that runs in parallel with them.
        logs_models: The step logs models, so the store must support them.
    """
    try:
        params = load()
        logs.configure(params.log)
        before_imports(params)
        from pipeline.tracking import STORE_ERRORS, first_line, store

        try:
            store.connect(logs_models)
            run(params)
        except STORE_ERRORS as error:
            raise UserError(
                f"the tracking store failed: {first_line(error)}; fix that and rerun the same command"
            ) from error
        except OSError as error:
            if error.errno not in _FIXABLE:
                raise
            place = f": {error.filename}" if error.filename else ""
            raise UserError(f"{error.strerror}{place}; fix that and rerun the same command") from error
    except UserError as error:
        if logs.debugging():
            _print_causes(error)
        sys.exit(f"{styled('error:', RED, sys.stderr)} {without_password(str(error))}")
    except (Interrupted, KeyboardInterrupt) as error:
        print(str(error) or "stopped", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # without waiting for training threads


def write(files: Mapping[str, bytes], folder: Path, key: str) -> None:
    """Write files into a folder, which is created if missing.

    Args:
        files: Contents by name.
        folder: To write to.
        key: The parameter that names the folder, for the error.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        place = Path(error.filename or folder).absolute()
        raise UserError(f"{key}: {place} cannot be written: {error.strerror}") from None


def _print_causes(error: BaseException) -> None:
    """Print an error's traceback with its causes, even if it was raised `from None`."""
    inner: BaseException | None = error
    while inner is not None:
        inner.__suppress_context__ = False
        inner = inner.__context__
    print(without_password("".join(traceback.format_exception(error))), file=sys.stderr, end="")
