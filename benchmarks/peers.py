"""The sweep against what else people run a grid with: the same cells, photos, network and epochs for all.

    python -m benchmarks.peers

Eight cells of two epochs on 1,500 photos by `python -m pipeline.steps.sweep`, by `fit` in a loop, KerasTuner,
Ray Tune and Optuna with MLflow's autologging (`peer_scripts/`), each in a process of its own, in turn. The
peers are no dependencies: they are installed beside the pins of conda.yaml into an environment that is
removed afterwards, or kept with `--environment FOLDER`; all five run from it. Installing, compiling and
preparing the photos come before the clock, which runs from the interpreter's start to its exit. Takes some
8 minutes a round on two cores, and 2 before.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from benchmarks.peer_environment import ROOT, install, versions
from benchmarks.peer_scripts.cells import RESULTS, SETTINGS, SIZES, SPLITS, cells, grid
from benchmarks.process_tree import Ended, run
from pipeline.config.command_line import load
from pipeline.dataset.prepare import prepare

PHOTOS = ROOT.parent / "shared" / "data" / "dogs-vs-cats-8k.zip"
OURS = "sweep"
# Each system's title and what it leaves behind, in the order of `KEPT`.
SYSTEMS = {
    OURS: ("this sweep", "epochs, MLflow", "yes", "yes", "yes", "within a cell"),
    "bare_fit": ("fit in a loop", "no", "no", "no", "no", "no"),
    "keras_tuner_grid": ("KerasTuner GridSearch", "best epoch, JSON", "no", "no", "weights", "whole cells"),
    "ray_tune": ("Ray Tune, 2 workers", "epochs, CSV, JSON", "no", "no", "no", "whole cells"),
    "optuna_autolog": ("Optuna + autolog", "epochs, MLflow", "no", "no", "yes", "whole cells"),
}
KEPT = ("metrics", "report", "figures", "model", "resume")


class Failed(Exception):
    """A system did not do what it was asked; the text says why."""


@dataclass(frozen=True)
class Place:
    """Where everything is that is made for the measurement.

    Attributes:
        folder: temporary, removed at the end.
        python: of the environment that all systems run from.
        options: of the command line.
    """

    folder: Path
    python: Path
    options: argparse.Namespace

    @property
    def variables(self) -> dict[str, str]:
        """The environment's variables of every system: nothing is written elsewhere, nothing is sent out."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RAY_"))}
        return kept | {
            "PYTHONPATH": str(self.folder / "code"),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "DO_NOT_TRACK": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def data(self) -> list[str]:
        """The sweep's arguments on the photos."""
        where = (self.options.photos.absolute(), self.options.limit, self.folder / "cache")
        keys = ("data.source", "data.limit", "data.cache")
        return [*SETTINGS, *(f"--{key}={value}" for key, value in zip(keys, where, strict=True))]

    def command(self, name: str, output: Path) -> list[str]:
        """How a system is started, in the folder `output`."""
        options = self.options
        if name == OURS:
            precision = [f"--train.precision={options.precision}"] if options.precision else []
            values = json.dumps(grid(options.cells))
            arguments = [*self.data, f"--train.epochs={options.epochs}", f"--sweep.grid={values}", *precision]
            return [str(self.python), "-m", "pipeline.steps.sweep", *arguments]
        arguments = {
            "photos": self.folder / "photos",
            "output": output,
            "cells": options.cells,
            "epochs": options.epochs,
        }
        return [
            *(str(self.python), "-m", f"benchmarks.peer_scripts.{name}"),
            *(f"--{key}={value}" for key, value in arguments.items()),
        ]


@dataclass
class Rounds:
    """What a system came to: one entry for each round that it got through, by the round's number."""

    ended: dict[int, Ended] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)  # of every cell, at its best epoch


def get_ready(place: Place) -> str:
    """Do what is not measured: photos, bytecode, caches; returns a line on what was made.

    The code is copied, so that its bytecode does not land in the project.
    """
    for name in ("home", "tmp", "photos"):
        (place.folder / name).mkdir()
    code = place.folder / "code"
    for name in ("pipeline", "benchmarks"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "params.yaml", code / "params.yaml")
    subprocess.run([place.python, "-m", "compileall", "-q", code], check=True)
    params = load(place.data, ROOT / "params.yaml")
    prepared = prepare(params.data, params.seed)
    for split in SPLITS:
        rows = prepared.indices(split)
        np.save(place.folder / "photos" / f"{split}_images.npy", prepared.images[rows])
        np.save(place.folder / "photos" / f"{split}_labels.npy", prepared.labels[rows])
    # The first import reads the packages from the disk, and matplotlib lists its fonts once.
    imports = "import keras_tuner, matplotlib.pyplot, mlflow.tensorflow, optuna, ray.tune, tensorflow"
    subprocess.run([place.python, "-c", imports], check=True, env=place.variables, stderr=subprocess.DEVNULL)
    counts = [len(prepared.indices(split)) for split in SPLITS]
    return f"{counts[0]:,} training and {counts[1]:,} validation photos of {prepared.image_size} px"


