"""What the cells of a column mean: numbers, categories, or times; every fault is named by file, row and column."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import Literal

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Flags
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.numbers import FLOAT32_MAX, WORD_VALUES
from edge_lstm.foundation.times import parse_time
from edge_lstm.recordings.tables import Block, Cells, Table

_TIMES_KEPT = 65_536  # the same moments return in every file of a recording


@dataclass(frozen=True)
class ValueColumn:
    """A column, and how its cells are numbers.

    With `categories` a cell is the index of its text among them. With `text` the categories are those found, in the
    order of the alphabet.
    """

    column: str
    sentinels: Sequence[float] = ()  # numbers that mean a missing value, as they stand in the file
    least: float | None = None  # a smaller one is missing
    most: float | None = None  # a larger one is missing
    categories: Sequence[str] = ()
    text: bool = False


@dataclass(frozen=True)
class TimeColumns:
    """Where a recording's times stand and how they are written."""

    columns: Sequence[str] = ()  # read as one text, joined by a space; none: the first column that holds times
    format: str | None = None  # of strptime, like "%d.%m.%Y %H.%M.%S"; none: ISO 8601 or a number since 1970
    unit: Literal["s", "ms"] | None = None  # of numbers; none: told by their size
    zone: tzinfo = timezone.utc  # of times that name none
    interval_s: float | None = None  # no column: each stream's rows are this far apart,
    start: float = 0.0  # from here on, in seconds since 1970


@dataclass(frozen=True)
class NumberWords:
    """How numbers are written in a recording's files."""

    decimal_comma: bool = False
    missing: Sequence[str] = ()  # texts that mean a missing value, besides NA, null, unavailable and such


class NumberReader:
    """One column's cells to numbers, block after block; a value that is missing is NaN, and counted by its reason."""

    def __init__(self, quantity: ValueColumn, words: NumberWords) -> None:
        self.left_out: Counter[str] = Counter()  # sentinels, implausible, unknown
        self._quantity = quantity
        self._comma = words.decimal_comma
        self._words = {**WORD_VALUES, **dict.fromkeys(map(str.lower, words.missing), math.nan)}
        self._meant: dict[str, str | float] = {}  # words as they stood in cells
        self._index = {name: float(index) for index, name in enumerate(quantity.categories)}

    def read(self, table: Table, block: Block, cells: Cells) -> Doubles:
        """(rows,). Raises EdgeLstmError at the first cell that is no number and no word for one."""
        quantity = self._quantity
        if quantity.text or quantity.categories:
            return self._categories(cells)
        values = self._numbers(table, block, cells)
        if quantity.sentinels:  # as float32, since a file that was float32 once says -273.20001
            with np.errstate(over="ignore"):
                missing = np.isin(values.astype(np.float32), np.asarray(quantity.sentinels, np.float32))
            self._leave_out("sentinels", values, missing)
        beyond = np.abs(values) > FLOAT32_MAX
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            raise fault(table, block, row, quantity.column, f"{_shown(cells[row])} is not a number that float32 holds")
        least = -math.inf if quantity.least is None else quantity.least
        most = math.inf if quantity.most is None else quantity.most
        self._leave_out("implausible", values, (values < least) | (values > most))
        return values

    @property
    def categories(self) -> list[str]:
        """The texts that the numbers are indices of; none where they are numbers. With `text`, as met so far."""
        return list(self._index)

    def _leave_out(self, reason: str, values: Doubles, chosen: Flags) -> None:
        if chosen.any():
            values[chosen] = math.nan
            self.left_out[reason] += int(chosen.sum())

    def _numbers(self, table: Table, block: Block, cells: Cells) -> Doubles:
        if isinstance(cells, np.ndarray):
            return cells.copy()
        column, together = self._quantity.column, "".join(cells)
        if "_" in together or (self._comma and "." in together):
            # float() would read 1_000, and beside a decimal comma 1.234 may be a thousand
            for row, text in enumerate(cells):
                if ("_" in text or (self._comma and "." in text)) and text.strip().lower() not in self._words:
                    raise fault(table, block, row, column, f"{_shown(text)} is not a number")
        texts = [text.replace(",", ".") for text in cells] if self._comma else cells
        while True:
            try:
                return np.fromiter(map(float, map(self._meant.get, texts, texts)), np.float64, len(texts))
            except ValueError:
                row = next(row for row, text in enumerate(texts) if not _is_number(self._meant.get(text, text)))
            meant = self._words.get(texts[row].strip().lower())
            if meant is None:
                raise fault(table, block, row, column, f"{_shown(cells[row])} is not a number")
            self._meant[texts[row]] = meant

    def _categories(self, cells: Cells) -> Doubles:
        texts = texts_of(cells)
        for text in dict.fromkeys(texts):
            if text not in self._index and not math.isnan(self._words.get(text.lower(), 0.0)) and self._quantity.text:
                self._index[text] = float(len(self._index))
        values = np.fromiter((self._index.get(text, math.nan) for text in texts), np.float64, len(texts))
        for row in np.flatnonzero(np.isnan(values)).tolist():
            if not math.isnan(self._words.get(texts[row].lower(), 0.0)):
                self.left_out["unknown"] += 1
        return values


