"""The values of a sweep's parameters: text, order, axis positions, and scores by value."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.objective import Objective
from pipeline.pages.sweep_data import Cell

MAX_DISTINCT = 12  # numbers; with more distinct values, an axis is continuous


@dataclass(frozen=True)
class Effect:
    """The scores of the cells with one value of a parameter.

    Attributes:
        text: The value.
        cells: Number of cells with it.
        mean: Of their scores.
        deviation: Sample standard deviation of their scores; None for one cell.
        best: Of their scores.
    """

    text: str
    cells: int
    mean: float
    deviation: float | None
    best: float


def effects(key: str, cells: Sequence[Cell], metric: str) -> list[Effect]:
    """The effect of each value of a parameter, in the values' order."""
    scores: dict[str, list[float]] = {}
    for cell in cells:
        scores.setdefault(text_of(cell.values[key]), []).append(cell.scores[metric])
    return [
        Effect(
            text=text,
            cells=len(found),
            mean=statistics.fmean(found),
            deviation=statistics.stdev(found) if len(found) > 1 else None,
            best=found[Objective(metric).best(found)],
        )
        for text in in_order([cell.values[key] for cell in cells])
        for found in [scores[text]]
    ]


def varied(keys: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """The keys whose values differ between cells."""
    return [key for key in keys if len({text_of(cell.values[key]) for cell in cells}) > 1]


def is_number(value: Any) -> bool:
    """Whether a value is a number; booleans are not.

    >>> is_number(0.5), is_number(True)
    (True, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_range(values: Sequence[Any]) -> bool:
    """Whether values are numbers with more than `MAX_DISTINCT` distinct ones."""
    return all(map(is_number, values)) and len(set(values)) > MAX_DISTINCT


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether numbers need a logarithmic axis: positive, with a ratio of 30 or more."""
    return min(numbers) > 0 and max(numbers) >= 30 * min(numbers)


def in_order(values: Sequence[Any]) -> list[str]:
    """The distinct values as text: numbers ascending, others in order of appearance."""
    kept = {text_of(value): value for value in values}
    return sorted(kept, key=lambda text: kept[text]) if all(map(is_number, values)) else list(kept)


def text_of(value: Any) -> str:
    """A parameter's value as in params.yaml, numbers to six significant digits.

    >>> text_of(0.1234567), text_of(0.0), text_of("relu"), text_of(None)
    ('0.123457', '0.0', 'relu', 'null')
    """
    if isinstance(value, float):
        return f"{value:.6g}" if value else "0.0"
    return value if isinstance(value, str) else json.dumps(value)


def places(values: Sequence[Any]) -> dict[str, float]:
    """The axis position of each value of a parameter, 0 to 1, by its text.

    >>> places(["relu", "tanh", "relu"])
    {'relu': 0.0, 'tanh': 1.0}
    """
    texts = in_order(values)
    if not is_range(values):
        return {text: index / (len(texts) - 1) if len(texts) > 1 else 0.5 for index, text in enumerate(texts)}
    scale = math.log if is_wide(values) else float
    low, high = scale(min(values)), scale(max(values))
    return {text_of(value): (scale(value) - low) / (high - low) for value in values}
