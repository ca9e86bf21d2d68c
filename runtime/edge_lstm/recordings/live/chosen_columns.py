"""Chooses the columns of a recording from its first readings, so that no column mixes two kinds of devices.

Devices of one kind have the same keys. A plug sends its mains voltage (228 V) and a sensor the voltage of its battery
(2900 mV) under the same key: these get a column each. Devices of one kind may differ by any factor: one pump is larger.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_lstm.streaming.reading import Reading

_OTHER_QUANTITY = 5.0  # factor between the usual sizes of a key for two kinds of devices

_LAST_BYTES = 1_000_000  # of a file that is continued
Kind = frozenset[str]  # the keys of a device


class _Column(NamedTuple):
    name: str
    key: str
    size: float  # the usual magnitude of its values; 0: unknown
    kinds: frozenset[Kind]


class ChosenColumns:
    """The columns by stream and key. `names` is their order in the file."""

    def __init__(self, columns: Sequence[_Column], kind_of: Mapping[str, Kind]) -> None:
        self.names = [column.name for column in columns]
        self._by_key: dict[str, list[_Column]] = defaultdict(list)
        for column in columns:
            self._by_key[column.key].append(column)
        self._kind_of = dict(kind_of)
        self._column_of: dict[tuple[str, str], str | None] = {}

    @property
    def keys(self) -> list[str]:
        """The keys that have a column."""
        return list(self._by_key)

    @property
    def separated(self) -> dict[str, list[str]]:
        """By key, its columns, where it has several."""
        columns = {key: [column.name for column in found] for key, found in self._by_key.items()}
        return {key: found for key, found in columns.items() if len(found) > 1}

    def keys_of(self, stream: str) -> Kind:
        """The keys that the device sends; of an unknown device, all of them."""
        return self._kind_of.get(stream) or frozenset(self._by_key)

    def of(self, stream: str, key: str, value: float) -> str | None:
        """The column of a key of a stream. None: it fits none, since its values have another size."""
        place = stream, key
        if place not in self._column_of:
            if math.isnan(value):
                return None  # not decided yet
            self._column_of[place] = self._decide(stream, key, value)
        return self._column_of[place]

    def _decide(self, stream: str, key: str, value: float) -> str | None:
        columns = self._by_key[key]
        kind = self._kind_of.get(stream)
        for column in columns:
            if len(columns) == 1 or kind in column.kinds:
                return column.name
        near = [column for column in columns if _ratio(column.size, abs(value)) < _OTHER_QUANTITY]
        return min(near, key=lambda column: _ratio(column.size, abs(value))).name if near else None


def chosen_columns(readings: Iterable[Reading]) -> ChosenColumns:
    """The columns for these readings: the union of their keys, in the order in which they came."""
    values: dict[str, dict[str, list[float]]] = {}  # by key and stream
    kinds: dict[str, set[str]] = defaultdict(set)
    for reading in readings:
        for key, value in reading.values.items():
            kinds[reading.stream].add(key)
            values.setdefault(key, {}).setdefault(reading.stream, [])
            if math.isfinite(value):
                values[key][reading.stream].append(abs(value))
    kind_of = {stream: frozenset(keys) for stream, keys in kinds.items()}
    columns: list[_Column] = []
    taken = set(values)
    for key, by_stream in values.items():
        for number, (size, group) in enumerate(_groups(by_stream, kind_of)):
            columns.append(_Column(key if not number else _free_name(key, taken), key, size, frozenset(group)))
    return ChosenColumns(columns, kind_of)


def given_columns(features: Sequence[str]) -> ChosenColumns:
    """A column for each feature, for every device."""
    return ChosenColumns([_Column(name, name, 0.0, frozenset()) for name in features], {})


def columns_of_file(path: Path) -> ChosenColumns | None:
    """The columns of an existing recording, and which of them each device has in its last rows; None: it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = next(csv.reader(file), [])
            if names[:2] != ["time", "stream"]:
                return None
            end = file.seek(0, os.SEEK_END)
            if end > _LAST_BYTES:
                file.seek(end - _LAST_BYTES)
                file.readline()
            else:
                file.seek(0)
                file.readline()
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None  # RecordingFile raises the error
    return _columns_of_rows(names[2:], rows)


def _columns_of_rows(names: Sequence[str], rows: Iterable[Sequence[str]]) -> ChosenColumns:
    sizes: dict[str, list[float]] = {name: [] for name in names}
    column_of: dict[str, set[str]] = defaultdict(set)  # by stream
    for row in rows:
        for name, cell in zip(names, row[2:], strict=False):
            if len(row) == len(names) + 2 and cell:
                column_of[row[1]].add(name)
                sizes[name].append(_magnitude(cell))
    keys = {name: _key_of(name, names) for name in names}
    kind_of = {stream: frozenset(keys[name] for name in found) for stream, found in column_of.items()}
    return ChosenColumns(
        [
            _Column(
                name,
                keys[name],
                statistics.median([size for size in sizes[name] if size > 0] or [0.0]),
                frozenset(kind_of[stream] for stream, found in column_of.items() if name in found),
            )
            for name in names
        ],
        kind_of,
    )


def _key_of(name: str, names: Sequence[str]) -> str:
    """voltage_2 is a second column of the key `voltage`, if there is one."""
    key, _, number = name.rpartition("_")
    return key if number.isdecimal() and int(number) >= 2 and key in names else name


def _magnitude(cell: str) -> float:
    try:
        return abs(float(cell))
    except ValueError:
        return 0.0  # the text of a category


def _groups(by_stream: Mapping[str, Sequence[float]], kind_of: Mapping[str, Kind]) -> list[tuple[float, set[Kind]]]:
    """The kinds of devices whose values have about one size, that of the most devices first; (size, kinds)."""
    by_kind: dict[Kind, list[float]] = defaultdict(list)
    devices: dict[Kind, int] = defaultdict(int)
    for stream, found in by_stream.items():
        devices[kind_of[stream]] += 1
        by_kind[kind_of[stream]] += [value for value in found if value > 0]
    sizes = {kind: statistics.median(found) if found else 0.0 for kind, found in by_kind.items()}
    groups: list[tuple[float, set[Kind]]] = []
    for kind in sorted(sizes, key=lambda kind: sizes[kind]):
        size = sizes[kind]
        if groups and (not size or not groups[-1][0] or _ratio(groups[-1][0], size) < _OTHER_QUANTITY):
            groups[-1] = max(groups[-1][0], size), groups[-1][1] | {kind}
        else:
            groups.append((size, {kind}))
    return sorted(groups, key=lambda group: -sum(devices[kind] for kind in group[1]))


def _free_name(key: str, taken: set[str]) -> str:
    number = 2
    while f"{key}_{number}" in taken:
        number += 1
    taken.add(f"{key}_{number}")
    return f"{key}_{number}"


def _ratio(one: float, other: float) -> float:
    """How many times the larger one is the smaller; 1 where one is 0, which fits any size."""
    least, most = sorted((one, other))
    return most / least if least > 0 else 1.0
