"""How much memory training takes beside the images: 2,000 against 100,000 prepared ones of 64 px.

    python -m benchmarks.memory

Trains one epoch from a memory map in a process of its own, for each number of images in turn, and reads
the process's anonymous memory (RssAnon, which leaves the mapped file out) ten times a second. Takes some
6 minutes on two cores.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SIZE = 64


def write_images(path: Path, count: int) -> None:
    """Noise as prepared images, written row by row: a .npy array uint8 (count, 64, 64, 3)."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3))
    for start in range(0, count, 1000):
        images[start : start + 1000] = rng.integers(0, 256, images[start : start + 1000].shape, np.uint8)
    images.flush()


def anonymous_megabytes() -> float:
    """This process's anonymous resident memory, MB."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


@contextmanager
def watched_memory() -> Iterator[Callable[[], float]]:
    """Look at this process's anonymous memory ten times a second; yields what tells the highest, MB."""
    seen, done = [anonymous_megabytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen[0] = max(seen[0], anonymous_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: seen[0]
    finally:
        done.set()
        watcher.join()


def measure(path: Path) -> None:
    """Train one epoch on the images at `path`, and print the highest anonymous memory while it ran, MB."""
    from pipeline.config.command_line import load
    from pipeline.training import train
    from pipeline.training.batches import LabelledImages, TrainingData
    from pipeline.training.config import TrainConfig

    images = np.load(path, mmap_mode="r")
    labels = np.arange(len(images)) % 2
    indices = np.arange(len(images))
    cut = int(0.8 * len(images))
    params = load(["--train.epochs=1"])
    parts = [LabelledImages(images, labels, rows) for rows in (indices[:cut], indices[cut:])]
    with watched_memory() as highest:
        train.train(TrainConfig.of(params), TrainingData(*parts, 2))
    print(f"{highest():.0f}")


def main() -> None:
    """Measure each number of images in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 100_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    highest = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.images:
            path = Path(folder, f"{count}.npy")
            write_images(path, count)
            command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            highest[count] = float(done.stdout.split()[-1])
            on_disk = path.stat().st_size / 1e6
            print(
                f"{count:>9,} images, {on_disk:6,.0f} MB on disk: {highest[count]:5.0f} MB anonymous",
                flush=True,
            )
    print(f"growth: {max(highest.values()) - min(highest.values()):.0f} MB")


if __name__ == "__main__":
    main()
