"""How params.yaml and a command line become parameters, and the error a user gets if they do not.

Precedence: the command line, then the file named by `--params`, then the project's own params.yaml.
"""

import difflib
import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import CliSettingsSource, SettingsError

from pipeline.config.fields import assign, leaves, lookup
from pipeline.config.params import Params
from pipeline.config.search_space import Range
from pipeline.config.sweep_schema import GRID
from pipeline.runtime.errors import UserError

DEFAULTS = Path("params.yaml")


def load(arguments: Sequence[str] | None = None, defaults: Path = DEFAULTS) -> Params:
    """Read the parameters of a command.

    Args:
        arguments: `--key value` or `--key=value` items, keys dotted; `--params FILE` names a file whose keys
            stand over those of `defaults`. None: the process's own command line.
        defaults: the project's params.yaml, which has every key.

    Raises:
        UserError: an unknown key, a wrong type, a value out of range, or a file that cannot be read. The
            text has a line for each, with what it got and what is allowed.
        SystemExit: with status 0 after `--help`.
    """
    options = _options(sys.argv[1:] if arguments is None else arguments)
    raw = _read(defaults)
    _refuse_empty({"params": options.get("params")}, "command line")
    file = Path(options.pop("params", defaults))
    if file != defaults:
        raw = _merge(raw, _read(file), replace=("sweep.grid",))
    if "help" in options:
        print(help_text(raw))
        raise SystemExit(0)
    overrides = _parse(options)
    lists_and_ranges = [key for key in _keys() if key.startswith(GRID)]
    raw = _merge(raw, overrides, replace=("sweep.grid",) if "sweep.grid" in options else lists_and_ranges)
    _refuse_empty({key: lookup(raw, key) for key in _keys()}, str(file))
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        # a value that fits no type of a union has an error for each; the first is enough
        lines: dict[tuple[Any, ...], str] = {}
        for item in error.errors():
            lines.setdefault(_place(item["loc"]), _explain(item, overrides, file))
        raise UserError("\n".join(dict.fromkeys(lines.values()))) from None


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """The `--key value` and `--key=value` items of a command line, by key; the last of a key counts."""
    options: dict[str, str] = {}
    rest = iter(arguments)
    for token in rest:
        if token in ("-h", "--help"):
            options["help"] = ""
            continue
        if not token.startswith("--"):
            raise UserError(f"{token!r}: not understood; allowed: --key value, as in --train.epochs 3")
        key, equals, given = token[2:].partition("=")
        value = given if equals else next(rest, None)
        if value is None:
            raise UserError(f"--{key}: got no value; allowed: --{key} VALUE")
        options[key] = value
    return options


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the parameters' file {file.absolute()}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{file}: got {raw!r}; allowed: sections with keys, as in the project's params.yaml")
    return raw


def _merge(base: Any, over: Any, replace: Sequence[str] = (), prefix: str = "") -> Any:
    """`over` laid over `base`, key by key; what stands at a key of `replace` is taken whole."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)) or prefix.rstrip(".") in replace:
        return over
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(base.get(key), value, replace, f"{prefix}{key}.")
    return merged


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parse(options: Mapping[str, str]) -> dict[str, Any]:
    """The options as nested values, lists and sections decoded from JSON."""
    for key in options:
        if key not in _keys_and_sections():
            raise UserError(_unknown(key, "command line"))
    _refuse_empty(options, "command line")
    try:
        # pydantic-settings would make lists of them, and is given a list to put them in place of
        ranges = {
            key: json.loads(value)
            for key, value in options.items()
            if key.startswith(GRID) and key in _keys() and value[:1] == "{"
        }
        source: CliSettingsSource[Any] = CliSettingsSource(
            Params,  # type: ignore[arg-type]  # any pydantic model works
            cli_parse_args=[f"--{key}={'[0]' if key in ranges else value}" for key, value in options.items()],
            cli_parse_none_str="null",
            cli_enforce_required=False,
            root_parser=_Parser(allow_abbrev=False),
        )
        values = source()
    except (SettingsError, json.JSONDecodeError) as error:
        broken = [key for key, value in options.items() if value[:1] in ("[", "{") and not _is_json(value)]
        text = f"{broken[0]} (command line): got {options[broken[0]]!r}" if broken else str(error)
        examples = """'[0.1, 0.01]', '["relu", "tanh"]' or '{"low": 0.1, "high": 1}'"""
        raise UserError(f"{text}; allowed: JSON, as in {examples}") from None
    for key, value in ranges.items():
        # None where a section above it has been given something else, which is refused later
        if lookup(values, key) is not None:
            assign(values, key, value)
    return values


def _refuse_empty(values: Mapping[str, Any], origin: str) -> None:
    """Refuse values without a character: no key takes one, and a path of that name is the current folder."""
    fields = {key: allowed(field) for key, field in leaves(Params)} | {"params": "the name of a file"}
    empty = [key for key, value in values.items() if isinstance(value, str) and not value.strip()]
    if empty:
        raise UserError(
            "\n".join(
                f"{key} ({origin}): got {values[key]!r}, an empty value (is a shell variable unset?); "
                f"allowed: {fields.get(key, 'a section as JSON')}"
                for key in empty
            )
        )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _keys() -> list[str]:
    return [key for key, _ in leaves(Params)]


def _keys_and_sections() -> set[str]:
    parts = [key.split(".") for key in _keys()]
    return {".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}


def _unknown(key: str, origin: str) -> str:
    """The message on an unknown key, with the nearest valid one: by its whole name, or by its last part."""
    keys = _keys()
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(keys)}
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if not nearest:
        nearest = [last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1)]
    advice = f"did you mean {nearest[0]}?" if nearest else "no key is like it;"
    return f"{key} ({origin}): unknown key; {advice} --help lists all keys"


def _key_at(loc: Sequence[str | int]) -> str | None:
    """The key whose value one of pydantic's errors is about; None where it is about a section."""
    names = [part for part in loc if isinstance(part, str)]
    prefixes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((prefix for prefix in prefixes if prefix in _keys()), None)


