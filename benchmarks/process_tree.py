"""What a program takes with everything that it starts: daemons, and processes that nobody waits for, too.

A process belongs to the program where its parent does, or where it carries the program's mark in its
environment; once seen, it stays counted.

- CPU: the user and system time that each process was last seen with, four times a second, summed. What a
  process did after its last look is missed, and one that lived between two looks. Where the kernel's own sum,
  of the program and of all that was waited for, is larger, that one is taken.
- Memory: the largest sum of their proportional set sizes, once a second, since the kernel walks all their
  pages for it. It counts once what several of them share (libraries, an object store); what other programs
  share with them, it counts in part. On systems without it: unique set sizes.
"""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "BENCHMARK_PROGRAM"
INTERVAL = 0.25  # s between two looks
MEMORY_EVERY = 4  # looks; each takes 5 ms for a process of 1 GB
LINGER = 10  # s that processes have to go after the program's exit
PATIENCE = 3600  # s that a program may take


@dataclass(frozen=True)
class Ended:
    """A program that ended.

    Attributes:
        status: its exit status; negative: the signal that ended it.
        wall: s, from starting it to its exit.
        cpu: s, user and system, of all processes.
        memory: MB, the largest sum over all processes.
        left: the names of processes that were still there `LINGER` seconds later, and were killed.
    """

    status: int
    wall: float
    cpu: float
    memory: float
    left: tuple[str, ...]


class Tree:
    """A program's processes, as they come and go."""

    def __init__(self, pid: int, mark: str):
        # The first process is named, since until its program is loaded it carries this one's environment.
        self._mark, self._belongs = mark, {psutil.Process(pid): True}
        self._cpu: dict[psutil.Process, float] = {}
        self._looks = 0
        self.memory = 0.0  # bytes, the largest sum so far

    @property
    def cpu(self) -> float:
        """Seconds, of all processes that were ever seen."""
        return sum(self._cpu.values())

    def look(self) -> None:
        """Read the time and, at times, the memory of all that are there."""
        memory, with_memory = 0, self._looks % MEMORY_EVERY == 0
        self._looks += 1
        for process in self.running():
            with suppress(psutil.Error):  # it ended meanwhile
                times = process.cpu_times()
                self._cpu[process] = times.user + times.system
                if with_memory:
                    sizes = process.memory_full_info()
                    memory += getattr(sizes, "pss", sizes.uss)
        self.memory = max(self.memory, memory)

    def running(self) -> list[psutil.Process]:
        """Those that have not ended."""
        pids = {process.pid for process, belongs in self._belongs.items() if belongs}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process not in self._belongs:
                    self._belongs[process] = process.ppid() in pids or self._is_marked(process)
                if self._belongs[process]:
                    pids.add(process.pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self._mark
        except psutil.AccessDenied:  # somebody else's
            return False

    def end(self, patience: float) -> tuple[str, ...]:
        """Wait for all to end, and kill the others; returns their names."""
        _, left = psutil.wait_procs(self.running(), patience)
        names = []
        for process in left:
            with suppress(psutil.Error):
                names.append(process.name())
                process.kill()
        psutil.wait_procs(left, LINGER)
        return tuple(names)


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Ended:
    """Run a program to its end, however long what it started stays; nothing of it is left afterwards.

    Args:
        command: with its arguments.
        folder: it is started in.
        environment: all its variables.
        log: file that its output is written to.
    """
    mark, ended = uuid.uuid4().hex, threading.Event()
    start = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment | {MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    tree = Tree(process.pid, mark)

    def watch() -> None:
        while not ended.wait(INTERVAL):
            tree.look()
            if time.monotonic() - start > PATIENCE:
                process.kill()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        ended.set()
        watcher.join()
        left = tree.end(LINGER if process.returncode is not None else 0)
    cpu = max(tree.cpu, used.ru_utime + used.ru_stime)
    return Ended(process.returncode, wall, cpu, tree.memory / 1e6, left)
