"""What travels together through a sweep: its parameters, run and lock; and where its cells run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.params import Params
from pipeline.execution.executors import Executor
from pipeline.execution.lock import Fence
from pipeline.tracking.sweep_runs import Sweep


@dataclass(frozen=True)
class SweepContext:
    """An open sweep.

    Attributes:
        params: The parameters that its cells are trained with, `auto` resolved.
        sweep: Its run.
        fence: Keeps other drivers out; checked before each write to the sweep.
    """

    params: Params
    sweep: Sweep
    fence: Fence


@dataclass(frozen=True)
class Backend:
    """Where cells run.

    Attributes:
        executor: Runs cells.
        images: Where a worker finds the prepared images, and their digest (`launch.dataset_location`).
        store: MLflow's tracking URI.
        versions: Packages that workers must have, by name; empty for workers of this machine.
    """

    executor: Executor
    images: Mapping[str, Any]
    store: str
    versions: Mapping[str, str]
