"""Reads the plain rows of a large CSV file by pyarrow, up to the first odd one or near the end of the file.

Rows are plain if pyarrow and the reader of a device certainly find the same cells: all of one width, without quotes,
damage, comments, empty rows and repeated headers. What follows is left to the reader of a device.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast, overload

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers

BLOCK_ROWS = 512  # of the reader of a device; with more, garbage collection costs more than they save
_KEPT_BLOCKS = 2  # at least, left to the reader of a device: the last rows may be a footer
_CHUNK = 4_194_304  # bytes
_LEAST_BYTES = 8_388_608  # a smaller file is read before pyarrow is imported
_LONGEST_LINE = 100_000  # bytes; Python's csv module refuses longer cells
_ODD = bytes({*range(32)} - {9, 10, 13}) + b'"\x7f'  # control characters and quotes
_LARGEST_US = 2**53  # microseconds that a float64 holds exactly


class PlainCells(Sequence[str]):
    """The cells of a column as texts, which are made when they are needed, and as numbers or times all at once."""

    def __init__(self, column: Any) -> None:
        """column: an array of pyarrow, of texts."""
        self._column = column
        self._texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> PlainCells: ...
    def __getitem__(self, at: int | slice) -> str | PlainCells:
        if isinstance(at, slice):
            begin, end, _ = at.indices(len(self))
            return PlainCells(self._column.slice(begin, end - begin))
        return self.texts[at]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    @property
    def texts(self) -> list[str]:
        if self._texts is None:
            self._texts = self._column.to_pylist()
        return cast("list[str]", self._texts)

    def numbers(self) -> Doubles | None:
        """(rows,): the numbers, NaN for an empty cell; None unless each other cell is a finite number."""
        import pyarrow
        import pyarrow.compute as compute

        empty = compute.equal(self._column, "")
        some_empty = compute.any(empty).as_py()
        column = compute.if_else(empty, None, self._column) if some_empty else self._column
        try:
            found = column.cast(pyarrow.float64())
        except pyarrow.ArrowInvalid:
            return None
        numbers: Doubles = found.to_numpy(zero_copy_only=False)
        missing = np.count_nonzero(np.isnan(numbers)) if some_empty else 0
        if np.count_nonzero(np.isfinite(numbers)) + missing < len(numbers) or missing != found.null_count:
            return None  # a text like inf or NaN
        return numbers.copy()

    def times(self) -> Doubles | None:
        """(rows,): seconds since 1970 of ISO 8601 texts, in UTC where they name no zone; None for any other text."""
        import pyarrow

        for zone in ("UTC", None):  # the first for texts that name a zone, which must all or none
            try:
                moments = self._column.cast(pyarrow.timestamp("us", zone))
            except pyarrow.ArrowInvalid:
                continue
            count = moments.cast(pyarrow.int64()).to_numpy(zero_copy_only=False)
            return count / 1e6 if np.abs(count).max(initial=0) < _LARGEST_US else None
        return None

    def coded(self) -> tuple[list[str], Integers]:
        """The different texts in the order of their first occurrence, and (rows,) the index of each cell's text."""
        found = self._column.dictionary_encode()
        return found.dictionary.to_pylist(), found.indices.to_numpy(zero_copy_only=False).astype(np.int64)


@dataclass(frozen=True)
class Form:
    """How the rows of a table are written."""

    width: int  # columns
    separator: str
    comment: str = ""
    header_begins: Sequence[str] = ()  # first cells of rows that repeat the header
    trailing: bool = False  # whether each row ends with a separator


@dataclass
class PlainRows:
    """The plain rows of one file, from a place on; `offset` and `line` move on with the rows that were read."""

    path: Path
    form: Form
    offset: int  # bytes to the first row that was not read
    line: int  # its line in the file

    def parts(self, columns: Sequence[int]) -> Iterator[tuple[range, dict[int, PlainCells]]]:
        """(lines, cells by index of the column) of plain rows, block by block."""
        rest = b""
        for read in self._chunks():
            text = rest + read
            end = text.rfind(b"\n") + 1
            ends = np.flatnonzero(np.frombuffer(text, np.uint8, end) == 10)
            if len(text) - end > _LONGEST_LINE or (end and not self._is_plain(text[:end], ends)):
                return
            count = (len(ends) // BLOCK_ROWS - _KEPT_BLOCKS) * BLOCK_ROWS
            if count <= 0:
                rest = text
                continue
            size = int(ends[count - 1]) + 1
            cells = self._cells(text[:size], count, columns)
            if cells is None:
                return
            begin, rest = self.line, text[size:]
            self.offset += size
            self.line += count
            yield range(begin, begin + count), cells

    def _chunks(self) -> Iterator[bytes]:
        """The bytes of the file from `offset` on; they end early where the file is damaged."""
        with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as opened:
            file = cast("IO[bytes]", opened)
            try:
                file.seek(self.offset)
                while chunk := file.read(_CHUNK):
                    yield chunk
            except (OSError, EOFError, zlib.error):
                return  # the reader of a device finds the same, and says so

    def _is_plain(self, text: bytes, ends: Integers) -> bool:
        """Whether the lines hold no sign that the reader of a device treats in a special way."""
        if len(text.translate(None, _ODD)) != len(text) or text[:1] in (b"\n", b"\r"):
            return False
        if b"\n\n" in text or b"\n\r" in text or text.count(b"\r") != text.count(b"\r\n"):
            return False
        comment = self.form.comment.encode()
        if comment and (text.startswith(comment) or b"\n" + comment in text):
            return False
        return bool(np.diff(ends, prepend=-1).max() < _LONGEST_LINE)

    def _cells(self, text: bytes, count: int, columns: Sequence[int]) -> dict[int, PlainCells] | None:
        """The cells of the columns; None unless each line is a usual row."""
        import pyarrow
        import pyarrow.compute as compute
        from pyarrow import csv

        names = [str(at) for at in range(self.form.width)]
        wanted = sorted({0, self.form.width - 1, *columns})
        try:
            table = csv.read_csv(
                pyarrow.BufferReader(text),
                csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
                csv.ParseOptions(
                    delimiter=self.form.separator, quote_char=False, double_quote=False, ignore_empty_lines=False
                ),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pyarrow.string()),
                    include_columns=[names[at] for at in wanted],
                    strings_can_be_null=False,
                ),
            )
        except pyarrow.ArrowInvalid:
            return None  # rows of another width, or no UTF-8
        if len(table) != count:
            return None
        found = {at: table.column(str(at)).combine_chunks() for at in wanted}
        first, last = found[0], found[self.form.width - 1]
        blank = compute.equal(compute.utf8_trim_whitespace(first), "")
        again = compute.is_in(first, value_set=pyarrow.array(list(self.form.header_begins), pyarrow.string()))
        if compute.any(blank).as_py() or compute.any(again).as_py():
            return None
        if self.form.trailing and not compute.all(compute.equal(last, "")).as_py():
            return None
        return {at: PlainCells(found[at]) for at in columns}


def is_worth_it(path: Path, separator: str, encoding: str, width: int) -> bool:
    """Whether a file is large enough, of a kind that may have plain rows, and pyarrow is installed."""
    if path.stat().st_size < _LEAST_BYTES or encoding not in ("utf-8", "utf-8-sig") or width < 2:
        return False
    if len(separator) != 1 or separator == " " or not separator.isascii():
        return False
    try:
        import pyarrow.csv  # noqa: F401 - only whether it is there
    except ImportError:
        return False
    return True
