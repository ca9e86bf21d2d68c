"""How a recording that nobody described writes its times and numbers: ways tried on all rows, and refused by one."""

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
_BARE_DATE, _BARE_CLOCKS = "%Y%m%d", ("%H", "%H.%M", "%H.%M.%S")  # a measured number may look like these,
_DATE_NAMES = ("date", "day", "datum", "fecha", "data")  # so the column has to be named for it
_CLOCK_NAMES = ("time", "hour", "clock", "uhr", "zeit", "stunde", "heure", "hora", "ora")
_PARTS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
_DATE = re.compile(r"\d{4}[-/]\d\d[-/]\d\d|(?:19|20)\d{6}")
_COMMA = re.compile(r"[+-]?\d+,(\d+)(?:[eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Dialect:
    """How one is written."""

    times: TimeColumns | None  # None: no column of times
    words: NumberWords = field(default_factory=NumberWords)


def dialect(
    path: str | Path | Sequence[str | Path], time_column: str | None = None, layout: Layout | None = None
) -> Dialect:
    """That of a recording's first file; `time_column` where it is known. Raises EdgeLstmError where it is no table."""
    table = open_table(recording_files(path)[0], layout or Layout())
    times = TimeColumns([time_column]) if time_column is not None else _times(table)
    return Dialect(times, NumberWords(_has_decimal_comma(table, [] if times is None else times.columns)))


def _times(table: Table) -> TimeColumns | None:
    """One column of whole times; else dates that are enough, since each row has a later one; else date and clock."""
    first = dict(zip(table.header, first_row(table), strict=True))
    alone: TimeColumns | None = None
    with contextlib.suppress(EdgeLstmError):
        alone = TimeColumns([table.header[time_columns(table, TimeColumns())[0]]])
    if alone is not None and not _DATE.fullmatch(first[alone.columns[0]]):
        return alone
    dates = [(name, form) for name, cell in first.items() for form in _date_forms(name, cell)]
    day = _best(table, (_of([name], form) for name, form in dates))
    if day is not None and (np.diff(_moments(table, day)) > 0).all():
        return day
    return _best(table, _with_clock(first, dates)) or day or alone


def _with_clock(first: dict[str, str], dates: Sequence[tuple[str, str]]) -> Iterator[TimeColumns]:
    """Ways to read cells of the first row as a date and a time of day: in many columns, in two, in one."""
    parts = {name.lower(): name for name in first}
    given = [part for part in _PARTS if part in parts]
    if given[:4] == list(_PARTS)[:4]:
        yield TimeColumns([parts[part] for part in given], " ".join(_PARTS[part] for part in given))
    clocks = [(name, form) for name, cell in first.items() for form in _clock_forms(name, cell)]
    for (name, date), (other, clock) in product(dates, clocks):
        if name != other:
            yield _of([name, other], date, clock)
    for name, cell in first.items():
        date, _, clock = cell.partition(" ")
        for forms in product(_fitting(_DATES, date), _fitting((*_CLOCKS, *_BARE_CLOCKS), clock)):
            yield _of([name], *forms)


def _of(columns: Sequence[str], date: str, clock: str = "") -> TimeColumns:
    if date in _ISO_DATES and clock in ("", *_ISO_CLOCKS):
        return TimeColumns(columns)  # which needs no form
    return TimeColumns(columns, f"{date} {clock}".rstrip())


def _date_forms(name: str, cell: str) -> list[str]:
    bare = (_BARE_DATE,) if _DATE.fullmatch(cell) and _named(name, _DATE_NAMES) else ()
    return _fitting((*_DATES, *bare), cell)


def _clock_forms(name: str, cell: str) -> list[str]:
    return _fitting((*_CLOCKS, *(_BARE_CLOCKS if _named(name, _CLOCK_NAMES) else ())), cell)


def _named(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _fitting(forms: Sequence[str], text: str) -> list[str]:
    fitting = []
    for form in forms:
        with contextlib.suppress(ValueError):
            datetime.strptime(text, form)
            fitting.append(form)
    return fitting


def _best(table: Table, ways: Iterable[TimeColumns]) -> TimeColumns | None:
    """That which fits all rows and by which time goes back least often; of several such, the shortest in all.

    01/03 to 12/03 is twelve days of March, and not the third of twelve months.
    """
    best: tuple[int, float, TimeColumns] | None = None
    for way in ways:
        moments = _moments(table, way)
        if moments.size:
            backwards, span = int((np.diff(moments) < 0).sum()), float(np.ptp(moments))
            if best is None or (backwards, span) < best[:2]:
                best = backwards, span, way
    return None if best is None else best[2]


def _moments(table: Table, times: TimeColumns) -> Doubles:
    """(rows,): seconds since 1970; none where a cell is not written so."""
    at = [column_index(table, name) for name in times.columns]
    reader = TimeReader(times)
    try:
        blocks = [reader.read(table, one, [one.cells[c] for c in at], times.columns) for one in table.blocks(at)]
    except EdgeLstmError:
        return np.empty(0)
    return np.concatenate(blocks)


def _has_decimal_comma(table: Table, taken: Sequence[str]) -> bool:
    """Whether a column is of such numbers, and none of numbers with a point. 1,234 alone may be a thousand."""
    at = [place for place, name in enumerate(table.header) if name and name not in taken]
    if not any("," in "".join(cells) for _, cells in _texts(table, at)):
        return False
    sure, points, others = set(), set(), set()  # columns by what stands in them
    for place, cells in _texts(table, at):
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


def _texts(table: Table, at: Sequence[int]) -> Iterator[tuple[int, Sequence[str]]]:
    """(column, cells), block by block; a Parquet file's numbers say themselves what they are."""
    for block in table.blocks(at):
        yield from ((place, cells) for place, cells in block.cells.items() if not isinstance(cells, np.ndarray))
