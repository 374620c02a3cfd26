"""How many workers are fastest on this machine, each with its share of the cores.

    python -m benchmarks.workers

The same twelve cells (64 px, four epochs, the drawn sample) by one process with all cores, by one process per
core (`sweep.workers: auto` without GPUs), and by two per core, in turn. The time is the whole command's, with
the workers' start. Takes some 5 minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRID = {
    "learning_rate": [0.01, 0.001],
    "activation": ["tanh", "relu"],
    "kernel_initializer": ["he_uniform", "glorot_uniform", "lecun_uniform"],
}


def measure(workers: int, source: str) -> float:
    """Run the sweep in a folder of its own, where images are prepared already; returns seconds."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "params.yaml").write_text((ROOT / "params.yaml").read_text())
        grid = f"--sweep.grid={json.dumps(GRID)}"
        for step in (["prepare"], ["sweep", grid, f"--sweep.workers={workers}"]):
            start = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", f"pipeline.steps.{step[0]}", f"--data.source={source}", *step[1:]],
                cwd=folder,
                env=kept | {"PYTHONPATH": str(ROOT)},
                check=True,
                stdout=subprocess.DEVNULL,
            )
    return time.monotonic() - start


def main() -> None:
    """Measure each number of workers in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, cores, 2 * cores])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--source", default="sample")
    options = parser.parse_args()
    times: dict[int, list[float]] = {workers: [] for workers in options.workers}
    for _ in range(options.rounds):
        for workers in options.workers:
            times[workers].append(measure(workers, options.source))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}")
    for workers, seconds in times.items():
        ratio = min(seconds) / min(times[options.workers[0]])
        print(f"{workers:>3} workers: {' '.join(f'{second:.1f}' for second in seconds)} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
