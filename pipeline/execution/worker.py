"""What a worker does: train one cell at a time, report its progress, and follow the driver's orders.

The same code runs in a thread of the driver's process and in a worker of a Dask cluster. This module imports
nothing heavy, since a Dask scheduler, which only passes tasks on, has to import it too.
"""

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.execution import failures, forkserver
from pipeline.execution.failures import BROKEN, FAILED, FINISHED, STOPPED

TOPIC = "pipeline-cells"  # of the events that tell the driver how cells go
# Commands of a driver to a cell, obeyed at the end of an epoch. Only a sweep with a pruner sends CONTINUE.
CONTINUE, PRUNE, STOP = "continue", "prune", "stop"
DRIVER_TIMEOUT_SECONDS = 300  # without a command, before a cell takes its driver for dead
RETRY_INTERVAL_SECONDS = 0.2  # between two tries of a task whose process trains another cell


@dataclass(frozen=True)
class Task:
    """One cell to train: plain values, which any process can unpickle.

    Attributes:
        token: names this try of the cell.
        session: the driver's token; another driver of the study stops what this one started.
        study: the study's name.
        sweep_run_id: the sweep's run, which has the token of the driver in charge.
        run_id: the cell's run.
        name: the cell's name.
        params: the parameters in force, nested, the cell's values among them.
        store: MLflow's tracking URI.
        images: where the prepared images are, and what they must be.
        epochs: the most that it is trained.
        pruning: after each epoch but the last, wait for the driver's verdict.
        shared: keep checkpoints in the run's artifacts as well.
        versions: of the packages that the driver has; empty: the worker's are the driver's own.
    """

    token: str
    session: str
    study: str
    sweep_run_id: str
    run_id: str
    name: str
    params: Mapping[str, Any]
    store: str
    images: Mapping[str, Any]
    epochs: int
    pruning: bool
    shared: bool
    versions: Mapping[str, str]


@dataclass
class _InFlight:
    """A cell that this process trains."""

    task: Task
    commands: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)


_in_flight: dict[str, _InFlight] = {}
_one_at_a_time = threading.Lock()
_importing = threading.Lock()
_shared = False  # whether TensorFlow is configured with the part of the machine that it may use


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C and the end to the driver, whose process group a local worker is in; Dask calls this.

    What cells need is imported at once, while the driver is still busy with the store.
    """
    from pipeline.runtime import logs

    logs.configure_process()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    forkserver.end_with_parent()
    threading.Thread(target=_import_all, args=[worker.state.nthreads], daemon=True).start()


def send_command(token: str, command: str) -> None:
    """Send CONTINUE, PRUNE or STOP to a cell of this process, which obeys at the end of its epoch."""
    if cell := _in_flight.get(token):
        cell.commands.put(command)


def stop_others(study: str, session: str) -> list[str]:
    """Tell the cells of a study that another driver started to stop; returns the names of those there are."""
    others = [
        cell for cell in [*_in_flight.values()] if cell.task.study == study and cell.task.session != session
    ]
    for cell in others:
        cell.commands.put(STOP)
    return [cell.task.name for cell in others]


def run_cell(task: Task, emit: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Train a cell and record it in its run.

    Args:
        task: the cell.
        emit: takes events, dicts of plain values; None: Dask's, for the driver's client.

    Returns:
        `state` (FINISHED, STOPPED, FAILED, DIED or BROKEN), `reason` for all but the first, and for FINISHED
        `scores`, `diverged`, `pruned` and `epochs`, as in `Trial`.
    """
    if emit is None:
        import distributed

        emit = _dask_emit
        if not _one_at_a_time.acquire(blocking=False):
            # A worker has as many threads as cores, which TensorFlow uses for one cell.
            time.sleep(RETRY_INTERVAL_SECONDS)
            raise distributed.Reschedule
    else:
        _one_at_a_time.acquire()
    cell = _InFlight(task)
    _in_flight[task.token] = cell
    try:
        emit({"event": "started", "token": task.token, "pid": os.getpid()})
        return _run(cell, emit)
    finally:
        del _in_flight[task.token]
        _one_at_a_time.release()


def _dask_emit(event: dict[str, Any]) -> None:
    import distributed

    worker = distributed.get_worker()
    worker.log_event(TOPIC, event | {"worker": worker.address})


def _dask_worker() -> Any:
    """The Dask worker whose task this thread runs, or None."""
    if "distributed" not in sys.modules:
        return None
    import distributed

    try:
        return distributed.get_worker()
    except ValueError:
        return None


