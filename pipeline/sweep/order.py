"""How finished cells are ordered: by which objective, and by how many seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Self

from pipeline.config.params import Params
from pipeline.evaluation.objective import Objective
from pipeline.runtime.errors import UserError
from pipeline.sweep.cells import Cell
from pipeline.tracking.sweep_runs import Sweep
from pipeline.tracking.trials import CellRun

TAG = "ranked_by"  # of a sweep's run, whose parameters are those of its first start
_SEEDS = 2**32  # the number of valid seeds


@dataclass(frozen=True)
class Rule:
    """The order of a sweep's cells, as its last start asked for it.

    Attributes:
        metric: `sweep.metric`.
        finalists: The number of cells that are retrained.
        repeats: How often each of them is retrained.
        seed: Of the cells' first training.

    >>> Rule("accuracy", finalists=3, repeats=2, seed=42).fresh_seeds
    [43, 44]
    """

    metric: str
    finalists: int
    repeats: int
    seed: int

    @classmethod
    def of(cls, params: Params) -> Self:
        """The rule of a sweep with these parameters."""
        sweep = params.sweep
        return cls(sweep.metric, sweep.finalists, sweep.repeats, params.training_seed)

    @classmethod
    def read(cls, sweep: Sweep) -> Self:
        """The rule of a recorded sweep.

        Raises:
            UserError: The run is not of a sweep.
        """
        if TAG in sweep.tags:
            return cls(**json.loads(sweep.tags[TAG]))
        if "sweep.metric" not in sweep.params:
            raise UserError(f"run {sweep.run_id} has no parameter sweep.metric: it is not the run of a sweep")
        return cls(sweep.params["sweep.metric"], 0, 1, 0)

    @property
    def tags(self) -> dict[str, str]:
        """The tag of a sweep's run that `read` reads."""
        return {TAG: json.dumps(asdict(self))}

    @property
    def objective(self) -> Objective:
        """The metric with its direction."""
        return Objective(self.metric)

    @property
    def fresh_seeds(self) -> list[int]:
        """The seeds of the repeats; the first training has another one."""
        return [(self.seed + number) % _SEEDS for number in range(1, self.repeats + 1)]


def best_first(
    cells: Sequence[CellRun], objective: Objective, means: Mapping[str, float] = MappingProxyType({})
) -> list[CellRun]:
    """Sort finished cells, best first: by the objective, then by validation loss, then by name.

    Args:
        cells: Finished cells.
        objective: Ranks them.
        means: The finalists' means over fresh seeds, by the run of the cell. Finalists come first, ranked by
            their means.
    """

    def key(run: CellRun) -> tuple[bool, float, float, str]:
        value = means.get(run.run_id, objective.of_report(run.result.scores))
        loss = run.result.val_loss
        return (
            run.run_id not in means,
            objective.cost(value),
            loss if math.isfinite(loss) else math.inf,
            Cell(run.values).name,
        )

    return sorted(cells, key=key)
