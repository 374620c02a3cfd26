"""The cells of a grid, and their names."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.search_space import Range
from pipeline.config.sweep_schema import GridParams

# The keys of the original grid come first in names and columns, with its abbreviations.
ABBREVIATIONS = {
    "learning_rate": "LR",
    "kernel_initializer": "KI",
    "activation": "AC",
    "bias_initializer": "BI",
}
ACTIVATIONS = {"tanh": "Tanh", "leaky_relu": "LeakyReLU", "relu": "ReLU"}


@dataclass(frozen=True)
class Cell:
    """One combination of a grid's values.

    Attributes:
        values: The parameters by key (`learning_rate`, `schedule.start`).

    >>> Cell({"learning_rate": 0.01, "dropout": 0.5}).key
    '{"dropout": 0.5, "learning_rate": 0.01}'
    """

    values: Mapping[str, Any] = field(hash=False)

    @property
    def key(self) -> str:
        """The identifier of the cell: its values as JSON with sorted keys."""
        return json.dumps(dict(self.values), sort_keys=True)

    @property
    def name(self) -> str:
        """The name of the cell's run.

        >>> Cell({"activation": "relu", "learning_rate": 0.01}).name, Cell({"batch_size": 16}).name
        ('LR_0.01-AC_ReLU', 'batch_size_16')
        """
        return "-".join(
            f"{ABBREVIATIONS.get(key, key)}_{_shown(key, self.values[key])}" for key in ordered(self.values)
        )


def ordered(keys: Iterable[str]) -> list[str]:
    """Keys of a grid in the order of names and columns: those of the original grid, then the others by name.

    >>> ordered(["momentum", "activation", "dropout", "learning_rate"])
    ['learning_rate', 'activation', 'dropout', 'momentum']
    """
    first = [*ABBREVIATIONS]
    return sorted(keys, key=lambda key: (first.index(key) if key in first else len(first), key))


def cells(grid: GridParams) -> list[Cell]:
    """Every cell of a grid; the last key of `ordered` changes fastest.

    Raises:
        ValueError: The grid has a range.

    >>> [cell.name for cell in cells(GridParams(dropout=(0.3, 0.5), learning_rate=(0.1,)))]
    ['LR_0.1-dropout_0.3', 'LR_0.1-dropout_0.5']
    """
    return _product(grid, ordered(grid.values()))


def shuffled(grid: GridParams, seed: int) -> list[Cell]:
    """Every cell of a grid in the order in which a sweep trains them.

    The order is that of Optuna's `GridSampler` with the same seed, which is the order of earlier sweeps. The
    sampler itself is not used: it repeats running cells once every cell was proposed, and it treats a grid
    with a longer list as a new one.

    Args:
        grid: A grid of lists.
        seed: Of the permutation, 0 to 2**32 - 1.

    Raises:
        ValueError: The grid has a range.

    >>> [cell.values["dropout"] for cell in shuffled(GridParams(dropout=(0.1, 0.2, 0.3)), seed=0)]
    [0.3, 0.2, 0.1]
    """
    found = _product(grid, sorted(grid.values()))
    return [found[number] for number in np.random.RandomState(seed).permutation(len(found))]


def count(grid: GridParams) -> int:
    """The number of cells of a grid.

    Raises:
        ValueError: The grid has a range.

    >>> count(GridParams(dropout=(0.3, 0.5), batch_size=(16, 32, 64)))
    6
    """
    return math.prod(len(values) for values in _lists(grid).values())


def _product(grid: GridParams, keys: list[str]) -> list[Cell]:
    values = _lists(grid)
    return [
        Cell(dict(zip(keys, combination, strict=True)))
        for combination in itertools.product(*(values[key] for key in keys))
    ]


def _lists(grid: GridParams) -> dict[str, tuple[Any, ...]]:
    found = {}
    for key, values in grid.values().items():
        if isinstance(values, Range):
            raise ValueError(f"sweep.grid.{key} is a range, which has no list of cells")
        found[key] = values
    return found


def _shown(key: str, value: Any) -> str:
    if isinstance(value, str):
        return ACTIVATIONS.get(value, value) if key == "activation" else value
    return json.dumps(value)
