"""A sweep that is killed, at random and in the middle of every kind of write, and resumed.

The long forms are `python -m benchmarks.torture` with `--kills` and with `--kind writes`.
"""

import signal
import subprocess
from pathlib import Path

import pytest
from conftest import forker

from benchmarks import torture

pytestmark = pytest.mark.slow

GRID = '--sweep.grid={"learning_rate":[0.01,0.001],"bias_initializer":[0.0,0.01,0.02]}'
CELLS = 6
SMALL = ("--data.limit=40", "--data.image_size=16", "--train.epochs=3", GRID)
# One of each kind: a run, a batch of metrics, a file, a folder of artifacts, a row of the study.
PLACES = ("a cell's run", "metrics", "checkpoint", "model", "enqueued trial", "test report")


class Sweep(torture.Sweep):
    """A sweep whose processes are forked, without the seconds that the imports take."""

    def start(self):
        with self.log.open("a") as log:
            arguments = ("pipeline.steps.sweep", self.arguments, self.folder, self.environment())
            return forker().start(*arguments, log.fileno())

    def die(self, place: str) -> subprocess.CompletedProcess:
        return forker().run("benchmarks.dying", (place, *self.arguments), self.folder, self.environment())


def undisturbed(folder: Path, arguments: tuple[str, ...]) -> Sweep:
    """The same sweep, which is not killed."""
    folder.mkdir()
    sweep = Sweep(folder, arguments)
    assert sweep.start().wait(600) == 0, sweep.log.read_text()
    sweep.check(CELLS)
    return sweep


def test_killed_in_the_middle_of_every_kind_of_write(tmp_path):
    sweep = Sweep(tmp_path, (*SMALL, "--sweep.workers=1"))
    for place in PLACES:
        done = sweep.die(place)
        assert done.returncode == -signal.SIGKILL, f"{place}: {done.stdout}{done.stderr}"
    assert sweep.start().wait(600) == 0, sweep.log.read_text()
    sweep.check(CELLS)
    assert sweep.leaderboard() == undisturbed(tmp_path / "undisturbed", sweep.arguments).leaderboard()


def test_killed_at_random(tmp_path):
    sweep = Sweep(tmp_path, (*SMALL, "--sweep.workers=2"))
    done = torture.torture(sweep, kills=5, seed=3, longest=5)
    sweep.finish()
    assert done.total() >= 3, done
    sweep.check(CELLS)
    assert sweep.leaderboard() == undisturbed(tmp_path / "undisturbed", sweep.arguments).leaderboard()
