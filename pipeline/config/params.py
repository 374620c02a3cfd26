"""All parameters as one frozen object.

Defaults are in params.yaml only. `command_line.load` reads that file and the command line, and validates both
before anything is created.
"""

import itertools
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.fields import Int, Section, assign, leaves, lookup
from pipeline.config.networks import NETWORKS, check_files
from pipeline.config.schema import (
    DataParams,
    DoctorParams,
    EvaluateParams,
    ExplainParams,
    ExportParams,
    ModelParams,
    PredictParams,
    RegisterParams,
    ReportParams,
    TrainParams,
)
from pipeline.config.search_space import Range
from pipeline.config.sweep_schema import GRID, SweepParams
from pipeline.runtime.credentials import without_password


class Params(Section):
    """All parameters, in the layout of params.yaml. `command_line.load` creates one."""

    seed: Int = Field(
        ge=0,
        lt=2**32,
        description="seed of the splits, the initial weights, the order of batches and the dropout",
    )
    log: Literal["info", "debug"] = Field(
        description="log output: info, or debug for all messages of the libraries too"
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
    def _resolve_image_size(cls, raw: Any) -> Any:
        """Replaces `auto` by the image size of the network, so that the size in use is recorded."""
        if lookup(raw, "data.image_size") != "auto" or lookup(raw, "model.name") not in NETWORKS:
            return raw
        size = NETWORKS[lookup(raw, "model.name")].image_size
        return {**raw, "data": {**raw["data"], "image_size": size}}

    @property
    def epochs(self) -> int:
        """Maximum number of epochs of a training: `train.epochs` plus those of fine-tuning."""
        tuned = "fine_tune_epochs" in NETWORKS[self.model.name].parameters and self.model.weights != "none"
        return self.train.epochs + tuned * self.model.fine_tune_epochs

    def epochs_of(self, cell: Mapping[str, Any]) -> int:
        """Maximum number of epochs of the cell with these values."""
        own = {"name", "epochs", "weights", "fine_tune_epochs"} & set(cell)
        return self.with_cell(cell).epochs if own else self.epochs

    @property
    def most_epochs(self) -> int:
        """Maximum number of epochs over all cells of the search space."""
        keys = ("name", "weights", "epochs", "fine_tune_epochs")
        swept = {key: values for key in keys if (values := getattr(self.sweep.grid, key)) is not None}
        ends = {key: [values.high] if isinstance(values, Range) else values for key, values in swept.items()}
        cells = (dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values()))
        return max(self.epochs_of(cell) for cell in cells)

    @property
    def training_seed(self) -> int:
        """Seed of initial weights, order of batches and dropout: `train.seed`, by default `seed`."""
        return self.seed if self.train.seed is None else self.train.seed

    def flat(self) -> dict[str, Any]:
        """All parameters by dotted key, as they are recorded.

        Keys of the grid that are not set are left out. Credentials in URLs are masked.
        """
        raw = self.model_dump(by_alias=True)
        values = {key: lookup(raw, key) for key, _ in leaves(Params)}
        return {
            key: without_password(value) if isinstance(value, str) else value
            for key, value in values.items()
            if value is not None or not key.startswith(GRID)
        }

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy with other values at some dotted keys."""
        raw = self.model_dump(by_alias=True)
        for key, value in values.items():
            assign(raw, key, value)
        return type(self).model_validate(raw)

    def check_files(self) -> None:
        """Checks that the files of backbones and weights exist, of the model and of all cells.

        Raises:
            UserError: A file is missing.
        """
        for key in set(NETWORKS[self.model.name].parameters) & {"backbone", "weights"}:
            for name in getattr(self.sweep.grid, key) or [getattr(self.model, key)]:
                check_files({key: name})

    def without_unused_grid_keys(self) -> tuple[Self, list[str]]:
        """A copy without the grid keys that no swept network has, and these keys.

        Cells that differ only in such a key would be identical.

        Raises:
            ValueError: No key remains, or only some of the swept networks have a key.
        """
        swept = {name: NETWORKS[name].parameters for name in self.sweep.grid.name or [self.model.name]}
        keys = [key for key in self.sweep.grid.values() if section_of(key) == "model" and key != "name"]
        unused = []
        for key in keys:
            takers = [name for name, own in swept.items() if key in own]
            if takers and len(takers) < len(swept):
                others = ", ".join(name for name in swept if name not in takers)
                raise ValueError(
                    f"{GRID}{key} is not a parameter of {others}: its cells would be identical; sweep "
                    f"{' and '.join(takers)} separately, or remove {key}"
                )
            unused += [] if takers else [key]
        if not unused:
            return self, []
        raw = self.model_dump(by_alias=True)
        raw["sweep"]["grid"] = {
            key: values for key, values in raw["sweep"]["grid"].items() if key not in unused
        }
        if not any(raw["sweep"]["grid"].values()):
            common = sorted(set.intersection(*map(set, swept.values())))
            raise ValueError(
                f"sweep.grid: {', '.join(unused)}: not parameters of {', '.join(swept)}; "
                f"allowed: any key under `train`, or {', '.join(common)}"
            )
        return type(self).model_validate(raw), unused

    def with_cell(self, cell: Mapping[str, Any]) -> Self:
        """A copy with the values of a grid cell under `model` and `train`."""
        return self.with_values({f"{section_of(key)}.{key}": value for key, value in cell.items()})


def section_of(key: str) -> str:
    """The section of a grid key: `model` or `train`."""
    return "model" if key in ModelParams.model_fields else "train"
