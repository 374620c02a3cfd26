"""`predict` against bare decoding and inference: `python -m benchmarks.predict [--photos ZIP] [--rounds N]`.

Bare decoding reads, decodes and resizes every image to 64 px on all cores into one array, in threads and in
processes that were started before the clock; bare inference gives that array to `simple_cnn` in batches. The
faster decoding and the inference together are what `predict` (listing, checks, CSV and the sheet's images
included) is held against; they take turns. Then the memory of `predict` for few and for 100,000 images, all
hard links to the photos, each in a process of its own. Some 6 minutes on two cores; nothing is asserted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import prepare
from benchmarks.memory import watched_memory
from pipeline.runtime.hardware import cores
from pipeline.runtime.logs import importing_tensorflow
from pipeline.sources.source import list_images, open_source

SIZE = prepare.SIZE


def model():
    """An untrained `simple_cnn`, as `predict` gets it: what it answers takes as long as any other's."""
    with importing_tensorflow():
        from pipeline import models
        from pipeline.config.command_line import load
        from pipeline.tracking.models import Loaded
    return Loaded(models.build(load([]).model, SIZE, 2, seed=1), ("cat", "dog"), "")


def unpacked(photos: Path, folder: Path) -> list[Path]:
    """The images of a zip as files."""
    with zipfile.ZipFile(photos) as file:
        file.extractall(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def rates(photos: Path, rounds: int) -> None:
    """Prints how fast each part is, and the ratio."""
    prepare._source = open_source(str(photos), Path("unused"))
    count = len(prepare._source.images)
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(cores(), mp_context=get_context("fork")) as processes,
        ThreadPoolExecutor(cores()) as threads,
    ):
        list(processes.map(prepare.decode_and_resize, range(cores()), range(1, cores() + 1)))
        loaded = model()
        from pipeline.inference import predict as prediction
        from served_image_classifier.classifier import BATCH

        images = np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)

        def infer() -> None:
            for start in range(0, count, BATCH):
                loaded.network.predict_on_batch(images[start : start + BATCH])

        def predict() -> None:
            prediction.write(Path(scratch, "predictions.csv"), list_images(str(photos), "photos"), loaded, 24)

        infer()  # traces the network
        actions = {
            "decode, threads": partial(prepare.bare, threads, count),
            "decode, processes": partial(prepare.bare, processes, count),
            "inference": infer,
            "predict": predict,
        }
        taken = {name: [] for name in actions}
        for _ in range(rounds):
            for name, action in actions.items():
                taken[name].append(prepare.seconds(action))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    print(f"{'':19}{'median s':>9}{'images/s':>12}   rounds, s")
    for name, values in taken.items():
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:19}{medians[name]:9.2f}{count / medians[name]:12,.0f}   {each}")
    together = medians["inference"] + min(medians["decode, threads"], medians["decode, processes"])
    print(
        f"\npredict does {together / medians['predict']:.2f} of the rate of decoding and inference together"
    )


def measure(folder: Path) -> None:
    """Predict every image of a folder, and print the highest anonymous memory meanwhile, MB."""
    from pipeline.inference import predict as prediction

    loaded = model()
    with watched_memory() as highest:
        images = list_images(str(folder), "folder")
        prediction.write(folder.with_name("predictions.csv"), images, loaded, 24)
    print(f"{highest():.0f}")


def memory(photos: Path, counts: list[int]) -> None:
    """Prints the memory for so many images."""
    with tempfile.TemporaryDirectory() as scratch:
        files = unpacked(photos, Path(scratch, "photos"))
        for count in counts:
            folder = Path(scratch, str(count))
            folder.mkdir()
            for number in range(count):
                os.link(files[number % len(files)], folder / f"{number:06d}.jpg")
            command = [sys.executable, "-m", "benchmarks.predict", "--measure", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(f"{count:>9,} images: {done.stdout.split()[-1]:>5} MB anonymous", flush=True)


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=prepare.PHOTOS, help="a zip of labelled images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="*", default=[2_000, 100_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    rates(options.photos, options.rounds)
    memory(options.photos, options.images)


if __name__ == "__main__":
    main()
