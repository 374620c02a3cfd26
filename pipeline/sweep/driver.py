"""Drives a sweep: asks for cells, has them run, tells what came of them, and shows how far it is."""

import sys
import time

from tqdm import tqdm

from pipeline import trial
from pipeline.data.prepared import Prepared
from pipeline.params import Params
from pipeline.sweep import cells, executor
from pipeline.sweep.cells import Cell
from pipeline.sweep.executor import Outcome
from pipeline.sweep.study import Study


def drive(params: Params, prepared: Prepared, study_name: str) -> list[Outcome]:
    """Train every cell of `sweep.grid`, each in a run nested in the open one.

    Args:
        params: the cells' values stand over those under `model` and `train`.
        prepared: the pictures that all cells are trained on.
        study_name: the study that the cells are tagged with.

    Returns:
        One outcome a cell, in the order in which they ended.
    """
    study = Study(study_name, params.sweep.grid, params.seed)

    def run_cell(cell: Cell) -> trial.Trial:
        tags = {"step": "cell", "cell": cell.key, "study": study_name}
        return trial.run(params.with_cell(cell.values), prepared, cell.name, tags)

    progress = _Progress(cells.count(params.sweep.grid), params.sweep.metric)
    outcomes = []
    for outcome in executor.outcomes(study.ask, run_cell):
        study.tell(outcome.cell, outcome.trial and outcome.trial.scores[params.sweep.metric])
        outcomes.append(outcome)
        progress.show(outcome)
    progress.close()
    return outcomes


class _Progress:
    """A bar on a terminal, a plain line a cell elsewhere: cells done, the best so far, the time left."""

    def __init__(self, total: int, metric: str):
        self.total, self.metric, self.best, self.done = total, metric, None, 0
        self.start = time.monotonic()
        self.bar = tqdm(total=total, unit="cell", desc="sweep") if sys.stderr.isatty() else None

    def show(self, outcome: Outcome) -> None:
        self.done += 1
        if outcome.trial:
            score = outcome.trial.scores[self.metric]
            self.best = score if self.best is None else max(self.best, score)
            result = f"{self.metric} {score:.4f}" + (" (diverged)" if outcome.trial.diverged else "")
        else:
            result = f"failed: {outcome.reason}"
        best = "none" if self.best is None else f"{self.best:.4f}"
        if self.bar is not None:
            self.bar.set_postfix_str(f"best {self.metric} {best}", refresh=False)
            self.bar.update()
            if outcome.trial is None:
                self.bar.write(f"{outcome.cell.name}: {result}", file=sys.stderr)
            return
        left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        print(
            f"cell {self.done}/{self.total} {outcome.cell.name}: {result}; best {best}; "
            f"{tqdm.format_interval(left)} left",
            flush=True,
        )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
