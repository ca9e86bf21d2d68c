"""Readers that convert the cells of a column to numbers or categories; errors name file, row and column."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timezone, tzinfo
from typing import Protocol

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.numbers import FLOAT32_MAX, NUMBER_WORDS, WORD_VALUES
from edge_lstm.foundation.times.units import TimeUnit
from edge_lstm.recordings.number_cells import cell_unit, plain_number
from edge_lstm.recordings.tables import plain_rows
from edge_lstm.recordings.tables.plain_rows import PlainCells
from edge_lstm.recordings.tables.table import Block, Cells, Table

_GROUPS = re.compile(r"[+-]?\d{1,3}[.,]\d{3}")


@dataclass(frozen=True)
class ValueColumn:
    """A column, and how to read its cells as numbers.

    With `categories`, a cell is read as the index of its text in that list. With `text`, the categories are the texts
    found, in alphabetical order.
    """

    column: str
    sentinels: Sequence[float] = ()  # numbers that stand for a missing value
    least: float | None = None  # smaller values count as missing
    most: float | None = None  # larger values count as missing
    categories: Sequence[str] = ()
    text: bool = False
    unit: str = ""  # cells may be numbers with this unit: 21 °C


@dataclass(frozen=True)
class TimeColumns:
    """The columns that hold the times of a recording, and the format of the times."""

    columns: Sequence[str] = ()  # joined by a space; empty: the first column that holds times
    format: str | None = None  # for strptime, like "%d.%m.%Y %H.%M.%S"; None: ISO 8601 or seconds since 1970
    unit: TimeUnit | None = None  # of numbers; None: found by their size
    zone: tzinfo = timezone.utc  # of times without a time zone
    interval_s: float | None = None  # without a column: time between two rows of a stream
    start: float | None = None  # with interval_s: time of the first row; with unit: of the number 0; seconds since 1970


@dataclass(frozen=True)
class NumberWords:
    """How numbers are written in the files of a recording."""

    decimal_comma: bool = False
    missing: Sequence[str] = ()  # texts for a missing value, in addition to NA, null, unavailable and others
    thousands: str = ""  # sign between groups of three digits


class ValueReader(Protocol):
    """The cells of one column to numbers, block by block. A missing value becomes NaN."""

    left_out: Counter[str]  # number of discarded values by reason: sentinels, implausible, unknown

    def read(self, table: Table, block: Block, cells: Cells) -> Doubles:
        """(rows,). Raises EdgeLstmError at the first cell that cannot be read."""

    def finished(self, values: Doubles) -> tuple[Sequence[str] | None, Doubles]:
        """After the last block: the categories (None for numbers), and the final values from those of all blocks."""


def value_reader(column: ValueColumn, words: NumberWords) -> ValueReader:
    """The reader for the cells of `column`."""
    if column.text or column.categories:
        return CategoryReader(column, words)
    return NumberReader(column, words)


class NumberReader:
    """Reads cells that are numbers."""

    def __init__(self, column: ValueColumn, words: NumberWords) -> None:
        self.left_out: Counter[str] = Counter()
        self._column = column
        self._comma, self._thousands = words.decimal_comma, words.thousands
        self._words = {**NUMBER_WORDS, **_words(words)}
        self._meanings: dict[str, str | float] = {}  # by cell: the values of words met so far

    def read(self, table: Table, block: Block, cells: Cells) -> Doubles:
        column = self._column
        values = self._numbers(table, block, cells)
        if column.sentinels:  # compared as float32: a file that was float32 once holds -273.20001
            with np.errstate(over="ignore"):
                missing = np.isin(values.astype(np.float32), np.asarray(column.sentinels, np.float32))
            self._leave_out("sentinels", values, missing)
        beyond = np.abs(values) > FLOAT32_MAX
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            raise cell_error(table, block, row, column.column, f"{_shown(cells[row])} is too large for float32")
        least = -math.inf if column.least is None else column.least
        most = math.inf if column.most is None else column.most
        self._leave_out("implausible", values, (values < least) | (values > most))
        return values

    def finished(self, values: Doubles) -> tuple[None, Doubles]:
        return None, values

    def _leave_out(self, reason: str, values: Doubles, chosen: Flags) -> None:
        if chosen.any():
            values[chosen] = math.nan
            self.left_out[reason] += int(chosen.sum())

    def _numbers(self, table: Table, block: Block, cells: Cells) -> Doubles:
        if isinstance(cells, np.ndarray):
            return cells.copy()
        if isinstance(cells, PlainCells):
            numbers = None if self._comma else cells.numbers()
            return self._in_blocks(table, block, cells) if numbers is None else numbers
        together = "".join(cells)
        plain = "_" in together or (self._comma and "." in together)  # float() would read 1_000, and 1.234 as 1.234
        texts = self._plain(cells) if plain else [text.replace(",", ".") for text in cells] if self._comma else cells
        while True:
            try:
                return np.fromiter(map(float, map(self._meanings.get, texts, texts)), np.float64, len(texts))
            except ValueError:
                row = next(row for row, text in enumerate(texts) if not _is_number(self._meanings.get(text, text)))
            meaning = self._words.get(texts[row].strip().lower())
            if meaning is not None:
                self._meanings[texts[row]] = meaning
            elif plain:
                raise self._no_number(table, block, row, cells[row])
            else:
                texts, plain = self._plain(cells), True

    def _in_blocks(self, table: Table, block: Block, cells: PlainCells) -> Doubles:
        """The numbers of texts, as they are read from blocks of the usual size."""
        return np.concatenate([self._numbers(table, part, of.texts) for part, of in blocks_of(block, cells)])

    def _plain(self, cells: Sequence[str]) -> list[str]:
        """The cells with a decimal point, without unit and thousands; other texts with a sign that no number has."""
        unit = self._column.unit
        found = []
        for text in cells:
            number = text if text.strip().lower() in self._words else None
            if number is None:
                number = plain_number(text, unit, self._comma, self._thousands)
            found.append(f"_{text}" if number is None else number)
        return found

    def _no_number(self, table: Table, block: Block, row: int, cell: str) -> EdgeLstmError:
        found = f"{_shown(cell)} is not a number"
        unit, text = cell_unit(cell), cell.strip()
        if unit and unit != self._column.unit:
            hint = f"if {unit} is its unit: unit = {_shown(unit)} under [features.{self._column.column}]"
        elif _GROUPS.fullmatch(text):
            hint = (
                f'if "{text[-4]}" is between thousands: thousands = "{text[-4]}" under [recording]; if it is a decimal '
            )
            hint += 'comma: decimal = "comma"' if text[-4] == "," else 'point: decimal = "point"'
        else:
            hint = f"fix or remove that row; if {_shown(text)} means a missing value: missing = [{_shown(text)}] under "
            hint += f"[recording] (init: --missing {_shown(text)})"
        return cell_error(table, block, row, self._column.column, found, hint)


class CategoryReader:
    """Reads cells that are texts, as indices of categories."""

    def __init__(self, column: ValueColumn, words: NumberWords) -> None:
        self.left_out: Counter[str] = Counter()
        self._column = column
        self._words = _words(words)
        self._index = {name: float(index) for index, name in enumerate(column.categories)}

    def read(self, table: Table, block: Block, cells: Cells) -> Doubles:
        texts = texts_of(cells)
        if self._column.text:
            for text in dict.fromkeys(texts):
                if not self._is_missing(text):
                    self._index.setdefault(text, float(len(self._index)))
        values = np.fromiter((self._index.get(text, math.nan) for text in texts), np.float64, len(texts))
        unknown = [row for row in np.flatnonzero(np.isnan(values)).tolist() if not self._is_missing(texts[row])]
        if unknown:
            self.left_out["unknown"] += len(unknown)
        return values

    def finished(self, values: Doubles) -> tuple[Sequence[str], Doubles]:
        """Categories that were given keep their order; categories that were found are sorted."""
        return _sorted_categories(list(self._index), values) if self._column.text else (self._column.categories, values)

    def _is_missing(self, text: str) -> bool:
        return math.isnan(self._words.get(text.lower(), 0.0))


def blocks_of(block: Block, cells: PlainCells) -> Iterator[tuple[Block, PlainCells]]:
    """The rows of a long block in blocks of the usual size, with the cells of one column."""
    for begin in range(0, len(cells), plain_rows.BLOCK_ROWS):
        at = slice(begin, begin + plain_rows.BLOCK_ROWS)
        yield Block(block.rows[at], {}), cells[at]


def texts_of(cells: Cells) -> list[str]:
    """Cells as texts without surrounding spaces; whole numbers without a fraction."""
    return (
        [cell.strip() for cell in cells] if not isinstance(cells, np.ndarray) else [_cell_text(cell) for cell in cells]
    )


def cell_error(
    table: Table, block: Block, row: int, column: str, found: str, hint: str = "fix or remove that row"
) -> EdgeLstmError:
    """The error for one cell; `row` is its index in the block."""
    return EdgeLstmError(f'{table.source}, row {block.rows[row]}, column "{column}": {found}', hint)


def _is_number(cell: str | float) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cell_text(cell: str | float) -> str:
    if isinstance(cell, str):
        return cell.strip()
    return "" if math.isnan(cell) else str(int(cell)) if float(cell).is_integer() else repr(float(cell))


def _shown(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _sorted_categories(categories: Sequence[str], values: Doubles) -> tuple[list[str], Doubles]:
    """The categories in alphabetical order, and the values as indices of them."""
    ordered = sorted(categories)
    place = {name: index for index, name in enumerate(ordered)}
    new_index = np.array([place[name] for name in categories] + [math.nan])  # the last one for missing values
    return ordered, new_index[np.where(np.isnan(values), len(categories), values).astype(np.int64)]


def _words(words: NumberWords) -> dict[str, float]:
    """Words that stand for numbers, in lower case; NaN for a missing value."""
    return {**WORD_VALUES, **dict.fromkeys(map(str.lower, words.missing), math.nan)}
