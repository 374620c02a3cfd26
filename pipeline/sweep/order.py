"""How a sweep's finished cells are ordered: by which objective, and from how many seeds."""

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

TAG = "ranked_by"  # on a sweep's run, since its parameters are those of its first start
_SEEDS = 2**32  # how many there are


@dataclass(frozen=True)
class Rule:
    """What orders the cells of a sweep, as its last start asked for it.

    Attributes:
        metric: `sweep.metric`.
        finalists: how many of the best cells are trained again.
        repeats: how often each of them is.
        seed: that cells are trained with.
    """

    metric: str
    finalists: int
    repeats: int
    seed: int

    @classmethod
    def of(cls, params: Params) -> Self:
        """The rule that parameters ask for."""
        sweep = params.sweep
        return cls(sweep.metric, sweep.finalists, sweep.repeats, params.training_seed)

    @classmethod
    def read(cls, sweep: Sweep) -> Self:
        """The rule of a sweep's last start.

        Raises:
            UserError: no sweep of this pipeline made the run.
        """
        if TAG in sweep.tags:
            return cls(**json.loads(sweep.tags[TAG]))
        if "sweep.metric" not in sweep.params:
            raise UserError(
                f"run {sweep.run_id} has no parameter sweep.metric: no sweep of this pipeline made it"
            )
        return cls(sweep.params["sweep.metric"], 0, 1, 0)

    @property
    def tags(self) -> dict[str, str]:
        """What `read` reads, for a sweep's run."""
        return {TAG: json.dumps(asdict(self))}

    @property
    def objective(self) -> Objective:
        """The metric, with its direction."""
        return Objective(self.metric)

    @property
    def fresh_seeds(self) -> list[int]:
        """Those of the repeats: none of them chose the finalists."""
        return [(self.seed + number) % _SEEDS for number in range(1, self.repeats + 1)]


def best_first(
    cells: Sequence[CellRun], objective: Objective, means: Mapping[str, float] = MappingProxyType({})
) -> list[CellRun]:
    """Finished cells, best first: by the objective, among equals by validation loss, then by name.

    Args:
        cells: finished ones.
        objective: what ranks them.
        means: of the finalists over fresh seeds, by their run; finalists come first, in the order of these.
    """

    def key(run: CellRun) -> tuple[bool, float, float, str]:
        value = means.get(run.run_id, objective.of_report(run.trial.scores))
        loss = run.trial.val_loss
        return (
            run.run_id not in means,
            objective.cost(value),
            loss if math.isfinite(loss) else math.inf,
            Cell(run.values).name,
        )

    return sorted(cells, key=key)
