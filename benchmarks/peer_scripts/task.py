"""What every peer is given, and how it tells what it did: the same cells, photos, network, epochs and batch.

The photos are arrays in memory, uint8; the network is the pipeline's own, with its rescaling inside.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.peer_scripts.cells import RESULTS, SETTINGS, SIZES, SPLITS, grid
from pipeline import models
from pipeline.config.command_line import load
from pipeline.config.params import Params

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Task:
    """What a peer has to do.

    Attributes:
        grid: the values of each key.
        epochs: of each cell.
        params: the pipeline's, with `SETTINGS`.
        training: images uint8 (n, size, size, 3) and labels int64 (n,).
        validation: the same of other photos.
        output: an empty folder for whatever the peer writes.
    """

    grid: dict[str, list]
    epochs: int
    params: Params
    training: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    output: Path
    _done: list[dict] = field(default_factory=list)

    def build(self, cell: Mapping[str, Any]) -> keras.Model:
        """A cell's network, compiled, with fresh weights."""
        params = self.params
        keras.utils.set_random_seed(params.seed)
        network = params.model.model_copy(
            update={key: cell[key] for key in ("activation", "kernel_initializer")}
        )
        images, labels = self.training
        model = models.build(network, images.shape[1], int(labels.max()) + 1, params.seed)
        model.compile(
            optimizer=keras.optimizers.SGD(cell["learning_rate"], momentum=params.train.momentum),
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )
        return model

    @property
    def fit(self) -> dict[str, Any]:
        """The arguments of `fit` that are the same for every cell, but for the photos and labels."""
        return {
            "validation_data": self.validation,
            "epochs": self.epochs,
            "batch_size": self.params.train.batch_size,
            "verbose": 0,
        }

    def record(self, cell: Mapping[str, Any], accuracies: list[float]) -> None:
        """Note a cell that is done, with its validation accuracy of every epoch."""
        self._done.append({"cell": {key: cell[key] for key in self.grid}, "val_accuracy": [*accuracies]})

    def finish(self) -> None:
        """Write what was recorded, for the benchmark to check."""
        (self.output / RESULTS).write_text(json.dumps(self._done))


def from_command_line(description: str) -> Task:
    """The task that the command line tells, with its photos loaded into memory."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder of {train,validation}_{images,labels}.npy"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for whatever is written")
    parser.add_argument("--cells", type=int, choices=SIZES, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    training, validation = (
        (np.load(options.photos / f"{split}_images.npy"), np.load(options.photos / f"{split}_labels.npy"))
        for split in SPLITS
    )
    params = load([*SETTINGS], ROOT / "params.yaml")
    return Task(grid(options.cells), options.epochs, params, training, validation, options.output.absolute())
