"""Typed TOML: reads a file into a dataclass, reports all faults at once, and suggests similar names.

A schema is a frozen dataclass. The type of a field says what the file may have (str, int, float, bool, Literal, list,
dict, a nested dataclass, or `... | None`). `key(...)` adds a default, bounds and a line of documentation. A schema may
have a method `faults()` that yields (key, message) for conditions on several fields, and a static method
`completed(data)` that returns its table with implied keys added (those of a preset). The same code checks
manifest.json, which is untrusted.
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
from edge_lstm.foundation.text import decoded, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_INVALID: Any = object()
_MAX_FAULTS = 20  # reported one by one
_MAX_NAME_LENGTH = 100  # of a key that is compared with the known keys
_MAX_INTEGER = 2**1023  # larger integers become infinity as a float
_TYPE_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


class _Faults:
    """The first faults, each on one line, and the number of all: an untrusted file can have a million."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def append(self, line: str) -> None:
        self.count += 1
        if self.count <= _MAX_FAULTS:
            self.lines.append(printable(line))


def key(
    default: Any = dataclasses.MISSING,
    *,
    doc: str = "",
    least: float | None = None,
    most: float | None = None,
    refused: str = "",
) -> Any:
    """A field of a schema: its default (none: the key is required), its bounds (inclusive) and its documentation.

    `refused`: why a key that a user may expect is not allowed, like a password. The error does not show its value.
    """
    metadata = {"doc": doc, "least": least, "most": most, "refused": refused}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_toml(path: Path, schema: type[T]) -> T:
    """The file at `path` as an instance of `schema`. Raises ConfigError that lists every fault by key."""
    try:
        data = tomllib.loads(decoded(path.read_bytes()))
    except FileNotFoundError:
        raise ConfigError(f"expected a file at {path}, found none", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected to read TOML from {path}, found: {error}", "name a TOML text file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}", "fix the line named above") from None
    return from_mapping(data, schema, str(path))


def toml_table(text: str) -> Mapping[str, Any]:
    """TOML as a table without checks, for files of the package."""
    table: Mapping[str, Any] = tomllib.loads(text)
    return table


def from_mapping(data: Mapping[str, Any], schema: type[T], where: str, refusal: type[EdgeLstmError] = ConfigError) -> T:
    """`data` as an instance of `schema`. `where` is its source, for errors.

    Raises `refusal` with all faults, or with the first twenty and the number of others.
    """
    faults = _Faults()
    result = _read(data, schema, "", faults, {})
    if not faults.count:
        return typing.cast(T, result)
    if faults.count == 1:
        raise refusal(f"{where}: {faults.lines[0]}", f"fix that key in {where}")
    more = faults.count - len(faults.lines)
    lines = "".join(f"\n  {fault}" for fault in [*faults.lines, *([f"and {more} more"] if more else [])])
    raise refusal(f"{where}: {faults.count} faults:{lines}", f"fix these keys in {where}")


