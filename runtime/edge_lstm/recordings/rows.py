"""Reads the rows of tables, file by file and block by block: streams, times and values; and leaves out wrong clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags, Integers, narrow
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.growing_column import GrowingColumn
from edge_lstm.foundation.progress import Advance
from edge_lstm.foundation.times.text import format_time
from edge_lstm.recordings.columns import TimeColumns, ValueColumn, cell_error, texts_of, value_reader
from edge_lstm.recordings.newest_first import oldest_first
from edge_lstm.recordings.tables.long_table import LongTable, Values, joined
from edge_lstm.recordings.tables.plain_rows import PlainCells
from edge_lstm.recordings.tables.table import Block, Table, column_index
from edge_lstm.recordings.times.time_reader import TimeReader
from edge_lstm.recordings.wrong_clocks import wrong_clocks

if TYPE_CHECKING:
    from edge_lstm.recordings.recording import Columns

_MOST_NOTES = 5  # rows with a wrong clock that are named


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of all files."""

    stream_of: Integers  # (rows,)
    times: Doubles  # (rows,): seconds since 1970
    numbers: list[Doubles]  # (rows,) of each column
    categories: list[Sequence[str] | None]  # of each column; None: numbers
    places: Integers  # (rows, 2): index of the file, row in that file
    left_out: Counter[str]  # number of values and rows by reason
    notes: list[str]


