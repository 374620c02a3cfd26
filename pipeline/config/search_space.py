"""What a sweep's grid takes for a key: a list of values, or a range that a sampler draws from."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from pipeline.config.fields import Float, Int, Section, distinct, is_section


class Range(Section):
    """What a sampler draws from: `low` to `high`, both included; with `log` evenly by logarithm."""

    low: Int | Float
    high: Int | Float
    log: bool = False

    @model_validator(mode="before")
    @classmethod
    def _has_its_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not {"low", "high"} <= {*value} <= {*cls.model_fields}:
            raise ValueError(
                f"got a range with {', '.join(map(str, value)) or 'no key'}, not with low, high and maybe log"
            )
        return value

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"got low {self.low} and high {self.high}, but low must be below high")
        if self.log and self.low <= 0:
            raise ValueError(f"got low {self.low}, but a range with log needs low above 0")
        return self


def _with_ends(end: TypeAdapter[Any], value: Range) -> Range:
    """The range with each end as the swept field itself would take it: its type, within its bounds."""
    ends = {}
    for name in ("low", "high"):
        try:
            ends[name] = end.validate_python(getattr(value, name))
        except ValidationError:
            raise ValueError(f"got {getattr(value, name)} as {name}") from None
    return value.model_copy(update=ends)


def _range_or_values(value: Any) -> str:
    return "range" if isinstance(value, Mapping | Range) else "values"


def _values_of(field: FieldInfo) -> Any:
    """The type of a list of values that the field itself would take, or of a range where it is a number."""
    one: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    values = Annotated[tuple[one, ...], AfterValidator(distinct)]
    if field.annotation not in (int, float):
        return values
    numbers = Annotated[Range, AfterValidator(partial(_with_ends, TypeAdapter(one)))]
    return Annotated[
        Annotated[values, Tag("values")] | Annotated[numbers, Tag("range")], Discriminator(_range_or_values)
    ]


class _GridSection(Section):
    """Lists and ranges by key; a key that is not swept is left out of what it is dumped as."""

    @model_serializer(mode="wrap")
    def _set_only(self, dump: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}


def grid_section(name: str, *sections: Any) -> type[Section]:
    """A section with each key of `sections`, taking a list or a range of that key's values instead of one."""
    fields: dict[str, Any] = {}
    for key, field in (item for section in sections for item in section.model_fields.items()):
        if is_section(field.annotation):
            nested = grid_section(f"{name}_{key}", field.annotation)
            fields[key] = (nested, nested())
        else:
            # None, which is not validated: a key that the grid does not sweep
            fields[key] = (_values_of(field), Field(default=None, description=field.description))
    return create_model(name, __base__=_GridSection, **fields)
