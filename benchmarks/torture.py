"""Kill a sweep's processes at random, run it again until it is done, and compare it with one left in peace.

    python -m benchmarks.torture --kills 40 --seed 1
    python -m benchmarks.torture --kills 40 --seed 1 --kind finalists
    python -m benchmarks.torture --kind writes

48 small cells on two workers; with finalists, three of them twice more; with a pruner, on one worker, so that
each cell is judged by the same others as in peace. Workers, the process that they are forked from, the driver
and its whole process group get SIGKILL, the driver also SIGTERM, SIGINT and SIGINT twice, at moments drawn
from the seed. With writes, the driver dies half-way through each of `benchmarks/dying.py`'s. In the end there
must be 48 finished cells, none twice, each metric once per epoch, one model per cell, and the same
leaderboard.csv, run ids aside. Some 10 minutes on two cores; `tests/test_torture.py` runs a short form.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
from mlflow import MlflowClient

from benchmarks import dying

ROOT = Path(__file__).parents[1]
SMALL = ("--data.limit=60", "--data.image_size=16", "--train.epochs=3", "--sweep.workers=2")
KINDS = {
    "plain": (),
    "finalists": ("--sweep.finalists=3", "--sweep.repeats=2"),
    "pruner": ("--sweep.pruner=median", "--sweep.workers=1"),
    "writes": ("--sweep.workers=1",),
}
VICTIMS = ("worker", "worker", "worker", "driver", "group", "SIGTERM", "SIGINT", "SIGINT twice")
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "report/accuracy")
PATIENCE = 600  # seconds that a sweep left in peace may take


class Sweep:
    """A sweep in a folder of its own.

    Args:
        folder: where its store and its data go.
        arguments: of the step.
    """

    def __init__(self, folder: Path, arguments: tuple[str, ...]):
        self.folder, self.arguments = folder, arguments
        (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        self.log = folder / "log.txt"

    def environment(self) -> dict[str, str]:
        """The variables of its processes: the checkout's code, nothing of MLflow's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return kept | {"PYTHONPATH": str(ROOT)}

    def start(self) -> subprocess.Popen:
        """Start or resume the sweep, in a process group of its own."""
        return self._start("pipeline.steps.sweep", *self.arguments)

    def die(self, place: str) -> int:
        """Run it until it dies at one of `dying.PLACES`; returns the exit status."""
        return self._start("benchmarks.dying", place, *self.arguments).wait(PATIENCE)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen:
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self) -> None:
        """Run the command, again and again, until it has done all it was asked."""
        for _ in range(10):
            process = self.start()
            if process.wait(PATIENCE) == 0:
                return
        raise AssertionError(f"the sweep does not end:\n{self.log.read_text()[-3000:]}")

    def leaderboard(self) -> list[dict[str, str]]:
        """The rows of leaderboard.csv without the run ids."""
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        (sweep,) = client.search_runs(["0"], "tags.step = 'sweep'")
        file = Path(sweep.info.artifact_uri.removeprefix("file://"), "leaderboard.csv")
        with file.open() as lines:
            return [
                {key: value for key, value in row.items() if key != "run_id"} for row in csv.DictReader(lines)
            ]

    def check(self, cells: int) -> None:
        """Assert that every cell was recorded once, and all of it once."""
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        (sweep,) = client.search_runs(["0"], "tags.step = 'sweep'")
        runs = client.search_runs(["0"], "tags.step = 'cell'", max_results=1000)
        repeats = client.search_runs(["0"], "tags.step = 'finalist'", max_results=1000)
        again = Counter(run.data.tags["finalist"] for run in repeats)
        assert len(again) == len(repeats), again.most_common(3)
        assert sweep.data.tags["complete"] == "true" and "test/accuracy" in sweep.data.metrics
        assert {run.info.status for run in [sweep, *runs]} == {"FINISHED"}
        assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {sweep.info.run_id}
        times = Counter(run.data.tags["cell"] for run in runs)
        assert len(times) == len(runs) == cells, times.most_common(3)
        assert sweep.data.metrics["cells/finished"] == sweep.data.metrics["cells/total"] == cells
        for run in [*runs, *repeats]:
            epochs = int(run.data.tags["epochs"])
            for name in METRICS:
                steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
                wanted = [0] if name.startswith("report/") else list(range(1, epochs + 1))
                assert steps == wanted, f"{run.info.run_name}: {name} at steps {steps}"
            models = client.search_logged_models(["0"], f"source_run_id = '{run.info.run_id}'")
            assert [model.model_id for model in models] == [
                output.model_id for output in run.outputs.model_outputs
            ], f"{run.info.run_name}: models {models}"
            assert len(models) == 1
        assert not list(self.folder.glob("data/checkpoints/*")), "checkpoints are left"


