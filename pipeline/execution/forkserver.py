"""A process that has imported everything a worker needs, from which workers are forked.

Importing TensorFlow takes seconds of a core. Started with the command, it is done once for all workers, while
the driver opens the store and prepares the images; a worker in place of one that died is there at once.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from typing import TYPE_CHECKING

from pipeline.runtime import hardware

if TYPE_CHECKING:
    from pipeline.config.params import Params

METHOD = "forkserver"  # by its name in `multiprocessing`, and in Dask
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl
_started = False


def start(params: "Params") -> None:
    """Begin to import, in a process that ends with this one, where the sweep will have workers to fork.

    Forked are processes that import TensorFlow but have not used it: no threads, no device. With GPUs that is
    not sure, and macOS does not let forked processes use its libraries.
    """
    global _started
    sweep = params.sweep
    own_workers = sweep.workers != 1 and sweep.cluster is None and not sweep.dry_run
    if own_workers and hardware.cores() > 1 and sys.platform == "linux" and not hardware.gpus():
        multiprocessing.get_context(METHOD).set_forkserver_preload(["pipeline.execution.preload"])
        forkserver.ensure_running()
        _started = True


def method() -> str:
    """How worker processes are started, by its name in `multiprocessing`."""
    return METHOD if _started else "spawn"


def is_forked() -> bool:
    """Whether this process was forked from the one that imported everything."""
    return "pipeline.execution.preload" in sys.modules


def end_with_parent() -> None:
    """Have a forked worker killed where the process it was forked from is: Dask takes it for dead then."""
    if is_forked():
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
        if os.getppid() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
