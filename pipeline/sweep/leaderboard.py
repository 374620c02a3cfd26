"""The leaderboard of a sweep as CSV, as Markdown and for the console."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any, TypeVar

from pipeline.config.fields import lookup
from pipeline.config.params import Params, section_of
from pipeline.evaluation import intervals
from pipeline.pages import markdown
from pipeline.runtime.console import column_head
from pipeline.sweep.cells import Cell, ordered
from pipeline.sweep.ranking import Ranking
from pipeline.tracking.trials import CellRun

T = TypeVar("T")
SCORES = ("accuracy", "precision", "recall", "f1")
ENDS = 5  # cells shown of the best, and of the worst


def ends(ranking: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """The five best and the five worst; none is in both.

    >>> ends(range(1, 8))
    (range(1, 6), range(6, 8))
    """
    best = ranking[:ENDS]
    return best, ranking[max(len(best), len(ranking) - ENDS) :]


def accuracy_interval(runs: Sequence[CellRun], images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, or of its mean over seeds, for other images of the same kind.

    It is Wilson's interval for the number of images, also of a mean: all seeds share their images. The
    interval of a mean is then too wide rather than too narrow.

    Args:
        runs: Finished runs, one per seed.
        images: The number of images in the validation split.

    Returns:
        The lower and the upper end, 0 to 1.
    """
    mean = statistics.fmean(run.result.scores["accuracy"] for run in runs)
    return intervals.wilson(mean * images, images)


class Table:
    """A ranking as a table.

    It has a column for each key that a cell has; cells without the key show the value that they were trained
    with. With a pruner, or if a cell was pruned, it has the trained epochs; with finalists, their scores with
    fresh seeds and the 95 % interval of each accuracy.

    Args:
        ranking: A ranking of at least one finished cell.
        params: The parameters of the sweep.
    """

    def __init__(self, ranking: Ranking, params: Params):
        self._ranking, self._raw = ranking.cells, params.model_dump(by_alias=True)
        self._keys = ordered(dict.fromkeys(key for run in ranking.cells for key in run.values))
        self._metric, self._images = ranking.objective.name, ranking.images
        self._scores = [*dict.fromkeys([*SCORES, self._metric])]
        pruned = params.sweep.pruner != "none" or any(run.result.pruned for run in ranking.cells)
        self._extra = ["epochs"] if pruned else []
        self._finalists = {finalist.cell.run_id: finalist for finalist in ranking.finalists}

    def as_csv(self) -> bytes:
        """The content of leaderboard.csv: rank, name, the grid's keys, the scores, run_id; best first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        extra = [*self._extra]
        if self._finalists:
            extra += ["repeats", f"{self._metric}_mean", f"{self._metric}_spread"]
            extra += ["accuracy_low", "accuracy_high"]
        writer.writerow(["rank", "name", *map(_column, self._keys), *self._scores, *extra, "run_id"])
        for rank, run in enumerate(self._ranking, start=1):
            scores = [repr(run.result.scores[name]) for name in self._scores]
            name = Cell(run.values).name
            epochs = [run.result.epochs] if self._extra else []
            seeds = self._over_seeds(run) if self._finalists else []
            writer.writerow([rank, name, *self._values(run), *scores, *epochs, *seeds, run.run_id])
        return text.getvalue().encode()

    def as_markdown(self, notes: Sequence[str] = ()) -> str:
        """The content of leaderboard.md: the five best and the five worst cells, with notes beneath."""
        best, worst = ends(self._ranking)
        parts = [f"## The {len(best)} best of {len(self._ranking)} cells\n", self._markdown(best, 1)]
        if worst:
            first = len(self._ranking) - len(worst) + 1
            parts += [f"\n## The {len(worst)} worst\n", self._markdown(worst, first)]
        listed = "".join(f"- {markdown.escape(note, 1000)}\n" for note in notes)
        return "\n".join(parts) + f"\n{listed}" * bool(notes)

    def as_console(self) -> str:
        """The five best and the five worst cells, aligned for a terminal."""
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

    def _over_seeds(self, run: CellRun) -> list[Any]:
        """Repeats, mean and spread; and the interval of the accuracy, of a finalist that of its mean."""
        finalist = self._finalists.get(run.run_id)
        if finalist is None or not finalist.runs:
            return [0, "", "", *accuracy_interval([run], self._images)]
        interval = accuracy_interval(finalist.runs, self._images)
        spread = finalist.spread(self._metric)
        shown = [repr(finalist.mean(self._metric)), "" if spread is None else repr(spread)]
        return [len(finalist.runs), *shown, *interval]

    def _shown_over_seeds(self, run: CellRun) -> list[str]:
        """A finalist's mean, spread and number of fresh seeds: `0.8100 ± 0.0123 (2)`."""
        if not self._finalists:
            return []
        finalist = self._finalists.get(run.run_id)
        if finalist is None or not finalist.runs:
            return [""]
        spread = finalist.spread(self._metric)
        shown = "" if spread is None else f" ± {spread:.4f}"
        return [f"{finalist.mean(self._metric):.4f}{shown} ({len(finalist.runs)})"]

    def _epochs(self, run: CellRun) -> list[str]:
        return [f"{run.result.epochs}{' (pruned)' * run.result.pruned}"] if self._extra else []

    def _heads(self) -> list[str]:
        seeds = ["fresh_seeds"] if self._finalists else []
        return ["", *map(column_head, [*map(_column, self._keys), *self._scores, *self._extra, *seeds])]

    def _rows(self, ranking: Sequence[CellRun], first: int) -> list[list[str]]:
        return [
            [
                str(rank),
                *map(str, self._values(run)),
                *(f"{run.result.scores[name]:.4f}" for name in self._scores),
                *self._epochs(run),
                *self._shown_over_seeds(run),
            ]
            for rank, run in enumerate(ranking, start=first)
        ]

    def _markdown(self, ranking: Sequence[CellRun], first: int) -> str:
        rows = [[markdown.escape(cell, 120) for cell in row] for row in self._rows(ranking, first)]
        return markdown.table(self._heads(), rows) + "\n"


def _column(key: str) -> str:
    """The column of a key, with its section if a score has the same name (`train.precision`)."""
    return f"{section_of(key)}.{key}" if key in SCORES else key
