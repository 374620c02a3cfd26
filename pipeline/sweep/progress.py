"""The progress of a sweep: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping

from pipeline.evaluation.objective import Objective
from pipeline.runtime.console import Bar, duration
from pipeline.sweep.cells import Cell
from pipeline.sweep.plan import Plan

FIRST_EPOCHS = 3  # epochs before the first line with the time left, without a terminal


class Progress:
    """Shows each cell as it ends, the best score, running and failed cells, and the time left.

    Args:
        metric: Ranks the cells.
        planned: The sweep's cells.
        epochs: The epochs of the known unfinished cells, by `Cell.key`.
        usual: The epochs of any other cell.
    """

    def __init__(self, metric: str, planned: Plan, epochs: Mapping[str, int], usual: int):
        self.objective = Objective(metric)
        self.total, self.done = planned.total, len(planned.done)
        self.noun, self.failed = planned.noun, 0
        self.best: float | None = None
        for run in planned.done:
            self._improve(self.objective.of_report(run.result.scores))
        self._epochs, self._usual = dict(epochs), usual  # of cells that are neither finished nor failed
        self._running: dict[str, int] = {}  # epochs done, by the cell's key
        self._start, self._trained = time.monotonic(), 0
        self._bar = None
        if sys.stderr.isatty():
            title = "sweep" if self.noun == "cell" else self.noun
            self._bar = Bar(estimate=False, desc=title, total=self.total, initial=self.done)

    def started(self, cell: Cell, epochs: int) -> None:
        """A cell of so many epochs has started."""
        self._epochs[cell.key], self._running[cell.key] = epochs, 0
        self._refresh()

    def epoch(self, cell: Cell, epoch: int) -> None:
        """A cell has finished an epoch."""
        self._trained += 1
        self._running[cell.key] = epoch
        if self._bar is None and self._trained == FIRST_EPOCHS:
            self._print(f"{FIRST_EPOCHS} epochs trained; {self._state()}")
        self._refresh()

    def ended(self, cell: Cell, score: float | None, note: str) -> None:
        """A cell has finished, with a score and a note, or failed, without a score and with a reason."""
        self._running.pop(cell.key, None)
        self._epochs.pop(cell.key, None)
        self.done += score is not None
        self.failed += score is None
        if score is not None:
            self._improve(score)
        result = f"{self.objective.name} {score:.4f}{note}" if score is not None else f"failed: {note}"
        if self._bar is not None:
            self._bar.update(score is not None)
            self._refresh()
            if score is None:
                self._bar.write(f"{cell.name}: {result}", file=sys.stderr)
            return
        position = f"{self.noun} {self.done + self.failed:,}/{self.total:,}"
        self._print(f"{position} {cell.name}: {result}; {self._state()}")

    def left(self, cell: Cell) -> None:
        """A cell has stopped, neither finished nor failed."""
        self._running.pop(cell.key, None)
        self._refresh()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            self._print(text)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _state(self) -> str:
        parts = ["best none" if self.best is None else f"best {self.best:.4f}"]
        if self._bar is not None:
            parts.append(f"{len(self._running)} running")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if left := self._seconds_left():
            parts.append(f"{duration(left)} left")
        return "; ".join(parts)

    def _seconds_left(self) -> int:
        """Estimated from the epochs that are left; 0 before the first epoch."""
        if not self._trained:
            return 0
        unknown = max(0, self.total - self.done - self.failed - len(self._epochs))  # cells not sampled yet
        epochs = sum(self._epochs.values()) + unknown * self._usual - sum(self._running.values())
        return round(max(0, epochs) * (time.monotonic() - self._start) / self._trained)

    def _improve(self, score: float) -> None:
        if self.objective.better_than(score, self.best):
            self.best = score

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._state())

    def _print(self, text: str) -> None:
        print(text, flush=True)
