"""Where a sweep's cells run: here, one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.sweep.cells import Cell
from pipeline.trial import Trial


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its trial, or the reason why there is none."""

    cell: Cell
    trial: Trial | None
    reason: str = ""


def outcomes(ask: Callable[[], Cell | None], run_cell: Callable[[Cell], Trial]) -> Iterator[Outcome]:
    """Run cells until there are no more, and yield each one's outcome as it ends.

    A cell that fails does not end the sweep: whatever it raised is its outcome's reason.

    Args:
        ask: gives the next cell; None ends the sweep.
        run_cell: trains and records one.
    """
    while (cell := ask()) is not None:
        try:
            yield Outcome(cell, run_cell(cell))
        except Exception as error:
            yield Outcome(cell, None, f"{type(error).__name__}: {error}")
