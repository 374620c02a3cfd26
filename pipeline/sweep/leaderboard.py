"""How a sweep's cells compare: ranked, as a table, as CSV and as Markdown."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from pipeline import markdown
from pipeline.params import Params, section_of
from pipeline.sections import lookup
from pipeline.sweep.cells import Cell, ordered
from pipeline.tracking.trials import CellRun

SCORES = ("accuracy", "precision", "recall", "f1")
ENDS = 5  # how many of the best and of the worst are shown
# The original's column heads
HEADS = {
    "learning_rate": "Learning rate",
    "kernel_initializer": "Kernel initializer",
    "activation": "Activation",
    "bias_initializer": "Bias initializer",
    "f1": "F1",
    "epochs": "Epochs",
}


def ranked(runs: Sequence[CellRun], metric: str) -> list[CellRun]:
    """Finished cells, best first: by `metric`, among equals by validation loss, then by name."""

    def key(run: CellRun) -> tuple[float, float, str]:
        loss = run.trial.val_loss
        return -run.trial.scores[metric], loss if math.isfinite(loss) else math.inf, Cell(run.values).name

    return sorted(runs, key=key)


def ends(ranking: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """The five best and the five worst, none in both."""
    best = ranking[:ENDS]
    return best, ranking[max(len(best), len(ranking) - ENDS) :]


class Table:
    """A ranking as a table, in three shapes.

    Its columns are the keys of all its cells; where a grid got a further key later, the cells before it have
    the value that was in force. With a pruner, or where a cell was pruned, the epochs trained stand beside.

    Args:
        ranking: finished cells, best first; one or more.
        params: those in force.
    """

    def __init__(self, ranking: Sequence[CellRun], params: Params):
        self._ranking, self._raw = ranking, params.model_dump(by_alias=True)
        self._keys = ordered(dict.fromkeys(key for run in ranking for key in run.values))
        pruned = params.sweep.pruner != "none" or any(run.trial.pruned for run in ranking)
        self._extra = ["epochs"] if pruned else []

    def as_csv(self) -> bytes:
        """leaderboard.csv: rank, name, the grid's keys, the scores, run_id; best first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["rank", "name", *self._keys, *SCORES, *self._extra, "run_id"])
        for rank, run in enumerate(self._ranking, start=1):
            scores = [repr(run.trial.scores[name]) for name in SCORES]
            name = Cell(run.values).name
            epochs = [run.trial.epochs] if self._extra else []
            writer.writerow([rank, name, *self._values(run), *scores, *epochs, run.run_id])
        return text.getvalue().encode()

    def as_markdown(self) -> str:
        """leaderboard.md: the five best and the five worst, in the original's columns."""
        best, worst = ends(self._ranking)
        parts = [f"## The {len(best)} best of {len(self._ranking)} cells\n", self._markdown(best, 1)]
        if worst:
            first = len(self._ranking) - len(worst) + 1
            parts += [f"\n## The {len(worst)} worst\n", self._markdown(worst, first)]
        return "\n".join(parts)

    def as_console(self) -> str:
        """The five best and the five worst, aligned for a terminal."""
        best, worst = ends(self._ranking)
        rows = self._rows(best, 1) + self._rows(worst, len(self._ranking) - len(worst) + 1)
        widths = [max(map(len, column)) for column in zip(self._heads(), *rows, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            for row in [self._heads(), *rows]
        ]
        if len(best) + len(worst) < len(self._ranking):
            lines.insert(1 + len(best), "…")
        return "\n".join(line.rstrip() for line in lines)

    def _values(self, run: CellRun) -> list[Any]:
        return [
            run.values[key] if key in run.values else lookup(self._raw[section_of(key)], key)
            for key in self._keys
        ]

    def _epochs(self, run: CellRun) -> list[str]:
        return [f"{run.trial.epochs}{' (pruned)' * run.trial.pruned}"] if self._extra else []

    def _heads(self) -> list[str]:
        keys = [*self._keys, *SCORES, *self._extra]
        return ["", *(HEADS.get(key, key.replace("_", " ").capitalize()) for key in keys)]

    def _rows(self, ranking: Sequence[CellRun], first: int) -> list[list[str]]:
        return [
            [
                str(rank),
                *map(str, self._values(run)),
                *(f"{run.trial.scores[name]:.4f}" for name in SCORES),
                *self._epochs(run),
            ]
            for rank, run in enumerate(ranking, start=first)
        ]

    def _markdown(self, ranking: Sequence[CellRun], first: int) -> str:
        rows = [[markdown.escape(cell, 120) for cell in row] for row in self._rows(ranking, first)]
        return markdown.table(self._heads(), rows) + "\n"
