"""Trials and cells of sweeps, read back from their runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlflow.entities import Run

REPORT = "report/"  # before the names of a trial's scores among its run's metrics


@dataclass(frozen=True)
class Trial:
    """What a recorded training came to.

    Attributes:
        run_id: of its run.
        scores: accuracy, precision, recall, f1, … of the best epoch on the validation split.
        val_loss: of the best epoch, in nats.
        best_epoch: from 1.
        epochs: how many were trained.
        diverged: its loss was not finite, or it predicts one class for every image.
        pruned: it was ended early, since it had fallen behind.
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
    """A cell of a sweep, or a finalist trained again, as its run tells.

    Attributes:
        run_id: of its run.
        values: the cell's, by key.
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED; RUNNING too where its process was killed.
        trial: where it is FINISHED.
        reason: why it is FAILED.
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
