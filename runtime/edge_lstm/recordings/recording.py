"""A recording: readings of one or more streams, from CSV or Parquet; errors name file, row and column."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags, Integers
from edge_lstm.foundation.csv_text import csv_text
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.progress import work
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.recordings.column_contents import column_kinds
from edge_lstm.recordings.columns import (
    NumberWords,
    TimeColumns,
    ValueColumn,
    texts_of,
)
from edge_lstm.recordings.label_windows import Countdown, LabelWindows
from edge_lstm.recordings.rows import RowReader, Rows
from edge_lstm.recordings.tables.table import Layout, Table, column_index, open_table, recording_files
from edge_lstm.streaming.reading import Reading


@dataclass(frozen=True)
class Columns:
    """Which columns of the files hold what, and in which format. Column names are those of the first row."""

    values: Mapping[str, str | ValueColumn]  # feature name -> its column
    time: str | TimeColumns | None = None  # None: the first column that holds times
    stream_column: str | None = None  # None: each file is one stream
    stream: str | None = None  # all files are one stream with this name
    labels: Mapping[str, str | ValueColumn | LabelWindows | Countdown] = field(
        default_factory=dict
    )  # not an input of the model
    group_column: str | None = None  # names the group of a stream
    layout: Layout = field(default_factory=Layout)
    words: NumberWords = field(default_factory=NumberWords)
    check_clocks: bool = True  # leave out rows with a wrong clock
    join_within_s: float = 0.0  # in files of one row a value: the values of a row come within this time


_PLAIN_TEXT = (".csv", ".tsv", ".txt", ".dat", ".log")
_ROWS_AT_ONCE = 65_536  # as Python objects, which take many times the memory of arrays


@dataclass(frozen=True, eq=False)
class Recording:
    """Readings in the order of the files; missing values are NaN."""

    source: str
    features: list[str]
    streams: list[str]  # names, in the order of their first rows
    stream_of: Integers  # (rows,): index into `streams`
    times: Doubles  # (rows,): seconds since 1970
    values: Doubles  # (rows, features)
    labels: Mapping[str, Doubles] = field(default_factory=dict)  # (rows,) each: not an input of the model
    categories: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # by feature or label: its values are indices of these
    groups: Sequence[str] = ()  # of each stream; empty: each stream is its own group
    files: Sequence[Path] = ()
    left_out: Mapping[str, int] = field(
        default_factory=dict
    )  # number of discarded values by reason (sentinels, implausible, unknown), and of rows (wrong clock, ...)
    notes: Sequence[str] = ()  # what was left out around the readings, with file and row
    places: Integers | None = None  # (rows, 2): index into `files`, row in that file
    sets: Sequence[str] = ()  # of each stream: the name of its data set; empty: the files are no sets
    actual_ahead: Mapping[str, float] = field(
        default_factory=dict
    )  # quantities whose later values are actual ones, each with the standard deviation of the error at one step

    def __len__(self) -> int:
        return len(self.times)

    def readings(self) -> Iterator[Reading]:
        """The rows as readings, missing values left out."""
        for begin in range(0, len(self), _ROWS_AT_ONCE):
            yield from self._readings(slice(begin, begin + _ROWS_AT_ONCE))

    def _readings(self, chosen: slice | Integers) -> Iterator[Reading]:
        names, streams = self.features, self.streams
        columns = self.stream_of[chosen].tolist(), self.times[chosen].tolist(), self.values[chosen].tolist()
        for index, time, row in zip(*columns, strict=True):
            values = {name: value for name, value in zip(names, row, strict=True) if not math.isnan(value)}
            yield Reading(streams[index], time, values)

    def readings_side_by_side(self) -> Iterator[Reading]:
        """The readings of `side_by_side`, without a copy of the recording."""
        if len(self.streams) == 1:
            yield from self.readings()
            return
        by_stream = np.argsort(self.stream_of, kind="stable")
        begins = np.searchsorted(self.stream_of[by_stream], np.arange(1, len(self.streams)))
        rows_of = np.split(by_stream, begins)
        most = max(1, _ROWS_AT_ONCE // len(self.streams))
        for first in range(0, max(map(len, rows_of)), most):
            parts = [rows[first : first + most] for rows in rows_of]
            rows = np.concatenate(parts)
            number = np.concatenate([np.arange(len(part)) for part in parts])  # of a reading in its stream
            yield from self._readings(rows[np.lexsort((self.stream_of[rows], number))])

    def side_by_side(self) -> Recording:
        """The same readings with the streams interleaved, each in its own order: batches then hold many streams."""
        by_stream = np.argsort(self.stream_of, kind="stable")
        begins = np.searchsorted(self.stream_of[by_stream], np.arange(len(self.streams)))
        place = np.empty(len(self), np.int64)
        place[by_stream] = np.arange(len(self)) - begins[self.stream_of[by_stream]]  # index of a reading in its stream
        return self.rows(np.lexsort((self.stream_of, place)))

    def rows(self, chosen: Flags | Integers | slice) -> Recording:
        """A part of the recording, with the same streams."""
        return dataclasses.replace(
            self,
            stream_of=self.stream_of[chosen],
            times=self.times[chosen],
            values=self.values[chosen],
            labels={name: values[chosen] for name, values in self.labels.items()},
            places=None if self.places is None else self.places[chosen],
        )


Named = str | Path | Sequence[str | Path]
Sets = Mapping[str, str | list[str]]


def read_recording(path: Named | Sets, columns: Columns) -> Recording:
    """Read a file (CSV, .csv.gz or Parquet), the files of a pattern, a list of either, or several data sets by name.

    In data sets, the name of each stream begins with that of its set: `test-pump-7`.

    Where no column names the streams, each file is a stream, with as much of its path in the name as is needed to
    distinguish the files. Raises EdgeLstmError that names file, row and column.
    """
    try:
        return _read(path, columns, quick=True)
    except EdgeLstmError:  # the reader of a device finds the same, and names the first place
        return _read(path, columns, quick=False)


def _read(path: Named | Sets, columns: Columns, quick: bool) -> Recording:
    sets = {name: recording_files(named) for name, named in (path if isinstance(path, Mapping) else {"": path}).items()}
    files = [file for own in sets.values() for file in own]
    for file in files:
        if files.count(file) > 1:
            raise EdgeLstmError(f"expected each file in one data set, found {file} in two", "correct path")
    prefixes = [f"{name}-" if name else "" for name, own in sets.items() for _ in own]
    names = [name for own in sets.values() for name in _names(own, columns)]
    times = (
        columns.time if isinstance(columns.time, TimeColumns) else TimeColumns([columns.time] if columns.time else [])
    )
    labels = {name: one for name, one in columns.labels.items() if isinstance(one, (str, ValueColumn))}
    reader = RowReader(columns, list(map(_value_column, (*columns.values.values(), *labels.values()))), times)
    what = files[0].name if len(files) == 1 else f"{len(files)} files"
    with work(f"reading {what}", _estimated_rows(files), "rows") as advance:
        for file, name, prefix in zip(files, names, prefixes, strict=True):
            table = open_table(file, columns.layout, quick)
            time_at = [] if times.interval_s is not None else time_columns(table, times)
            reader.read(table, name, time_at, prefix, advance)
        source = ", ".join(map(str, files)) if isinstance(path, Mapping) else _source(path)
        found = _recording(columns, reader, reader.rows(source), list(labels), source, files)
    if not isinstance(path, Mapping):
        return found
    return dataclasses.replace(found, sets=[next(s for s in sets if n.startswith(f"{s}-")) for n in found.streams])


def _source(path: Named) -> str:
    return str(path) if isinstance(path, (str, Path)) else ", ".join(map(str, path))


def _names(files: Sequence[Path], columns: Columns) -> Sequence[str]:
    """The names of the streams of files that are one stream each."""
    if columns.stream is not None:
        return [columns.stream] * len(files)
    # with a column for the streams, files may have equal names
    return [""] * len(files) if columns.stream_column is not None else stream_names(files)


def _estimated_rows(files: Sequence[Path]) -> int | None:
    """About how many rows plain text files have, by the length of their first lines; None for other files."""
    rows = 0.0
    for file in files:
        if file.suffix.lower() not in _PLAIN_TEXT or not file.is_file():
            return None
        with file.open("rb") as opened:
            begin = opened.read(_ROWS_AT_ONCE)
        lines = begin.count(b"\n")
        rows += file.stat().st_size / len(begin) * lines if lines else 0
    return round(rows) or None


def _recording(
    columns: Columns, reader: RowReader, rows: Rows, label_names: Sequence[str], source: str, files: Sequence[Path]
) -> Recording:
    width = len(columns.values)
    values = np.empty((len(rows.times), width), order="F")
    known = dict(zip(label_names, rows.numbers[width:], strict=True))
    for at in range(width):
        values[:, at] = rows.numbers[at]
        rows.numbers[at] = rows.times  # lets go of the column
    streams = list(reader.streams)
    for name, label in columns.labels.items():
        if isinstance(label, (LabelWindows, Countdown)):
            known[name] = label.values(streams, rows.stream_of, rows.times)
    named = zip([*columns.values, *label_names], rows.categories, strict=True)
    return Recording(
        source,
        list(columns.values),
        streams,
        rows.stream_of,
        rows.times,
        values,
        {name: known[name] for name in columns.labels},
        {name: texts for name, texts in named if texts is not None},
        reader.groups,
        files,
        dict(rows.left_out),
        rows.notes,
        rows.places,
    )


def value_columns(path: str | Path | Sequence[str | Path], columns: Columns) -> dict[str, ValueColumn]:
    """All columns except time and stream, as numbers or as texts, by their first value that is not missing."""
    table = open_table(recording_files(path)[0], columns.layout)
    times = (
        columns.time if isinstance(columns.time, TimeColumns) else TimeColumns([columns.time] if columns.time else [])
    )
    time_at = [] if times.interval_s is not None else time_columns(table, times)
    taken = {*(table.header[at] for at in time_at), columns.stream_column, ""}
    return column_kinds(table, [name for name in table.header if name not in taken], columns.words)


def time_columns(table: Table, times: TimeColumns) -> list[int]:
    """The indices of the columns of times: those given, or the first that looks like one (numbers: by its name)."""
    if times.columns:
        return [column_index(table, column) for column in times.columns]
    first = first_row(table)
    for at, (name, cell) in enumerate(zip(table.header, first, strict=True)):
        if _has_name_of_a_time(name, cell) or not _is_number(cell):
            try:
                parse_time(cell)
            except ValueError:
                continue
            return [at]
    found = ", ".join(name for name in table.header if name)
    raise EdgeLstmError(
        f"{table.source}: expected a column of times, found none among {found}",
        'name it (--time COLUMN, or time = "..." under [recording] in a recipe, with time_format where it is neither '
        "ISO 8601 nor a number; interval_s where there is none)",
    )


def _has_name_of_a_time(name: str, cell: str) -> bool:
    """Whether a column of numbers is named like a time; t may be a temperature, so it needs a value after 2001."""
    if any(word in name.lower() for word in ("timezone", "time zone", "time_zone")):
        return False
    if any(word in name.lower() for word in ("time", "date", "stamp", "measured")):
        return True
    short = name.lower().partition("_")[0] in ("t", "ts", "dt", "epoch", "unix")
    return short and _is_number(cell) and float(cell) >= 1e9


def first_row(table: Table) -> list[str]:
    """The cells of the first row of readings, in the order of the header."""
    block = next(iter(table.blocks(range(len(table.header)), 1)))
    return [texts_of(block.cells[at])[0] if at in block.cells else "" for at in range(len(table.header))]


def recording_csv(recording: Recording) -> str:
    """The recording as CSV text, which reads back the same: time, stream (where there are several) and features."""
    several = len(recording.streams) > 1
    rows = [["time", *(["stream"] if several else []), *recording.features]]
    for reading in recording.readings():
        values = [repr(reading.values[name]) if name in reading.values else "" for name in recording.features]
        rows.append([format_time(reading.time), *([reading.stream] if several else []), *values])
    return csv_text(rows)


def row_place(recording: Recording, row: int) -> tuple[str, int]:
    """(file, row number in the file) of a row of the recording."""
    if recording.places is None:
        return recording.source, row + 1
    file, place = recording.places[row].tolist()
    return str(recording.files[file]), place


def stream_names(files: Sequence[Path]) -> list[str]:
    """A name of the stream of each file: the file name without endings, after as many folders as make it unique."""
    stems = [(*file.absolute().parts[1:-1], file.name.split(".")[0]) for file in files]
    for depth in range(1, max(map(len, stems)) + 1):
        names = ["-".join(parts[-depth:]) for parts in stems]
        if len(set(names)) == len(files):
            return names
    raise EdgeLstmError(
        f"expected files whose names differ before their endings, found {', '.join(map(str, files))}", "rename some"
    )


def _value_column(column: str | ValueColumn) -> ValueColumn:
    return ValueColumn(column) if isinstance(column, str) else column


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
