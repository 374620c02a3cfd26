"""Runs steps in processes forked from one that has imported what they import: a test's step starts at once.

A step that is forked is a process of its own, with its own folder, variables, arguments, output, session
and command line, as `python -m pipeline.steps.STEP` has them. The server of a sweep's workers is also
forked from the sweep, in place of a new interpreter; workers, pipes and signals are real. What the imports do
and print is tested by the steps that tests run in a new interpreter (`fresh` of `Project.run`, `mlflow run`).
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
# What steps import, some of it late; what only some tests use is left to them.
PRELOADED = (
    "git", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tensorflow",
    "optuna.importance", "optuna.pruners", "optuna.samplers",
    "pipeline.execution.cluster", "pipeline.execution.trial",
    "pipeline.inference.error_analysis", "pipeline.pages.sweep", "pyarrow.dataset", "pyarrow.parquet",
    "rich.progress", "sklearn.ensemble", "sklearn.metrics", "sklearn.model_selection",
)  # fmt: skip
ROOM = 4096  # bytes that a forked process's command line may have


class Process:
    """A program that was forked, with what tests use of `subprocess.Popen`.

    Attributes:
        pid: its process id, which is also that of its session and process group.
        stdout: its output, if it goes to a pipe.
        returncode: its exit status, or the negative number of the signal that ended it; None before.
    """

    def __init__(self, arguments: Sequence[str], connection: socket.socket, stdout: IO[str] | None = None):
        self.args, self.stdout = list(arguments), stdout
        self.returncode: int | None = None
        self._connection = connection
        self.pid = int.from_bytes(_read(connection, 8), signed=True)

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int.from_bytes(_read(self._connection, 8), signed=True)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forker:
    """A process that forks programs; it ends with this one."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), "-" * ROOM],
            pass_fds=[theirs.fileno()],
            env={key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            | {"PYTHONPATH": str(ROOT)},
        )
        theirs.close()

    def run(
        self,
        program: str,
        arguments: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        timeout: float = 600,
    ) -> subprocess.CompletedProcess:
        """Run a program to its end, in a folder and with the variables given, all of them.

        Args:
            program: a module to run as `python -m` does, or code as `python -c` does.
            arguments: of the program.
            folder: to run it in.
            variables: of its environment.
            timeout: seconds.

        Returns:
            Its status, stdout and stderr.
        """
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = self._fork(program, arguments, folder, variables, (stdout.fileno(), stderr.fileno()))
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(process.args, process.returncode, *texts)

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        output: int | None = None,
    ) -> Process:
        """Start a program as `run` does, in a session of its own.

        Args:
            program: as in `run`.
            arguments: of the program.
            folder: to run it in.
            variables: of its environment.
            output: descriptor of the file for stdout and stderr; None: a pipe, its `stdout`.
        """
        if output is not None:
            return self._fork(program, arguments, folder, variables, (output, output))
        reader, writer = os.pipe()
        try:
            process = self._fork(program, arguments, folder, variables, (writer, writer))
        finally:
            os.close(writer)
        process.stdout = os.fdopen(reader)
        return process

    def _fork(
        self,
        program: str,
        arguments: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        outputs: tuple[int, int],
    ) -> Process:
        content = json.dumps([program, list(arguments), str(folder), dict(variables)]).encode()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._socket, [len(content).to_bytes(8)], [*outputs, theirs.fileno()])
            self._socket.sendall(content)
        return Process([program, *arguments], ours)


def _read(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = connection.recv(count - len(content))
        if not more:
            raise EOFError
        content += more
    return content


def _serve(connection: socket.socket) -> None:
    """Fork programs and report how they end, until nobody is there to ask for one."""
    ended, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(connection, selectors.EVENT_READ)
    selector.register(ended, selectors.EVENT_READ)
    running: dict[int, socket.socket] = {}
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if ended in ready:
            ended.recv(4096)
            _report(running)
        if connection in ready:
            head, files, *_ = socket.recv_fds(connection, 8, 3)
            if not head:
                return
            asked = json.loads(_read(connection, int.from_bytes(head)))
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                _become(*asked, files)
            *outputs, status = files
            for file in outputs:
                os.close(file)
            running[child] = socket.socket(fileno=status)
            running[child].sendall(child.to_bytes(8, signed=True))


def _report(running: dict[int, socket.socket]) -> None:
    """Send the exit status of each process that has ended to who started it."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):  # nobody waits for it
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))


def _become(
    program: str, arguments: list[str], folder: str, variables: dict[str, str], files: list[int]
) -> None:
    """Make this forked process the program's; never returns."""
    os.setsid()
    _reset({0: os.open(os.devnull, os.O_RDONLY), 1: files[0], 2: files[1]}, ())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    sys.path[0] = folder
    if "PYTHONUNBUFFERED" in variables:
        sys.stdout.reconfigure(line_buffering=True)
    is_code = "\n" in program
    _run([sys.executable, "-c" if is_code else "-m", program, *arguments], is_code, program, arguments)


def _reset(descriptors: Mapping[int, int], kept: Sequence[int]) -> None:
    """Undo what a new program does not inherit: other descriptors, signal handlers, what runs at the end."""
    import atexit
    from multiprocessing import forkserver, resource_tracker, util

    for number, file in descriptors.items():
        os.dup2(file, number)
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(number)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    atexit._clear()
    util._finalizer_registry.clear()
    forkserver._forkserver.__init__()
    resource_tracker._resource_tracker._fd = resource_tracker._resource_tracker._pid = None


def _run(command: Sequence[str], is_code: bool, program: str, arguments: Sequence[str]) -> None:
    """Run code or a module as the main program to its end, which is this process's; never returns."""
    status = 1
    try:
        try:
            _show_as(command)
            sys.argv = ["-c" if is_code else program, *arguments]
            if is_code:
                exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
            else:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except KeyboardInterrupt:
            traceback.print_exc()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            traceback.print_exc()
        _end_threads()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_threads() -> None:
    """What an interpreter does at its end: wait for threads, and call what asked to be called."""
    import atexit
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()


def _show_as(command: Sequence[str]) -> None:
    """Have the system list this process under a command line."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    first, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc(5)
    content = b"\0".join(map(os.fsencode, command))[: end - first - 1]
    ctypes.memmove(first, content.ljust(end - first, b"\0"), end - first)


_spawn = None


def _forked_server(path: str, command: list[str], kept: Sequence[int]) -> int:
    """In place of `multiprocessing.util.spawnv_passfds`: fork the server that forks workers.

    A process of several threads, and what else `multiprocessing` starts, gets a new interpreter.
    """
    code = command[-1]
    if (
        not code.startswith("from multiprocessing.forkserver")
        or len([*Path("/proc/self/task").iterdir()]) > 1
    ):
        return _spawn(path, command, kept)
    child = os.fork()
    if child:
        return child
    _reset({}, kept)
    _run(command, True, code, [])


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from pipeline.runtime.logs import importing_tensorflow

    with importing_tensorflow():
        from multiprocessing import util

        for name in PRELOADED:
            importlib.import_module(name)
        from stores import copy_fresh_stores

        from pipeline.pages import sweep as page

    copy_fresh_stores()
    page.bundle()  # once, in place of 2 s in each sweep
    # Keras collects garbage before each training: a second, if it has to look at all that was imported.
    gc.collect()
    gc.freeze()
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL")
    _spawn, util.spawnv_passfds = util.spawnv_passfds, _forked_server
    _serve(socket.socket(fileno=int(sys.argv[1])))
