"""Time and memory of each step against classes and images: `python -m benchmarks.scale [--quick]`.

Small JPEGs are drawn into a zip, and each step runs on it as a command of its own, in a folder of its own.
Memory is the largest resident set of a process of the step (`os.wait4`); it counts the pages of the prepared
images that are mapped and in memory.

The results are kept in a JSON file, after each step, so that a run adds to earlier ones; `--images` without a
number makes the table and the plot of what is there. `--quick` takes some 3 minutes on two cores, all of it
hours.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image

from pipeline.runtime.hardware import cores

ROOT = Path(__file__).parents[1]
SIZE = 32  # px; of the drawn files, and prepared
CHUNK = 1000  # images drawn at once
COMMON = (
    f"--data.image_size={SIZE}",
    "--train.epochs=1",
    "--train.batch_size=128",
    "--train.precision=float32",
)
STEPS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("prepare",),
    "open again": ("prepare",),
    "train, 1 epoch": ("train",),
    "evaluate": ("evaluate", "--evaluate.split=test"),
    "sweep, 2 cells": ("sweep", '--sweep.grid={"learning_rate":[0.01,0.001]}', "--sweep.workers=1"),
    "report": ("report",),
    "register": ("register",),
    "doctor": ("doctor", "--doctor.labels=false"),
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8a9099")


def draw(path: Path, classes: int, images: int) -> None:
    """Writes a zip of images in one folder per class: a coarse pattern of the class, and one of the image."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        ProcessPoolExecutor(cores()) as processes,
    ):
        starts = range(0, images, CHUNK)
        ends = [min(start + CHUNK, images) for start in starts]
        for start, files in zip(
            starts, processes.map(_drawn, starts, ends, [classes] * len(starts)), strict=True
        ):
            for number, content in enumerate(files, start):
                archive.writestr(f"class_{number % classes:04}/{number:07}.jpg", content)


def _drawn(start: int, end: int, classes: int) -> list[bytes]:
    rng, files = np.random.default_rng(start), []
    for number in range(start, end):
        of_class = np.random.default_rng(number % classes).integers(0, 64, (4, 4, 3))
        coarse = (of_class + rng.integers(0, 192, of_class.shape)).astype(np.uint8)
        buffer = io.BytesIO()
        image = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        image.save(buffer, "JPEG", quality=75)
        files.append(buffer.getvalue())
    return files


def measure(command: Sequence[str], folder: Path, limit: float) -> dict[str, float | int | str]:
    """Run a step to its end, or for `limit` seconds at most.

    Returns:
        `seconds`, `cpu` (seconds of user and system time, of its children too), `bytes` (the largest resident
        set), `status` (its exit status), and of one that failed the last line of its output.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with (folder / "output.txt").open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=kept | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    last = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-1:]
    return {
        "seconds": round(seconds, 2),
        "cpu": round(used.ru_utime + used.ru_stime, 2),
        "bytes": used.ru_maxrss * 1024,  # Linux counts kilobytes
        "status": process.returncode,
        **({"error": "".join(last)} if process.returncode else {}),
    }


def measured(classes: int, images: int, steps: Sequence[str], scratch: Path, limit: float) -> Iterator[dict]:
    """The steps on one set of images, each as it is done; what comes after a failed one may fail as well."""
    folder = Path(tempfile.mkdtemp(prefix=f"{classes}-{images}-", dir=scratch))
    try:
        shutil.copy(ROOT / "params.yaml", folder)
        draw(folder / "images.zip", classes, images)
        source = f"--data.source={folder / 'images.zip'}"
        for name in steps:
            step, *arguments = STEPS[name]
            command = [sys.executable, "-m", f"pipeline.steps.{step}", source, *COMMON, *arguments]
            yield {"classes": classes, "images": images, "step": name, **measure(command, folder, limit)}
    finally:
        shutil.rmtree(folder)


def table(results: Sequence[Mapping]) -> str:
    """The results in Markdown, a row for each set, a column for each step: seconds, CPU seconds, memory."""
    steps = [name for name in STEPS if any(one["step"] == name for one in results)]
    lines = ["| classes | images | " + " | ".join(steps) + " |", "|--:|--:|" + "--:|" * len(steps)]
    for classes, images in sorted({(one["classes"], one["images"]) for one in results}):
        own = {one["step"]: one for one in results if (one["classes"], one["images"]) == (classes, images)}
        cells = [_cell(own.get(name)) for name in steps]
        lines.append(f"| {classes:,} | {images:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(one: Mapping | None) -> str:
    if one is None:
        return "–"
    said = f"{one['seconds']:,.0f} s ({one['cpu']:,.0f}), {one['bytes'] / 1e9:.1f} GB"
    return f"failed: {said}" if one["status"] else said


def plot(results: Sequence[Mapping]) -> Figure:
    """CPU time above and memory below: left against images, of the most classes; right against classes.

    The right side is of the number of images that was measured with the most numbers of classes.
    """
    finished = [one for one in results if not one["status"]]
    classes = max(one["classes"] for one in finished)
    sets = Counter(images for _, images in {(one["classes"], one["images"]) for one in finished})
    images = max(sets, key=lambda number: (sets[number], number))
    figure = Figure(figsize=(9.6, 6.4), dpi=100, layout="constrained")
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, (along, fixed, value) in enumerate(
        (("images", "classes", classes), ("classes", "images", images))
    ):
        for axes, key, unit in ((grid[0, column], "cpu", 1), (grid[1, column], "bytes", 1e9)):
            for colour, name in zip(COLOURS, STEPS, strict=True):
                own = sorted(
                    (one[along], one[key] / unit)
                    for one in finished
                    if one[fixed] == value and one["step"] == name
                )
                if own:
                    axes.plot(*zip(*own, strict=True), "o-", color=colour, label=name, markersize=4)
            axes.set(xscale="log", yscale="log")
            axes.grid(color="0.9", which="both")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        grid[0, column].set_title(f"{value:,} {fixed}", size=10)
        grid[1, column].set_xlabel(along)
    grid[0, 0].set_ylabel("CPU time, s")
    grid[1, 0].set_ylabel("peak memory, GB")
    grid[1, 0].set_yticks([0.25, 0.5, 1, 2])
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def main() -> None:
    """Parse the command line, measure what it asks for, and print the table of all that is known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 100, 1000])
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--quick", action="store_true", help="20 classes, 1,000 images")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a step is ended")
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder for the images"
    )
    parser.add_argument("--results", type=Path, default=Path("scale.json"), help="measured, now and before")
    options = parser.parse_args()
    if options.quick:
        options.classes, options.images = [20], [1000]
    known = json.loads(options.results.read_text()) if options.results.exists() else []
    for images in options.images:
        for classes in options.classes:
            print(f"{images:,} images of {classes:,} classes, load {os.getloadavg()[0]:.1f}", flush=True)
            for one in measured(classes, images, options.steps, options.scratch, options.limit):
                print(f"  {one['step']:16} {_cell(one)} {one.get('error', '')}", flush=True)
                known = [other for other in known if not _is_same(other, one)] + [one]
                options.results.write_text(json.dumps(known, indent=1))
    print(f"\n{table(known)}")
    plot(known).savefig(options.results.with_suffix(".png"))


def _is_same(one: Mapping, other: Mapping) -> bool:
    return all(one[key] == other[key] for key in ("classes", "images", "step"))


if __name__ == "__main__":
    main()
