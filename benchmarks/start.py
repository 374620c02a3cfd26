"""From the command to the first training step, against importing MLflow and TensorFlow alone.

    python -m benchmarks.start

`mlflow run . -e sweep --env-manager local` on two workers, the images prepared, with an epoch of one step:
the clock stops when the first cell has logged it, so its validation is in it. Beside it, the same sweep as
`python -m pipeline.steps.sweep`, which leaves out what `mlflow run` takes by itself. Takes some two minutes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "data.limit": "40",  # of which 24 are trained on: one batch
    "data.image_size": "64",
    "train.epochs": "1",
    "sweep.workers": "2",
    "sweep.grid": '{"learning_rate":[0.01,0.001]}',
}
MODULE = [sys.executable, "-m", "pipeline.steps.sweep"]
PROJECT = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "sweep", "--env-manager", "local"]


def first_step(command: list[str], prefix: str, cache: Path) -> float:
    """Seconds from starting a sweep to its first cell's first step, in a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        store = f"sqlite:///{folder}/mlflow.db"
        settings = SETTINGS | {"data.cache": str(cache)}
        arguments = [
            part for key, value in settings.items() for part in (f"{prefix}{key}={value}").split(" ", 1)
        ]
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": store,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        start = time.time()
        subprocess.run(
            [*command, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        client = MlflowClient(store)
        cells = client.search_runs(["0"], "tags.step = 'cell'")
        logged = [client.get_metric_history(cell.info.run_id, "loss")[0].timestamp for cell in cells]
    return min(logged) / 1000 - start


def importing() -> float:
    """Seconds that a fresh interpreter takes to import both libraries."""
    start = time.time()
    subprocess.run([sys.executable, "-c", "import mlflow, tensorflow"], check=True, stderr=subprocess.DEVNULL)
    return time.time() - start


def main() -> None:
    """Measure in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        first_step(MODULE, "--", cache)  # prepares the images, and reads the packages from the disk
        ways = {
            "import mlflow, tensorflow": importing,
            "python -m pipeline.steps.sweep": lambda: first_step(MODULE, "--", cache),
            "mlflow run . -e sweep": lambda: first_step(PROJECT, "-P ", cache),
        }
        seconds = {name: [way() for _ in range(rounds)] for name, way in ways.items()}
    base = statistics.median(seconds["import mlflow, tensorflow"])
    print(f"{'':32}{'median s':>9}{'ratio':>7}   rounds, s")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name:32}{median:9.2f}{median / base:7.2f}   {' '.join(f'{value:.2f}' for value in found)}")


if __name__ == "__main__":
    main()