def _name() -> str:
    """Where this is, for the run's tag: the machine, and the worker on it."""
    worker = _dask_worker()
    return f"{socket.gethostname()} {worker.name}" if worker else socket.gethostname()


def _is_closing() -> bool:
    """Whether this worker is closing, so that another one may have its cell already."""
    import distributed

    worker = _dask_worker()
    running = (distributed.Status.running, distributed.Status.paused)
    return worker is not None and worker.status not in running


def _run(cell: _InFlight, emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    task = cell.task
    if wrong := differing(task.versions):
        return {"state": BROKEN, "reason": f"a worker has other packages than the driver: {wrong}"}
    from pipeline.runtime import logs
    from pipeline.runtime.errors import Interrupted, TakenOver, UserError

    try:
        if not logs.debugging():  # a worker of another machine's cluster, which keeps this setting
            logs.configure(task.params.get("log", "info"))
        _connect(task.store)
        return _train(cell, emit)
    except (Interrupted, TakenOver) as stop:
        return {"state": STOPPED, "reason": str(stop)}
    except BaseException as error:
        state, reason = failures.classify(error)
        logging.getLogger(__name__).debug("%s: %s", task.name, state, exc_info=error)
        if state != BROKEN:
            from pipeline.tracking import StoreError, sweep_runs

            try:
                sweep_runs.fail(task.run_id, reason)
                if state == FAILED and not isinstance(error, UserError):
                    failures.log_traceback(task.run_id, error)
            except (StoreError, OSError) as unrecorded:  # a driver in this process waits for an answer
                state, reason = failures.classify(unrecorded)
        return {"state": state, "reason": reason}


def _import_all(threads: int | None) -> None:
    """Import what trains, TensorFlow above all, once; a second thread waits until it is there."""
    from pipeline.runtime.logs import importing_tensorflow

    with _importing, importing_tensorflow():
        _share_the_machine(threads)
        from pipeline.execution import trial  # noqa: F401


def _train(cell: _InFlight, emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    worker = _dask_worker()
    _import_all(worker.state.nthreads if worker else None)
    from pipeline.config.params import Params
    from pipeline.evaluation.objective import Objective
    from pipeline.execution import dataset_fetch, lock, trial
    from pipeline.runtime.errors import Interrupted, TakenOver
    from pipeline.tracking import runs
    from pipeline.tracking.checkpoints import Checkpoints

    task = cell.task
    params = Params.model_validate(task.params)
    key = Objective(params.sweep.metric).key
    runs.set_tags({"worker": _name()}, task.run_id)
    prepared = dataset_fetch.open_dataset(task.images)

    def on_epoch(epoch: int, values: Mapping[str, float]) -> bool:
        emit({"event": "epoch", "token": task.token, "epoch": epoch, "value": values[key]})
        waits = task.pruning and epoch < task.epochs
        try:
            verdict = cell.commands.get(waits, DRIVER_TIMEOUT_SECONDS)
        except queue.Empty:
            if waits:
                raise Interrupted("driver timed out") from None
            return False
        if verdict == STOP:
            raise Interrupted("stopped by the driver")
        return verdict == PRUNE

    def check() -> None:
        dataset_fetch.open_dataset(task.images)
        if _is_closing():
            raise Interrupted("worker is closing")
        if lock.token_of(task.sweep_run_id) != task.session:
            raise TakenOver("another driver has taken over the sweep")

    checkpoints = Checkpoints(task.run_id, Path(task.images["cache"]), task.shared)
    found = trial.resume(task.run_id, params, prepared, task.name, checkpoints, on_epoch, check)
    return {
        "state": FINISHED,
        "scores": found.scores,
        "diverged": found.diverged,
        "pruned": found.pruned,
        "epochs": found.epochs,
    }


def _connect(store_uri: str) -> None:
    from pipeline.tracking import store

    store.use(store_uri)


def _share_the_machine(threads: int | None) -> None:
    """Give TensorFlow the threads that are this worker's, and of a GPU no more memory than it needs."""
    global _shared
    if _shared or ("tensorflow" in sys.modules and not forkserver.is_forked()):
        return
    _shared = True
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def differing(versions: Mapping[str, str]) -> str:
    """How this process's packages differ from the given ones, in words; empty where they do not."""
    from importlib import metadata

    wrong = []
    for name, wanted in versions.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing (the driver has {wanted})")
        else:
            if found != wanted:
                wrong.append(f"{name} {found} (the driver has {wanted})")
    return ", ".join(wrong)