def torture(sweep: Sweep, kills: int, seed: int, longest: float) -> Counter:
    """Run a sweep while it is killed at random, until the kills are used up or it is done.

    Args:
        sweep: the sweep.
        kills: how often something is killed.
        seed: draws who and when.
        longest: seconds between two kills, at most.

    Returns:
        How often what was killed.
    """
    rng = random.Random(seed)
    done: Counter = Counter()
    process = sweep.start()
    while done.total() < kills:
        moment = time.monotonic() + rng.uniform(0.5, longest)
        victim = rng.choice(VICTIMS)
        while time.monotonic() < moment and process.poll() is None:
            time.sleep(0.05)
        if process.poll() is None and kill(process, victim, rng):
            done[victim] += 1
        if process.poll() is not None:
            if process.returncode == 0:
                return done
            process = sweep.start()
    if process.poll() is None:
        process.wait(PATIENCE)
    return done


def kill(process: subprocess.Popen, victim: str, rng: random.Random) -> bool:
    """Kill one of a sweep's processes, or all; returns whether there was one to kill."""
    if victim == "worker":
        workers = [child for child in children(process.pid) if is_worker(command(child))]
        if not workers:
            return False
        rng.choice(workers).kill()
        return True
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "driver":
        process.kill()
    elif victim == "SIGINT twice":
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    else:
        process.send_signal(signal.Signals[victim])
    process.wait(PATIENCE)
    return True


def is_worker(command: Sequence[str]) -> bool:
    """Whether a command line is of a worker's process, or of the one that workers are forked from."""
    return any(name in " ".join(command) for name in ("spawn_main", "multiprocessing.forkserver"))


def children(pid: int) -> list[psutil.Process]:
    """The processes below one, in the order in which they started."""
    try:
        return sorted(psutil.Process(pid).children(recursive=True), key=lambda child: child.pid)
    except psutil.NoSuchProcess:
        return []


def command(process: psutil.Process) -> list[str]:
    """A process's command line; empty where it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def main() -> None:
    """Torture one sweep, leave another in peace, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=16, help="seconds between two kills, at most")
    parser.add_argument("--kind", choices=KINDS, default="plain")
    arguments = parser.parse_args()
    # a shell has processes in the background ignore it, and those that they start as well
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked = (*SMALL, *KINDS[arguments.kind])
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        tortured, peaceful = Sweep(Path(one), asked), Sweep(Path(other), asked)
        start = time.monotonic()
        if arguments.kind == "writes":
            done = Counter(place for place in dying.PLACES if tortured.die(place) == -signal.SIGKILL)
            assert done.total() == len(dying.PLACES), done
        else:
            done = torture(tortured, arguments.kills, arguments.seed, arguments.longest)
        tortured.finish()
        taken = time.monotonic() - start
        print(f"{arguments.kind}: killed {done.total()} times: {dict(done)}; done after {taken:.0f} s")
        start = time.monotonic()
        peaceful.finish()
        print(f"in peace: done after {time.monotonic() - start:.0f} s")
        tortured.check(48)
        peaceful.check(48)
        assert tortured.leaderboard() == peaceful.leaderboard()
        print("48 finished cells each, none twice, the same leaderboard")


if __name__ == "__main__":
    main()
