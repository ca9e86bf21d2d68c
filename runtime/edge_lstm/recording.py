"""A recording: readings of one or more streams in a CSV file; every fault is named by file, row and column."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_lstm.errors import EdgeLstmError
from edge_lstm.reading import Reading
from edge_lstm.times import format_time, parse_time

_MISSING = {"", "na", "n/a", "nan", "null", "none", "unavailable", "unknown"}


@dataclass(frozen=True)
class Columns:
    """Where in the file things stand. Column names are those of its first row."""

    values: Mapping[str, str]  # feature name -> column
    time: str | None = None  # None: the first column that holds times
    stream_column: str | None = None  # None: all rows are one stream,
    stream: str | None = None  # of this name; None: the file's


@dataclass(frozen=True, eq=False)
class Recording:
    """Readings in the order of the file; missing values are NaN."""

    source: str
    features: list[str]
    streams: list[str]  # names, in the order of their first rows
    stream_of: NDArray[np.int64]  # (rows,): index into `streams`
    times: NDArray[np.float64]  # (rows,): seconds since 1970
    values: NDArray[np.float64]  # (rows, features)

    def __len__(self) -> int:
        return len(self.times)

    def readings(self) -> Iterator[Reading]:
        """The rows as readings, missing values left out."""
        for index, time, row in zip(self.stream_of.tolist(), self.times.tolist(), self.values.tolist(), strict=True):
            values = {name: value for name, value in zip(self.features, row, strict=True) if not math.isnan(value)}
            yield Reading(self.streams[index], time, values)

    def rows(self, chosen: NDArray[np.bool_] | slice) -> Recording:
        """A part of the recording, with the same streams."""
        return Recording(
            self.source, self.features, self.streams, self.stream_of[chosen], self.times[chosen], self.values[chosen]
        )


@dataclass
class _Table:
    """A CSV file: its header and its rows with the line on which each ends."""

    source: str
    header: list[str]
    rows: list[tuple[int, list[str]]] = field(default_factory=list)

    def index(self, column: str) -> int:
        if column not in self.header:
            raise EdgeLstmError(
                f'{self.source}: expected a column "{column}", found {", ".join(self.header)}',
                "name the column as the first row of the file does",
            )
        return self.header.index(column)


def read_recording(path: str | Path, columns: Columns) -> Recording:
    """The recording in a CSV file (or .csv.gz) with a header row. Raises EdgeLstmError that names row and column."""
    table = _read_table(Path(path))
    time_at = table.index(columns.time) if columns.time else _time_column(table)
    value_at = [(name, column, table.index(column)) for name, column in columns.values.items()]
    stream_at = table.index(columns.stream_column) if columns.stream_column else None
    only = columns.stream or stream_name(path)
    streams: dict[str, int] = {}
    stream_of, times, values = [], [], []
    for line, row in table.rows:
        name = only if stream_at is None else row[stream_at].strip()
        stream_of.append(streams.setdefault(name, len(streams)))
        try:
            times.append(parse_time(row[time_at]))
        except ValueError as error:
            raise _fault(table, line, table.header[time_at], str(error)) from None
        values.append([_number(table, line, column, row[at]) for _, column, at in value_at])
    return Recording(
        table.source,
        [name for name, _, _ in value_at],
        list(streams),
        np.array(stream_of, np.int64),
        np.array(times, np.float64),
        np.array(values, np.float64).reshape(len(times), len(value_at)),
    )


def numeric_columns(path: str | Path, columns: Columns) -> list[str]:
    """The columns whose first value that is not missing is a number, without those of time and stream."""
    table = _read_table(Path(path))
    time_at = table.index(columns.time) if columns.time else _time_column(table)
    taken = {table.header[time_at], columns.stream_column}
    return [name for at, name in enumerate(table.header) if name not in taken and _looks_numeric(table, at)]


def recording_csv(recording: Recording) -> str:
    """The recording as CSV text that reads back the same: columns time, stream (where there are several), features."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    several = len(recording.streams) > 1
    writer.writerow(["time", *(["stream"] if several else []), *recording.features])
    for reading in recording.readings():
        values = [repr(reading.values[name]) if name in reading.values else "" for name in recording.features]
        writer.writerow([format_time(reading.time), *([reading.stream] if several else []), *values])
    return file.getvalue()


def stream_name(path: str | Path) -> str:
    """The stream's name for a file that holds one: the file's name without its endings."""
    return Path(path).name.split(".")[0]


def _read_table(path: Path) -> _Table:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise EdgeLstmError(f"expected a recording at {path}, found no file", "check the path") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise EdgeLstmError(f"expected a CSV file at {path}, found: {error}", "name a CSV text file") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        table = _Table(str(path), [name.strip() for name in next(reader, [])])
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(table.header):
                raise EdgeLstmError(
                    f"{path}, row {reader.line_num}: expected {len(table.header)} columns, found {len(row)}",
                    "mend or remove that row",
                )
            table.rows.append((reader.line_num, row))
    except csv.Error as error:
        raise EdgeLstmError(
            f"{path}, row {reader.line_num}: expected CSV, found: {error}", "mend or remove that row"
        ) from None
    if not table.rows:
        found = "only a header" if table.header else "nothing"
        raise EdgeLstmError(
            f"{path}: expected a header row and rows of readings, found {found}",
            "record some readings first",
        )
    return table


def _time_column(table: _Table) -> int:
    """The first column that looks like times: by its name where the values are numbers, else by its values."""
    for at, name in enumerate(table.header):
        first = table.rows[0][1][at]
        named = any(word in name.lower() for word in ("time", "date", "stamp", "measured"))
        if named or not _is_number(first):
            try:
                parse_time(first)
            except ValueError:
                continue
            return at
    raise EdgeLstmError(
        f"{table.source}: expected a column of times, found none among {', '.join(table.header)}",
        'name it (--time COLUMN, or time = "..." under [recording] in a recipe)',
    )


def _looks_numeric(table: _Table, at: int) -> bool:
    for _, row in table.rows:
        if row[at].strip().lower() not in _MISSING:
            return _is_number(row[at])
    return False


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(table: _Table, line: int, column: str, text: str) -> float:
    if text.strip().lower() in _MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise _fault(table, line, column, f"{text!r} is not a number") from None


def _fault(table: _Table, line: int, column: str, found: str) -> EdgeLstmError:
    return EdgeLstmError(f'{table.source}, row {line}, column "{column}": {found}', "mend or remove that row")
