"""The best cells, trained again with other seeds: which these are, and what they come to.

A single training is a draw: the best of many cells owes part of its score to its seed. The finalists are the
best cells by their first seed; each is trained `sweep.repeats` times more with the seeds that follow, on the
same splits. Where all have been trained with the same fresh seeds, the means over these rank them. The first
seed has no part in the mean: it chose the finalists, so their scores with it are too high (the winner's
curse).
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
    """A cell that is trained again.

    Attributes:
        cell: its run with the first seed.
        seeds: the fresh ones that it has been trained with.
        runs: finished, one for each of these.
    """

    cell: CellRun
    seeds: tuple[int, ...]
    runs: tuple[CellRun, ...]

    def scores(self, metric: str) -> list[float]:
        """On the validation split, of each fresh seed."""
        return [run.trial.scores[metric] for run in self.runs]

    def mean(self, metric: str) -> float | None:
        """Over the fresh seeds; None where there is none yet."""
        return statistics.fmean(self.scores(metric)) if self.runs else None

    def spread(self, metric: str) -> float | None:
        """The standard deviation from seed to seed, with n - 1; None of fewer than two."""
        return statistics.stdev(self.scores(metric)) if len(self.runs) > 1 else None


def chosen(rule: Rule, cells: Sequence[CellRun]) -> list[CellRun]:
    """The cells to train again.

    One that was pruned had been judged already; one of a grid that swept the seed is such a repeat itself.

    Args:
        rule: what orders cells.
        cells: finished ones.
    """
    ranking = best_first(cells, rule.objective)
    able = [run for run in ranking if not run.trial.pruned and "seed" not in run.values]
    return able[: rule.finalists]


def of(rule: Rule, cells: Sequence[CellRun], repeats: Sequence[CellRun]) -> list[Finalist]:
    """The finalists, with the fresh seeds that are done.

    Args:
        rule: what orders cells.
        cells: finished ones.
        repeats: the sweep's runs of cells trained again, of these finalists and of earlier ones.
    """
    done = {Cell(run.values).key: run for run in repeats if run.trial}
    found = []
    for cell in chosen(rule, cells):
        runs = {seed: done.get(_again(cell, seed).key) for seed in rule.fresh_seeds}
        by_seed = {seed: run for seed, run in runs.items() if run}
        found.append(Finalist(cell, tuple(by_seed), tuple(by_seed.values())))
    return found


def means(finalists: Sequence[Finalist], metric: str) -> dict[str, float]:
    """What ranks the finalists, by their cells' runs; nothing until all are trained with the same seeds.

    Until then one seed's luck would be compared with the mean of several.
    """
    if len({finalist.seeds for finalist in finalists}) != 1 or not finalists[0].seeds:
        return {}
    return {finalist.cell.run_id: statistics.fmean(finalist.scores(metric)) for finalist in finalists}


def planned(params: Params, cells: Sequence[CellRun], repeats: Sequence[CellRun]) -> Plan:
    """What is done, and what is left, of training the finalists again.

    Args:
        params: those in force.
        cells: finished ones.
        repeats: as in `of`.
    """
    wanted = {plan.identity(params, cell): cell for cell in originals(params, cells)}
    # as in `plan.of`: a finished one stands before one that is the same under another name
    ordered = sorted(repeats, key=lambda run: bool(run.trial))
    found = {plan.identity(params, run.values): run for run in ordered}
    known = {key: run for key, run in found.items() if key in wanted}
    begun = sorted((run for run in known.values() if not run.trial), key=lambda run: run.status == "FAILED")
    more = [cell for key, cell in wanted.items() if key not in known]
    return Plan(len(wanted), known, begun, more, "repeat")


def originals(params: Params, cells: Sequence[CellRun]) -> Mapping[Cell, str]:
    """The run that each repeat of the finalists is a repeat of, those of one seed after another."""
    rule = Rule.of(params)
    return {_again(run, seed): run.run_id for seed in rule.fresh_seeds for run in chosen(rule, cells)}


def trainings_left(params: Params, planned_cells: Plan, sweep: Sweep) -> int:
    """How many trainings are left, of cells and of finalists; at most, while it is open which these are."""
    left = planned_cells.total - len(planned_cells.done)
    if left:
        return left + params.sweep.finalists * params.sweep.repeats
    again = planned(params, planned_cells.done, sweep.finalists())
    return again.total - len(again.done)


def announcement(params: Params) -> str:
    """What is said before the finalists are trained."""
    after = ", ".join(map(str, Rule.of(params).fresh_seeds))
    return f"retraining the best {params.sweep.finalists} cells with seeds {after}"


def plan_lines(params: Params, planned_cells: Plan, sweep: Sweep | None) -> list[str]:
    """What `sweep.dry_run` tells of the finalists."""
    if not params.sweep.finalists:
        return []
    if sweep is None or planned_cells.total > len(planned_cells.done):
        return [f"then {announcement(params)}"]
    again = planned(params, planned_cells.done, sweep.finalists())
    done = [f"{Cell(run.values).name}: done" for run in again.done]
    left = [f"{cell.name}: to train" for cell in again.open]
    return [*done, *left, again.summary()]


def _again(run: CellRun, seed: int) -> Cell:
    return Cell({**run.values, "seed": seed})
