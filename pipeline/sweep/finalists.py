"""Finalists: the best cells, retrained with fresh seeds.

A single training depends on its seed: the best of many cells owes part of its score to it. The finalists are
the best cells by their first seed. Each is retrained with `sweep.repeats` further seeds on the same splits.
Once all have the same fresh seeds, the means over these rank them. The first seed does not count in the mean:
it selected the finalists, so their scores with it are too high (the winner's curse).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.sweep import plan
from pipeline.sweep.cells import Cell
from pipeline.sweep.order import Rule, best_first
from pipeline.sweep.plan import Plan
from pipeline.tracking.sweep_runs import Sweep
from pipeline.tracking.trials import CellRun


@dataclass(frozen=True)
class Finalist:
    """A cell with its repeats.

    Attributes:
        cell: Its run with the first seed.
        seeds: The fresh seeds of its finished repeats.
        runs: The finished repeats, one per seed.
    """

    cell: CellRun
    seeds: tuple[int, ...]
    runs: tuple[CellRun, ...]

    def scores(self, metric: str) -> list[float]:
        """The validation score of each fresh seed."""
        return [run.result.scores[metric] for run in self.runs]

    def mean(self, metric: str) -> float | None:
        """The mean over the fresh seeds; None without any."""
        return statistics.fmean(self.scores(metric)) if self.runs else None

    def spread(self, metric: str) -> float | None:
        """The standard deviation over the fresh seeds, with n - 1; None of fewer than two."""
        return statistics.stdev(self.scores(metric)) if len(self.runs) > 1 else None


def selected(rule: Rule, cells: Sequence[CellRun]) -> list[CellRun]:
    """The cells to retrain, best first.

    Pruned cells are not retrained, nor cells of a grid that sweeps the seed.

    Args:
        rule: Orders cells.
        cells: Finished cells.
    """
    ranking = best_first(cells, rule.objective)
    able = [run for run in ranking if not run.result.pruned and "seed" not in run.values]
    return able[: rule.finalists]


def of(rule: Rule, cells: Sequence[CellRun], repeats: Sequence[CellRun]) -> list[Finalist]:
    """The finalists with their finished repeats.

    Args:
        rule: Orders cells.
        cells: Finished cells.
        repeats: The sweep's runs of retrained cells, of these finalists and of earlier ones.
    """
    done = {Cell(run.values).key: run for run in repeats if run.trial}
    found = []
    for cell in selected(rule, cells):
        runs = {seed: done.get(_repeat(cell, seed).key) for seed in rule.fresh_seeds}
        by_seed = {seed: run for seed, run in runs.items() if run}
        found.append(Finalist(cell, tuple(by_seed), tuple(by_seed.values())))
    return found


def means(finalists: Sequence[Finalist], metric: str) -> dict[str, float]:
    """The means that rank the finalists, by the run of the cell; empty until all have the same fresh seeds.

    Otherwise one seed's score would be compared with a mean of several.
    """
    if len({finalist.seeds for finalist in finalists}) != 1 or not finalists[0].seeds:
        return {}
    return {finalist.cell.run_id: statistics.fmean(finalist.scores(metric)) for finalist in finalists}


def planned(params: Params, cells: Sequence[CellRun], repeats: Sequence[CellRun]) -> Plan:
    """Plan the repeats of the finalists.

    Args:
        params: The parameters of the sweep.
        cells: Finished cells.
        repeats: As in `of`.
    """
    wanted = {plan.identity(params, cell): cell for cell in originals(params, cells)}
    # As in `plan.of`: of two runs of the same training, the finished one counts.
    ordered = sorted(repeats, key=lambda run: bool(run.trial))
    found = {plan.identity(params, run.values): run for run in ordered}
    existing = {key: run for key, run in found.items() if key in wanted}
    begun = sorted(
        (run for run in existing.values() if not run.trial), key=lambda run: run.status == "FAILED"
    )
    more = [cell for key, cell in wanted.items() if key not in existing]
    return Plan(len(wanted), existing, begun, more, "repeat")


def originals(params: Params, cells: Sequence[CellRun]) -> Mapping[Cell, str]:
    """The repeats of the finalists, one seed after another, each with the run of the cell that it repeats."""
    rule = Rule.of(params)
    return {_repeat(run, seed): run.run_id for seed in rule.fresh_seeds for run in selected(rule, cells)}


def trainings_left(params: Params, planned_cells: Plan, sweep: Sweep) -> int:
    """The number of trainings left, of cells and of repeats; at most, until the finalists are known."""
    left = planned_cells.total - len(planned_cells.done)
    if left:
        return left + params.sweep.finalists * params.sweep.repeats
    repeats = planned(params, planned_cells.done, sweep.finalists())
    return repeats.total - len(repeats.done)


def announcement(params: Params) -> str:
    """The line printed before the finalists are retrained."""
    seeds = ", ".join(map(str, Rule.of(params).fresh_seeds))
    return f"retraining the best {params.sweep.finalists} cells with seeds {seeds}"


def plan_lines(params: Params, planned_cells: Plan, sweep: Sweep | None) -> list[str]:
    """The lines of `sweep.dry_run` about the finalists."""
    if not params.sweep.finalists:
        return []
    if sweep is None or planned_cells.total > len(planned_cells.done):
        return [f"then {announcement(params)}"]
    repeats = planned(params, planned_cells.done, sweep.finalists())
    done = [f"{Cell(run.values).name}: done" for run in repeats.done]
    left = [f"{cell.name}: to train" for cell in repeats.open]
    return [*done, *left, repeats.summary()]


def _repeat(run: CellRun, seed: int) -> Cell:
    return Cell({**run.values, "seed": seed})
