"""Whether a sweep's winner is better than the others, as far as its images can tell: verdict.json.

The winner's answers to the validation images are compared with those of every other cell, each with its first
seed, by the metric that ranks the cells: accuracy by McNemar's exact test, any other score by its bootstrap
standard deviation (`comparison.tail`).
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.evaluation import comparison, significance
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.predictions import Predictions
from pipeline.inference import report
from pipeline.runtime.console import few
from pipeline.runtime.errors import UserError
from pipeline.sweep import leaderboard
from pipeline.sweep.cells import Cell
from pipeline.sweep.finalists import Finalist
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import artifacts
from pipeline.tracking.trials import CellRun

FILE = "verdict.json"  # among the artifacts of a sweep's run
ALPHA = 0.05  # significance level, over all pairs of cells
_READERS = 8  # files fetched at once: from a server, each takes some round trips
_MOST_NAMED = 3


def of(ranked: Ranking) -> dict:
    """Compare the winner with every other cell.

    The predictions of a cell are not read if the numbers of correct predictions alone make the difference
    significant, whichever images these were. A cell whose predictions are missing, or are of images with
    other names, is not compared.

    Args:
        ranked: A ranking of at least one finished cell.

    Returns:
        The content of verdict.json. `not_significantly_worse` lists, in the order of the ranking, the cells
        with a `corrected_p_value` above `alpha`, and those with a better score than the winner, which occur
        where the mean over seeds ranks. `p_value` is uncorrected.
    """
    ranking, images, metric = ranked.cells, ranked.images, ranked.objective.name
    winner, *others = ranking
    by_accuracy = metric == "accuracy"
    right = {run.run_id: round(run.trial.scores["accuracy"] * images) for run in ranking}

    def told(p_value: float, run: CellRun) -> bool:
        """Whether the winner is better than a cell."""
        significant = significance.corrected(p_value, len(ranking)) <= ALPHA
        scores = (one.trial.scores[metric] for one in (winner, run))
        return significant and ranked.objective.better_than(*scores)

    def is_clear(run: CellRun) -> bool:
        """Whether the numbers of right answers alone tell, whichever images these were."""
        most = significance.largest_p_value(right[winner.run_id], right[run.run_id], images)
        return by_accuracy and told(most, run)

    unsure = [run for run in others if not is_clear(run)]
    compared = _compared(ranked.objective, winner, unsure) if unsure else {}
    comparable = [run for run in unsure if run.run_id in compared]
    entries = []
    for run in comparable:
        p_value, *counts = compared[run.run_id]
        if not told(p_value, run):
            entries.append(_entry(run, p_value, len(ranking), *counts))
    return {
        "metric": metric,
        "direction": ranked.objective.direction,
        "method": _method(metric),
        "alpha": ALPHA,
        "winner": {"run_id": winner.run_id, "name": Cell(winner.values).name},
        "accuracy": winner.trial.scores["accuracy"],
        "interval": leaderboard.accuracy_interval([winner], images),
        "compared": len(others) - len(unsure) + len(comparable),
        "cells": len(ranking),
        "images": images,
        "not_significantly_worse": entries,
        "ranked_by_mean": ranked.by_mean,
        "finalists": [_finalist(finalist, metric, images) for finalist in ranked.finalists],
    }


def as_json(verdict: Mapping[str, Any]) -> bytes:
    """The file's content."""
    return (json.dumps(verdict, indent=2) + "\n").encode()


def read(sweep_run_id: str) -> dict | None:
    """The verdict on a sweep; None where it has none."""
    if FILE not in artifacts.names(sweep_run_id, ""):
        return None
    return json.loads(artifacts.read(sweep_run_id, FILE))


def fitting(sweep_run_id: str, ranked: Ranking) -> dict | None:
    """The verdict on a ranking: the stored one, or made here where that is of another ranking."""
    found = read(sweep_run_id)
    if not (ranked.cells and ranked.images):
        return None
    again = [[one.cell.run_id, list(one.seeds)] for one in ranked.finalists]
    if (
        found
        and "method" in found  # of this version
        and found["winner"]["run_id"] == ranked.winner.run_id
        and found["metric"] == ranked.objective.name
        and found["cells"] == len(ranked.cells)
        and [[one["run_id"], one["seeds"]] for one in found["finalists"]] == again
    ):
        return found
    return of(ranked)


