"""How a sweep's cells compare: ranked, as a table, as CSV and as Markdown."""

import csv
import io
import math
from collections.abc import Sequence

from pipeline.sweep.cells import ordered
from pipeline.sweep.executor import Outcome

SCORES = ("accuracy", "precision", "recall", "f1")
ENDS = 5  # how many of the best and of the worst are shown
# The original's column heads
HEADS = {
    "learning_rate": "Learning rate",
    "kernel_initializer": "Kernel initializer",
    "activation": "Activation",
    "bias_initializer": "Bias initializer",
    "f1": "F1",
}


def ranked(outcomes: Sequence[Outcome], metric: str) -> list[Outcome]:
    """The finished cells, best first: by `metric`, among equals by validation loss, then by name."""

    def key(outcome: Outcome) -> tuple[float, float, str]:
        loss = outcome.trial.val_loss
        return -outcome.trial.scores[metric], loss if math.isfinite(loss) else math.inf, outcome.cell.name

    return sorted((outcome for outcome in outcomes if outcome.trial), key=key)


def as_csv(ranking: Sequence[Outcome]) -> bytes:
    """leaderboard.csv: rank, name, the grid's keys, the scores, run_id; best first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ordered(ranking[0].cell.values)
    writer.writerow(["rank", "name", *keys, *SCORES, "run_id"])
    for rank, outcome in enumerate(ranking, start=1):
        values = [outcome.cell.values[key] for key in keys]
        scores = [repr(outcome.trial.scores[name]) for name in SCORES]
        writer.writerow([rank, outcome.cell.name, *values, *scores, outcome.trial.run_id])
    return text.getvalue().encode()


def as_markdown(ranking: Sequence[Outcome]) -> str:
    """leaderboard.md: the five best and the five worst, in the original's columns."""
    best, worst = ends(ranking)
    parts = [f"## The {len(best)} best of {len(ranking)} cells\n", _markdown_table(best, 1)]
    if worst:
        first = len(ranking) - len(worst) + 1
        parts += [f"\n## The {len(worst)} worst\n", _markdown_table(worst, first)]
    return "\n".join(parts)


def as_console(ranking: Sequence[Outcome]) -> str:
    """The five best and the five worst, aligned for a terminal."""
    best, worst = ends(ranking)
    rows = _rows(best, 1) + _rows(worst, len(ranking) - len(worst) + 1)
    heads = _heads(ranking)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in [heads, *rows]
    ]
    if worst:
        lines.insert(1 + len(best), "…")
    return "\n".join(line.rstrip() for line in lines)


def ends(ranking: Sequence[Outcome]) -> tuple[Sequence[Outcome], Sequence[Outcome]]:
    """The five best and the five worst, no cell in both."""
    best = ranking[:ENDS]
    return best, ranking[max(len(best), len(ranking) - ENDS) :]


def _heads(ranking: Sequence[Outcome]) -> list[str]:
    keys = [*ordered(ranking[0].cell.values), *SCORES]
    return ["", *(HEADS.get(key, key.replace("_", " ").capitalize()) for key in keys)]


def _rows(ranking: Sequence[Outcome], first: int) -> list[list[str]]:
    return [
        [
            str(rank),
            *(str(outcome.cell.values[key]) for key in ordered(outcome.cell.values)),
            *(f"{outcome.trial.scores[name]:.4f}" for name in SCORES),
        ]
        for rank, outcome in enumerate(ranking, start=first)
    ]


def _markdown_table(ranking: Sequence[Outcome], first: int) -> str:
    heads = _heads(ranking)
    lines = [heads, ["---"] * len(heads), *_rows(ranking, first)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
