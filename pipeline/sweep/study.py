"""What chooses the next cell: an Optuna study that is asked and told by one process, the driver.

Which cells are done is read from their runs. The study is what samplers and pruners learn from, and can be
looked at with Optuna's own tools; where it lacks a finished cell, it is given it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import GridSampler
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.config.search_space import Range
from pipeline.config.sweep_schema import SAMPLERS, SweepParams
from pipeline.evaluation.objective import Objective
from pipeline.runtime import logs
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.sweep.cells import Cell
from pipeline.tracking.trials import CellRun

DatabaseError = optuna.exceptions.StorageInternalError  # what a study raises where its database fails
DRAWS = 100  # of a sampler, before it is taken to have no cell left that it has not drawn
# A cell is compared with the finished ones once there are so many. With two, a winner was lost that was four
# points better (48 cells of 8 epochs on photos); each more is trained in full.
WARM_UP_CELLS = 4


class Study:
    """Proposes cells, none twice.

    Args:
        name: the study's.
        sweep: the `sweep` section: space, sampler, pruner, metric.
        seed: of the sampler.
        epochs: the most that any cell is trained.
        storage: URL of Optuna's database.
        done: the finished cells.
        history: gives a run's values of the objective after each epoch; asked only where a pruner wants it.

    Raises:
        UserError: the database cannot be used.
    """

    def __init__(
        self,
        name: str,
        sweep: SweepParams,
        seed: int,
        epochs: int,
        storage: str,
        done: Sequence[CellRun],
        history: Callable[[str], Sequence[float]],
    ):
        logs.silence("optuna")
        # of samplers that may change with Optuna's version, which is pinned
        logs.ignore(optuna.exceptions.ExperimentalWarning)
        self._sweep, self._seed, self._history = sweep, seed, history
        self._objective = Objective(sweep.metric)
        self._space = {key: _distribution(values) for key, values in sweep.grid.values().items()}
        self._trials: dict[str, optuna.Trial] = {}
        self._study = _open(
            f"{name}/{_digest(self._space, self._objective)}",
            storage,
            _pruner(sweep.pruner, epochs),
            self._objective.direction,
        )
        self.sync_with_runs(done)
        self._proposals = iter(_grid(sweep, seed)) if sweep.sampler == "grid" else None

    def ask(self, known: Callable[[Cell], bool]) -> Cell | None:
        """The next cell; None where there are no more.

        Args:
            known: whether a cell is done, running, or will be gone on with.
        """
        if self._proposals is not None:
            cell = next((cell for cell in self._proposals if not known(cell)), None)
            return cell and self.enqueue(cell)
        for _ in range(DRAWS):
            number = len(self._study.get_trials(deepcopy=False))
            # A sampler for each trial: one that is made anew when a sweep goes on would draw the same again.
            state = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            self._study.sampler = getattr(optuna.samplers, SAMPLERS[self._sweep.sampler])(seed=state)
            trial = self._study.ask(self._space)
            cell = Cell(trial.params)
            if not known(cell):
                self._trials[cell.key] = trial
                return cell
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def enqueue(self, cell: Cell) -> Cell:
        """Begin a trial of a given cell: one of the grid, or one that was broken off before."""
        if set(cell.values) == set(self._space):
            self._study.enqueue_trial(dict(cell.values))
            self._trials[cell.key] = self._study.ask(self._space)
        return cell

    def report(self, cell: Cell, epoch: int, value: float) -> None:
        """Tell what a cell came to after an epoch, counted from 1; what was told before does not count."""
        if (trial := self._trials.get(cell.key)) and self._sweep.pruner != "none":
            trial.report(value, epoch)

    def prunes(self, cell: Cell) -> bool:
        """Whether a cell has fallen so far behind that it ends here."""
        trial = self._trials.get(cell.key)
        return bool(trial) and trial.should_prune()

    def tell(self, cell: Cell, run_id: str, value: float | None, pruned: bool = False) -> None:
        """Say what a cell came to: its score, or None where it failed or was broken off."""
        trial = self._trials.pop(cell.key, None)
        if trial is None:
            return
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another driver has ended it
            self._tell(trial, run_id, value, pruned)

    def _tell(self, trial: optuna.Trial, run_id: str, value: float | None, pruned: bool) -> None:
        trial.set_user_attr("run_id", run_id)
        if pruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif value is None or not math.isfinite(value):  # Optuna completes no trial with such a value
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def close(self) -> None:
        """Give back what was asked for and is not done."""
        for trial in self._trials.values():
            self._study.tell(trial, state=TrialState.FAIL)
        self._trials = {}

    def sync_with_runs(self, done: Sequence[CellRun]) -> None:
        """Enter finished cells that the study lacks, and end trials whose driver was killed."""
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.ask()  # enqueued by a driver that was killed before it began it
        there = set()
        for trial in self._study.get_trials(deepcopy=False):
            there.add(trial.user_attrs.get("run_id"))
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
        for run in done:
            if run.run_id in there or not _contains(self._space, run.values):
                continue
            value = self._objective.of_report(run.trial.scores)
            if not math.isfinite(value):
                continue
            values = self._history(run.run_id) if self._sweep.pruner != "none" else []
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=dict(run.values),
                    distributions=self._space,
                    value=value,
                    state=TrialState.PRUNED if run.trial.pruned else TrialState.COMPLETE,
                    user_attrs={"run_id": run.run_id},
                    intermediate_values=dict(enumerate(values, start=1)),
                )
            )


def _open(name: str, storage: str, pruner: optuna.pruners.BasePruner, direction: str) -> optuna.Study:
    try:
        return optuna.create_study(
            study_name=name,
            storage=optuna.storages.RDBStorage(storage),
            direction=direction,
            pruner=pruner,
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError) as error:
        raise UserError(
            f"sweep.storage: the study's database {without_password(storage)} cannot be used: "
            f"{str(error).splitlines()[0]}; fix it, or name another: what is done is read from the runs"
        ) from None


def _distribution(values: tuple | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    kind = IntDistribution if isinstance(values.low, int) else FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _digest(space: Mapping[str, BaseDistribution], objective: Objective) -> str:
    """Names a space and an objective: within a study Optuna refuses other values and another direction."""
    texts = {key: optuna.distributions.distribution_to_json(value) for key, value in space.items()}
    texts["objective"] = objective.name
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:8]


def _contains(space: Mapping[str, BaseDistribution], values: Mapping[str, Any]) -> bool:
    if set(space) != set(values):
        return False
    for key, distribution in space.items():
        try:
            if not distribution._contains(distribution.to_internal_repr(values[key])):
                return False
        except ValueError:  # a category that is not there
            return False
    return True


def _grid(sweep: SweepParams, seed: int) -> list[Cell]:
    """Every cell of a grid, in the order in which Optuna's GridSampler proposes them.

    It gives the N-th trial of a study the N-th cell as long as no trial came before, whatever became of the
    others; after that it may give a cell again that is still running, and it knows a list of values by its
    whole, so that one that was extended is new to it. So it is asked for all cells at once, each by its
    number and in no study (whose every trial would take longer than the one before), and what is done is left
    out by whoever asks.
    """
    space = {key: CategoricalDistribution(values) for key, values in sweep.grid.values().items()}
    sampler = GridSampler({key: list(one.choices) for key, one in space.items()}, seed=seed)

    def values(number: int) -> dict[str, Any]:
        trial = optuna.trial.create_trial(value=0.0, system_attrs={"grid_id": number})
        return {key: sampler.sample_independent(None, trial, key, one) for key, one in space.items()}

    return [Cell(values(number)) for number in range(math.prod(len(one.choices) for one in space.values()))]


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(WARM_UP_CELLS, n_min_trials=WARM_UP_CELLS)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()
