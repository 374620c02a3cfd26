"""A grid's cells, and what they are called."""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.sweep_schema import GridParams

# The original grid's keys come first, in its order, under its abbreviations; any other key stands for itself.
ABBREVIATIONS = {
    "learning_rate": "LR",
    "kernel_initializer": "KI",
    "activation": "AC",
    "bias_initializer": "BI",
}
ACTIVATIONS = {"tanh": "Tanh", "leaky_relu": "LeakyReLU", "relu": "ReLU"}


@dataclass(frozen=True)
class Cell:
    """One combination of a grid's values, by key (`learning_rate`, `schedule.start`)."""

    values: Mapping[str, Any] = field(hash=False)

    @property
    def key(self) -> str:
        """What identifies the cell: its values as JSON with sorted keys."""
        return json.dumps(dict(self.values), sort_keys=True)

    @property
    def name(self) -> str:
        """The name of its run: `LR_0.01-KI_he_uniform-AC_ReLU-BI_0.0`, or `batch_size_16-dropout_0.3`."""
        return "-".join(
            f"{ABBREVIATIONS.get(key, key)}_{_shown(key, self.values[key])}" for key in ordered(self.values)
        )


def ordered(keys: Mapping[str, Any]) -> list[str]:
    """A grid's keys in the order of names and columns: the original's four, then the others by name."""
    first = [*ABBREVIATIONS]
    return sorted(keys, key=lambda key: (first.index(key) if key in first else len(first), key))


def cells(grid: GridParams) -> list[Cell]:
    """Every cell of a grid, the last key changing fastest."""
    values = grid.values()
    keys = ordered(values)
    return [
        Cell(dict(zip(keys, combination, strict=True)))
        for combination in itertools.product(*(values[key] for key in keys))
    ]


def count(grid: GridParams) -> int:
    """How many cells a grid has."""
    return math.prod(len(values) for values in grid.values().values())


def _shown(key: str, value: Any) -> str:
    if key == "activation":
        return ACTIVATIONS.get(value, value)
    return value if isinstance(value, str) else json.dumps(value)
