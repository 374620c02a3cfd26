"""Ctrl-C and SIGTERM: the first one stops a sweep gently, the second one aborts it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Ctrl-C in a terminal reaches this process as SIGINT, and again as SIGTERM through `mlflow run`: within this
# time, both are one request.
SIGNAL_MERGE_SECONDS = 5


@contextmanager
def handled(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function at the first SIGINT or SIGTERM; raise KeyboardInterrupt at the second.

    Args:
        stop: Must be quick: it runs within the signal handler.
    """
    first: tuple[int, float] | None = None

    def handle(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = number, now
            stop()
        elif not (number == signal.SIGTERM != first[0] and now - first[1] < SIGNAL_MERGE_SECONDS):
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