def _place(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """What one line is written about: a key's value, or a position in its list, or else all of `loc`."""
    key = _key_at(loc)
    return (key, *(part for part in loc if isinstance(part, int))) if key else tuple(loc)


def _explain(error: Mapping[str, Any], overrides: Mapping[str, Any], file: Path) -> str:
    """One of pydantic's errors as a line: which key, where it was set, what it got, what is allowed."""
    names = [part for part in error["loc"] if isinstance(part, str)]
    fields = dict(leaves(Params))
    key = _key_at(error["loc"])
    if error["type"] == "extra_forbidden":
        key = ".".join(names)
        return _unknown(key, "command line" if lookup(overrides, key) is not None else str(file))
    if key is None:
        section = ".".join(names)
        where = "command line" if lookup(overrides, section) is not None else str(file)
        if error["type"] == "value_error":
            text = str(error["ctx"]["error"])
            return text if text.startswith(f"{section}.") else f"{section}: {text}"
        if error["type"] == "missing":
            return f"{section} ({where}): missing; allowed: the section as the project's params.yaml has it"
        return f"{section} ({where}): got {error['input']!r}; allowed: a section with keys"
    origin = "command line" if lookup(overrides, key) is not None else str(file)
    if error["type"] == "missing":
        return f"{key} ({origin}): missing; allowed: {allowed(fields[key])}"
    end = next((f" as {name}" for name in names[key.count(".") + 1 :] if name in Range.model_fields), "")
    if error["type"] == "value_error":
        text = f"{key} ({origin}): {error['ctx']['error']}{end}"
        return text if "allowed: " in text else f"{text}; allowed: {allowed(fields[key])}"
    values = str(error.get("ctx", {}).get("expected", "")).split("'")
    near = difflib.get_close_matches(str(error["input"]).lower(), values, n=1)
    advice = f"; did you mean {near[0]}?" if near else ""
    return f"{key} ({origin}): got {error['input']!r}{end}; allowed: {allowed(fields[key])}{advice}"


def help_text(raw: Mapping[str, Any]) -> str:
    """What `--help` prints: every key with its default (from `raw`), its meaning and its range."""
    lines = [
        "Every key can be set with `--key value`, or `-P key=value` through MLflow; a list is JSON.",
        "",
        "--params params.yaml",
        "    file of parameters that stands over the project's own",
    ]
    for key, field in leaves(Params):
        if not key.startswith(GRID):
            default = json.dumps(lookup(raw, key), ensure_ascii=False)
            lines += ["", f"--{key} {default}", f"    {field.description}", f"    allowed: {allowed(field)}"]
    lines += [
        "",
        "--sweep.grid '{\"KEY\": [VALUES], …}'",
        "    every combination is trained; replaces the whole grid",
        "--sweep.grid.KEY [VALUES]",
        "    replaces one list, or adds one, and leaves the others. A KEY with numbers also takes a range,",
        "    which the samplers random and tpe draw from, both ends included; log: evenly by logarithm:",
        '    --sweep.grid.learning_rate \'{"low": 0.0001, "high": 0.1, "log": true}\'',
        "    KEY, its default and its VALUES:",
    ]
    for key, field in leaves(Params):
        if key.startswith(GRID):
            values = lookup(raw, key)
            default = f" {json.dumps(values)}" if values else ""
            lines.append(f"      {key.removeprefix(GRID)}{default}; {allowed(field)}")
    return "\n".join(lines)


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words."""
    return _allowed(field.annotation, field.metadata)


def _allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _allowed(inner, [*more, *metadata])
    if origin in (Union, UnionType):
        return " or ".join(_allowed(one) for one in get_args(annotation))
    if origin is Literal:
        return ", ".join(get_args(annotation))
    if origin is tuple:
        return f"[…] of {_allowed(get_args(annotation)[0])}"
    if annotation is Range:
        return 'a range {"low": …, "high": …, "log": false} of such'
    names = {int: "whole number", float: "number", bool: "true or false", str: "text", NoneType: "null"}
    return " ".join([names[annotation], *_bounds(metadata)])


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for item in metadata:
        match item:
            case annotated_types.Ge(ge=bound):
                yield f"from {bound}"
            case annotated_types.Gt(gt=bound):
                yield f"above {bound}"
            case annotated_types.Le(le=bound):
                yield f"up to {bound}"
            case annotated_types.Lt(lt=bound):
                yield f"below {bound}"
            case FieldInfo(examples=[*examples]):
                yield f"like {', '.join(examples)}"
            case FieldInfo():
                yield from _bounds(item.metadata)
            case _ if pattern := getattr(item, "pattern", None):
                yield f"like {pattern}"
