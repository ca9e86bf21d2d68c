"""Tables from files: text (in modules of their own) and Parquet, as columns of cells, block by block.

Errors name file and row. `columns` interprets the cells.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require

Cells = Sequence[str] | Doubles  # texts of a file, or numbers of a Parquet file

HEADER_REMEDY = 'its first row holds readings: name its columns by header = ["time", "level"] under [recording]'
_LONGEST_LINE = 1_000_000  # characters that are read to find the format
_FIRST_LINES = 20  # that show whether a text file is line protocol
_PARQUET = (".parquet", ".pq")
_DATABASE = b"SQLite format 3\0"
_PARQUET_BLOCK = 65_536
_TEXTS = ("string", "large_string", "string_view")  # the last is unknown to pyarrow 15


@dataclass(frozen=True)
class Layout:
    """The layout of a text file, where it cannot be found from the file."""

    separator: str | None = None  # None: found in the first rows
    header: Sequence[str] = ()  # the columns' names, where the first row holds readings
    encoding: str | None = None  # None: by the byte order mark, else UTF-8
    skip_lines: int | None = None  # lines before the header; None: found
    comment: str | None = None  # a line that begins with it is no row; None: found in the first lines
    units_row: bool | None = None  # whether the row below the header holds units; None: found
    name_column: str | None = None  # in files of one row a value: the column that says what the value is
    value_column: str | None = None  # beside it: the column of the values
    name_pattern: str | None = None  # takes names like P01.PT101.PV apart: {stream}.{feature}.PV

    @property
    def of_file(self) -> Layout:
        """The layout of the columns in the file: those of values are not joined to rows."""
        return replace(self, name_column=None, value_column=None, name_pattern=None)


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of a table, as columns."""

    rows: Sequence[int]  # row number of each in the file; the header is row 1
    cells: Mapping[int, Cells]  # by index of the column; only the requested ones


class Table(Protocol):
    """A file with named columns."""

    source: str
    header: list[str]  # of columns of one name, each has its number: "T #1", "T #2"
    units: dict[str, str]  # of columns, where the file has them

    @property
    def notes(self) -> list[str]:
        """After `blocks`: what was left out, and where."""

    @property
    def left_out(self) -> Counter[str]:
        """After `blocks`: the number of rows that were left out, by reason."""

    def blocks(self, columns: Sequence[int], size: int = ...) -> Iterator[Block]:
        """The rows of these columns in order, without empty rows. Raises EdgeLstmError that names the row."""


def column_index(table: Table, column: str) -> int:
    """The index of a column. Raises EdgeLstmError where there is none, or more than one."""
    if column in table.header:
        return table.header.index(column)
    named = [name for name in table.header if name]
    if f"{column} #1" not in named:
        named_so = f"use a name from the first row of the file; {suggestion(column, named)}"
        raise EdgeLstmError(
            f'{table.source}: expected a column "{column}", found {", ".join(named)}',
            HEADER_REMEDY if without_header(table) else named_so,
        )
    found = sum(name.startswith(f"{column} #") for name in named)
    raise EdgeLstmError(
        f'{table.source}: expected one column "{column}", found {found}',
        f'name one: "{column} #1" to "{column} #{found}"',
    )


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names of columns; those that occur several times with their number: "T #1", "T #2"."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        numbered = names.count(name) > 1 and name[:1] not in "0123456789+-."  # these are readings
        result.append(f"{name} #{seen[name]}" if numbered else name)
    return result


def without_header(table: Table) -> bool:
    """Whether the first row seems to hold readings: only numbers and times, no names."""
    named = [name for name in table.header if name]
    if not all(name[0] in "0123456789+-." for name in named):
        return False
    if not all(map(str.isdigit, named)):
        return True
    numbers = list(map(int, named))  # channels may be named 1, 2, 3
    return any(after <= before for before, after in pairwise(numbers))


