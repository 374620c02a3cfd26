"""Runs steps in processes forked from one that has imported what they import: a test's step starts at once.

A step that is forked is a process of its own, with its own folder, variables, arguments and output, as
`python -m pipeline.steps.STEP` has them. What the imports themselves do and print is tested by the steps that
tests start from a new interpreter (`Project.start`, `mlflow run`).
"""

import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Forker:
    """A process that forks steps, one at a time; it ends with this one."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
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
            asked = json.dumps([program, list(arguments), str(folder), dict(variables)]).encode()
            self._socket.settimeout(timeout)
            files = [stdout.fileno(), stderr.fileno()]
            socket.send_fds(self._socket, [len(asked).to_bytes(8) + asked[:1]], files)
            self._socket.sendall(asked[1:])
            status = int.from_bytes(_read(self._socket, 8), signed=True)
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([program, *arguments], status, *texts)


def _read(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = connection.recv(count - len(content))
        if not more:
            raise EOFError
        content += more
    return content


def _serve(connection: socket.socket) -> None:
    """Fork one step after the other, until nobody is there any more to ask for one."""
    while True:
        head, files, *_ = socket.recv_fds(connection, 9, 2)
        if not head:
            return
        asked = head[8:] + _read(connection, int.from_bytes(head[:8]) - 1)
        child = os.fork()
        if child == 0:
            _become(*json.loads(asked), files)
        for file in files:
            os.close(file)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(status.to_bytes(8, signed=True))


def _become(
    program: str, arguments: list[str], folder: str, variables: dict[str, str], files: list[int]
) -> None:
    """Make this forked process the program's; never returns."""
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(files, start=1):
            os.dup2(file, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        sys.path[0] = folder
        sys.argv = [program, *arguments]
        try:
            if "\n" in program:
                exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
            else:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
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


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from pipeline.runtime.logs import importing_tensorflow

    with importing_tensorflow():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        from stores import copy_fresh_stores

        from pipeline.execution import (
            cluster,  # noqa: F401
            trial,  # noqa: F401
        )
        from pipeline.pages import sweep as page

    copy_fresh_stores()
    page.bundle()  # once, in place of 2 s in each sweep
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL")
    _serve(socket.socket(fileno=int(sys.argv[1])))
