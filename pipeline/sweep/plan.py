"""What a sweep has to do: its cells, and which of them are done, as their runs tell."""

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
    """A sweep's cells, as their runs tell before it starts.

    Attributes:
        total: how many cells the study has when the sweep is done: those of the grid, and those done before.
        known: the runs that there are, by what identifies their cells.
        begun: those of the sweep that are not finished, failed ones last.
        more: cells to be begun after these, where they are not the study's to propose.
        noun: what each of them is called.
    """

    total: int
    known: dict[str, CellRun]
    begun: list[CellRun]
    more: Sequence[Cell] = ()
    noun: str = "cell"

    @property
    def open(self) -> list[Cell]:
        """The cells to be gone on with or begun, in this order, before the study is asked for others."""
        return [*(Cell(run.values) for run in self.begun), *self.more]

    @property
    def failed(self) -> list[CellRun]:
        """The sweep's cells that failed; those of other grids of the study are not asked for."""
        return [run for run in self.begun if run.status == "FAILED"]

    @property
    def done(self) -> list[CellRun]:
        """The cells that are finished."""
        return [run for run in self.known.values() if run.trial]

    @property
    def pending(self) -> int:
        """How many cells are neither finished nor failed."""
        return self.total - len(self.done) - len(self.failed)

    def summary(self) -> str:
        """How many cells there are, are done and are left: `48 cells, 12 done, 36 to train`."""
        left = self.total - len(self.done)
        return f"{counted(self.total, self.noun)}, {len(self.done):,} done, {left:,} to train"


def identity(params: Params, cell: Cell | Mapping[str, Any]) -> str:
    """What a cell is within its study: every parameter that it is trained with, as JSON.

    A grid that gets a further key has cells under new names that are old ones all the same.
    """
    values = cell.values if isinstance(cell, Cell) else cell
    raw = {"model": params.model.model_dump(), "train": params.train.model_dump()}
    for key, value in values.items():
        assign(raw[section_of(key)], key, value)
    return json.dumps(raw, sort_keys=True)


def of(params: Params, runs: Sequence[CellRun], exhausted: bool = False) -> Plan:
    """What is done, and what is left, of the sweep that `params` ask for.

    Args:
        params: those in force.
        runs: of the sweep's cells.
        exhausted: whether the sampler has no cell that is not among the runs, however many it was asked for.
    """
    # A finished cell stands before one that is the same under another name.
    known = {identity(params, run.values): run for run in sorted(runs, key=lambda run: bool(run.trial))}
    if params.sweep.sampler == "grid":
        wanted = {identity(params, cell) for cell in cells.cells(params.sweep.grid)}
        total = len(wanted | {key for key, run in known.items() if run.trial})
        begun = [run for key, run in known.items() if key in wanted and not run.trial]
    else:
        total = len(known) if exhausted else max(params.sweep.n_trials, len(known))
        begun = [run for run in known.values() if not run.trial]
    # Those that were training come first: what they have done is lost by nothing but a lost disk.
    begun.sort(key=lambda run: run.status == "FAILED")
    return Plan(total, known, begun)


def own_grid(params: Params) -> Params:
    """The parameters without the keys of the grid that mean nothing to the network."""
    try:
        params, left_out = params.without_unused_grid_keys()
    except ValueError as error:
        raise UserError(str(error)) from None
    if left_out:
        names = ", ".join(params.sweep.grid.name or [params.model.name])
        print(f"sweep.grid: {', '.join(left_out)} ignored: not parameters of {names}", flush=True)
    return params
