"""The cells that all train, the settings that they share, and the files that peers read and write."""

import itertools
from collections.abc import Mapping
from typing import Any

# For the sweep and the peers alike, so that a change of a default cannot set them apart.
SETTINGS = (
    "--seed=42",
    "--data.image_size=64",
    "--data.validation=0.2",
    "--data.test=0.2",
    "--model.name=simple_cnn",
    "--model.activation=relu",
    "--model.kernel_initializer=he_uniform",
    "--model.bias_initializer=0.0",
    "--train.batch_size=32",
    "--train.momentum=0.9",
    "--train.augment=false",
)
GRID = {
    "learning_rate": [0.01, 0.001],
    "activation": ["relu", "tanh"],
    "kernel_initializer": ["he_uniform", "glorot_uniform"],
}
SPLITS = ("train", "validation")  # of the photos that peers get, as SPLIT_images.npy and SPLIT_labels.npy
RESULTS = "results.json"  # what a peer writes: its cells, each with its validation accuracies
SIZES = (1, 2, 4, 8)  # of the grid: every peer takes a product, not a list of cells


def grid(size: int) -> dict[str, list]:
    """The values of each key for so many cells, one of `SIZES`: two of the first keys, one of the others."""
    both = size.bit_length() - 1
    return {key: values if place < both else values[:1] for place, (key, values) in enumerate(GRID.items())}


def cells(grid: Mapping[str, list]) -> list[dict[str, Any]]:
    """Every combination of a grid's values."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