class TimeReader:
    """Cells to seconds since 1970, block after block."""

    def __init__(self, times: TimeColumns) -> None:
        self._times = times
        self._parse = self._parser(times)

    def read(self, table: Table, block: Block, columns: Sequence[Cells], names: Sequence[str]) -> Doubles:
        """(rows,). Raises EdgeLstmError at the first cell that is no time."""
        texts: Sequence[str] | Sequence[float]
        if len(columns) == 1:
            texts = columns[0].tolist() if isinstance(columns[0], np.ndarray) else columns[0]
        else:
            texts = list(map(" ".join, zip(*map(texts_of, columns), strict=True)))
        seconds = np.empty(len(texts))
        parse, row = self._parse, 0
        try:
            for row, text in enumerate(texts):
                seconds[row] = parse(text)
        except ValueError as error:
            raise fault(table, block, row, '" and "'.join(names), str(error)) from None
        return seconds

    def _parser(self, times: TimeColumns) -> Callable[[str | float], float]:
        zone = times.zone
        if times.unit is not None:
            divisor = 1000.0 if times.unit == "ms" else 1.0
            return lambda cell: _counted(cell) / divisor
        if times.format is None:
            return lambda cell: parse_time(cell, zone)
        return functools.lru_cache(_TIMES_KEPT)(lambda cell: _formatted(_text(cell), str(times.format), zone))


def texts_of(cells: Cells) -> list[str]:
    """Cells as texts, without the spaces around them; whole numbers without a fraction."""
    return [cell.strip() for cell in cells] if not isinstance(cells, np.ndarray) else [_text(cell) for cell in cells]


def fault(table: Table, block: Block, row: int, column: str, found: str) -> EdgeLstmError:
    """What is wrong with one cell; `row` counts within the block."""
    return EdgeLstmError(
        f'{table.source}, row {block.rows[row]}, column "{column}": {found}', "mend or remove that row"
    )


def _is_number(cell: str | float) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _text(cell: str | float) -> str:
    if isinstance(cell, str):
        return cell.strip()
    return "" if math.isnan(cell) else str(int(cell)) if float(cell).is_integer() else repr(float(cell))


def _counted(cell: str | float) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{_shown(cell)} is not a time: expected a number")
    return number


def _formatted(text: str, form: str, zone: tzinfo) -> float:
    try:
        moment = datetime.strptime(text, form)
    except ValueError:
        raise ValueError(f'{_shown(text)} is not a time: expected one like "{form}"') from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()


def _shown(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:60]}…"


def in_order(categories: Sequence[str], values: Doubles) -> tuple[list[str], Doubles]:
    """The categories by the alphabet, and the values as indices of them."""
    ordered = sorted(categories)
    place: Mapping[str, int] = {name: index for index, name in enumerate(ordered)}
    moved = np.array([place[name] for name in categories] + [math.nan])  # the last for what is missing
    return ordered, moved[np.where(np.isnan(values), len(categories), values).astype(np.int64)]
