"""What a sweep will take: time, memory and disk, reckoned from how fast its network is here."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.sources.split_names import VALIDATION

# Measured with `benchmarks.overhead` and `benchmarks.workers` on two cores.
_START = 10.0  # seconds until the first cell trains
_REST_OF_A_CELL = 1.7  # seconds: building, tracing, report, model, store
_GAIN = 1.2  # what several processes of one thread each train more than one of several

_REPORT = 300_000  # bytes of a cell's figures, tables and metadata
_PREDICTION = 60  # bytes of a row in its predictions.parquet, of long names


@dataclass(frozen=True)
class Pace:
    """What a network takes here.

    Attributes:
        features: seconds to compute a frozen backbone's features once; 0 where training does not use them.
        epoch: seconds of an epoch of `train.epochs`, its validation included.
        tuned_epoch: seconds of an epoch of fine-tuning; 0 without any.
        memory: bytes that the process has of its own while it trains.
        weights: bytes of the network's weights.
        features_bytes: of the kept features.
    """

    features: float
    epoch: float
    tuned_epoch: float
    memory: int
    weights: int
    features_bytes: int


@dataclass(frozen=True)
class Room:
    """What a sweep has on this machine.

    Attributes:
        workers: processes at once.
        worker_memory: bytes that each is taken to need at least.
        memory: bytes that there are.
        disk: bytes that are free.
    """

    workers: int
    worker_memory: int
    memory: int
    disk: int


@dataclass(frozen=True)
class Needs:
    """What a sweep takes.

    Attributes:
        cells: how many there are.
        room: what it has.
        seconds: of the whole, roughly.
        memory: bytes, of all workers together.
        disk: bytes that come to lie beside the prepared images.
        prepared: bytes of the prepared images, which are there.
    """

    cells: int
    room: Room
    seconds: float
    memory: int
    disk: int
    prepared: int


def of(params: Params, prepared: Prepared, pace: Pace, cells: int, room: Room, left: float) -> Needs:
    """What the sweep takes.

    Args:
        params: those in force.
        prepared: the images.
        pace: what was measured.
        cells: how many there are.
        room: what the sweep has.
        left: fraction of the features that are not computed yet.
    """
    fine_tuning = (params.epochs - params.train.epochs) * pace.tuned_epoch
    trained = cells * (params.train.epochs * pace.epoch + fine_tuning)
    artifacts = pace.weights + _REPORT + _PREDICTION * len(prepared.indices(VALIDATION))
    checkpoint = 3 * pace.weights  # weights, momenta and the best epoch's weights
    return Needs(
        cells=cells,
        room=room,
        seconds=_START
        + left * pace.features
        + (trained / _GAIN if room.workers > 1 else trained)
        + cells * _REST_OF_A_CELL / room.workers,
        memory=room.workers * max(room.worker_memory, pace.memory),
        disk=cells * artifacts + room.workers * checkpoint + int(left * pace.features_bytes),
        prepared=sum(path.stat().st_size for path in prepared.path.iterdir()),
    )
