"""Field types of the sections of params.yaml, and access to nested values by dotted keys."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo


def _no_bool(value: Any) -> Any:
    # pydantic would convert `true` to 1
    if isinstance(value, bool):
        raise ValueError(f"got {value}")
    return value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Checks that a list is not empty and has no duplicates."""
    if not values:
        raise ValueError("got an empty list")
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"duplicate value {value!r}; allowed: each value once")
    return values


class Section(BaseModel):
    """A frozen section of the parameters; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The dotted keys below a section, in the schema's order, with their fields."""
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        if is_section(field.annotation):
            yield from leaves(field.annotation, f"{key}.")
        else:
            yield key, field


def lookup(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested mappings; None if missing.

    >>> lookup({"train": {"epochs": 4}}, "train.epochs")
    4
    """
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value at a dotted key of nested dicts, in place."""
    *parents, last = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value


def is_section(annotation: Any) -> bool:
    """Whether the type of a field is a section."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
