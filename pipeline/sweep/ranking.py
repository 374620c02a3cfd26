"""The ranking of a sweep, stored as leaderboard.json with the sweep's run.

It is made once. The report, the model card, `register`, `evaluate`, `explain` and `export` read it with `of`;
none of them ranks again. leaderboard.json:

    {"format": 1, "rule": {"metric", "finalists", "repeats", "seed"}, "direction": "maximize" or "minimize",
     "complete": bool, "total": number of cells, "images": of the validation split,
     "cells": [{"rank", "name", "run_id", "values", "value", "scores", "val_loss", "best_epoch", "epochs",
                "diverged", "pruned", "mean", "spread", "repeats": [{"seed", "run_id", "scores", …}]}, …],
     "failed": [{"name", "run_id", "values", "reason"}, …]}

`value` ranks the cell: the mean over fresh seeds if means rank the finalists, else the cell's own score.
A number that is not finite is null.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from pipeline.evaluation.objective import Objective
from pipeline.runtime.console import counted
from pipeline.runtime.errors import UserError
from pipeline.sweep import finalists
from pipeline.sweep.cells import Cell
from pipeline.sweep.finalists import Finalist
from pipeline.sweep.order import Rule, best_first
from pipeline.tracking import artifacts
from pipeline.tracking.sweep_runs import Sweep
from pipeline.tracking.trials import CellRun, Trial

FILE = "leaderboard.json"  # among the artifacts of a sweep's run
FORMAT = 1


@dataclass(frozen=True)
class Ranking:
    """The finished cells of a sweep, best first.

    Attributes:
        rule: Orders them.
        cells: The finished cells; the first is the winner.
        finalists: The retrained cells with their fresh seeds, in the order of `cells`.
        failed: The cells that failed, with their reasons.
        total: The number of cells of the complete sweep.
        images: The number of images in the validation split.
        complete: Whether every cell, and every repeat of a finalist, is finished or failed.
    """

    rule: Rule
    cells: tuple[CellRun, ...]
    finalists: tuple[Finalist, ...]
    failed: tuple[CellRun, ...]
    total: int
    images: int
    complete: bool

    @classmethod
    def make(
        cls,
        rule: Rule,
        cells: Sequence[CellRun],
        repeats: Sequence[CellRun],
        total: int,
        images: int,
        complete: bool,
    ) -> Self:
        """Rank cells.

        Args:
            rule: Orders them.
            cells: The sweep's cells in any state.
            repeats: The sweep's runs of retrained cells.
            total: The number of cells of the complete sweep.
            images: The number of images in the validation split.
            complete: Whether the sweep is complete.

        Raises:
            UserError: Finished cells lack the score that ranks them.
        """
        done = [cell for cell in cells if cell.trial]
        _check_scored(done, rule.metric)
        found = finalists.of(rule, done, repeats)
        means = finalists.means(found, rule.metric)
        order = best_first(done, rule.objective, means)
        return cls(
            rule,
            tuple(order),
            tuple(sorted(found, key=lambda one: order.index(one.cell))),
            tuple(cell for cell in cells if cell.status == "FAILED"),
            total,
            images,
            complete,
        )

    @property
    def objective(self) -> Objective:
        """The metric that ranks the cells."""
        return self.rule.objective

    @property
    def winner(self) -> CellRun | None:
        """The best cell; None if no cell is finished."""
        return self.cells[0] if self.cells else None

    @property
    def by_mean(self) -> bool:
        """Whether the means over fresh seeds rank the finalists."""
        return bool(finalists.means(self.finalists, self.rule.metric))

    @property
    def repeats(self) -> tuple[int, int]:
        """The number of finished repeats of the finalists, and the number of all of them."""
        return sum(len(one.seeds) for one in self.finalists), len(self.finalists) * self.rule.repeats

    def value(self, cell: CellRun) -> float:
        """The value that ranks a cell: a finalist's mean over fresh seeds, else its own score."""
        means = finalists.means(self.finalists, self.rule.metric)
        return means.get(cell.run_id, self.objective.of_report(cell.result.scores))

    def rank_of(self, run_id: str) -> int | None:
        """The rank of a cell's run, from 1; None if it is not finished, or not of this sweep."""
        ranks = {cell.run_id: rank for rank, cell in enumerate(self.cells, start=1)}
        return ranks.get(run_id)

    def finalist(self, run_id: str) -> Finalist | None:
        """The finalist of a cell's run; None if it is not a finalist."""
        return next((one for one in self.finalists if one.cell.run_id == run_id), None)

    def as_json(self) -> bytes:
        """The content of leaderboard.json."""
        content = {
            "format": FORMAT,
            "rule": asdict(self.rule),
            "direction": self.objective.direction,
            "complete": self.complete,
            "total": self.total,
            "images": self.images,
            "cells": [
                {"rank": rank, "value": _number(self.value(cell))} | self._entry(cell)
                for rank, cell in enumerate(self.cells, start=1)
            ],
            "failed": [_head(cell) | {"reason": cell.reason} for cell in self.failed],
        }
        return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the content of leaderboard.json.

        Raises:
            ValueError: It is not JSON, or has another format.
        """
        found = json.loads(content)
        if found.get("format") != FORMAT:
            raise ValueError(f"{FILE} has format {found.get('format')}, not {FORMAT}")
        cells = [_cell(entry) for entry in found["cells"]]
        again = [
            Finalist(cell, tuple(one["seed"] for one in repeats), tuple(map(_cell, repeats)))
            for cell, entry in zip(cells, found["cells"], strict=True)
            if (repeats := entry.get("repeats")) is not None
        ]
        failed = [
            CellRun(entry["run_id"], entry["values"], "FAILED", None, entry["reason"])
            for entry in found["failed"]
        ]
        return cls(
            Rule(**found["rule"]),
            tuple(cells),
            tuple(again),
            tuple(failed),
            found["total"],
            found["images"],
            found["complete"],
        )

    def _entry(self, cell: CellRun) -> dict[str, Any]:
        entry = _head(cell) | _trial(cell)
        if (finalist := self.finalist(cell.run_id)) is None:
            return entry
        again = [
            {"seed": seed} | _head(run) | _trial(run)
            for seed, run in zip(finalist.seeds, finalist.runs, strict=True)
        ]
        metric = self.rule.metric
        return entry | {
            "mean": _number(finalist.mean(metric)),
            "spread": _number(finalist.spread(metric)),
            "repeats": again,
        }


def of(sweep: Sweep) -> Ranking:
    """The ranking of a sweep.

    It is the stored one, unless runs have ended or were deleted since: a sweep that is running or was killed
    is ranked here, as not complete.
    """
    cells, repeats = _distinct(sweep), sweep.finalists()
    rule, found = Rule.read(sweep), stored(sweep.run_id)
    total = max(int(sweep.metrics.get("cells/total", 0)), len(cells))
    if found is not None and found.rule == rule and _same_runs(found, cells, repeats):
        # The sweep may have been extended, and killed before a new cell ended.
        return replace(found, complete=found.complete and sweep.complete, total=max(found.total, total))
    images = int(sweep.metrics.get("images/validation", 0))
    return Ranking.make(rule, cells, repeats, total, images, complete=False)


def _distinct(sweep: Sweep) -> list[CellRun]:
    """A sweep's cells, each training once: a grid that got a further key may name one twice."""
    found = sweep.cells()
    keys = sorted({key for cell in found for key in cell.values})
    once: dict[str, CellRun] = {}
    for cell in sorted(found, key=lambda cell: cell.trial is None):
        values = [cell.values[key] if key in cell.values else sweep.setting(key) for key in keys]
        once.setdefault(json.dumps(values), cell)
    return [*once.values()]


