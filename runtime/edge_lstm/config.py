"""Typed TOML: a file against a dataclass, with every fault reported at once and the near name suggested.

A schema is a frozen dataclass; a field's type says what the file may hold (str, int, float, bool, Literal, list,
dict, a nested dataclass, or `... | None`), and `key(...)` adds a default, bounds and the one line that explains it.
A schema may have a method `faults()` that yields (key, message) for what no single field can know.
The same reader checks manifest.json, which comes from strangers.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from edge_lstm.errors import EdgeLstmError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_ABSENT: Any = object()
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


def key(
    default: Any = dataclasses.MISSING,
    *,
    doc: str = "",
    least: float | None = None,
    most: float | None = None,
    refused: str = "",
) -> Any:
    """A field of a schema: its default (none: the key is required), its bounds (inclusive) and its meaning.

    `refused` is for a key that one would expect and must not write, a password for one: the reason, which is told
    without the value.
    """
    metadata = {"doc": doc, "least": least, "most": most, "refused": refused}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_toml(path: Path, schema: type[T]) -> T:
    """The file at `path` as an instance of `schema`. Raises EdgeLstmError that lists every fault by key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgeLstmError(f"expected a file at {path}, found none", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeLstmError(f"expected to read TOML from {path}, found: {error}", "name a TOML text file") from None
    except tomllib.TOMLDecodeError as error:
        raise EdgeLstmError(f"{path}: expected TOML, found: {error}", "mend the line named above") from None
    return from_mapping(data, schema, str(path))


def from_mapping(data: Mapping[str, Any], schema: type[T], where: str) -> T:
    """`data` as an instance of `schema`; `where` names its source in errors. Raises EdgeLstmError with every fault."""
    faults: list[str] = []
    result = _read(data, schema, "", faults, {})
    if not faults:
        return typing.cast(T, result)
    if len(faults) == 1:
        raise EdgeLstmError(f"{where}: {faults[0]}", f"mend that key in {where}")
    lines = "".join(f"\n  {fault}" for fault in faults)
    raise EdgeLstmError(f"{where}: {len(faults)} faults:{lines}", f"mend these keys in {where}")


def _read(value: Any, expected: Any, where: str, faults: list[str], bounds: Mapping[str, Any]) -> Any:
    """`value` as type `expected`, or _ABSENT after a line in `faults`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _read(value, inner, where, faults, bounds)
    if origin is Literal:
        return value if value in arguments else _wrong(value, _one_of(value, arguments), where, faults)
    if origin in (list, tuple):
        if not isinstance(value, list):
            return _wrong(value, "a list", where, faults)
        items = [_read(item, arguments[0], f"{where}[{index}]", faults, bounds) for index, item in enumerate(value)]
        return origin(items)
    if origin is dict:
        if not isinstance(value, Mapping):
            return _wrong(value, "a table", where, faults)
        return {name: _read(item, arguments[1], f"{where}.{name}", faults, bounds) for name, item in value.items()}
    if dataclasses.is_dataclass(expected):
        return _read_table(value, expected, where, faults)
    return _read_scalar(value, expected, where, faults, bounds)


def _read_table(value: Any, schema: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return _wrong(value, "a table", where, faults)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    hints = typing.get_type_hints(schema)
    prefix = f"{where}." if where else ""
    before = len(faults)
    meant: set[str] = set()
    for name in value:
        if name not in fields:
            allowed = [known for known in fields if not fields[known].metadata.get("refused")]
            near = difflib.get_close_matches(name, set(allowed) - set(value), 1, 0.6)
            meant.update(near)
            known = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(sorted(allowed))}"
            faults.append(f"{prefix}{name}: unknown key; {known}")
    arguments = {}
    for name, field in fields.items():
        if name in value and field.metadata.get("refused"):
            faults.append(f"{prefix}{name}: {field.metadata['refused']}")
        elif name in value:
            arguments[name] = _read(value[name], hints[name], f"{prefix}{name}", faults, field.metadata)
        elif name in meant:
            continue  # it is there, misspelt, and told above
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            doc = field.metadata.get("doc", "")
            faults.append(f"{prefix}{name}: missing" + (f" ({doc})" if doc else ""))
    if len(faults) > before:
        return _ABSENT
    result = schema(**arguments)
    checks: Iterator[tuple[str, str]] = result.faults() if hasattr(result, "faults") else iter(())
    faults.extend(f"{prefix}{name}: {message}" for name, message in checks)
    return result


def _read_scalar(value: Any, expected: Any, where: str, faults: list[str], bounds: Mapping[str, Any]) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        return _wrong(value, _NAMES[expected], where, faults)
    if isinstance(value, float) and not math.isfinite(value):
        return _wrong(value, "a finite number", where, faults)
    least, most = bounds.get("least"), bounds.get("most")
    if least is not None and value < least:
        return _wrong(value, f"{_NAMES[expected]} >= {least}", where, faults)
    if most is not None and value > most:
        return _wrong(value, f"{_NAMES[expected]} <= {most}", where, faults)
    return value


def _one_of(value: Any, choices: tuple[Any, ...]) -> str:
    listed = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], 1, 0.6)
    return f"one of {listed}" + (f' (did you mean "{near[0]}"?)' if near else "")


def _wrong(value: Any, expected: str, where: str, faults: list[str]) -> Any:
    found = f'"{value}"' if isinstance(value, str) else "a table" if isinstance(value, Mapping) else repr(value).lower()
    faults.append(f"{where}: expected {expected}, found {found}")
    return _ABSENT
