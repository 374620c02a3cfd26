"""Estimates the time, memory and disk space of a sweep from the measured speed of its network."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.runtime.console import duration, file_size
from pipeline.sources.split_names import VALIDATION

# Measured with `benchmarks.overhead` and `benchmarks.workers` on two cores.
_STARTUP_SECONDS = 10.0  # until the first cell trains
_OVERHEAD_SECONDS = 1.7  # per cell: build, trace, report, model, store
_PARALLEL_SPEEDUP = 1.2  # of several single-threaded processes over one process with several threads

_REPORT_BYTES = 300_000  # per cell: figures, tables, metadata
_PREDICTION_BYTES = 60  # per row of predictions.parquet, with long names


@dataclass(frozen=True)
class Measured:
    """The measured speed and size of a network on this machine.

    Attributes:
        features_seconds: To compute a frozen backbone's features once; 0 if training does not use them.
        epoch_seconds: Per epoch of `train.epochs`, validation included.
        fine_tuning_seconds: Per epoch of fine-tuning; 0 without fine-tuning.
        memory_bytes: Private memory of the process during training.
        weights_bytes: Size of the weights.
        features_bytes: Size of the cached features.
    """

    features_seconds: float
    epoch_seconds: float
    fine_tuning_seconds: float
    memory_bytes: int
    weights_bytes: int
    features_bytes: int


@dataclass(frozen=True)
class Resources:
    """What this machine offers the sweep.

    Attributes:
        workers: Parallel processes, 1 or more.
        worker_bytes: Memory reserved per worker.
        memory_bytes: Memory of the machine.
        disk_bytes: Free disk space.
    """

    workers: int
    worker_bytes: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Cost:
    """The estimated cost of a sweep.

    Attributes:
        cells: Number of cells.
        resources: What the machine offers.
        seconds: Of the whole sweep, roughly.
        memory_bytes: Of all workers together.
        disk_bytes: Of runs, checkpoints and features, without the prepared images.
        prepared_bytes: Of the prepared images, which exist already.
    """

    cells: int
    resources: Resources
    seconds: float
    memory_bytes: int
    disk_bytes: int
    prepared_bytes: int

    def texts(self) -> list[tuple[str, str]]:
        """Name and value of the time, the memory and the disk space."""
        offered, time = self.resources, duration(round(self.seconds, -1))
        return [
            ("time", f"about {time} ({self.cells:,} cells, {offered.workers} at a time)"),
            ("memory", f"{file_size(self.memory_bytes)} of {file_size(offered.memory_bytes)}"),
            (
                "disk",
                f"{file_size(self.disk_bytes)} of {file_size(offered.disk_bytes)} free; the prepared images "
                f"already use {file_size(self.prepared_bytes)}",
            ),
        ]


def shortages(cost: Cost, local_store: bool) -> tuple[list[str], list[str]]:
    """What the sweep lacks on this machine.

    Args:
        cost: Of the sweep.
        local_store: Whether the runs are written to this machine's disk.

    Returns:
        Errors, for which the sweep would fail, and warnings.
    """
    offered, errors, warnings = cost.resources, [], []
    if local_store and cost.disk_bytes > offered.disk_bytes:
        errors.append(
            f"not enough disk space in {Path.cwd()}: the runs of {cost.cells:,} cells need about "
            f"{file_size(cost.disk_bytes)}, {file_size(offered.disk_bytes)} are free; free some, or sweep "
            "fewer cells"
        )
    if cost.memory_bytes > offered.memory_bytes:
        warnings.append(
            f"{offered.workers} workers need about {file_size(cost.memory_bytes)} of memory, this machine "
            f"has {file_size(offered.memory_bytes)}: lower sweep.workers or train.batch_size"
        )
    return errors, warnings


def estimate(
    params: Params,
    prepared: Prepared,
    measured: Measured,
    cells: int,
    resources: Resources,
    features_left: float,
) -> Cost:
    """Estimate the cost of a sweep.

    Args:
        params: The sweep's parameters.
        prepared: The dataset.
        measured: The network's speed and size.
        cells: Number of cells.
        resources: What the machine offers.
        features_left: The fraction of the features that is not cached yet, 0 to 1.
    """
    fine_tuning = (params.epochs - params.train.epochs) * measured.fine_tuning_seconds
    training = cells * (params.train.epochs * measured.epoch_seconds + fine_tuning)
    speedup = _PARALLEL_SPEEDUP if resources.workers > 1 else 1.0
    predictions = _PREDICTION_BYTES * len(prepared.indices(VALIDATION))
    artifacts = measured.weights_bytes + _REPORT_BYTES + predictions
    checkpoint = 3 * measured.weights_bytes  # weights, momenta and the best epoch's weights
    return Cost(
        cells=cells,
        resources=resources,
        seconds=_STARTUP_SECONDS
        + features_left * measured.features_seconds
        + training / speedup
        + cells * _OVERHEAD_SECONDS / resources.workers,
        memory_bytes=resources.workers * max(resources.worker_bytes, measured.memory_bytes),
        disk_bytes=cells * artifacts
        + resources.workers * checkpoint
        + int(features_left * measured.features_bytes),
        prepared_bytes=sum(path.stat().st_size for path in prepared.path.iterdir()),
    )
