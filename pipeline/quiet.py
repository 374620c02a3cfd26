"""Start-up lines of libraries that no user can act on."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Hold back what TensorFlow's native code writes to stderr while it is first imported.

    It tells of processor features and of GPU libraries that are not there, past Python's own stderr and past
    TF_CPP_MIN_LOG_LEVEL, which it reads too late. Where the import fails, all of it is shown.
    """
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
