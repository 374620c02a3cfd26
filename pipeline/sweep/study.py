"""The Optuna study of a sweep: it proposes cells, and samplers and pruners learn from it.

One process uses it, the driver. It is no record of what is finished, which is read from the cells' runs; a
finished cell that it lacks is added. Optuna's own tools can open its database.
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
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.config.params import Params
from pipeline.config.search_space import Range
from pipeline.config.sweep_schema import SAMPLERS
from pipeline.evaluation.objective import Objective
from pipeline.runtime import logs
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.sweep.cells import Cell, shuffled
from pipeline.tracking.trials import CellRun

DatabaseError = optuna.exceptions.StorageInternalError  # raised by a study whose database fails
MOST_DRAWS = 100  # draws of a known cell in a row after which a sampler counts as exhausted
# Finished cells before a pruner compares. With two, the winner was pruned once though it was four points
# better (48 cells of 8 epochs on photos); each cell more is trained in full.
WARM_UP_CELLS = 4

_Space = Mapping[str, tuple[Any, ...] | Range]


class Study:
    """Proposes cells, each once.

    Args:
        name: Of the study.
        params: Those of the sweep.
        storage: The URL of Optuna's database.
        done: The finished cells.
        history: Returns a run's values of the objective after each epoch; called only with a pruner.

    Raises:
        UserError: The database cannot be used.
    """

    def __init__(
        self,
        name: str,
        params: Params,
        storage: str,
        done: Sequence[CellRun],
        history: Callable[[str], Sequence[float]],
    ):
        logs.silence("optuna")
        # Some samplers are experimental: they may change with Optuna's version, which is pinned.
        logs.ignore(optuna.exceptions.ExperimentalWarning)
        self._params, self._sweep, self._history = params, params.sweep, history
        self._objective = Objective(self._sweep.metric)
        self._values = self._sweep.grid.values()
        self._space = {key: _distribution(values) for key, values in self._values.items()}
        self._trials: dict[str, optuna.Trial] = {}
        self._study = _open(
            f"{name}/{_digest(self._space, self._objective)}",
            storage,
            _pruner(self._sweep.pruner, params.most_epochs),
            self._objective,
        )
        self._sync_with_runs(done)
        grid = self._sweep.sampler == "grid"
        self._proposals = iter(shuffled(self._sweep.grid, params.seed)) if grid else None

    def ask(self, existing: Callable[[Cell], bool]) -> Cell | None:
        """Return the next cell, or None if there is none.

        Args:
            existing: Whether a cell is finished, running or waiting.
        """
        if self._proposals is not None:
            cell = next((cell for cell in self._proposals if not existing(cell)), None)
            return cell and self.enqueue(cell)
        for _ in range(MOST_DRAWS):
            number = len(self._study.get_trials(deepcopy=False))
            # A sampler per trial: one per process would repeat its draws when a sweep is resumed.
            state = int(np.random.SeedSequence([self._params.seed, number]).generate_state(1)[0])
            self._study.sampler = getattr(optuna.samplers, SAMPLERS[self._sweep.sampler])(seed=state)
            trial = self._study.ask(self._space)
            cell = Cell(trial.params)
            if not existing(cell):
                self._trials[cell.key] = trial
                return cell
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def enqueue(self, cell: Cell) -> Cell:
        """Start a trial of a given cell, if it has the study's parameters; returns the cell."""
        if set(cell.values) == set(self._space):
            self._study.enqueue_trial(dict(cell.values))
            self._trials[cell.key] = self._study.ask(self._space)
        return cell

    def report(self, cell: Cell, epoch: int, value: float) -> None:
        """Report a cell's value of the objective after an epoch, from 1; an epoch counts once."""
        if (trial := self._trials.get(cell.key)) and self._sweep.pruner != "none":
            trial.report(value, epoch)

    def prunes(self, cell: Cell) -> bool:
        """Whether the pruner ends a cell now."""
        trial = self._trials.get(cell.key)
        return trial is not None and trial.should_prune()

    def tell(self, cell: Cell, run_id: str, value: float | None, pruned: bool = False) -> None:
        """End a cell's trial.

        Args:
            cell: The cell.
            run_id: Its run.
            value: Of the objective; None if the cell failed or was interrupted.
            pruned: Whether the pruner ended it.
        """
        trial = self._trials.pop(cell.key, None)
        if trial is None:
            return
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another driver has ended it
            trial.set_user_attr("run_id", run_id)
            if pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            elif value is None or not math.isfinite(value):  # Optuna completes no trial with such a value
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, value)

    def close(self) -> None:
        """End the trials of cells that are not finished."""
        for trial in self._trials.values():
            self._study.tell(trial, state=TrialState.FAIL)
        self._trials = {}

    def _sync_with_runs(self, done: Sequence[CellRun]) -> None:
        """Add finished cells that the study lacks, and end trials whose driver was killed."""
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.ask()  # a trial that a killed driver enqueued and did not start
        recorded = set()
        for trial in self._study.get_trials(deepcopy=False):
            recorded.add(trial.user_attrs.get("run_id"))
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
        for run in done:
            value = self._objective.of_report(run.result.scores)
            if run.run_id in recorded or not _contains(self._values, run.values) or not math.isfinite(value):
                continue
            history = self._history(run.run_id) if self._sweep.pruner != "none" else []
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=dict(run.values),
                    distributions=self._space,
                    value=value,
                    state=TrialState.PRUNED if run.result.pruned else TrialState.COMPLETE,
                    user_attrs={"run_id": run.run_id},
                    intermediate_values=dict(enumerate(history, start=1)),
                )
            )


def _open(name: str, storage: str, pruner: optuna.pruners.BasePruner, objective: Objective) -> optuna.Study:
    try:
        return optuna.create_study(
            study_name=name,
            storage=optuna.storages.RDBStorage(storage),
            direction=objective.direction,
            pruner=pruner,
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError) as error:
        raise UserError(
            f"sweep.storage: the study's database {without_password(storage)} cannot be used: "
            f"{str(error).splitlines()[0]}; fix it, or set another: finished cells are read from the runs"
        ) from None


def _distribution(values: tuple[Any, ...] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _contains(space: _Space, values: Mapping[str, Any]) -> bool:
    """Whether a study of a space can have a trial of these values."""
    return set(space) == set(values) and all(
        allowed.low <= values[key] <= allowed.high if isinstance(allowed, Range) else values[key] in allowed
        for key, allowed in space.items()
    )


def _digest(space: Mapping[str, BaseDistribution], objective: Objective) -> str:
    """A digest of a space and an objective: Optuna refuses to change either within a study."""
    texts = {key: optuna.distributions.distribution_to_json(value) for key, value in space.items()}
    texts["objective"] = objective.name
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:8]


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(WARM_UP_CELLS, n_min_trials=WARM_UP_CELLS)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()