def _read(value: Any, expected: Any, where: str, faults: _Faults, bounds: Mapping[str, Any]) -> Any:
    """`value` as type `expected`, or _INVALID after adding a fault."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        members = [argument for argument in arguments if argument is not type(None)]
        member = _union_member(value, members)
        if member is None:
            return _add_type_fault(value, " or ".join(map(_type_name, members)), where, faults)
        return _read(value, member, where, faults, bounds)
    if origin is Literal:
        return value if value in arguments else _add_type_fault(value, _choices(value, arguments), where, faults)
    if origin in (list, tuple):
        if not isinstance(value, list):
            return _add_type_fault(value, "a list", where, faults)
        items = [_read(item, arguments[0], f"{where}[{index}]", faults, bounds) for index, item in enumerate(value)]
        return _INVALID if any(item is _INVALID for item in items) else origin(items)
    if origin is dict:
        if not isinstance(value, Mapping):
            return _add_type_fault(value, "a table", where, faults)
        table = {name: _read(item, arguments[1], f"{where}.{name}", faults, bounds) for name, item in value.items()}
        return _INVALID if any(item is _INVALID for item in table.values()) else table
    if dataclasses.is_dataclass(expected):
        return _read_table(value, expected, where, faults)
    return _read_scalar(value, expected, where, faults, bounds)


def _union_member(value: Any, members: list[Any]) -> Any:
    """The member of a union that has the form of `value`; None: no member has it."""
    if len(members) == 1:
        return members[0]
    forms: dict[str, Any] = {_type_name(member): member for member in members}
    if isinstance(value, Mapping):
        form: str | None = "a table"
    else:
        form = "a list" if isinstance(value, list) else _TYPE_NAMES.get(type(value))
    return forms.get(form) if form is not None else None


def _type_name(expected: Any) -> str:
    """The name of a type in errors."""
    origin = typing.get_origin(expected) or expected
    if origin in (list, tuple):
        return "a list"
    return "a table" if dataclasses.is_dataclass(origin) else _TYPE_NAMES[origin]


def _read_table(value: Any, schema: Any, where: str, faults: _Faults) -> Any:
    if not isinstance(value, Mapping):
        return _add_type_fault(value, "a table", where, faults)
    if hasattr(schema, "completed"):
        value = schema.completed(value)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    hints = _field_types(schema)
    prefix = f"{where}." if where else ""
    meant: set[str] = set()
    wrong: set[str] = set()  # keys without a valid value
    for name in value:
        if name not in fields:
            allowed = [known for known in fields if not fields[known].metadata.get("refused")]
            near = _similar(name, set(allowed) - value.keys()) if faults.count < _MAX_FAULTS else []
            meant.update(near)
            faults.append(f"{prefix}{name}: unknown key; {_suggestion_text(near, sorted(allowed))}")
    arguments = {}
    for name, field in fields.items():
        if name in value and field.metadata.get("refused"):
            faults.append(f"{prefix}{name}: {field.metadata['refused']}")
        elif name in value:
            arguments[name] = _read(value[name], hints[name], f"{prefix}{name}", faults, field.metadata)
            if arguments[name] is _INVALID:
                wrong.add(name)
        elif name in meant:
            wrong.add(name)  # it is misspelt, which is reported above
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            wrong.add(name)
            doc = field.metadata.get("doc", "")
            faults.append(f"{prefix}{name}: missing" + (f" ({doc})" if doc else ""))
    if wrong and faults.count >= _MAX_FAULTS:
        return _INVALID
    # conditions on several keys are checked too, unless they read an invalid one
    kind = type(schema.__name__, (schema,), dict.fromkeys(wrong, _INVALID_VALUE)) if wrong else schema
    result = kind(**{**dict.fromkeys(wrong, _INVALID), **arguments})
    try:
        for name, message in result.faults() if hasattr(result, "faults") else ():
            faults.append(f"{prefix}{name}: {message}")
    except _InvalidValueReadError:
        pass
    return result


@functools.cache
def _field_types(schema: Any) -> Mapping[str, Any]:
    """The types of a schema's fields. Cached: it takes half a millisecond, and a bundle can have 1,000 features."""
    return typing.get_type_hints(schema)


class _InvalidValueReadError(Exception):
    """A check read a value that is invalid and already reported."""


class _InvalidValue:
    """Replaces an invalid value in a schema; reading it raises."""

    def __get__(self, instance: object, owner: object) -> Any:
        raise _InvalidValueReadError

    def __set__(self, instance: object, value: object) -> None:
        """Does nothing. The initializer sets every value."""


_INVALID_VALUE = _InvalidValue()


def _read_scalar(value: Any, expected: Any, where: str, faults: _Faults, bounds: Mapping[str, Any]) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _MAX_INTEGER else math.inf
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        return _add_type_fault(value, _TYPE_NAMES[expected], where, faults)
    if isinstance(value, float) and not math.isfinite(value):
        return _add_type_fault(value, "a finite number", where, faults)
    least, most = bounds.get("least"), bounds.get("most")
    if least is not None and value < least:
        return _add_type_fault(value, f"{_TYPE_NAMES[expected]} >= {least}", where, faults)
    if most is not None and value > most:
        return _add_type_fault(value, f"{_TYPE_NAMES[expected]} <= {most}", where, faults)
    return value


def suggestion(name: str, known: Collection[str]) -> str:
    """The most similar known name, or all known names, as the end of a fault."""
    return _suggestion_text(_similar(name, known), known)


def _similar(name: str, known: Collection[str]) -> list[str]:
    if len(name) > _MAX_NAME_LENGTH:
        return []
    import difflib  # imported here: only needed after a fault

    folded = {one.casefold(): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, 1, 0.6)]


def _suggestion_text(near: list[str], known: Collection[str]) -> str:
    return f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"


def _choices(value: Any, choices: tuple[Any, ...]) -> str:
    listed = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)
    near = _similar(value, [str(choice) for choice in choices]) if isinstance(value, str) else []
    return f"one of {listed}" + (f' (did you mean "{near[0]}"?)' if near else "")


def _add_type_fault(value: Any, expected: str, where: str, faults: _Faults) -> Any:
    found = f'"{value}"' if isinstance(value, str) else "a table" if isinstance(value, Mapping) else _short_value(value)
    faults.append(f"{where}: expected {expected}, found {found}")
    return _INVALID


def _short_value(value: Any) -> str:
    """A value that is neither text nor table, for errors. Of a large or nested one, only its kind."""
    if isinstance(value, list) and (len(value) > 20 or any(isinstance(item, (list, Mapping)) for item in value)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of very many digits"
    return repr(value).lower()
