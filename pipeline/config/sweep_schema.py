"""The section `sweep` of params.yaml: the search space, the workers and the ranking."""

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import scores
from pipeline.config.fields import Float, Int, Section, Text, leaves
from pipeline.config.schema import ModelParams, TrainParams
from pipeline.config.search_space import Range, grid_section

GRID = "sweep.grid."
# Optuna's sampler class for each sampler that draws `sweep.n_trials` cells; it takes a seed.
SAMPLERS = {"random": "RandomSampler", "tpe": "TPESampler"}
if TYPE_CHECKING:
    Sampler = str
    Metric = str
else:
    Sampler = Literal["grid", *SAMPLERS]
    Metric = Literal[
        "accuracy", "loss", "precision", "recall", "f1",
        "macro_precision", "macro_recall", "macro_f1", *scores.OWN,
    ]  # fmt: skip

# a positive number with a unit of bytes
Memory = Annotated[
    str,
    Field(
        pattern=r"^([1-9][0-9]*(\.[0-9]+)?|0\.0*[1-9][0-9]*) ?(B|[kMGT]B|[KMGT]iB)$",
        examples=["4GiB", "500MB"],
    ),
]


class GridParams(grid_section("Grid", ModelParams, TrainParams)):  # type: ignore[misc]  # made at run time
    """The search space: lists and ranges by key, for any key under `model` or `train`."""

    def values(self) -> dict[str, tuple[Any, ...] | Range]:
        """The lists and ranges that are set, by key (such as `schedule.start`), in the schema's order."""
        values = {key: attrgetter(key)(self) for key, _ in leaves(type(self))}
        return {key: value for key, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if not self.values():
            raise ValueError(
                "the grid has no key; allowed: any key under `model` or `train`, each with a list or a range"
            )
        return self


class SweepParams(Section):
    """The cells of a sweep, the workers that train them, and their ranking."""

    grid: GridParams
    metric: Metric = Field(
        description=(
            "validation metric that selects the best epoch and ranks the cells; loss is "
            "minimised; macro_…: unweighted mean over classes"
        )
    )
    finalists: Int = Field(ge=0, description="number of best cells to retrain with other seeds; 0: none")
    repeats: Int = Field(
        ge=1,
        le=100,
        description="number of further seeds per finalist; the mean over them ranks the finalists",
    )
    workers: Literal["auto"] | Annotated[Int, Field(ge=1)] = Field(
        description=(
            "cells trained in parallel, one process each; auto: by cores, memory and GPUs; 1: in this process"
        )
    )
    cluster: Text | None = Field(
        description=(
            "address of a Dask scheduler (tcp://host:port) whose workers train the cells; null: this machine"
        )
    )
    workers_per_gpu: Int = Field(ge=1, description="number of workers that share a GPU")
    worker_memory: Memory | None = Field(
        description=(
            "memory limit per local worker, e.g. 4GiB; a worker above it is restarted; null: no limit"
        )
    )
    retries: Int = Field(ge=0, description="number of retries of a cell whose worker process died")
    worker_wait: Annotated[Float, Field(gt=0)] = Field(
        description="seconds without any worker before the sweep ends unfinished"
    )
    cell_timeout: Annotated[Float, Field(gt=0)] | None = Field(
        description="seconds before a cell is stopped as failed; null: no limit"
    )
    sampler: Sampler = Field(description="grid: every combination; random or tpe: n_trials draws")
    n_trials: Annotated[Int, Field(ge=1)] | None = Field(
        description="number of cells that random or tpe draws; null for grid"
    )
    pruner: Literal["none", "median", "hyperband"] = Field(
        description=(
            "median or hyperband: stop cells early that fall behind in the validation metric; none: off"
        )
    )
    time_budget: Annotated[Float, Field(gt=0)] | None = Field(
        description="seconds after which no further cell starts; null: no limit"
    )
    storage: Text | None = Field(
        description="database URL of the Optuna study; null: sweeps.db beside mlflow.db, or in data.cache"
    )
    restart: bool = Field(description="true: start a new study; runs of the old one are kept")
    dry_run: bool = Field(description="true: print the cells and their status, and stop")

    @model_validator(mode="after")
    def _check_finalists(self) -> Self:
        if self.finalists and self.grid.seed is not None:
            raise ValueError(
                f"sweep.finalists is {self.finalists}, and {GRID}seed is swept too; remove {GRID}seed "
                "(finalists are retrained with other seeds), or set sweep.finalists to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        if self.sampler != "grid":
            if self.n_trials is None:
                raise ValueError(
                    f"sweep.n_trials is null; the {self.sampler} sampler needs the number of cells to draw; "
                    "allowed: whole number from 1"
                )
            return self
        for key, value in self.grid.values().items():
            if isinstance(value, Range):
                raise ValueError(
                    f"{GRID}{key} is a range; the grid sampler takes lists; "
                    f"set sweep.sampler to {' or '.join(SAMPLERS)}, and sweep.n_trials"
                )
        if self.n_trials is not None:
            raise ValueError(
                f"sweep.n_trials is {self.n_trials}; the grid sampler trains every combination; "
                f"allowed: null, or sweep.sampler {' or '.join(SAMPLERS)}"
            )
        return self
