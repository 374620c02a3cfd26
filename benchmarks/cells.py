"""Whether a sweep of thousands of cells gets slower or larger as it goes: 2,000 cells of trivial work.

    python -m benchmarks.cells --cells 2000

Each cell trains one epoch on 20 tiny images, so that asking for it, recording it and telling what it came
to are most of it. The memory of the driver and the workers (their private part) is read as it goes. Prints
the time per cell in the first and in the last tenth, after the first cells in which TensorFlow traces its
graphs, and draws both over the cells. Takes some 20 minutes on two cores.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from benchmarks.torture import is_worker

ROOT = Path(__file__).parents[1]
WARM_UP = 50  # cells that are left out: graphs are traced, caches filled
INTERVAL = 2  # seconds between two looks at the memory


def memory(pid: int) -> tuple[float, float]:
    """The private memory of a process, and the largest of its workers', MB."""
    driver = psutil.Process(pid)
    children = driver.children(recursive=True)
    workers = [child for child in children if is_worker(child.cmdline())]
    return _private(driver), max(map(_private, workers), default=0.0)


def _private(process: psutil.Process) -> float:
    return process.memory_full_info().uss / 1e6


def measure(folder: Path, cells: int) -> tuple[list[float], list[tuple[int, float, float]]]:
    """Run the sweep; returns when each cell ended (s), and the memory: cells done, driver's, workers'."""
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    grid = {  # keys that share one graph: tracing a new one would be most of a cell
        "learning_rate": [round(0.001 * (1 + number / 50), 9) for number in range(50)],
        "bias_initializer": [round(0.001 * number, 9) for number in range(cells // 50)],
    }
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    process = subprocess.Popen(
        [
            sys.executable, "-u", "-m", "pipeline.steps.sweep", "--data.limit=20", "--data.image_size=16",
            "--data.test=0", "--train.epochs=1", "--sweep.workers=2", f"--sweep.grid={json.dumps(grid)}",
        ],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    ends: list[float] = []
    used: list[tuple[int, float, float]] = []
    looked = 0.0
    for line in process.stdout:
        if not line.startswith("cell "):
            continue
        ends.append(time.monotonic())
        if ends[-1] - looked > INTERVAL:
            looked = ends[-1]
            used.append((len(ends), *memory(process.pid)))
    if process.wait() or len(ends) != cells:
        raise SystemExit(f"the sweep ended with status {process.returncode} after {len(ends)} cells")
    return ends, used


def draw(path: Path, times: list[float], used: list[tuple[int, float, float]]) -> None:
    """A figure of the time per cell (median of 50) and of the memory, over the cells done."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    middles = [statistics.median(times[max(0, n - 25) : n + 25]) for n in range(len(times))]
    upper.plot(range(1, len(times) + 1), middles)
    upper.set(ylabel="time per cell, s", ylim=(0, 1.2 * max(middles[WARM_UP:])))
    done, driver, workers = zip(*used, strict=True)
    lower.plot(done, driver, label="driver")
    lower.plot(done, workers, label="larger worker")
    lower.set(xlabel="cells done", ylabel="private memory, MB", ylim=(0, None))
    lower.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the sweep, and print and draw what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=2000, help="a multiple of 50")
    parser.add_argument("--figure", type=Path, default=Path("cells.png"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends, used = measure(Path(folder), options.cells)
    times = [after - before for before, after in itertools.pairwise(ends)]
    draw(options.figure, times, used)
    tenth = len(times) // 10
    first = statistics.mean(times[WARM_UP : WARM_UP + tenth])
    last = statistics.mean(times[-tenth:])
    print(f"a cell: {first:.3f} s at the start, {last:.3f} s at the end: ratio {last / first:.2f}")
    for share in (0.1, 0.5, 1.0):
        done, driver, worker = used[min(len(used) - 1, int(share * len(used)))]
        print(f"after {done:>5} cells: driver {driver:.0f} MB, larger worker {worker:.0f} MB")


if __name__ == "__main__":
    main()
