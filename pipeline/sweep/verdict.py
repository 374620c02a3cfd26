"""Which cells are not significantly worse than a sweep's winner: verdict.json.

The winner's predictions on the validation images are compared with those of every other cell, each with its
first seed, by the metric that ranks the cells: accuracy by McNemar's exact test, any other score by a paired
bootstrap (`comparison.tail`). P-values are corrected for all pairs of cells (`significance.corrected`).
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
_READERS = 8  # predictions fetched at once: from a server, each takes some round trips
_MOST_NAMED = 3

Verdict = dict[str, Any]


def of(ranked: Ranking) -> Verdict:
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
    winner, *others = ranked.cells
    images, metric, cells = ranked.images, ranked.objective.name, len(ranked.cells)
    unclear = [run for run in others if not _differs_by_counts(ranked, run)]
    compared = _compared(ranked.objective, winner, unclear) if unclear else {}
    entries = [
        _entry(run, cells, *compared[run.run_id])
        for run in unclear
        if run.run_id in compared and not _is_worse(ranked, run, compared[run.run_id][0])
    ]
    return {
        "metric": metric,
        "direction": ranked.objective.direction,
        "method": _method(metric),
        "alpha": ALPHA,
        "winner": {"run_id": winner.run_id, "name": Cell(winner.values).name},
        "accuracy": winner.result.scores["accuracy"],
        "interval": leaderboard.accuracy_interval([winner], images),
        "compared": len(others) - len(unclear) + len(compared),
        "cells": cells,
        "images": images,
        "not_significantly_worse": entries,
        "ranked_by_mean": ranked.by_mean,
        "finalists": [_finalist(finalist, metric, images) for finalist in ranked.finalists],
    }


def as_json(verdict: Verdict) -> bytes:
    """The content of verdict.json."""
    return (json.dumps(verdict, indent=2) + "\n").encode()


def stored(sweep_run_id: str) -> Verdict | None:
    """The verdict that is stored with a sweep's run; None if it is missing."""
    if FILE not in artifacts.names(sweep_run_id, ""):
        return None
    found: Verdict = json.loads(artifacts.read(sweep_run_id, FILE))
    return found


def fitting(sweep_run_id: str, ranked: Ranking) -> Verdict | None:
    """The verdict on a ranking: the stored one, or a new one if that is of another ranking.

    Returns:
        None if no cell is finished, or the number of images is unknown.
    """
    found = stored(sweep_run_id)
    if not (ranked.winner and ranked.images):
        return None
    repeats = [[one.cell.run_id, list(one.seeds)] for one in ranked.finalists]
    if (
        found
        and "method" in found  # of this version
        and found["winner"]["run_id"] == ranked.winner.run_id
        and found["metric"] == ranked.objective.name
        and found["cells"] == len(ranked.cells)
        and [[one["run_id"], one["seeds"]] for one in found["finalists"]] == repeats
    ):
        return found
    return of(ranked)


def lines(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict in words."""
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
        missing = verdict["cells"] - 1 - verdict["compared"]
        others = f"each of the {verdict['compared']:,} cells compared" if missing else "every other cell"
        found.append(f"{others} is significantly worse ({method})")
    if verdict["ranked_by_mean"]:
        (best,) = (one for one in verdict["finalists"] if one["run_id"] == verdict["winner"]["run_id"])
        found.append(
            f"the {len(verdict['finalists'])} finalists are ranked by their means over fresh seeds "
            f"{', '.join(map(str, best['seeds']))}; the best has {with_spread(best['mean'], best['spread'])}"
        )
    elif verdict["finalists"]:
        found.append("the first seed ranks the finalists until all are retrained with the same fresh seeds")
    return found


def with_spread(mean: float, spread: float | None) -> str:
    """A mean over seeds, with its standard deviation if known.

    >>> with_spread(0.81, 0.0123), with_spread(0.81, None)
    ('0.8100 ± 0.0123', '0.8100')
    """
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"


def _method(metric: str) -> str:
    """The paired test, its level and its correction.

    >>> _method("accuracy")
    'McNemar, alpha = 0.05, Bonferroni over all pairs'
    """
    test = "McNemar" if metric == "accuracy" else f"paired bootstrap of {metric}"
    return f"{test}, alpha = {ALPHA}, Bonferroni over all pairs"


def _is_worse(ranked: Ranking, run: CellRun, p_value: float) -> bool:
    """Whether a cell is worse than the winner, and significantly so."""
    metric = ranked.objective.name
    scores = (one.result.scores[metric] for one in (ranked.cells[0], run))
    is_significant = significance.corrected(p_value, len(ranked.cells)) <= ALPHA
    return is_significant and ranked.objective.better_than(*scores)


def _differs_by_counts(ranked: Ranking, run: CellRun) -> bool:
    """Whether a cell is significantly worse whichever images it and the winner predict correctly."""
    if ranked.objective.name != "accuracy":
        return False
    ours, theirs = (round(one.result.scores["accuracy"] * ranked.images) for one in (ranked.cells[0], run))
    return _is_worse(ranked, run, significance.largest_p_value(ours, theirs, ranked.images))


def _entry(run: CellRun, cells: int, p_value: float, only_winner: int, only_other: int) -> Verdict:
    return {
        "run_id": run.run_id,
        "name": Cell(run.values).name,
        "p_value": p_value,
        "corrected_p_value": significance.corrected(p_value, cells),
        "only_winner_right": only_winner,
        "only_other_right": only_other,
    }


def _finalist(finalist: Finalist, metric: str, images: int) -> Verdict:
    return {
        "run_id": finalist.cell.run_id,
        "name": Cell(finalist.cell.values).name,
        "seeds": list(finalist.seeds),
        "scores": finalist.scores(metric),
        "mean": finalist.mean(metric),
        "spread": finalist.spread(metric),
        "first_score": finalist.cell.result.scores[metric],
        "interval": leaderboard.accuracy_interval(finalist.runs, images) if finalist.runs else None,
    }


def _compared(
    objective: Objective, winner: CellRun, others: Sequence[CellRun]
) -> dict[str, tuple[float, int, int]]:
    """Compare the winner's predictions with those of other cells.

    Returns:
        The p-value, the number of images that only the winner predicts correctly, and the number that only
        the other cell does, by the other cell's run. Cells are left out whose predictions are missing, or of
        images with other names.
    """
    ours = _predictions(winner)
    if ours is None:
        return {}

    def compare(run: CellRun) -> tuple[str, tuple[float, int, int]] | None:
        found = _predictions(run)
        theirs = found and found.in_order(ours.names)
        if theirs is None:
            return None
        only_ours = int((ours.right & ~theirs.right).sum())
        only_theirs = int((theirs.right & ~ours.right).sum())
        if objective.name == "accuracy":
            p_value = significance.mcnemar(only_ours, only_theirs)
        else:
            p_value = comparison.tail(objective, ours, theirs)
        return run.run_id, (p_value, only_ours, only_theirs)

    with ThreadPoolExecutor(_READERS) as readers:  # each keeps three numbers of what it has read
        return dict(filter(None, readers.map(compare, others)))


def _predictions(run: CellRun) -> Predictions | None:
    try:
        return report.recorded_predictions(run.run_id)
    except UserError:
        return None
