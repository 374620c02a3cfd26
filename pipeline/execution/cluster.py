"""The Dask cluster that a sweep's cells run on: a local one, or an existing one."""

import logging
import os
import tempfile
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import dask
import distributed
from distributed.deploy.spec import SpecCluster
from distributed.system import MEMORY_LIMIT

import pipeline
import served_image_classifier
from pipeline.config.sweep_schema import SweepParams
from pipeline.execution import forkserver, worker
from pipeline.execution.executors import DaskExecutor
from pipeline.runtime import logs
from pipeline.runtime.console import duration
from pipeline.runtime.errors import UserError
from pipeline.runtime.hardware import cores, gpus

MOST_PER_CORE = 4  # workers; more only wait for each other
WORKER_MEMORY = 2 << 30  # bytes that a worker is taken to need: TensorFlow's one, and a network's another
LOOPBACK = "127.0.0.1"
CONNECT = 15  # seconds that a scheduler has to answer
# What decides whether a cell comes to the same on another machine, and whether it can run there at all.
PACKAGES = (
    "distributed", "keras", "matplotlib", "mlflow", "numpy", "pandas", "pillow", "pydantic",
    "pydantic-settings", "pyyaml", "scikit-learn", "sqlalchemy", "tensorflow",
)  # fmt: skip
CONFIG = {  # Dask's, for a cluster on this machine
    # The driver decides whether a cell is retried; it has the cell's last epoch.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.admin.low-level-log-length": 100,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # Dask must not set the number of threads: TensorFlow's configuration does.
    "distributed.nanny.pre-spawn-environ": {},
}


def workers(sweep: SweepParams) -> int:
    """How many workers a sweep on this machine has.

    `auto`: one per share of a GPU if there are GPUs; else one per core, since two networks of one thread each
    train more than one of two, but no more than the memory has room for.

    Raises:
        UserError: more than this machine can use.
    """
    most = max(MOST_PER_CORE * cores(), len(gpus()) * sweep.workers_per_gpu)
    if sweep.workers == "auto":
        return len(gpus()) * sweep.workers_per_gpu or max(1, min(cores(), MEMORY_LIMIT // WORKER_MEMORY))
    if sweep.workers > most:
        raise UserError(
            f"sweep.workers: got {sweep.workers}; this machine has {cores()} cores and {len(gpus())} GPUs; "
            f"allowed: auto, or a whole number from 1 to {most}"
        )
    return sweep.workers


def start(sweep: SweepParams, count: int, share: int) -> DaskExecutor:
    """A cluster on this machine.

    Args:
        sweep: the `sweep` section.
        count: of workers, each a process.
        share: each has one such part of the cores, however many there are: another number of threads would
            round differently, and the last cells of a resumed sweep would have other results.
    """
    devices = gpus()
    # of restarts and heartbeats; the driver itself reports the status of a cell's worker
    silence = False if logs.debugging() else logging.CRITICAL
    environments = [_environment(devices, number // sweep.workers_per_gpu) for number in range(count)]
    with dask.config.set(CONFIG | {"distributed.worker.multiprocessing-method": forkserver.method()}):
        # A certificate that lives as long as this process: on a machine that others use as well, nobody else
        # can send it tasks, which are code.
        security = distributed.Security.temporary()
        address = {"host": LOOPBACK, "protocol": "tls", "security": security, "dashboard": False}
        options = address | {
            "nthreads": max(1, cores() // share),
            "memory_limit": sweep.worker_memory and dask.utils.parse_bytes(sweep.worker_memory),
            "preload": worker.__name__,
            "silence_logs": silence,
            "local_directory": tempfile.gettempdir(),
        }
        cluster = SpecCluster(
            scheduler={
                "cls": distributed.Scheduler,
                "options": address | {"port": 0, "dashboard_address": ":0"},
            },
            workers={
                number: {"cls": distributed.Nanny, "options": options | {"env": environment}}
                for number, environment in enumerate(environments)
            },
            security=security,
            silence_logs=silence,
        )
        client = distributed.Client(cluster, security=security)
    return DaskExecutor(client, sweep.worker_wait, cluster.close)


def connect(sweep: SweepParams) -> tuple[DaskExecutor, Mapping[str, str]]:
    """An existing cluster; returns the versions of packages that its workers must have.

    Raises:
        UserError: nothing answers, no worker comes, or a worker has other packages, or another `pipeline`.
    """
    try:
        client = distributed.Client(sweep.cluster, timeout=CONNECT)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise UserError(
            f"sweep.cluster: no Dask scheduler answers at {sweep.cluster} within {CONNECT} s "
            f"({str(error).splitlines()[0]}); start one with `dask scheduler`, or leave sweep.cluster out"
        ) from None
    wait = duration(sweep.worker_wait)
    if not client.nthreads():
        print(f"the scheduler at {sweep.cluster} has no worker; waiting {wait} for one (sweep.worker_wait)")
    try:
        client.wait_for_workers(1, timeout=sweep.worker_wait)
    except TimeoutError:
        client.close()
        raise UserError(
            f"sweep.cluster: the scheduler at {sweep.cluster} has had no worker for {wait} "
            f"(sweep.worker_wait); start some with `dask worker {sweep.cluster}`"
        ) from None
    versions = {name: metadata.version(name) for name in PACKAGES}
    if others := _other_modules(client):
        client.close()
        address, file = next(iter(others.items()))
        raise UserError(
            f"sweep.cluster: {len(others)} workers have another module named {pipeline.__name__}, which the "
            f"sweep's own would hide: {address}: {file}; start workers for the sweep alone, with a folder "
            "and a PYTHONPATH that do not have it"
        )
    _send_code(client)
    wrong = {address: text for address, text in client.run(worker.differing, versions).items() if text}
    if wrong:
        client.close()
        address, text = next(iter(wrong.items()))
        raise UserError(
            f"sweep.cluster: {len(wrong)} workers have other packages than this process: {address}: {text}; "
            "start them from an environment of conda.yaml"
        )
    return DaskExecutor(client, sweep.worker_wait), versions


def _environment(devices: list[str], share: int) -> dict[str, str]:
    """The variables of a worker: TensorFlow's quiet, and the one GPU that it sees."""
    variables = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")}
    return variables | ({"CUDA_VISIBLE_DEVICES": devices[share % len(devices)]} if devices else {})


def _other_modules(client: distributed.Client) -> dict[str, str]:
    """The files of modules that are named as this package but are someone else's, by the worker's address."""
    name, one_of_ours = pipeline.__name__, "sweep"

    def other() -> str:  # pickled by value: workers have none of this code yet
        from importlib.machinery import PathFinder
        from importlib.util import find_spec

        found = find_spec(name)
        if found is None or PathFinder.find_spec(one_of_ours, found.submodule_search_locations or []):
            return ""
        return str(found.origin)

    return {address: file for address, file in client.run(other).items() if file}


def _send_code(client: distributed.Client) -> None:
    """Give the scheduler and every worker, those too that join later, this very code."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "pipeline.zip")
        with zipfile.ZipFile(path, "w") as archive:
            for package in (pipeline, served_image_classifier):
                folder = Path(str(package.__file__)).parent
                for file in sorted(folder.rglob("*.py")):
                    archive.write(file, Path(folder.name, file.relative_to(folder)))
        client.upload_file(str(path))
