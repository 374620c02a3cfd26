"""Where a sweep's time goes: `python -m benchmarks.overhead [--photos ZIP] [--images N] [--epochs N]`.

One process runs a sweep of eight cells with one worker, in a folder of its own, with a clock around each part
of it: what runs within another part is taken off that one. Batches are read in a thread beside the training,
and stand by themselves. Some 3 minutes on two cores; nothing is asserted.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.prepare import PHOTOS
from pipeline.runtime.logs import importing_tensorflow

GRID = json.dumps(
    {
        "learning_rate": [0.01, 0.001],
        "activation": ["relu", "tanh"],
        "kernel_initializer": ["he_uniform", "glorot_uniform"],
    }
)


class Clock:
    """Wall time by part, each second in the innermost part that is open in its thread."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open = threading.local()

    def around(self, part: str, function: Callable) -> Callable:
        """The function, clocked as a part."""

        @wraps(function)
        def clocked(*arguments: Any, **options: Any) -> Any:
            stack = self._open.__dict__.setdefault("stack", [])
            stack.append(0.0)  # of what runs within
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                taken = time.perf_counter() - start
                self.seconds[part] += taken - stack.pop()
                self.calls[part] += 1
                if stack:
                    stack[-1] += taken

        return clocked

    def put(self, part: str, *places: tuple[Any, str]) -> None:
        """Clock functions where they are looked up: (module or class, name)."""
        for holder, name in places:
            setattr(holder, name, self.around(part, getattr(holder, name)))


def clocked(clock: Clock) -> None:
    """Put the clock around the parts of a cell."""
    with importing_tensorflow():
        import keras
        from tensorflow.python.eager.polymorphic_function import tracing_compilation

        from pipeline import models
        from pipeline.evaluation import metrics
        from pipeline.execution import trial
        from pipeline.inference import report
        from pipeline.tracking import artifacts, checkpoints, runs
        from pipeline.tracking import models as logged
        from pipeline.training import batches, graph_cache, train
    make = graph_cache.predictor

    def predictor(model: Any) -> Callable:
        return clock.around("validation", make(model))

    graph_cache.predictor = predictor
    clock.put("training", (keras.Model, "fit"))
    clock.put("tracing", (tracing_compilation, "trace_function"))
    clock.put("input (beside)", (batches.Batches, "__getitem__"))
    clock.put("building", (models, "build"), (graph_cache, "traced"))
    clock.put("report", (report, "classification"), (report, "learning_curves"), (metrics, "report"))
    clock.put("model", (logged, "log"))
    clock.put("checkpoints", (checkpoints.Checkpoints, "save"), (checkpoints.Checkpoints, "clear"))
    clock.put("store", *((runs, name) for name in ("log_metrics", "set_tags")))
    clock.put("store", *((artifacts, name) for name in ("log_files", "log_dataset")))
    clock.put("rest of a training", (train, "train"))
    clock.put("rest of a cell", (trial, "resume"))


def main() -> None:
    """Parse the command line, sweep, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder or zip of labelled images")
    parser.add_argument("--images", type=int, default=2_500)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    clock, start = Clock(), time.perf_counter()
    from pipeline.config.command_line import load

    arguments = [
        f"--data.source={options.photos.absolute()}",
        f"--data.limit={options.images}",
        f"--train.epochs={options.epochs}",
        "--train.precision=float32",
        "--sweep.workers=1",
        f"--sweep.grid={GRID}",
    ]
    params = load(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        clocked(clock)
        from pipeline.steps import sweep
        from pipeline.tracking import store

        store.connect()
        started = time.perf_counter()
        sweep.run(params)
        ended = time.perf_counter()
        os.chdir("/")
    beside = clock.seconds.pop("input (beside)")
    clock.seconds["start: imports, the store"] = started - start
    clock.seconds["driver: preparing, waiting, ranking, the winner"] = (
        ended - started - sum(value for name, value in clock.seconds.items() if not name.startswith("start"))
    )
    whole = ended - start
    print(f"\n{'':50}{'s':>8}{'of all':>9}")
    for name, value in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"{name:50}{value:8.2f}{value / whole:9.1%}")
    print(f"{'whole':50}{whole:8.2f}\nbatches were read in {beside:.2f} s, beside the training")


if __name__ == "__main__":
    main()
