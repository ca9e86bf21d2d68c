"""Typed TOML: a file against a dataclass, with every fault reported at once and the near name suggested.

A schema is a frozen dataclass; a field's type says what the file may hold (str, int, float, bool, Literal, list,
dict, a nested dataclass, or `... | None`), and `key(...)` adds a default, bounds and the one line that explains it.
A schema may have a method `faults()` that yields (key, message) for what no single field can know, and a static
method `completed(data)` that gives its table with what the table implies (a preset's keys) filled in.
The same reader checks manifest.json, which comes from strangers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from edge_lstm.foundation.errors import ConfigError, EdgeLstmError
from edge_lstm.foundation.text import told

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_ABSENT: Any = object()
_MOST_FAULTS = 20  # told one by one
_LONGEST_NAME = 100  # of a key that could be another one misspelt
_LARGEST = 2**1023  # of the whole numbers that are read as floats
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


class _Faults:
    """The first faults, each on one line, and how many there are: a stranger's file may hold a million."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def append(self, line: str) -> None:
        self.count += 1
        if self.count <= _MOST_FAULTS:
            self.lines.append(told(line))


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
    """The file at `path` as an instance of `schema`. Raises ConfigError that lists every fault by key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"expected a file at {path}, found none", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected to read TOML from {path}, found: {error}", "name a TOML text file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}", "mend the line named above") from None
    return from_mapping(data, schema, str(path))


def toml_table(text: str) -> Mapping[str, Any]:
    """TOML as tables, unchecked: for what comes with the package."""
    table: Mapping[str, Any] = tomllib.loads(text)
    return table


def from_mapping(data: Mapping[str, Any], schema: type[T], where: str, refusal: type[EdgeLstmError] = ConfigError) -> T:
    """`data` as an instance of `schema`; `where` names its source in errors.

    Raises `refusal` with every fault, or with the first twenty and how many follow.
    """
    faults = _Faults()
    result = _read(data, schema, "", faults, {})
    if not faults.count:
        return typing.cast(T, result)
    if faults.count == 1:
        raise refusal(f"{where}: {faults.lines[0]}", f"mend that key in {where}")
    more = faults.count - len(faults.lines)
    lines = "".join(f"\n  {fault}" for fault in [*faults.lines, *([f"and {more} more"] if more else [])])
    raise refusal(f"{where}: {faults.count} faults:{lines}", f"mend these keys in {where}")


def _read(value: Any, expected: Any, where: str, faults: _Faults, bounds: Mapping[str, Any]) -> Any:
    """`value` as type `expected`, or _ABSENT after a line in `faults`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        members = [argument for argument in arguments if argument is not type(None)]
        member = _member(value, members)
        if member is None:
            return _wrong(value, " or ".join(map(_named, members)), where, faults)
        return _read(value, member, where, faults, bounds)
    if origin is Literal:
        return value if value in arguments else _wrong(value, _one_of(value, arguments), where, faults)
    if origin in (list, tuple):
        if not isinstance(value, list):
            return _wrong(value, "a list", where, faults)
        items = [_read(item, arguments[0], f"{where}[{index}]", faults, bounds) for index, item in enumerate(value)]
        return _ABSENT if any(item is _ABSENT for item in items) else origin(items)
    if origin is dict:
        if not isinstance(value, Mapping):
            return _wrong(value, "a table", where, faults)
        table = {name: _read(item, arguments[1], f"{where}.{name}", faults, bounds) for name, item in value.items()}
        return _ABSENT if any(item is _ABSENT for item in table.values()) else table
    if dataclasses.is_dataclass(expected):
        return _read_table(value, expected, where, faults)
    return _read_scalar(value, expected, where, faults, bounds)


def _member(value: Any, members: list[Any]) -> Any:
    """The member of a union that `value` means to be, by its form; None where it has the form of none."""
    if len(members) == 1:
        return members[0]
    forms: dict[str, Any] = {_named(member): member for member in members}
    form = "a table" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else _NAMES.get(type(value))
    return forms.get(form) if form is not None else None


