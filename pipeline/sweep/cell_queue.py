"""Which cell is trained next."""

from pipeline.config.params import Params
from pipeline.sweep import plan
from pipeline.sweep.cells import Cell
from pipeline.sweep.plan import Plan
from pipeline.sweep.study import Study


class CellQueue:
    """The cells that no worker has yet: first the open ones of a plan, then those that the study proposes.

    Args:
        params: The parameters of the sweep.
        planned: Its cells.
        study: Proposes cells once the open ones are taken.

    Attributes:
        exhausted: Whether the sampler has no further cell.
    """

    def __init__(self, params: Params, planned: Plan, study: Study):
        self._params, self._study = params, study
        self._open = list(planned.open)
        self._seen = {key for key, run in planned.existing.items() if run.trial}
        self._seen |= {plan.identity(params, cell) for cell in planned.open}
        self._unproposed = planned.total - len(planned.done) - len(planned.open)
        self._prefetched: Cell | None = None
        self.exhausted = False

    def __bool__(self) -> bool:
        """Whether a cell is left, as far as is known before the sampler is asked."""
        return bool(self._open or self._prefetched or self._unproposed > 0)

    def next(self) -> Cell | None:
        """Take the next cell; None if there is none."""
        if self._open:
            return self._study.enqueue(self._open.pop(0))
        self.prefetch()
        cell, self._prefetched = self._prefetched, None
        return cell

    def prefetch(self) -> None:
        """Ask the study for the next cell, unless one is there: a free worker then gets it at once."""
        if self._prefetched or self._open or self._unproposed <= 0:
            return
        cell = self._study.ask(lambda cell: plan.identity(self._params, cell) in self._seen)
        if cell is None:
            self._unproposed, self.exhausted = 0, True
            return
        self._unproposed -= 1
        self._seen.add(plan.identity(self._params, cell))
        self._prefetched = cell

    def put_back(self, cell: Cell) -> None:
        """Add a cell that has to be trained again."""
        self._open.append(cell)
