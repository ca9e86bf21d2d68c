"""Finds out how a recording writes its times and numbers: candidate formats are tried on all rows."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.numbers import WORD_VALUES
from edge_lstm.recordings.columns import NumberWords, TimeColumns, TimeReader
from edge_lstm.recordings.recording import first_row, time_columns
from edge_lstm.recordings.tables import Layout, Table, column_index, open_table, recording_files

_ISO_DATES = ("%Y-%m-%d", "%Y/%m/%d")
_ISO_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
_DATES = (
    *(*_ISO_DATES, "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y"),
)
_CLOCKS = (*_ISO_CLOCKS, "%I:%M %p", "%I:%M:%S %p")
_BARE_DATE, _BARE_CLOCKS = "%Y%m%d", ("%H", "%H.%M", "%H.%M.%S")  # a measured value may look like these,
_DATE_NAMES = ("date", "day", "datum", "fecha", "data")  # so the name of the column must fit too
_CLOCK_NAMES = ("time", "hour", "clock", "uhr", "zeit", "stunde", "heure", "hora", "ora")
_PARTS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
_DATE = re.compile(r"\d{4}[-/]\d\d[-/]\d\d|(?:19|20)\d{6}")
_COMMA = re.compile(r"[+-]?\d+,(\d+)(?:[eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Dialect:
    """How a recording writes its times and numbers."""

    times: TimeColumns | None  # None: no column of times
    words: NumberWords = field(default_factory=NumberWords)


def dialect(
    path: str | Path | Sequence[str | Path], time_column: str | None = None, layout: Layout | None = None
) -> Dialect:
    """The dialect of a recording's first file; `time_column` is used if given. Raises EdgeLstmError without a table."""
    table = open_table(recording_files(path)[0], layout or Layout())
    times = TimeColumns([time_column]) if time_column is not None else _times(table)
    return Dialect(times, NumberWords(_has_decimal_comma(table, [] if times is None else times.columns)))


def _times(table: Table) -> TimeColumns | None:
    """The columns of times: one with full times; else one with a later date in each row; else date and time of day."""
    first = dict(zip(table.header, first_row(table), strict=True))
    alone: TimeColumns | None = None
    with contextlib.suppress(EdgeLstmError):
        alone = TimeColumns([table.header[time_columns(table, TimeColumns())[0]]])
    if alone is not None and not _DATE.fullmatch(first[alone.columns[0]]):
        return alone
    dates = [(name, format) for name, cell in first.items() for format in _date_formats(name, cell)]
    day = _best_candidate(table, (_columns_with_format([name], format) for name, format in dates))
    if day is not None and (np.diff(_parsed_times(table, day)) > 0).all():
        return day
    return _best_candidate(table, _with_time_of_day(first, dates)) or day or alone


def _with_time_of_day(first: dict[str, str], dates: Sequence[tuple[str, str]]) -> Iterator[TimeColumns]:
    """Candidates for date and time of day that fit the first row: in many columns, in two, in one."""
    parts = {name.lower(): name for name in first}
    given = [part for part in _PARTS if part in parts]
    if given[:4] == list(_PARTS)[:4]:
        yield TimeColumns([parts[part] for part in given], " ".join(_PARTS[part] for part in given))
    clocks = [(name, format) for name, cell in first.items() for format in _clock_formats(name, cell)]
    for (name, date), (other, clock) in product(dates, clocks):
        if name != other:
            yield _columns_with_format([name, other], date, clock)
    for name, cell in first.items():
        date, _, clock = cell.partition(" ")
        for formats in product(_matching_formats(_DATES, date), _matching_formats((*_CLOCKS, *_BARE_CLOCKS), clock)):
            yield _columns_with_format([name], *formats)


def _columns_with_format(columns: Sequence[str], date: str, clock: str = "") -> TimeColumns:
    if date in _ISO_DATES and clock in ("", *_ISO_CLOCKS):
        return TimeColumns(columns)  # ISO 8601 needs no format
    return TimeColumns(columns, f"{date} {clock}".rstrip())


def _date_formats(name: str, cell: str) -> list[str]:
    bare = (_BARE_DATE,) if _DATE.fullmatch(cell) and _named(name, _DATE_NAMES) else ()
    return _matching_formats((*_DATES, *bare), cell)


def _clock_formats(name: str, cell: str) -> list[str]:
    return _matching_formats((*_CLOCKS, *(_BARE_CLOCKS if _named(name, _CLOCK_NAMES) else ())), cell)


def _named(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _matching_formats(formats: Sequence[str], text: str) -> list[str]:
    fitting = []
    for format in formats:
        with contextlib.suppress(ValueError):
            datetime.strptime(text, format)
            fitting.append(format)
    return fitting


def _best_candidate(table: Table, candidates: Iterable[TimeColumns]) -> TimeColumns | None:
    """The candidate that fits all rows and goes back in time least often; of equals, that with the shortest span.

    So 01/03 to 12/03 is twelve days of March, not the third of twelve months.
    """
    best: tuple[int, float, TimeColumns] | None = None
    for candidate in candidates:
        seconds = _parsed_times(table, candidate)
        if seconds.size:
            backwards, span = int((np.diff(seconds) < 0).sum()), float(np.ptp(seconds))
            if best is None or (backwards, span) < best[:2]:
                best = backwards, span, candidate
    return None if best is None else best[2]


def _parsed_times(table: Table, times: TimeColumns) -> Doubles:
    """(rows,): seconds since 1970; empty where a cell does not have this format."""
    at = [column_index(table, name) for name in times.columns]
    reader = TimeReader(times)
    try:
        blocks = [reader.read(table, one, [one.cells[c] for c in at], times.columns) for one in table.blocks(at)]
    except EdgeLstmError:
        return np.empty(0)
    return np.concatenate(blocks)


def _has_decimal_comma(table: Table, taken: Sequence[str]) -> bool:
    """Whether a column has a decimal comma, and none a decimal point. 1,234 alone may be a thousand."""
    at = [place for place, name in enumerate(table.header) if name and name not in taken]
    if not any("," in "".join(cells) for _, cells in _text_cells(table, at)):
        return False
    sure, points, others = set(), set(), set()  # columns by content
    for place, cells in _text_cells(table, at):
        for text in map(str.strip, cells):
            if found := _COMMA.fullmatch(text):
                if len(found[1]) != 3:
                    sure.add(place)
            elif _POINT.fullmatch(text):
                points.add(place)
            elif not (_WHOLE.fullmatch(text) or math.isnan(WORD_VALUES.get(text.lower(), 0.0))):
                others.add(place)
                break
    return bool(sure - others) and not points - others


def _text_cells(table: Table, at: Sequence[int]) -> Iterator[tuple[int, Sequence[str]]]:
    """(column, cells) of the texts, block by block; numbers of a Parquet file are left out."""
    for block in table.blocks(at):
        yield from ((place, cells) for place, cells in block.cells.items() if not isinstance(cells, np.ndarray))
