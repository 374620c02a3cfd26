"""What chooses the next cell: an Optuna study that is asked and told by one process."""

import optuna
from optuna.samplers import GridSampler
from optuna.trial import TrialState

from pipeline.params import GridParams
from pipeline.sweep import cells
from pipeline.sweep.cells import Cell


class _AskedSampler(GridSampler):
    """Optuna's grid, for a study that is asked and told rather than optimized.

    GridSampler ends a study with `Study.stop` once the last cell is told, which raises RuntimeError outside
    `optimize`. Here the caller knows how many cells there are, and stops asking.
    """

    def after_trial(self, *args: object) -> None:
        """Do nothing: there is no loop to stop."""


class Study:
    """Proposes every cell of a grid once.

    Optuna gives the N-th trial of a study the N-th cell as long as no trial came before, so one process that
    asks for exactly as many trials as there are cells gets each of them once.
    """

    def __init__(self, name: str, grid: GridParams, seed: int):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = {key: list(values) for key, values in grid.values().items()}
        self._study = optuna.create_study(
            study_name=name, direction="maximize", sampler=_AskedSampler(self._space, seed=seed)
        )
        self._trials: dict[str, optuna.Trial] = {}
        self._left = cells.count(grid)

    def ask(self) -> Cell | None:
        """The next cell to run; None where all have been asked for."""
        if self._left == 0:
            return None
        self._left -= 1
        trial = self._study.ask()
        cell = Cell({key: trial.suggest_categorical(key, values) for key, values in self._space.items()})
        self._trials[cell.key] = trial
        return cell

    def tell(self, cell: Cell, value: float | None) -> None:
        """Report a cell's score; None where it failed."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(self._trials.pop(cell.key), value, state)
