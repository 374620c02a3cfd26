"""What the sections of params.yaml are made of, and the dotted keys that lead through them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo


def _no_bool(value: Any) -> Any:
    # pydantic would take `true` for 1
    if isinstance(value, bool):
        raise ValueError(f"got {value}")
    return value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


def distinct(values: tuple) -> tuple:
    """Check that a list has values, each once."""
    if not values:
        raise ValueError("got an empty list")
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{value!r} stands twice; allowed: each value once")
    return values


class Section(BaseModel):
    """A frozen part of the parameters that knows no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The dotted keys below a section, in the schema's order, with their fields."""
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        if is_section(field.annotation):
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


def is_section(annotation: Any) -> bool:
    """Whether a field's type is a section of its own, and not a value."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