def stored(run_id: str) -> Ranking | None:
    """The ranking that is stored with a sweep's run; None if it is missing or damaged."""
    if FILE not in artifacts.names(run_id, ""):
        return None
    try:
        return Ranking.from_json(artifacts.read(run_id, FILE))
    except (ValueError, KeyError, TypeError):  # truncated by a killed store, or of another version
        return None


def _same_runs(stored: Ranking, cells: Sequence[CellRun], repeats: Sequence[CellRun]) -> bool:
    done = {cell.run_id for cell in cells if cell.trial}
    seeds = {run.run_id for one in finalists.of(stored.rule, stored.cells, repeats) for run in one.runs}
    return {cell.run_id for cell in stored.cells} == done and seeds == {
        run.run_id for one in stored.finalists for run in one.runs
    }


def _check_scored(done: Sequence[CellRun], metric: str) -> None:
    """Check that finished cells have the score that ranks them.

    Raises:
        UserError: Some lack it: they were trained before `pipeline.config.scores` had it.
    """
    lacking = [cell.run_id for cell in done if metric not in cell.result.scores]
    if lacking:
        raise UserError(
            f"sweep.metric: got {metric}, which {counted(len(lacking), 'finished cell')} of this study did "
            f"not record (run {lacking[0]}); start over with sweep.restart=true, or rank by another metric"
        )


def _head(cell: CellRun) -> dict[str, Any]:
    return {"name": Cell(cell.values).name, "run_id": cell.run_id, "values": dict(cell.values)}


def _trial(cell: CellRun) -> dict[str, Any]:
    existing = asdict(cell.result)
    del existing["run_id"]
    scores = {name: _number(value) for name, value in existing["scores"].items()}
    return existing | {"scores": scores, "val_loss": _number(existing["val_loss"])}


def _cell(entry: dict[str, Any]) -> CellRun:
    scores = {name: _float(value) for name, value in entry["scores"].items()}
    rest = {name: entry[name] for name in ("best_epoch", "epochs", "diverged", "pruned")}
    trial = Trial(entry["run_id"], scores, _float(entry["val_loss"]), **rest)
    return CellRun(entry["run_id"], entry["values"], "FINISHED", trial, "")


def _number(value: float | None) -> float | None:
    """The value for JSON, which has neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else value
