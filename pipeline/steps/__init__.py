"""The entry points: each file has `run(params, …) -> result`, and a `main()` that parses and calls it.

What takes seconds to import (MLflow, TensorFlow) is imported inside `run`, so that `--help` and a mistyped
key answer at once.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from pipeline.arguments import load
from pipeline.errors import Interrupted, UserError
from pipeline.params import Params

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def command(run: Callable[[Params], Any], begin: Callable[[Params], None] = lambda params: None) -> None:
    """Run a step as a command: parsed parameters in, an exit status out, a sentence for a user's error.

    Args:
        run: the step.
        begin: called before anything heavy is imported, with what can go on meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in `quiet`: nothing a user can act on
    try:
        params = load()
        begin(params)
        from pipeline.tracking import StoreError, runs

        try:
            runs.connect()
            run(params)
        except StoreError as error:
            raise UserError(
                f"the tracking store failed: {runs.first_line(error)}; mend that and run the same command "
                "again"
            ) from error
    except UserError as error:
        sys.exit(f"error: {error}")
    except (Interrupted, KeyboardInterrupt) as error:
        print(str(error) or "stopped", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # not waiting for a thread that still trains
