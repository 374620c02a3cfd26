"""The schema of params.yaml: every key with its type, its range and its meaning.

No default stands here: params.yaml alone has them. `command_line.load` reads that file and the command line,
and checks both against this schema before anything is created.
"""

import itertools
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.fields import Int, Section, assign, leaves, lookup
from pipeline.config.networks import NETWORKS, check_files
from pipeline.config.schema import (
    GRID,
    DataParams,
    DoctorParams,
    EvaluateParams,
    ExplainParams,
    ExportParams,
    ModelParams,
    PredictParams,
    RegisterParams,
    ReportParams,
    SweepParams,
    TrainParams,
)
from pipeline.config.search_space import Range
from pipeline.runtime.credentials import without_password


class Params(Section):
    """Every parameter, as params.yaml lays them out. Read one with `load`."""

    seed: Int = Field(
        ge=0,
        lt=2**32,
        description="draws the splits, the initial weights, the order of the batches and the dropout",
    )
    log: Literal["info", "debug"] = Field(
        description="what is printed: info, or debug for everything that the libraries say as well"
    )
    data: DataParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    sweep: SweepParams
    # `register` itself is a method of every class that has pydantic's metaclass
    register_: RegisterParams = Field(alias="register")
    explain: ExplainParams
    report: ReportParams
    predict: PredictParams
    export: ExportParams
    doctor: DoctorParams

    @model_validator(mode="before")
    @classmethod
    def _takes_the_size_of_its_network(cls, raw: Any) -> Any:
        """Put a number in place of `auto`: whoever reads the parameters reads what was done."""
        if lookup(raw, "data.image_size") != "auto" or lookup(raw, "model.name") not in NETWORKS:
            return raw
        size = NETWORKS[lookup(raw, "model.name")].image_size
        return {**raw, "data": {**raw["data"], "image_size": size}}

    @property
    def epochs(self) -> int:
        """The most that a network is trained: `train.epochs`, and those of fine-tuning if there are any."""
        tuned = "fine_tune_epochs" in NETWORKS[self.model.name].parameters and self.model.weights != "none"
        return self.train.epochs + tuned * self.model.fine_tune_epochs

    def epochs_of(self, cell: Mapping[str, Any]) -> int:
        """The most that a cell of a grid is trained, by the cell's values."""
        own = {"name", "epochs", "weights", "fine_tune_epochs"} & set(cell)
        return self.with_cell(cell).epochs if own else self.epochs

    @property
    def most_epochs(self) -> int:
        """The most that any cell of the grid, or of the ranges, is trained."""
        keys = ("name", "weights", "epochs", "fine_tune_epochs")
        swept = {key: values for key in keys if (values := getattr(self.sweep.grid, key)) is not None}
        ends = {key: [values.high] if isinstance(values, Range) else values for key, values in swept.items()}
        cells = (dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values()))
        return max(self.epochs_of(cell) for cell in cells)

    @property
    def training_seed(self) -> int:
        """Of the initial weights, the order of the batches and the dropout: `train.seed`, or else `seed`."""
        return self.seed if self.train.seed is None else self.train.seed

    def flat(self) -> dict[str, Any]:
        """Every parameter in force by its dotted key, to be shown and recorded.

        A grid's lists and ranges are there only where they are set; the credentials in addresses are masked.
        """
        raw = self.model_dump(by_alias=True)
        values = {key: lookup(raw, key) for key, _ in leaves(Params)}
        return {
            key: without_password(value) if isinstance(value, str) else value
            for key, value in values.items()
            if value is not None or not key.startswith(GRID)
        }

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """These parameters with other values at some dotted keys."""
        raw = self.model_dump(by_alias=True)
        for key, value in values.items():
            assign(raw, key, value)
        return type(self).model_validate(raw)

    def check_files(self) -> None:
        """Check that the files which the model, or a cell of the grid, is built from are there.

        Raises:
            UserError: one is not.
        """
        for key in set(NETWORKS[self.model.name].parameters) & {"backbone", "weights"}:
            for name in getattr(self.sweep.grid, key) or [getattr(self.model, key)]:
                check_files({key: name})

    def with_own_grid(self) -> tuple[Self, list[str]]:
        """These parameters without the grid's keys that mean nothing to the networks swept, and those keys.

        Cells that differ in such a key alone would be the same.

        Raises:
            ValueError: no key is left, or one means something to some of the networks only.
        """
        swept = {name: NETWORKS[name].parameters for name in self.sweep.grid.name or [self.model.name]}
        keys = [key for key in self.sweep.grid.values() if section_of(key) == "model" and key != "name"]
        strangers = []
        for key in keys:
            takers = [name for name, own in swept.items() if key in own]
            if takers and len(takers) < len(swept):
                others = ", ".join(name for name in swept if name not in takers)
                raise ValueError(
                    f"{GRID}{key} means nothing to {others}: its cells would be the same; sweep "
                    f"{' and '.join(takers)} by itself, or leave {key} out"
                )
            strangers += [] if takers else [key]
        if not strangers:
            return self, []
        raw = self.model_dump(by_alias=True)
        raw["sweep"]["grid"] = {
            key: values for key, values in raw["sweep"]["grid"].items() if key not in strangers
        }
        if not any(raw["sweep"]["grid"].values()):
            common = sorted(set.intersection(*map(set, swept.values())))
            raise ValueError(
                f"sweep.grid: no key of {', '.join(strangers)} means anything to {', '.join(swept)}; "
                f"allowed: any key under `train`, or {', '.join(common)}"
            )
        return type(self).model_validate(raw), strangers

    def with_cell(self, cell: Mapping[str, Any]) -> Self:
        """These parameters with a grid cell's values in place of those under `model` and `train`."""
        return self.with_values({f"{section_of(key)}.{key}": value for key, value in cell.items()})


def section_of(key: str) -> str:
    """The section (`model` or `train`) that a grid's key belongs to."""
    return "model" if key in ModelParams.model_fields else "train"
