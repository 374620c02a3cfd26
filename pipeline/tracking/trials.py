"""Trials and cells of sweeps, read from their runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlflow.entities import Run

REPORT = "report/"  # prefix of a trial's scores among its run's metrics


@dataclass(frozen=True)
class Trial:
    """The result of a recorded training.

    Attributes:
        run_id: of its run.
        scores: accuracy, precision, recall, f1, … of the best epoch on the validation split, by name.
        val_loss: of the best epoch, nats per image.
        best_epoch: from 1.
        epochs: number of trained epochs.
        diverged: the loss was not finite, or the model predicts one class for every image.
        pruned: the pruner ended it early.
    """

    run_id: str
    scores: dict[str, float]
    val_loss: float
    best_epoch: int
    epochs: int
    diverged: bool
    pruned: bool

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Read a finished training's run."""
        tags = run.data.tags
        return cls(
            run.info.run_id,
            {
                key.removeprefix(REPORT): value
                for key, value in run.data.metrics.items()
                if key.startswith(REPORT)
            },
            float(tags["best_val_loss"]),
            int(tags["best_epoch"]),
            int(tags["epochs"]),
            tags.get("diverged") == "true",
            tags.get("pruned") == "true",
        )


@dataclass(frozen=True)
class CellRun:
    """A cell of a sweep, or a finalist, read from its run.

    Attributes:
        run_id: of its run.
        values: the cell's, by key of the grid.
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED; RUNNING also after its process was killed.
        trial: its result if FINISHED, otherwise None.
        reason: why it is FAILED, otherwise empty.
    """

    run_id: str
    values: Mapping[str, Any]
    status: str
    trial: Trial | None
    reason: str

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Read a cell's run."""
        finished = run.info.status == "FINISHED"
        return cls(
            run.info.run_id,
            json.loads(run.data.tags[run.data.tags["step"]]),
            run.info.status,
            Trial.from_run(run) if finished else None,
            run.data.tags.get("reason", ""),
        )

    @property
    def result(self) -> Trial:
        """The trial of a finished cell.

        Raises:
            ValueError: The cell is not finished.
        """
        if self.trial is None:
            raise ValueError(f"run {self.run_id} has no trial: its status is {self.status}")
        return self.trial
