"""Which parameters a sweep's scores depend on: by analysis of variance, or PED-ANOVA."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator

from pipeline.pages.sweep_data import Importance

FEWEST = 10  # cells: with fewer, the best of them are too few to compare with all
_BEST = 5  # cells at least that PED-ANOVA compares with all, as its documentation advises
_BEST_SHARE = 0.1  # of the cells, where that is more


def importance(
    cells: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    direction: Literal["maximize", "minimize"] = "maximize",
) -> Importance | str:
    """How far each parameter decides the score.

    Cells whose score is not finite are left out. If the others are a full grid, each combination of the
    values present exactly once, the analysis of variance is exact. Otherwise PED-ANOVA estimates.

    Args:
        cells: The values of each, by the same keys.
        scores: Of each.
        direction: Which scores are better.

    Returns:
        The shares with their caption, or in a sentence why there are none.
    """
    kept = [(cell, score) for cell, score in zip(cells, scores, strict=True) if math.isfinite(score)]
    cells, scores, left_out = [cell for cell, _ in kept], [score for _, score in kept], len(cells) - len(kept)
    keys = list(cells[0]) if cells else []
    varied = [key for key in keys if len({repr(cell[key]) for cell in cells}) > 1]
    if len(varied) < 2:
        return "Importance compares parameters, and fewer than two of them were varied."
    if len(set(scores)) == 1:
        return "All cells have the same score, so no parameter made a difference."
    without = f" {left_out} of the cells left out: no finite score." if left_out else ""
    grid = _full_grid([[cell[key] for key in varied] for cell in cells], scores)
    if grid is not None:
        return _exact(varied, grid, without)
    if len(cells) < FEWEST:
        return (
            f"Importance needs every combination of the grid, or at least {FEWEST} finished cells; there are "
            f"{len(cells)}.{without}"
        )
    return _estimated(varied, cells, scores, direction, without)


def _full_grid(cells: Sequence[Sequence[Any]], scores: Sequence[float]) -> np.ndarray | None:
    """The scores with one axis for each parameter; None where a combination is missing or there twice."""
    levels: list[dict[str, int]] = [{} for _ in cells[0]]
    places = [
        tuple(codes.setdefault(repr(value), len(codes)) for codes, value in zip(levels, cell, strict=True))
        for cell in cells
    ]
    shape = tuple(map(len, levels))
    if not len(cells) == len(set(places)) == math.prod(shape):
        return None
    grid = np.empty(shape)
    grid[tuple(np.transpose(places))] = scores
    return grid


def _exact(keys: Sequence[str], grid: np.ndarray, without: str) -> Importance:
    """Analysis of variance of a full grid: R. A. Fisher, Statistical methods for research workers (1925).

    Seeds are not a parameter that one chooses: all that depends on them is theirs, in combination too.
    """
    total, means, shares = grid.var(), grid, {}
    if "seed" in keys:
        axis = keys.index("seed")
        means = grid.mean(axis=axis)
        shares["seed"] = 1 - means.var() / total
        keys = [key for key in keys if key != "seed"]
    for axis, key in enumerate(keys):
        others = tuple(other for other in range(len(keys)) if other != axis)
        shares[key] = means.mean(axis=others).var() / total
    # rounding alone takes it below 0
    interactions = max(0.0, 1 - math.fsum(shares.values()))
    luck = (
        "all that depends on the seed, in combination too, is the seed's"
        if "seed" in shares
        else "the luck of the training is among them"
    )
    return Importance(
        _sorted(shares),
        interactions,
        "Shares of the variance of the scores, by an exact analysis of variance: every combination was "
        "trained. A parameter's bar is its effect by itself, averaged over the others; interactions are the "
        f"effects of combinations beyond that ({luck}).{without} A large share does not say which value is "
        "better: the other figures do.",
    )


def _estimated(
    keys: Sequence[str],
    cells: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    direction: Literal["minimize", "maximize"],
    without: str,
) -> Importance | str:
    """PED-ANOVA: S. Watanabe, A. Bansal and F. Hutter, PED-ANOVA (2023), as Optuna has it."""
    space = {key: _distribution([cell[key] for cell in cells]) for key in keys}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(direction=direction)
    optuna.logging.set_verbosity(verbosity)
    study.add_trials([
        optuna.trial.create_trial(
            params={key: cell[key] for key in keys}, distributions=space, value=score
        )
        for cell, score in zip(cells, scores, strict=True)
    ])  # fmt: skip
    best = max(math.ceil(_BEST_SHARE * len(cells)), _BEST)
    ordered = sorted(scores, reverse=direction == "maximize")
    if ordered[best - 1] == ordered[-1]:  # as good as the worst: no difference to explain
        return f"Too many cells have the same score to compare the best with all.{without}"
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best / len(cells))
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(keys))
    return Importance(
        _sorted(found),
        None,
        "An estimate, since not every combination was trained: how far a parameter's values among the best "
        f"{best} cells differ from those among all {len(cells):,} (PED-ANOVA, as Optuna computes it), 100 % "
        "together. It sees one parameter at a time: interactions are not separated, and a parameter that "
        f"matters only in combination may have a bar or none.{without} A large share does not say which "
        "value is better: the other figures do.",
    )


def _sorted(shares: Mapping[str, float]) -> dict[str, float]:
    """The largest first."""
    return {key: float(shares[key]) for key in sorted(shares, key=shares.__getitem__, reverse=True)}


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and min(values) > 0:
        return FloatDistribution(min(values), max(values), log=max(values) >= 30 * min(values))
    return (
        FloatDistribution(min(values), max(values)) if numbers else CategoricalDistribution(_distinct(values))
    )


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())
