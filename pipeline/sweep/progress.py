"""How far a sweep is: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from pipeline.console import Bar, duration
from pipeline.sweep.cells import Cell

FIRST_EPOCHS = 3  # after which, without a terminal, a line says for the first time how long it will take


class Progress:
    """Shows cells as they end, with the best so far, what runs and what failed, and the time left.

    Args:
        total: cells of the sweep; for a sampler without end, those that it draws.
        done: those that were done before.
        epochs: the most that a cell is trained.
        metric: what cells are ranked by.
        best: the best score so far.
        noun: what a cell is called.
    """

    def __init__(
        self, total: int, done: int, epochs: int, metric: str, best: float | None, noun: str = "cell"
    ):
        self.total, self.done, self.epochs, self.metric, self.best = total, done, epochs, metric, best
        self.noun, self.failed = noun, 0
        self._running: dict[str, int] = {}  # epochs done, by the cell's key
        self._start, self._trained = time.monotonic(), 0
        self._bar = None
        if sys.stderr.isatty():
            title = "sweep" if noun == "cell" else noun
            self._bar = Bar(estimate=False, desc=title, total=total, initial=done)

    def started(self, cell: Cell, epochs: int = 0) -> None:
        """A cell runs, of which so many epochs are done."""
        self._running[cell.key] = epochs
        self._refresh()

    def epoch(self, cell: Cell, epoch: int) -> None:
        """A cell has ended an epoch."""
        self._trained += 1
        self._running[cell.key] = epoch
        if self._bar is None and self._trained == FIRST_EPOCHS:
            self._print(f"{FIRST_EPOCHS} epochs trained; {self._state()}")
        self._refresh()

    def ended(self, cell: Cell, score: float | None, note: str) -> None:
        """A cell is finished (with a score) or failed (without)."""
        self._running.pop(cell.key, None)
        self.done += score is not None
        self.failed += score is None
        if score is not None:
            self.best = score if self.best is None else max(self.best, score)
        result = f"{self.metric} {score:.4f}{note}" if score is not None else f"failed: {note}"
        if self._bar is not None:
            self._bar.update(score is not None)
            self._refresh()
            if score is None:
                self._bar.write(f"{cell.name}: {result}", file=sys.stderr)
            return
        position = f"{self.noun} {self.done + self.failed:,}/{self.total:,}"
        self._print(f"{position} {cell.name}: {result}; {self._state()}")

    def left(self, cell: Cell) -> None:
        """A cell runs no more, and is neither finished nor failed."""
        self._running.pop(cell.key, None)
        self._refresh()

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            self._print(text)

    def close(self) -> None:
        """End the bar."""
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
        """By the epochs that are still to come; cells end early at times, so cells done count as whole.

        0 where there are none, and where nothing is known yet.
        """
        if not self._trained:
            return 0
        epochs = (self.total - self.done - self.failed) * self.epochs - sum(self._running.values())
        return round(max(0, epochs) * (time.monotonic() - self._start) / self._trained)

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._state())

    def _print(self, text: str) -> None:
        print(text, flush=True)
