"""Reads tables from files: CSV (plain or gzipped) and Parquet, as columns of cells, block by block.

Errors name file and row. `columns` interprets the cells.
"""

from __future__ import annotations

import csv
import glob
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.extras import require

Cells = Sequence[str] | Doubles  # texts of a file, or numbers of a Parquet file

HEADER_REMEDY = 'its first row holds readings: name its columns by header = ["time", "level"] under [recording]'
SPACES = " "  # the separator that means any run of spaces or tabs
_SEPARATORS = ";\t|,"  # the comma comes last: it may be a decimal comma
_BLOCK = 2048  # rows; with larger blocks, garbage collection costs more than they save
_PARQUET = (".parquet", ".pq")
_PARQUET_BLOCK = 65_536
_TEXTS = ("string", "large_string", "string_view")  # the last is unknown to pyarrow 15


@dataclass(frozen=True)
class Layout:
    """The layout of a text file, where it cannot be found from the file."""

    separator: str | None = None  # None: found in the first rows
    header: Sequence[str] = ()  # the columns' names, where the first row holds readings


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of a table, as columns."""

    rows: Sequence[int]  # row number of each in the file; the header is row 1
    cells: Mapping[int, Cells]  # by index of the column; only the requested ones


class Table(Protocol):
    """A file with named columns."""

    source: str
    header: list[str]

    def blocks(self, columns: Sequence[int], size: int = ...) -> Iterator[Block]:
        """The rows of these columns in order, without empty rows. Raises EdgeLstmError that names the row."""


def column_index(table: Table, column: str) -> int:
    """The index of a column. Raises EdgeLstmError where there is none, or more than one."""
    found = table.header.count(column)
    if found == 1:
        return table.header.index(column)
    named = [name for name in table.header if name]
    if not found:
        named_so = f"use a name from the first row of the file; {suggestion(column, named)}"
        raise EdgeLstmError(
            f'{table.source}: expected a column "{column}", found {", ".join(named)}',
            HEADER_REMEDY if without_header(table) else named_so,
        )
    raise EdgeLstmError(f'{table.source}: expected one column "{column}", found {found}', "rename all but one of them")


def without_header(table: Table) -> bool:
    """Whether the first row seems to hold readings: only numbers and times, no names."""
    named = [name for name in table.header if name]
    return all(name[0] in "0123456789+-." for name in named) and not all(map(str.isdigit, named))


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


def open_table(path: Path, layout: Layout = Layout()) -> Table:
    """The table in a file. Raises EdgeLstmError where there is no file, or no header and rows in it."""
    if not path.exists():
        raise EdgeLstmError(f"expected a recording at {path}, found no file", "check the path")
    return _Parquet(path) if path.suffix.lower() in _PARQUET else _Csv(path, layout)


class _Csv:
    """A CSV file; its rows are read when they are requested."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.source = str(path)
        self._path = path
        self._separator = layout.separator
        self._header_rows = 0 if layout.header else 1
        rows = self._records()
        head = [cell.strip() for cell in layout.header or next(rows, (0, []))[1]]
        first = next(rows, None)
        if first is None:
            found = "only a header" if head else "nothing"
            raise EdgeLstmError(
                f"{path}: expected a header row and rows of readings, found {found}", "record some readings first"
            )
        # as R writes it: a column of row names that has no name
        self.header = ["", *head] if not layout.header and len(first[1]) == len(head) + 1 else head

    def blocks(self, columns: Sequence[int], size: int = _BLOCK) -> Iterator[Block]:
        width = len(self.header)
        places: list[int] = []
        rows: list[list[str]] = []
        records = self._records()
        for _ in range(self._header_rows):
            next(records)
        for place, row in records:
            if len(row) != width:
                raise EdgeLstmError(
                    f"{self.source}, row {place}: expected {width} columns, found {len(row)}",
                    "fix or remove that row",
                )
            places.append(place)
            rows.append(row)
            if len(rows) == size:
                yield _block(places, rows, columns)
                places, rows = [], []
        if rows:
            yield _block(places, rows, columns)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """(row number, cells) of each row that is not empty."""
        try:
            with self._open() as file:
                if self._separator is None:
                    self._separator = _found_separator(list(islice(filter(str.strip, file), 2)))
                    file.seek(0)
                yield from self._spaced(file) if self._separator == SPACES else self._separated(file)
        except UnicodeDecodeError as error:
            raise self._encoding_error(error) from None
        except (OSError, EOFError) as error:
            raise EdgeLstmError(
                f"expected a CSV file at {self._path}, found: {error}", "name a CSV text file"
            ) from None

    def _open(self) -> IO[str]:
        if self._path.suffix == ".gz":
            return gzip.open(self._path, "rt", encoding="utf-8-sig", newline="")
        return self._path.open(encoding="utf-8-sig", newline="")

    def _spaced(self, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        for place, line in enumerate(file, 1):
            if row := line.split():
                yield place, row

    def _separated(self, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(file, delimiter=self._separator or ",")
        begin = 1  # first line of a row: with an open quote, a row can span many lines
        try:
            for row in reader:
                if (row and row[0].strip()) or any(cell.strip() for cell in row):
                    yield begin, row
                begin = reader.line_num + 1
        except csv.Error as error:
            raise EdgeLstmError(
                f"{self._path}, row {reader.line_num}: expected CSV, found: {error}", "fix or remove that row"
            ) from None

    def _encoding_error(self, error: UnicodeDecodeError) -> EdgeLstmError:
        """The error with the row of the first wrong byte; `error` itself does not give the row."""
        byte, row = error.object[error.start], 1
        with gzip.open(self._path) if self._path.suffix == ".gz" else self._path.open("rb") as file:
            for line in file:
                try:
                    line.decode()
                except UnicodeDecodeError as found:
                    byte = line[found.start]
                    break
                row += 1
        return EdgeLstmError(
            f"expected a CSV file at {self._path}, in UTF-8, found the byte 0x{byte:02x} in row {row}",
            "save it as UTF-8 text",
        )


def _found_separator(lines: Sequence[str]) -> str:
    """The separator of the first row; runs of spaces where there is no other and both rows have equally many."""
    parts = [_unquoted(line) for line in lines]
    if (found := next((sign for sign in _SEPARATORS if sign in "".join(parts[:1])), None)) is not None:
        return found
    return SPACES if len(parts) == 2 and len(parts[0].split()) == len(parts[1].split()) > 1 else ","


def _unquoted(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _block(places: list[int], rows: list[list[str]], columns: Sequence[int]) -> Block:
    cells = list(zip(*rows, strict=True))
    return Block(places, {at: cells[at] for at in columns})


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
        self.header: list[str] = self._file.schema_arrow.names
        if not self._file.metadata.num_rows:
            raise EdgeLstmError(f"{path}: expected rows of readings, found none", "record some readings first")

    def blocks(self, columns: Sequence[int], size: int = _PARQUET_BLOCK) -> Iterator[Block]:
        names = {at: self.header[at] for at in columns}
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