def lines(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict in words, for people; the winner is `it`."""
    low, high = verdict["interval"]
    found = [
        f"accuracy of the best: {verdict['accuracy']:.4f} on {verdict['images']:,} validation images "
        f"(95 % interval {low:.3f} to {high:.3f})"
    ]
    similar, method = [entry["name"] for entry in verdict["not_significantly_worse"]], verdict["method"]
    if similar:
        others = "1 other is" if len(similar) == 1 else f"{len(similar):,} others are"
        found.append(f"{others} not significantly worse ({method}): {few(similar, _MOST_NAMED)}")
    elif verdict["compared"]:
        found.append(f"every other cell is significantly worse ({method})")
    if verdict["ranked_by_mean"]:
        (best,) = (one for one in verdict["finalists"] if one["run_id"] == verdict["winner"]["run_id"])
        found.append(
            f"the {len(verdict['finalists'])} finalists are ranked by their means over fresh seeds "
            f"{', '.join(map(str, best['seeds']))}; its is {with_spread(best['mean'], best['spread'])}"
        )
    elif verdict["finalists"]:
        found.append("one seed alone ranks the finalists until all have been trained with the same ones")
    return found


def with_spread(mean: float, spread: float | None) -> str:
    """A mean over seeds with its standard deviation, where there is one: `0.8100 ± 0.0123`."""
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"


def _method(metric: str) -> str:
    """The paired test, its level and its correction.

    >>> _method("accuracy")
    'McNemar, alpha = 0.05, Bonferroni over all pairs'
    """
    test = "McNemar" if metric == "accuracy" else f"paired bootstrap of {metric}"
    return f"{test}, alpha = {ALPHA}, Bonferroni over all pairs"


def _entry(run: CellRun, p_value: float, cells: int, only_winner: int, only_other: int) -> dict:
    return {
        "run_id": run.run_id,
        "name": Cell(run.values).name,
        "p_value": p_value,
        "corrected_p_value": significance.corrected(p_value, cells),
        "only_winner_right": only_winner,
        "only_other_right": only_other,
    }


def _finalist(finalist: Finalist, metric: str, images: int) -> dict:
    return {
        "run_id": finalist.cell.run_id,
        "name": Cell(finalist.cell.values).name,
        "seeds": list(finalist.seeds),
        "scores": finalist.scores(metric),
        "mean": finalist.mean(metric),
        "spread": finalist.spread(metric),
        "first_score": finalist.cell.trial.scores[metric],
        "interval": leaderboard.accuracy_interval(finalist.runs, images) if finalist.runs else None,
    }


def _compared(
    objective: Objective, winner: CellRun, others: Sequence[CellRun]
) -> dict[str, tuple[float, int, int]]:
    """By run id: the p-value, the images that only the winner has right, and those that only the other has.

    Without those whose predictions are gone, or are of images with other names.
    """
    answers = _answers(winner)

    def one(run: CellRun) -> tuple[str, tuple[float, int, int]] | None:
        found = _answers(run)
        found = found and found.in_order(answers.names)
        if found is None:
            return None
        only_winner = int((answers.right & ~found.right).sum())
        only_other = int((found.right & ~answers.right).sum())
        if objective.name == "accuracy":
            return run.run_id, (significance.mcnemar(only_winner, only_other), only_winner, only_other)
        return run.run_id, (comparison.tail(objective, answers, found), only_winner, only_other)

    if answers is None:
        return {}
    with ThreadPoolExecutor(_READERS) as readers:  # each keeps three numbers of what it has read
        return dict(filter(None, readers.map(one, others)))


def _answers(run: CellRun) -> Predictions | None:
    try:
        content = artifacts.read(run.run_id, f"report/{report.PREDICTIONS}")
    except UserError:
        return None
    return report.read_predictions(content)
