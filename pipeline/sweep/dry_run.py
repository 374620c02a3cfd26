"""The plan that `sweep.dry_run` prints."""

from pipeline.config.params import Params
from pipeline.evaluation.objective import Objective
from pipeline.sweep import cells, finalists, identity, plan
from pipeline.sweep.cells import Cell
from pipeline.sweep.order import Rule
from pipeline.sweep.plan import Plan
from pipeline.sweep.ranking import Ranking


def print_plan(asked: Params, data_digest: str) -> None:
    """Print a sweep's cells and their states; nothing is trained or recorded.

    Args:
        asked: The parameters as given.
        data_digest: Of the prepared images.

    Raises:
        UserError: The study cannot be resumed, or its finished cells cannot be ranked.
    """
    sweep = None if asked.sweep.restart else identity.find(asked, data_digest)
    params = identity.resumed(asked, sweep) if sweep else asked
    if sweep:
        Ranking.make(Rule.of(params), sweep.cells(), [], 0, 0, False)  # raises if it cannot be ranked
    planned = plan.of(params, sweep.cells() if sweep else [])
    wanted = cells.cells(params.sweep.grid) if params.sweep.sampler == "grid" else []
    names = {plan.identity(params, cell): cell.name for cell in wanted}
    for key, run in planned.existing.items():
        names.setdefault(key, Cell(run.values).name)
    for key, name in names.items():
        print(f"{name}: {_state(planned, key, Objective(params.sweep.metric))}")
    if rest := planned.total - len(names):
        print(f"and {rest:,} to be sampled ({params.sweep.sampler})")
    print(planned.summary())
    for line in finalists.plan_lines(params, planned, sweep):
        print(line)


def _state(planned: Plan, key: str, objective: Objective) -> str:
    run = planned.existing.get(key)
    if run is None:
        return "to train"
    if run.trial:
        return f"done, {objective.name} {objective.of_report(run.trial.scores):.4f}"
    return f"failed, to retry: {run.reason}" if run.status == "FAILED" else "to resume"
