"""Training from the memory map against training from an array in memory: `python -m benchmarks.input`.

One network, traced before the clock, is trained on the same images from the memory map, from a copy in
memory, and from the map with its pages dropped from the system's cache before each epoch, as where the set
does not fit into memory. They take turns. Some 4 minutes on two cores; nothing is asserted.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.memory import SIZE, write_images
from pipeline.runtime.logs import importing_tensorflow


def drop(path: Path) -> None:
    """Let the system forget a file's pages that it has in its cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with importing_tensorflow():
        from pipeline.training import train
    from pipeline.config.command_line import load
    from pipeline.training.batches import LabelledImages, TrainingData
    from pipeline.training.config import TrainConfig

    params = load(["--train.epochs=1"])
    count = options.images
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        write_images(path, count)
        labels, indices = np.arange(count) % 2, np.arange(count)

        def epoch(images: np.ndarray) -> float:
            splits = [LabelledImages(images, labels, rows) for rows in (indices[:-64], indices[-64:])]
            start = time.perf_counter()
            train.train(TrainConfig.of(params), TrainingData(*splits, 2))
            return time.perf_counter() - start

        mapped, copied = np.load(path, mmap_mode="r"), np.load(path)
        epoch(copied)  # traces the network
        taken = {"in memory": [], "memory map": [], "memory map, cold": []}
        for _ in range(options.rounds):
            taken["in memory"].append(epoch(copied))
            taken["memory map"].append(epoch(mapped))
            drop(path)
            taken["memory map, cold"].append(epoch(np.load(path, mmap_mode="r")))
    print(f"{count:,} images of {SIZE} px, one epoch\n{'':18}{'median s':>10}   rounds, s")
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, values in taken.items():
        print(f"{name:18}{medians[name]:10.2f}   {' '.join(f'{value:.2f}' for value in values)}")
    for name in ("memory map", "memory map, cold"):
        print(f"{name}: {medians['in memory'] / medians[name]:.3f} of the rate from memory")


if __name__ == "__main__":
    main()
