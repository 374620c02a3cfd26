"""What is printed: human units, colours on a terminal alone, and everything that libraries say on demand."""

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from conftest import ROOT, Project

from pipeline.config.command_line import load
from pipeline.runtime import console
from pipeline.runtime.errors import UserError
from pipeline.sweep.identity import study_name

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.04, "0 s"), (0.5, "0.5 s"), (5, "5 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min"), (142.33, "2 min 22 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h"),
        (3780, "1 h 3 min"), (90_000, "25 h"), (3_600_000 + 60, "1,000 h 1 min"),
    ],
)  # fmt: skip
def test_times(seconds, text):
    assert console.duration(seconds) == text


def test_a_thousand_classes_are_not_listed():
    """In what is printed of them: the first few, and how many more."""
    from pipeline.steps import explain

    classes = tuple(f"class number {number}" for number in range(1000))
    assert console.few(classes) == ", ".join(classes[:8]) + " and 992 more"
    assert [console.few("ABCDE"[:count], most=3) for count in (0, 1, 4, 5)] == [
        "",
        "A",
        "A, B, C, D",
        "A, B, C and 2 more",
    ]
    with pytest.raises(UserError, match="class number 7 and 992 more") as raised:
        explain._class_index(classes, "dog")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (787_400_000, "787.4 MB"), (1.234e12, "1,234 GB")],
)  # fmt: skip
def test_sizes(count, text):
    assert console.file_size(count) == text


def test_counts():
    assert [console.counted(number, "cell") for number in (0, 1, 1234)] == [
        "0 cells",
        "1 cell",
        "1,234 cells",
    ]


def test_bar_tells_counts_and_times():
    stream = io.StringIO()
    bar = console.Bar(desc="predict", total=8000, file=stream, mininterval=0)
    bar.start_t -= 60
    bar.update(1200)
    assert re.fullmatch(
        r"predict 1,200/8,000\|.*\| 1 min, 5 min 40 s left *", stream.getvalue().split("\r")[-1]
    )
    unknown = console.Bar(desc="pets.zip", unit="B", initial=500_000, file=stream, mininterval=0)
    unknown.update(1_500_000)
    assert stream.getvalue().split("\r")[-1].startswith("pets.zip 2 MB|")


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """The end of a pseudo-terminal that a program writes to."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        yield stream
    os.close(master)


def test_colours_on_a_terminal_alone(terminal, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert console.styled("best", console.BOLD, terminal) == "\033[1mbest\033[0m"
    with (tmp_path / "log").open("w") as file:
        assert console.styled("best", console.BOLD, file) == "best"
    monkeypatch.setenv("NO_COLOR", "")  # set to nothing, it says nothing
    assert console.styled("best", console.RED, terminal) == "\033[31mbest\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.styled("best", console.RED, terminal) == "best"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert console.styled("best", console.RED, terminal) == "best"


def on_a_terminal(project: Project, step: str, *arguments: str, **variables: str) -> str:
    """What a step prints where its three streams are one terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", f"pipeline.steps.{step}", *arguments],
        cwd=project.path,
        env=project.environment(TERM="xterm", **variables),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 4096):
            text += chunk
    except OSError:  # what Linux gives where the other end is closed
        pass
    os.close(master)
    process.wait()
    return text.decode()


def test_error_is_red_on_a_terminal(project, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert on_a_terminal(project, "train", "--train.epoch=3").startswith(
        "\033[31merror:\033[0m train.epoch ("
    )
    assert on_a_terminal(project, "train", "--train.epoch=3", NO_COLOR="1").startswith("error: train.epoch (")


def test_log_is_info_or_debug():
    with pytest.raises(UserError) as raised:
        load(["--log=loud"], ROOT / "params.yaml")
    assert str(raised.value) == "log (command line): got 'loud'; allowed: info, debug"


def test_log_is_no_part_of_a_study():
    quiet, loud = (load([f"--log={log}"], ROOT / "params.yaml") for log in ("info", "debug"))
    assert study_name(quiet, "digest") == study_name(loud, "digest")


def test_debug_shows_what_libraries_say_and_what_led_to_an_error(project):
    """The store's tables, which Alembic tells of, and the error within the one that is told."""
    (project.path / "broken.zip").write_bytes(b"PK\x03\x04")
    result = project.run("prepare", "--data.source=broken.zip", "--log=debug")
    assert result.returncode == 1
    assert "INFO alembic.runtime.migration: " in result.stderr
    assert "zipfile.BadZipFile" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "truncated or damaged zip" in last


DEBUGGED_WORKER = """
import logging, os
from pipeline.runtime import logs
from pipeline.config.command_line import load

if __name__ == "__main__":
    logs.configure("debug")
    from pipeline.execution import cluster, worker

    executor = cluster.start(load([]).sweep, 1, 1)
    print(executor.call(logs.debugging), executor.call(logging.getLogger().getEffectiveLevel))
    executor.call(worker._import_all, 1)
    executor.close()
"""


def test_debug_reaches_workers(project):
    """TensorFlow's native lines of its start, which only the worker imports, and the levels of loggers."""
    script = project.path / "script.py"
    script.write_text(DEBUGGED_WORKER)
    done = subprocess.run(
        [sys.executable, script], cwd=project.path, env=project.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True 10\n"
    assert re.search(r"^[IWE]0000 .*\.cc:\d+\] ", done.stderr, re.MULTILINE), done.stderr
    assert "INFO distributed.scheduler: " in done.stderr


def test_what_is_left_out_is_named_with_its_reason():
    """A library's logger is silenced nowhere but in `logs`."""
    for path in Path(ROOT, "pipeline").rglob("*.py"):
        if path.name != "logs.py":
            assert ".setLevel(logging." not in path.read_text().replace("self._logger.setLevel", ""), path
