"""Readings and refusals as JSON, as the history stores them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.messages.formats.payloads import dump_json, load_json
from edge_lstm.streaming.reading import Command, Forgotten, Reading, Refusal

Record = Reading | Refusal | Forgotten | Command

_load = load_json()
_FORGOTTEN, _COMMAND = "forgotten", "command"
_REQUIRED = 3  # stream, time, values
_DEFAULTS = tuple(Reading._field_defaults.values())


def records_text(records: Iterable[Record]) -> bytes:
    """A JSON list with an entry per record.

    A reading is the list of its fields, without defaults at the end. A refusal is {"refused": [stream, time, reason]},
    a forgotten stream {"forgotten": [stream]}, an operator's command {"command": [stream, id, kind, time, facts]}.
    """
    # usually plain tuples: orjson takes no named ones
    entries = [record[:_REQUIRED] if record[_REQUIRED:] == _DEFAULTS else _entry(record) for record in records]
    return dump_json(entries).encode()


def _entry(record: Record) -> object:
    if isinstance(record, Refusal):
        return {"refused": record[:]}
    if isinstance(record, Forgotten):
        return {_FORGOTTEN: record[:]}
    if isinstance(record, Command):
        return {_COMMAND: record[:]}
    fields = list(record)
    while fields[-1] == _DEFAULTS[len(fields) - 1 - _REQUIRED]:
        fields.pop()
    return fields


def entries_of(content: bytes) -> list[Any]:
    """The entries of `records_text`, as JSON values. Raises ValueError if they are none."""
    try:
        found: list[Any] = _load(content)
    except ValueError:
        found = json.loads(content)  # it reads NaN
    return found


def stream_of(entry: Any) -> str:
    """The stream of an entry."""
    (fields,) = entry.values() if isinstance(entry, Mapping) else (entry,)
    stream: str = fields[0]
    return stream


def is_forgotten(entry: Any) -> bool:
    """Whether the entry says that its stream was forgotten."""
    return isinstance(entry, Mapping) and _FORGOTTEN in entry


def record_of(entry: Any) -> Record:
    """The record of an entry. Raises EdgeLstmError for a kind of entry that this release does not have."""
    if isinstance(entry, Sequence) and len(entry) <= _REQUIRED + len(_DEFAULTS):
        stream, time, values, *others = entry
        return Reading(stream, time, _without_nulls(values), *others)
    if isinstance(entry, Mapping) and "refused" in entry:
        return Refusal(*entry["refused"])
    if is_forgotten(entry):
        return Forgotten(*entry[_FORGOTTEN])
    if isinstance(entry, Mapping) and _COMMAND in entry:
        return Command(*entry[_COMMAND])
    raise EdgeLstmError(
        f"expected readings and refusals in the history, found {str(entry)[:60]}",
        "run the later edge-lstm that wrote the state database",
    )


def _without_nulls(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}