def measure(place: Place, name: str, number: int) -> tuple[Ended, list[float]]:
    """Run a system once; returns what it took, and each cell's best validation accuracy.

    Raises:
        Failed: it ended with an error, or did not train every cell for every epoch.
    """
    with tempfile.TemporaryDirectory(prefix=f"{number}-", dir=place.folder) as folder:
        output = Path(folder)
        shutil.copyfile(ROOT / "params.yaml", output / "params.yaml")  # the sweep's, where it is started
        ended = run(place.command(name, output), output, place.variables, output / "log.txt")
        if ended.status != 0:
            lines = (output / "log.txt").read_text(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "nothing was printed")
            raise Failed(f"status {ended.status}: {last.strip()[:300]}")
        done = trained(output) if name == OURS else json.loads((output / RESULTS).read_text())
    wanted = [_key(cell) for cell in cells(grid(place.options.cells))]
    if sorted(_key(item["cell"]) for item in done) != sorted(wanted):
        raise Failed(f"trained other cells than it was asked: {[item['cell'] for item in done]}")
    for item in done:
        if len(item["val_accuracy"]) != place.options.epochs:
            raise Failed(f"{len(item['val_accuracy'])} epochs, not {place.options.epochs}: {item['cell']}")
    return ended, [max(item["val_accuracy"]) for item in done]


def _key(cell: Mapping) -> str:
    return json.dumps(cell, sort_keys=True)


def trained(output: Path) -> list[dict]:
    """The cells of a sweep as its store has them, in the form of the peers' results."""
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs(["0"], "tags.step = 'cell' and attributes.status = 'FINISHED'")
    return [
        {
            "cell": json.loads(run.data.tags["cell"]),
            "val_accuracy": [p.value for p in client.get_metric_history(run.info.run_id, "val_accuracy")],
        }
        for run in runs
    ]


def table(found: Mapping[str, Rounds]) -> list[str]:
    """The lines of both tables: what each system took, and what it keeps."""
    lines = [
        f"{'':22}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'wall, ratio to the sweep':>26}{'val. accuracy':>15}"
    ]
    ours = found[OURS].ended if OURS in found else {}
    for name, rounds in found.items():
        title, ended = SYSTEMS[name][0], rounds.ended
        if not ended:
            lines.append(f"{title:22} failed: {rounds.failures[0]}")
            continue
        ratios = [ended[number].wall / ours[number].wall for number in ended if number in ours]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "-"
        wall, cpu, memory = (
            statistics.median(getattr(one, key) for one in ended.values())
            for key in ("wall", "cpu", "memory")
        )
        accuracies = f"{min(rounds.accuracies):.3f}-{max(rounds.accuracies):.3f}"
        lines.append(f"{title:22}{wall:8.1f}{cpu:8.1f}{memory:9,.0f}{ratio:>26}{accuracies:>15}")
    rows = [("", *KEPT), *(SYSTEMS[name] for name in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]
    return lines


def notes(place: Place, found: Mapping[str, Rounds]) -> list[str]:
    """What is to be known beside the tables: versions, loosened pins, failures, what was left running."""
    lines = versions(place.python)
    if place.options.precision:
        lines.append(f"the sweep alone trained with train.precision={place.options.precision}")
    for name, rounds in found.items():
        if rounds.ended:  # the reason of one that never finished is in its row
            lines += [f"{SYSTEMS[name][0]}: {failure}" for failure in rounds.failures]
        left = sorted({program for ended in rounds.ended.values() for program in ended.left})
        if left:
            lines.append(f"{SYSTEMS[name][0]} left running, and the benchmark ended: {', '.join(left)}")
    return lines


def measure_all(place: Place) -> dict[str, Rounds]:
    """Run every system that was asked for once a round, each round beginning with another."""
    names = [name for name in SYSTEMS if name in place.options.only]
    found = {name: Rounds() for name in names}
    for number in range(place.options.rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            rounds = found[name]
            try:
                rounds.ended[number], accuracies = measure(place, name, number)
            except Failed as failure:
                rounds.failures.append(f"round {number + 1}: {failure}")
                print(f"round {number + 1}: {SYSTEMS[name][0]}: {failure}", flush=True)
                continue
            rounds.accuracies += accuracies
            print(f"round {number + 1}: {SYSTEMS[name][0]}: {rounds.ended[number].wall:.1f} s", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Install, prepare, measure in turn, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cells", type=int, choices=SIZES, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=2500, help="photos, of which 0.6 are trained on")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder or zip of labelled images")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    parser.add_argument("--precision", help="the sweep's train.precision; the peers keep float32")
    parser.add_argument("--environment", type=Path, help="folder that the peers' environment is kept in")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is running is ended with it
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        python = install((options.environment or Path(folder, "environment")).absolute())
        place = Place(Path(folder), python, options)
        photos = get_ready(place)
        load_before = os.getloadavg()[0]
        found = measure_all(place)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(
            f"\n{options.cells} cells, {options.epochs} epochs, {photos}; median of {options.rounds} rounds; "
            f"{cores} cores, load {load_before:.1f}\n",
            *table(found),
            "",
            *notes(place, found),
            sep="\n",
        )
    if any(rounds.failures for rounds in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