class RowReader:
    """Reads tables one after the other."""

    def __init__(self, columns: Columns, values: Sequence[ValueColumn], times: TimeColumns) -> None:
        self.streams: dict[str, int] = {}
        self._columns, self._values, self._times = columns, values, times
        self._readers = [value_reader(one, columns.words) for one in values]
        self._time_reader = TimeReader(times)
        self._rows_of: Counter[int] = Counter()  # by stream
        self._group_of: dict[int, str] = {}  # by stream
        self._stream_column, self._time_column = GrowingColumn(np.int32), GrowingColumn(np.float64)
        self._place_column = GrowingColumn(np.int32, (2,))
        self._numbers = [GrowingColumn(np.float64) for _ in values]
        self._tables: list[Table] = []
        self._rows = 0
        self._names: dict[str, int] = {}  # of values, in tables of one row a value
        self._name_of: list[Integers] = []  # (rows,) of each block
        self._parts: list[tuple[Integers, Integers, Doubles]] = []  # (values,): row, index of the column, number

    @property
    def groups(self) -> list[str]:
        """The group of each stream; empty without a column of groups."""
        return [self._group_of[index] for index in range(len(self.streams))] if self._columns.group_column else []

    def read(
        self,
        table: Table,
        only: str,
        time_at: Sequence[int],
        prefix: str = "",
        advance: Advance = lambda rows: None,
    ) -> None:
        """Add a file; `only` is the name of its stream where no column names it; `time_at`: its columns of times.

        `prefix`: what the names of its streams begin with. `advance` is called with numbers of rows that are done.
        """
        columns = self._columns
        stream_at = column_index(table, columns.stream_column) if columns.stream_column else None
        group_at = column_index(table, columns.group_column) if columns.group_column else None
        names = [table.header[at] for at in time_at]
        asked = [*time_at, *(at for at in (stream_at, group_at) if at is not None)]
        for block, values in self._long(table, asked) if isinstance(table, LongTable) else self._wide(table, asked):
            stream_of = self._stream_of(table, block, stream_at, only, prefix)
            if group_at is not None:
                self._group(table, block, stream_of, texts_of(block.cells[group_at]))
            if time_at:
                times = self._time_reader.read(table, block, [block.cells[at] for at in time_at], names)
            else:
                times = self._regular_times(stream_of)
            self._stream_column.add(stream_of)
            self._time_column.add(times)
            self._place_column.add(_places(len(self._tables), block.rows))
            for column, part in zip(self._numbers, values, strict=bool(values)):
                column.add(part)
            self._rows += len(block.rows)
            advance(len(block.rows))
        self._tables.append(table)

    def rows(self, source: str) -> Rows:
        """All rows, which are not kept here. Raises EdgeLstmError if there are none, or if a name is in no file."""
        stream_of, times, places = self._stream_column.whole(), self._time_column.whole(), self._place_column.whole()
        numbers = [] if self._name_of else [column.whole() for column in self._numbers]
        if not len(times):
            raise EdgeLstmError(f"{source}: expected rows of readings, found none", "record some readings first")
        left_out = sum((table.left_out for table in self._tables), Counter[str]())
        notes = [f"{table.source}, {note}" for table in self._tables for note in table.notes]
        series = stream_of  # rows of one series are in the order of time
        if self._name_of:
            series = stream_of * (len(self._names) + 1) + np.concatenate(self._name_of)
        times = self._time_reader.finished(times, series)
        if not self._name_of and self._times.interval_s is None:
            order = oldest_first(times, stream_of, places[:, 0])
            if order is not None:
                notes.append(f"{source}: its newest rows come first, so it is read from the last row to the first")
                stream_of, times, places, series = stream_of[order], times[order], places[order], series[order]
                for at, one in enumerate(numbers):
                    numbers[at] = one[order]
        wrong = np.zeros(len(times), bool)
        if self._columns.check_clocks and self._times.interval_s is None:
            wrong = wrong_clocks(times, series)
        if wrong.any():
            left_out["wrong clock"] = int(wrong.sum())
            notes += self._clock_notes(times[wrong], places[wrong])
        if self._name_of:
            stream_of, times, numbers, rows = self._joined(stream_of, times, wrong, left_out)
            places = places[rows]
        elif wrong.any():
            stream_of, times, places = stream_of[~wrong], times[~wrong], places[~wrong]
            for at, one in enumerate(numbers):  # one by one, so that memory holds one of them twice
                numbers[at] = one[~wrong]
        categories: list[Sequence[str] | None] = []
        for at, reader in enumerate(self._readers):
            left_out += reader.left_out
            texts, numbers[at] = reader.finished(numbers[at])
            categories.append(texts)
        return Rows(stream_of, times, numbers, categories, places, left_out, notes)

    def _wide(self, table: Table, asked: Sequence[int]) -> Iterator[tuple[Block, list[Doubles]]]:
        """Blocks with the values of each column."""
        value_at = [column_index(table, one.column) for one in self._values]
        for block in table.blocks([*value_at, *asked]):
            read = zip(self._readers, value_at, strict=True)
            yield block, [reader.read(table, block, block.cells[at]) for reader, at in read]

    def _long(self, table: LongTable, asked: Sequence[int]) -> Iterator[tuple[Block, list[Doubles]]]:
        """Blocks without values: these are kept one by one, until `rows` joins them."""
        for name in table.names:
            self._names.setdefault(name, len(self._names))
        for long in table.values(asked):
            name_of = np.full(len(long.block.rows), len(self._names))
            for name, rows in long.rows_of.items():
                name_of[rows] = self._names[name]
            self._name_of.append(name_of)
            for at, (one, reader) in enumerate(zip(self._values, self._readers, strict=True)):
                if one.column in long.rows_of:
                    rows = long.rows_of[one.column]
                    found = reader.read(table, *long.part(one.column))
                    self._parts.append((rows + self._rows, np.full(len(rows), at), found))
            yield long.block, []

    def _joined(
        self, stream_of: Integers, times: Doubles, wrong: Flags, left_out: Counter[str]
    ) -> tuple[Integers, Doubles, list[Doubles], Integers]:
        """The values joined to rows: stream, time, the values of each column, and the row of the first value."""
        for one in self._values:
            if one.column not in self._names:
                raise EdgeLstmError(
                    f'{self._tables[0].source}: expected values of "{one.column}", found {", ".join(self._names)}',
                    f"use a name of the file; {suggestion(one.column, self._names)}",
                )
        if not self._values:  # only the times are asked for
            self._parts = [(np.arange(len(times)), np.zeros(len(times), np.int64), np.zeros(len(times)))]
        rows, name_of, found = map(np.concatenate, zip(*self._parts, strict=True))
        kept = ~wrong[rows]
        rows, name_of, found = rows[kept], name_of[kept], found[kept]
        values = Values(stream_of[rows], times[rows], name_of, found, rows)
        result = joined(values, max(1, len(self._values)), self._columns.join_within_s)
        if result.repeated and self._values:
            left_out["repeated values"] += result.repeated
        numbers = list(result.numbers.T.copy())[: len(self._values)]
        return result.stream_of, result.times, numbers, result.rows

    def _clock_notes(self, times: Doubles, places: Integers) -> Iterator[str]:
        for (file, row), moment in list(zip(places.tolist(), times.tolist(), strict=True))[:_MOST_NOTES]:
            yield (
                f"{self._tables[file].source}, row {row}: left out, since its time {format_time(moment)} contradicts "
                "the rows around it"
            )
        if len(times) > _MOST_NOTES:
            yield f"{len(times) - _MOST_NOTES} more rows with such times were left out"

    def _stream_of(self, table: Table, block: Block, at: int | None, only: str, prefix: str) -> Integers:
        streams = self.streams
        if at is None:
            index = streams.setdefault(prefix + only, len(streams))
            return narrow(np.full(len(block.rows), index, np.int32), np.int32)
        codes: Integers | None = None
        cells = block.cells[at]
        if isinstance(cells, PlainCells):
            texts, codes = cells.coded()
            names = texts_of(texts)
        else:
            names = texts_of(cells)
        if "" in names:
            row = names.index("") if codes is None else int(np.argmax(codes == names.index("")))
            raise cell_error(table, block, row, table.header[at], "expected the name of a stream, found nothing")
        names = [prefix + name for name in names] if prefix else names
        for name in dict.fromkeys(names):
            streams.setdefault(name, len(streams))
        indices = narrow(np.fromiter(map(streams.__getitem__, names), np.int32, len(names)), np.int32)
        return indices if codes is None else indices[codes]

    def _group(self, table: Table, block: Block, stream_of: Integers, groups: list[str]) -> None:
        for index, group in dict.fromkeys(zip(stream_of.tolist(), groups, strict=True)):
            known = self._group_of.setdefault(index, group)
            if known != group:
                row = list(zip(stream_of.tolist(), groups, strict=True)).index((index, group))
                stream = list(self.streams)[index]
                raise cell_error(
                    table,
                    block,
                    row,
                    str(self._columns.group_column),
                    f'expected the stream "{stream}" in one group, found it in "{known}" and "{group}"',
                )

    def _regular_times(self, stream_of: Integers) -> Doubles:
        """Times of rows without a time: at a fixed interval in each stream."""
        times = np.empty(len(stream_of))
        for index in np.unique(stream_of).tolist():
            chosen = stream_of == index
            count = int(chosen.sum())
            times[chosen] = self._rows_of[index] + np.arange(count)
            self._rows_of[index] += count
        return (self._times.start or 0.0) + times * (self._times.interval_s or 0.0)


def _places(file: int, rows: Sequence[int]) -> Integers:
    places = narrow(np.empty((len(rows), 2), np.int32), np.int32)
    places[:, 0] = file
    places[:, 1] = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
    return places
