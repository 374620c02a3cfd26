"""`prepare` against a bare Pillow loop: `python -m benchmarks.prepare [--photos PATH] [--rounds N]`.

The bare loop reads, decodes and resizes every image and does nothing else: no checks, no pixel digests, no
splits, nothing written. It runs on all cores, once in threads and once in processes that were started before
the clock; the faster of the two is what `prepare` (listing, writing, syncing and summing included) is held
against. All three take turns. Half a minute on two cores; nothing is asserted.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from pipeline.dataset.prepare import prepare
from pipeline.runtime.hardware import cores
from pipeline.sources.source import Source, open_source

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "dogs-vs-cats-8k.zip"
SIZE = 64  # px
CHUNK = 100  # images per task of the bare loop

_source: Source | None = None  # set before the processes fork: their tasks then are two numbers


def decode_and_resize(start: int, stop: int) -> np.ndarray:
    """The bare loop: uint8 (stop - start, SIZE, SIZE, 3)."""
    images = np.empty((stop - start, SIZE, SIZE, 3), np.uint8)
    for row, opened in enumerate(_source.images[start:stop]):
        image = Image.open(io.BytesIO(opened.read()))
        if image.mode != "RGB":
            image = image.convert("RGB")
        images[row] = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return images


def bare(executor: Executor, count: int) -> None:
    """Decodes and resizes all images into one array in memory."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    starts = range(0, count, CHUNK)
    stops = [min(start + CHUNK, count) for start in starts]
    for start, done in zip(starts, executor.map(decode_and_resize, starts, stops), strict=True):
        images[start : start + len(done)] = done


def run_prepare(photos: Path, cache: str) -> None:
    """Prepares the photos, or finds them prepared in `cache`, without its lines on the console."""
    with contextlib.redirect_stdout(io.StringIO()):
        prepare(section(photos, cache), seed=42)


def section(photos: Path, cache: str) -> SimpleNamespace:
    """The `data` section of params.yaml."""
    return SimpleNamespace(
        source=str(photos),
        sha256=None,
        image_size=SIZE,
        splits="given",
        verify=False,
        validation=0.2,
        test=0.2,
        limit=None,
        max_rejected=1.0,
        cache=cache,
    )


def seconds(action: Callable[[], object]) -> float:
    """Wall time of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def report(times: dict[str, list[float]], count: int) -> None:
    """Prints the table and the ratio of rates."""
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"\n{'':18}{'median s':>10}{'images/s':>12}   rounds, s")
    for name, taken in times.items():
        rounds = " ".join(f"{value:.2f}" for value in taken)
        print(f"{name:18}{medians[name]:10.2f}{count / medians[name]:12,.0f}   {rounds}")
    reference = min(value for name, value in medians.items() if name != "prepare")
    print(f"\nprepare does {reference / medians['prepare']:.2f} of the rate of the faster bare loop")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder or zip of labelled images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    global _source
    _source = open_source(str(options.photos), Path("unused"))
    count, workers = len(_source.images), cores()
    print(f"{count:,} images to {SIZE} px on {workers} cores, load {os.getloadavg()[0]:.1f}")
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(workers, mp_context=get_context("fork")) as processes,
        ThreadPoolExecutor(workers) as threads,
    ):
        list(processes.map(decode_and_resize, range(workers), range(1, workers + 1)))
        times = {"bare, threads": [], "bare, processes": [], "prepare": []}
        for turn in range(options.rounds):
            cache = f"{scratch}/{turn}"
            times["bare, threads"].append(seconds(partial(bare, threads, count)))
            times["bare, processes"].append(seconds(partial(bare, processes, count)))
            times["prepare"].append(seconds(partial(run_prepare, options.photos, cache)))
        again = seconds(partial(run_prepare, options.photos, cache))
    report(times, count)
    print(f"a second prepare with nothing changed: {again:.2f} s")
    print(f"tensorflow imported by prepare: {'yes' if 'tensorflow' in sys.modules else 'no'}")


if __name__ == "__main__":
    main()