def _named(expected: Any) -> str:
    """What an error calls values of a type."""
    origin = typing.get_origin(expected) or expected
    if origin in (list, tuple):
        return "a list"
    return "a table" if dataclasses.is_dataclass(origin) else _NAMES[origin]


def _read_table(value: Any, schema: Any, where: str, faults: _Faults) -> Any:
    if not isinstance(value, Mapping):
        return _wrong(value, "a table", where, faults)
    if hasattr(schema, "completed"):
        value = schema.completed(value)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    hints = _hints(schema)
    prefix = f"{where}." if where else ""
    meant: set[str] = set()
    wrong: set[str] = set()  # keys whose value is not known
    for name in value:
        if name not in fields:
            allowed = [known for known in fields if not fields[known].metadata.get("refused")]
            near = _near(name, set(allowed) - value.keys()) if faults.count < _MOST_FAULTS else []
            meant.update(near)
            faults.append(f"{prefix}{name}: unknown key; {_suggested(near, sorted(allowed))}")
    arguments = {}
    for name, field in fields.items():
        if name in value and field.metadata.get("refused"):
            faults.append(f"{prefix}{name}: {field.metadata['refused']}")
        elif name in value:
            arguments[name] = _read(value[name], hints[name], f"{prefix}{name}", faults, field.metadata)
            if arguments[name] is _ABSENT:
                wrong.add(name)
        elif name in meant:
            wrong.add(name)  # it is there, misspelt, and told above
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            wrong.add(name)
            doc = field.metadata.get("doc", "")
            faults.append(f"{prefix}{name}: missing" + (f" ({doc})" if doc else ""))
    if wrong and faults.count >= _MOST_FAULTS:
        return _ABSENT
    # what keys mean together is checked too, as far as it asks for none of these
    kind = type(schema.__name__, (schema,), dict.fromkeys(wrong, _WRONG)) if wrong else schema
    result = kind(**{**dict.fromkeys(wrong, _ABSENT), **arguments})
    try:
        for name, message in result.faults() if hasattr(result, "faults") else ():
            faults.append(f"{prefix}{name}: {message}")
    except _AskedForWrongError:
        pass
    return result


@functools.cache
def _hints(schema: Any) -> Mapping[str, Any]:
    """The types of a schema's fields: half a millisecond to find out, and a bundle may have a thousand features."""
    return typing.get_type_hints(schema)


class _AskedForWrongError(Exception):
    """A check asked for a value that is wrong, and told as that already."""


class _Wrong:
    """Stands in a schema for such a value."""

    def __get__(self, instance: object, owner: object) -> Any:
        raise _AskedForWrongError

    def __set__(self, instance: object, value: object) -> None:
        """For the initializer, which sets every value."""


_WRONG = _Wrong()


def _read_scalar(value: Any, expected: Any, where: str, faults: _Faults, bounds: Mapping[str, Any]) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _LARGEST else math.inf
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


def suggestion(name: str, known: Collection[str]) -> str:
    """What an unknown name may have been meant to be, as the end of a fault."""
    return _suggested(_near(name, known), known)


def _near(name: str, known: Collection[str]) -> list[str]:
    if len(name) > _LONGEST_NAME:
        return []
    import difflib  # here: a service whose config is right never needs it

    folded = {one.casefold(): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, 1, 0.6)]


def _suggested(near: list[str], known: Collection[str]) -> str:
    return f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"


def _one_of(value: Any, choices: tuple[Any, ...]) -> str:
    listed = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)
    near = _near(value, [str(choice) for choice in choices]) if isinstance(value, str) else []
    return f"one of {listed}" + (f' (did you mean "{near[0]}"?)' if near else "")


def _wrong(value: Any, expected: str, where: str, faults: _Faults) -> Any:
    found = f'"{value}"' if isinstance(value, str) else "a table" if isinstance(value, Mapping) else _shown(value)
    faults.append(f"{where}: expected {expected}, found {found}")
    return _ABSENT


def _shown(value: Any) -> str:
    """A value that is neither text nor table, as an error shows it: what is large or deep, by its kind alone."""
    if isinstance(value, list) and (len(value) > 20 or any(isinstance(item, (list, Mapping)) for item in value)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of very many digits"
    return repr(value).lower()
