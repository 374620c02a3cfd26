"""Which parameters a sweep's scores depend on, by Optuna's fANOVA."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

FEWEST = 8  # cells: of fewer, a forest of regression trees tells nothing
SEED = 42  # of the forest


def importance(cells: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, float] | str:
    """Each parameter's share of the scores' variance, 0 to 1 and 1 together, the largest first.

    Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance (2014), as
    Optuna has it: functional ANOVA of a random forest's prediction; interactions are left out.

    Args:
        cells: The values of each, by the same keys.
        scores: Of each.

    Returns:
        The shares, or in a sentence why there are none.
    """
    keys = list(cells[0]) if cells else []
    several = [key for key in keys if len({repr(cell[key]) for cell in cells}) > 1]
    if len(several) < 2:
        return "Importance compares parameters, and fewer than two of them were varied."
    if len(cells) < FEWEST:
        return f"Importance needs at least {FEWEST} finished cells; there are {len(cells)}."
    if len(set(scores)) == 1:
        return "All cells have the same score, so no parameter made a difference."
    space = {key: _distribution([cell[key] for cell in cells]) for key in several}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(verbosity)
    study.add_trials([
        optuna.trial.create_trial(
            params={key: cell[key] for key in several}, distributions=space, value=score
        )
        for cell, score in zip(cells, scores, strict=True)
    ])  # fmt: skip
    return optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=SEED))


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and min(values) > 0:
        return FloatDistribution(min(values), max(values), log=max(values) >= 30 * min(values))
    return (
        FloatDistribution(min(values), max(values)) if numbers else CategoricalDistribution(_distinct(values))
    )


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())