def recording_files(named: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a path, of a pattern (`logs/*.csv`, `logs/**/*.csv`), or of a list of either; file 2 before file 10.

    Raises EdgeLstmError where one of them matches no file, or two match the same.
    """
    files: list[Path] = []
    for one in [named] if isinstance(named, (str, Path)) else named:
        pattern = str(one)
        found = [Path(pattern)]
        if not found[0].exists() and glob.has_magic(pattern):
            parts = found[0].parts
            plain = next(index for index, part in enumerate(parts) if glob.has_magic(part))
            found = [path for path in Path(*parts[:plain]).glob("/".join(parts[plain:])) if path.is_file()]
            if not found:
                raise EdgeLstmError(f"expected recordings at {pattern}, found no file", "check the pattern")
        files += sorted(found, key=_natural_order)
    if not files:
        raise EdgeLstmError("expected a recording, found an empty list of files", "name at least one")
    for file in files:
        if files.count(file) > 1:
            raise EdgeLstmError(f"expected each file once, found {file} twice", "correct the list of files")
    return files


def _natural_order(path: Path) -> list[Any]:
    """A sort key that orders numbers in names by their value."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path))]


def open_table(path: Path, layout: Layout = Layout(), quick: bool = False) -> Table:
    """The table in a file. Raises EdgeLstmError where there is no file, or no header and rows in it.

    `quick`: pyarrow reads what it can of a large CSV file, if it is installed.
    """
    if not path.exists():
        raise EdgeLstmError(f"expected a recording at {path}, found no file", "check the path")
    # here: these modules use the types of this module
    from edge_lstm.recordings.tables.long_table import LongTable
    from edge_lstm.recordings.tables.name_pattern import NamePattern, WideTable

    table = _file_table(path, layout, quick)
    pattern = None if layout.name_pattern is None else NamePattern(layout.name_pattern)
    if layout.name_column is not None and layout.value_column is not None:
        return LongTable(table, layout.name_column, layout.value_column, pattern)
    return table if pattern is None else WideTable(table, pattern)


def _file_table(path: Path, layout: Layout, quick: bool) -> Table:
    """The table as the file has it."""
    if path.suffix.lower() in _PARQUET:
        return _Parquet(path)
    if is_database(path):
        from edge_lstm.recordings.tables.home_assistant import HomeAssistantTable

        return HomeAssistantTable(path)
    from edge_lstm.recordings.tables.csv_table import CsvTable
    from edge_lstm.recordings.tables.foreign_files import refuse_other_kinds
    from edge_lstm.recordings.tables.influx_table import InfluxTable, is_annotated
    from edge_lstm.recordings.tables.line_protocol_table import LineProtocolTable, is_line_protocol
    from edge_lstm.recordings.tables.text_lines import opened_text

    refuse_other_kinds(path)
    with opened_text(path, layout.encoding) as file:
        begin = [file.lines.readline(_LONGEST_LINE) for _ in range(_FIRST_LINES)]
    if is_annotated(begin[0]):
        return InfluxTable(path, layout.encoding)
    return LineProtocolTable(path, layout.encoding) if is_line_protocol(begin) else CsvTable(path, layout, quick)


def is_database(path: Path) -> bool:
    """Whether the file is a SQLite database. Among recordings, only Home Assistant's recorder writes one."""
    with path.open("rb") as file:
        return file.read(len(_DATABASE)) == _DATABASE


class _Parquet:
    """A Parquet file, read by pyarrow. Times become texts, so that `columns` reads the times of all files alike."""

    def __init__(self, path: Path) -> None:
        require("parquet", "pyarrow")
        import pyarrow.parquet

        self.source = str(path)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise EdgeLstmError(
                f"expected a Parquet file at {path}, found: {_first_line(error)}", "name another file"
            ) from None
        self.header = distinct_names(self._file.schema_arrow.names)
        self.units: dict[str, str] = {}
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()
        if not self._file.metadata.num_rows:
            raise EdgeLstmError(f"{path}: expected rows of readings, found none", "record some readings first")

    def blocks(self, columns: Sequence[int], size: int = _PARQUET_BLOCK) -> Iterator[Block]:
        names = {at: self._file.schema_arrow.names[at] for at in columns}
        begin = 1
        try:
            for batch in self._file.iter_batches(size, columns=list(names.values())):
                cells = {at: self._cells(name, batch.column(name)) for at, name in names.items()}
                yield Block(range(begin, begin + len(batch)), cells)
                begin += len(batch)
        except (OSError, ValueError) as error:
            raise EdgeLstmError(
                f"{self.source}, after row {begin - 1}: expected Parquet, found: {_first_line(error)}",
                "write the file again",
            ) from None

    def _cells(self, name: str, column: Any) -> Cells:
        import pyarrow
        from pyarrow import types

        kind = column.type
        if types.is_dictionary(kind):
            column = column.dictionary_decode()
            kind = column.type
        if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
            # unsafe: a counter beyond 2**53 is rounded, as from a CSV file
            numbers: Doubles = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
            return numbers
        if types.is_date(kind):  # another column may hold the time of day
            return [text or "" for text in column.cast(pyarrow.date32()).cast(pyarrow.string()).to_pylist()]
        if types.is_timestamp(kind):
            zone = kind.tz
            moments = column.cast(pyarrow.timestamp("us", zone), safe=False).to_numpy(zero_copy_only=False)
            texts = np.datetime_as_string(moments.astype("datetime64[us]"), timezone="UTC" if zone else "naive")
            return ["" if text == "NaT" else text for text in texts.tolist()]
        if str(kind) in _TEXTS or types.is_time(kind) or types.is_null(kind):
            return [text or "" for text in column.cast(pyarrow.string()).to_pylist()]
        raise EdgeLstmError(
            f'{self.source}, column "{name}": expected numbers, times or texts, found {kind}', "leave that column out"
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
