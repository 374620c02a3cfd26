"""A sweep's cells, and which of them are finished."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.fields import assign
from pipeline.config.params import Params, section_of
from pipeline.runtime.console import counted
from pipeline.runtime.errors import UserError
from pipeline.sweep import cells
from pipeline.sweep.cells import Cell
from pipeline.tracking.trials import CellRun


@dataclass(frozen=True)
class Plan:
    """A sweep's cells before it starts.

    Attributes:
        total: The number of cells of the complete sweep: those of the grid, and cells finished before.
        existing: The existing runs, by the `identity` of their cells.
        begun: Unfinished runs of cells that the sweep asks for, failed ones last.
        more: Cells without a run that the study does not propose: repeats of finalists.
        noun: What a cell is called in messages.
    """

    total: int
    existing: dict[str, CellRun]
    begun: list[CellRun]
    more: Sequence[Cell] = ()
    noun: str = "cell"

    @property
    def open(self) -> list[Cell]:
        """The cells to train, in this order, before the study is asked for others."""
        return [*(Cell(run.values) for run in self.begun), *self.more]

    @property
    def failed(self) -> list[CellRun]:
        """The failed cells, without those of other grids of the study."""
        return [run for run in self.begun if run.status == "FAILED"]

    @property
    def done(self) -> list[CellRun]:
        """The finished cells."""
        return [run for run in self.existing.values() if run.trial]

    @property
    def pending(self) -> int:
        """The number of cells that are neither finished nor failed."""
        return self.total - len(self.done) - len(self.failed)

    def summary(self) -> str:
        """The counts in words.

        >>> Plan(48, {}, []).summary()
        '48 cells, 0 done, 48 to train'
        """
        left = self.total - len(self.done)
        return f"{counted(self.total, self.noun)}, {len(self.done):,} done, {left:,} to train"


def identity(params: Params, cell: Cell | Mapping[str, Any]) -> str:
    """The identifier of a cell within its study: every parameter that it is trained with, as JSON.

    The same training may have several names: a grid that gets a further key renames its cells.
    """
    values = cell.values if isinstance(cell, Cell) else cell
    raw = {"model": params.model.model_dump(), "train": params.train.model_dump()}
    for key, value in values.items():
        assign(raw[section_of(key)], key, value)
    return json.dumps(raw, sort_keys=True)


def of(params: Params, runs: Sequence[CellRun], exhausted: bool = False) -> Plan:
    """Plan a sweep from its existing runs.

    Args:
        params: The parameters of the sweep.
        runs: The runs of its cells.
        exhausted: Whether the sampler has no cell without a run.
    """
    # Of two runs of the same training under two names, the finished one counts.
    existing = {identity(params, run.values): run for run in sorted(runs, key=lambda run: bool(run.trial))}
    if params.sweep.sampler == "grid":
        wanted = {identity(params, cell) for cell in cells.cells(params.sweep.grid)}
        total = len(wanted | {key for key, run in existing.items() if run.trial})
        begun = [run for key, run in existing.items() if key in wanted and not run.trial]
    else:
        total = len(existing) if exhausted else max(params.sweep.n_trials or 0, len(existing))
        begun = [run for run in existing.values() if not run.trial]
    # Interrupted cells come before failed ones, which may fail again.
    begun.sort(key=lambda run: run.status == "FAILED")
    return Plan(total, existing, begun)


def epochs_left(params: Params, planned: Plan) -> dict[str, int]:
    """The epochs of each unfinished cell that is known before the sweep starts, by `Cell.key`."""
    wanted = list(planned.open)
    if params.sweep.sampler == "grid" and planned.noun == "cell":
        done = {identity(params, run.values) for run in planned.done}
        wanted += [cell for cell in cells.cells(params.sweep.grid) if identity(params, cell) not in done]
    return {cell.key: params.epochs_of(cell.values) for cell in wanted}


def own_grid(params: Params) -> Params:
    """The parameters without the grid's keys that the network does not have; prints which these are.

    Raises:
        UserError: No key is left, or only some of the swept networks have a key.
    """
    try:
        params, ignored = params.without_unused_grid_keys()
    except ValueError as error:
        raise UserError(str(error)) from None
    if ignored:
        names = ", ".join(params.sweep.grid.name or [params.model.name])
        print(f"sweep.grid: {', '.join(ignored)} ignored: not parameters of {names}", flush=True)
    return params
