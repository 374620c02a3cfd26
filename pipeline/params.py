"""The schema of params.yaml: every key with its type, its range and its meaning.

No default stands here: params.yaml alone has them. `pipeline.arguments.load` reads that file and the command
line, and checks both against this schema before anything is created.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

# Keras's names, written out so that a wrong one is refused without the seven seconds of importing TensorFlow;
# a test compares them with Keras itself.
Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh",
]  # fmt: skip
KernelInitializer = Literal[
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform",
    "orthogonal", "random_normal", "random_uniform", "truncated_normal", "variance_scaling",
]  # fmt: skip


GRID = "sweep.grid."


def _no_bool(value: Any) -> Any:
    # pydantic would take `true` for 1
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A frozen part of the parameters that knows no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataParams(Section):
    """Which pictures, and how they are prepared."""

    source: Text = Field(
        description="`sample` (drawn, built in), `dogs-vs-cats` (download), a folder, a zip, or a zip's URL"
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = Field(
        description="expected SHA-256 of the zip that a URL names; null: not checked"
    )
    image_size: Int = Field(ge=16, le=4096, description="side of the square that pictures are resized to, px")
    validation: Float = Field(
        gt=0, lt=1, description="fraction of all pictures that models are compared on; stratified by class"
    )
    test: Float = Field(ge=0, lt=1, description="fraction kept for the winner's report; 0: no test split")
    limit: Annotated[Int, Field(ge=2)] | None = Field(
        description="at most so many pictures, evenly over the classes, drawn by the seed; null: all"
    )
    max_rejected: Float = Field(
        ge=0, le=1, description="stop where more than this fraction of the pictures cannot be read"
    )
    cache: Text = Field(description="folder of downloads and prepared pictures; relative to the project")

    @model_validator(mode="after")
    def _leaves_training_pictures(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no pictures to train on; "
                "allowed: a sum below 1"
            )
        return self


class ModelParams(Section):
    """Which network."""

    name: Literal["simple_cnn"] = Field(description="the network")
    activation: Activation = Field(
        description="of every convolution and the hidden layer; leaky_relu has slope 0.3"
    )
    kernel_initializer: KernelInitializer = Field(
        description="of every convolution and the hidden layer, by Keras's name"
    )
    bias_initializer: Float = Field(description="constant that every bias starts from")
    dropout: Float = Field(ge=0, lt=1, description="rate of the dropout before the last layer")


class ScheduleParams(Section):
    """How the learning rate falls: constant, then by `factor` every `every` epochs."""

    start: Int = Field(ge=1, description="epochs at the full learning rate")
    every: Int = Field(
        ge=1, description="after them the rate is multiplied by `factor` once every so many epochs"
    )
    factor: Float = Field(gt=0, le=1, description="1: a constant learning rate")


class TrainParams(Section):
    """How the network is trained."""

    epochs: Int = Field(ge=1, description="passes over the training pictures")
    batch_size: Int = Field(ge=1, description="pictures per step")
    learning_rate: Float = Field(gt=0, description="of stochastic gradient descent, before the schedule")
    momentum: Float = Field(ge=0, lt=1, description="of stochastic gradient descent")
    schedule: ScheduleParams
    augment: bool = Field(description="random flips, shifts and zooms of the training pictures")
    early_stopping: Annotated[Int, Field(ge=1)] | None = Field(
        description="stop after so many epochs without a better validation accuracy; null: never"
    )


class EvaluateParams(Section):
    """Which model is evaluated, and on what."""

    run_id: Text | None = Field(description="the run whose model is evaluated; null: the newest finished one")
    split: Literal["train", "validation", "test"] = Field(description="which pictures it is evaluated on")


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The dotted keys below a section, in the schema's order, with their fields."""
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        if _is_section(field.annotation):
            yield from leaves(field.annotation, f"{key}.")
        else:
            yield key, field


def lookup(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested mappings; None where there is none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted key of nested dicts, in place."""
    *parents, last = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _distinct(values: tuple) -> tuple:
    if not values:
        raise ValueError("got an empty list")
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{value!r} stands twice; allowed: each value once")
    return values


def _values_of(field: FieldInfo) -> Any:
    """The type of a list of values that the field itself would take."""
    one = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return Annotated[tuple[one, ...], AfterValidator(_distinct)]


class _GridSection(Section):
    """Lists by key; a key that is not swept is left out of what it is dumped as."""

    @model_serializer(mode="wrap")
    def _set_only(self, dump: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}


def _grid_section(name: str, *sections: type[BaseModel]) -> type[Section]:
    """A section with each key of `sections`, taking a list of that key's values instead of one."""
    fields: dict[str, Any] = {}
    for key, field in (item for section in sections for item in section.model_fields.items()):
        if _is_section(field.annotation):
            nested = _grid_section(f"{name}_{key}", field.annotation)
            fields[key] = (nested, nested())
        else:
            # None, which is not validated: a key that the grid does not sweep
            fields[key] = (_values_of(field), Field(default=None, description=field.description))
    return create_model(name, __base__=_GridSection, **fields)


class GridParams(_grid_section("Grid", ModelParams, TrainParams)):
    """The lists that a sweep combines; a key is any key under `model` or `train`."""

    def values(self) -> dict[str, tuple]:
        """The lists that are set, by key (`learning_rate`, `schedule.start`), in the schema's order."""
        raw = self.model_dump()
        return {key: lookup(raw, key) for key, _ in leaves(type(self)) if lookup(raw, key) is not None}

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not self.values():
            raise ValueError(
                "the grid has no key; allowed: any key under `model` or `train`, each with a list"
            )
        return self


class SweepParams(Section):
    """Which cells are tried, and what ranks them."""

    grid: GridParams
    metric: Literal["accuracy", "precision", "recall", "f1"] = Field(
        description="what ranks the cells, on the validation split, at each cell's best epoch"
    )


class RegisterParams(Section):
    """What becomes of the winner."""

    name: Annotated[str, Field(pattern=r"^[^/:]+$")] = Field(
        description="registered model that gets a new version"
    )
    alias: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")] = Field(
        description="alias that the best version carries"
    )
    run_id: Text | None = Field(
        description="the sweep, or the run with a model, to register from; null: the newest finished sweep"
    )


class Params(Section):
    """Every parameter, as params.yaml lays them out. Read one with `load`."""

    seed: Int = Field(
        ge=0,
        lt=2**32,
        description="draws the splits, the initial weights, the order of the batches and the dropout",
    )
    data: DataParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    sweep: SweepParams
    # `register` itself is a method of every class that has pydantic's metaclass
    register_: RegisterParams = Field(alias="register")

    def flat(self) -> dict[str, Any]:
        """Every parameter in force by its dotted key; a grid's lists only where they are set."""
        raw = self.model_dump(by_alias=True)
        values = ((key, lookup(raw, key)) for key, _ in leaves(Params))
        return {key: value for key, value in values if value is not None or not key.startswith(GRID)}

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """These parameters with other values at some dotted keys."""
        raw = self.model_dump(by_alias=True)
        for key, value in values.items():
            assign(raw, key, value)
        return type(self).model_validate(raw)

    def with_cell(self, cell: Mapping[str, Any]) -> Self:
        """These parameters with a grid cell's values in place of those under `model` and `train`."""
        return self.with_values({f"{section_of(key)}.{key}": value for key, value in cell.items()})


def section_of(key: str) -> str:
    """The section (`model` or `train`) that a grid's key belongs to."""
    return "model" if key in ModelParams.model_fields else "train"
