"""The values of a sweep's parameters: as text, in order, on an axis, and with their scores."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.objective import Objective
from pipeline.pages.sweep_data import Cell

MOST_DISTINCT = 12  # numbers, up to which they are told apart one by one


@dataclass(frozen=True)
class Effect:
    """How the cells with one value of a parameter did.

    Attributes:
        text: The value.
        cells: How many have it.
        mean: Of their scores.
        deviation: Standard deviation of their scores, as of a sample; None of one cell.
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
    """The keys of which cells have different values."""
    return [key for key in keys if len({text_of(cell.values[key]) for cell in cells}) > 1]


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_range(values: Sequence[Any]) -> bool:
    """Whether values are numbers, and too many to be told apart one by one."""
    return all(map(is_number, values)) and len(set(values)) > MOST_DISTINCT


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether numbers are so far apart that an axis of them is better logarithmic."""
    return min(numbers) > 0 and max(numbers) >= 30 * min(numbers)


def in_order(values: Sequence[Any]) -> list[str]:
    """The texts of values, each once: numbers by size, others as they come."""
    kept = {text_of(value): value for value in values}
    return sorted(kept, key=kept.get) if all(map(is_number, values)) else list(kept)


def text_of(value: Any) -> str:
    """A parameter's value as text: as it is typed in params.yaml, numbers to six digits."""
    if isinstance(value, float):
        return f"{value:.6g}" if value else "0.0"
    return value if isinstance(value, str) else json.dumps(value)


def places(values: Sequence[Any]) -> dict[str, float]:
    """Where the values of a parameter stand on its axis, 0 to 1, by their texts."""
    texts = in_order(values)
    if not is_range(values):
        return {text: index / (len(texts) - 1) if len(texts) > 1 else 0.5 for index, text in enumerate(texts)}
    scale = math.log if is_wide(values) else float
    low, high = scale(min(values)), scale(max(values))
    return {text_of(value): (scale(value) - low) / (high - low) for value in values}
