"""A table of one row a value (`time, sensor_id, value`): its names become columns, its values are joined to rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.recordings.columns import texts_of
from edge_lstm.recordings.tables.name_pattern import STREAM, NamePattern
from edge_lstm.recordings.tables.table import Block, Cells, Table, column_index

_MOST_NAMES = 10_000


@dataclass(frozen=True, eq=False)
class LongBlock:
    """Consecutive rows: the asked columns of the file, and which rows hold a value of which name."""

    block: Block
    rows_of: dict[str, Integers]  # name -> indices of its rows in the block
    values: Cells

    def part(self, name: str) -> tuple[Block, Cells]:
        """The rows of one name, and the cells of their values."""
        rows = self.rows_of[name]
        if isinstance(self.values, np.ndarray):
            chosen: Cells = self.values[rows]
        else:
            chosen = [self.values[row] for row in rows.tolist()]
        return Block([self.block.rows[row] for row in rows.tolist()], {}), chosen


class LongTable:
    """A table of one row a value. Its columns are those of the file besides name and value, and one for each name."""

    def __init__(self, table: Table, name_column: str, value_column: str, pattern: NamePattern | None = None) -> None:
        """Raises EdgeLstmError where a column is missing, or no name fits the pattern."""
        self.table, self._pattern = table, pattern
        self.source = table.source
        self._name_at = column_index(table, name_column)
        self._value_at = column_index(table, value_column)
        self._kept = [at for at in range(len(table.header)) if at not in (self._name_at, self._value_at)]
        self._parts: dict[str, tuple[str, str] | None] = {}
        for block in table.blocks([self._name_at]):
            for name in dict.fromkeys(texts_of(block.cells[self._name_at])):
                if name not in self._parts:
                    self._parts[name] = ("", name) if pattern is None else pattern.parts(name)
            self._refuse_many(name_column)
        known = [found[1] for name, found in self._parts.items() if found is not None and name]
        self.names = list(dict.fromkeys(known))
        named = {found[1]: text for text, found in self._parts.items() if found is not None}
        self.units = {name: table.units[text] for name, text in named.items() if text in table.units}
        if not self.names:
            some = ", ".join(list(self._parts)[:3])
            raise EdgeLstmError(
                f'{self.source}, column "{name_column}": expected names'
                f"{f' like {pattern.text}' if pattern else ''}, found {some or 'none'}",
                "correct name_pattern, or name another column",
            )
        own = [STREAM] if pattern is not None and pattern.has_stream else []
        self.header = [*(table.header[at] for at in self._kept), *own, *self.names]

    @property
    def notes(self) -> list[str]:
        return self.table.notes

    @property
    def left_out(self) -> Counter[str]:
        return self.table.left_out

    def blocks(self, columns: Sequence[int], size: int = 0) -> Iterator[Block]:
        """The rows of these columns of the file, one row a value; columns of names have no cells here."""
        for block in self.values(columns, size):
            yield block.block

    def values(self, columns: Sequence[int], size: int = 0) -> Iterator[LongBlock]:
        """The rows of these columns of the file, with their names and values."""
        kept = {at: self._kept[at] for at in columns if at < len(self._kept)}
        asked = dict.fromkeys([*kept.values(), self._name_at, self._value_at])
        unnamed = 0
        for block in self.table.blocks(list(asked), size):
            texts = texts_of(block.cells[self._name_at])
            found = [self._parts[text] if text else None for text in texts]
            cells: dict[int, Cells] = {at: block.cells[place] for at, place in kept.items()}
            for at in columns:
                if at not in cells and self.header[at] == STREAM:
                    cells[at] = [parts[0] if parts else "-" for parts in found]
            rows_of: dict[str, list[int]] = {}
            for row, parts in enumerate(found):
                if parts is not None:
                    rows_of.setdefault(parts[1], []).append(row)
            unnamed += found.count(None)
            by_name = {name: np.array(rows) for name, rows in rows_of.items()}
            yield LongBlock(Block(block.rows, cells), by_name, block.cells[self._value_at])
        if unnamed:
            self.left_out["values of other names"] += unnamed
            self.notes.append(f"{unnamed} values left out: their names are empty, or do not fit the pattern")

    def _refuse_many(self, name_column: str) -> None:
        if len(self._parts) > _MOST_NAMES:
            raise EdgeLstmError(
                f'{self.source}, column "{name_column}": expected at most {_MOST_NAMES:,} names, found more',
                "name the column that says what each value is",
            )


@dataclass(frozen=True, eq=False)
class Values:
    """Values of one row each; all arrays are (values,)."""

    stream_of: Integers
    times: Doubles  # seconds since 1970
    name_of: Integers  # index of the feature or label
    numbers: Doubles
    rows: Integers  # index of the row that the value came from


@dataclass(frozen=True, eq=False)
class JoinedRows:
    """Rows in the order of time, each with the values that belong together; a missing one is NaN."""

    stream_of: Integers  # (rows,)
    times: Doubles  # (rows,): of the newest value
    numbers: Doubles  # (rows, names)
    rows: Integers  # (rows,): the row that the first value came from
    repeated: int  # values of the same stream, time and name as another


def joined(values: Values, names: int, within_s: float) -> JoinedRows:
    """Join values of a stream that have the same time, or come within `within_s` of the first one of their row.

    A row has one value of each name: the next value of a name begins a row, unless it has the same time, where the
    later one in the file counts.
    """
    order = np.lexsort((values.rows, values.times, values.stream_of))
    stream_of, times, name_of = values.stream_of[order], values.times[order], values.name_of[order]
    group = _groups(stream_of, times, name_of, within_s)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    numbers = np.full((len(first), names), np.nan)
    numbers[group, name_of] = values.numbers[order]
    repeated = len(order) - len(np.unique(group * names + name_of))
    rows = values.rows[order]
    by_time = np.lexsort((rows[first], times[last]))
    return JoinedRows(stream_of[first][by_time], times[last][by_time], numbers[by_time], rows[first][by_time], repeated)


def _groups(stream_of: Integers, times: Doubles, name_of: Integers, within_s: float) -> Integers:
    """(values,): the number of the row of each value, ascending."""
    begins = (np.diff(stream_of, prepend=-1) != 0) | (np.diff(times, prepend=-np.inf) > 0)
    if within_s > 0:
        seen: dict[int, float] = {}
        begin, stream = -np.inf, -1
        for at, (own, moment, name) in enumerate(
            zip(stream_of.tolist(), times.tolist(), name_of.tolist(), strict=True)
        ):
            repeats = name in seen and seen[name] != moment
            starts = own != stream or moment > begin + within_s or repeats
            if starts:
                begin, seen, stream = moment, {}, own
            seen[name] = moment
            begins[at] = starts
    numbers: Integers = np.cumsum(begins) - 1
    return numbers
