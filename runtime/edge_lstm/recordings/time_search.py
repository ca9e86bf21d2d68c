"""Finds the columns of times of a recording and how they are written; what has no one answer is told, not guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from edge_lstm.foundation.arrays import Doubles
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.time_format import format_reader
from edge_lstm.foundation.time_units import AHEAD_S
from edge_lstm.foundation.times import format_time, parse_time
from edge_lstm.recordings.columns import TimeColumns, texts_of
from edge_lstm.recordings.number_times import (
    as_usual,
    counted_readings,
    is_of_this_century,
    likely_readings,
)
from edge_lstm.recordings.recording import first_row, time_columns
from edge_lstm.recordings.tables import Table, column_index
from edge_lstm.recordings.time_formats import (
    clock_formats,
    date_formats,
    is_iso,
    is_iso_moment,
    moment_formats,
)
from edge_lstm.recordings.time_reader import TimeReader
from edge_lstm.recordings.zone_search import zones_that_say

_PARTS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
_DAY_OF_YEAR = ("doy", "yday", "dayofyear", "day_of_year", "julian_day", "julianday")
_DATE = re.compile(r"\d{4}[-/]\d\d[-/]\d\d|(?:19|20)\d{6}")
_TIME_NAMES = {
    *(
        "time",
        "date",
        "datetime",
        "timestamp",
        "ts",
        "zeit",
        "datum",
        "uhrzeit",
        "zeitstempel",
        "heure",
        "fecha",
        "hora",
    ),
    *("horodatage", "datahora", "fechahora", "datumzeit"),
}
_ABBREVIATION = re.compile(r".*\d ?([A-Z]{3,5})")


@dataclass(frozen=True)
class FoundTimes:
    """The columns of times, and what a user has to know or to check about them."""

    times: TimeColumns | None  # None: no column of times
    notes: Sequence[str] = field(default=())


def found_times(table: Table, asked: TimeColumns, guess: bool) -> FoundTimes:
    """The times of a table; what `asked` says is used.

    `guess`: choose between readings of numbers that count from any start, with a note; else leave it to the reader of
    the recording, which refuses them. Raises EdgeLstmError if a column that is named like a time cannot be read.
    """
    if asked.interval_s is not None:
        return FoundTimes(asked)
    if asked.format is not None or asked.unit is not None:
        return FoundTimes(dataclasses.replace(asked, columns=asked.columns or [_asked_column(table, asked)]))
    first = dict(zip(table.header, first_row(table), strict=True))
    for name in asked.columns:
        column_index(table, name)
    search = _Search(table, {name: first[name] for name in asked.columns} or first, asked)
    alone = search.alone()
    if alone is not None and _is_number(first[alone.columns[0]]) and not _DATE.fullmatch(first[alone.columns[0]]):
        return _numbers(table, alone, guess)
    found = search.times(alone)
    if found.times is None:
        _refuse_unread(table, search.first, asked)
    return found


class _Search:
    """The search among some columns, by the cells of the first row."""

    def __init__(self, table: Table, first: dict[str, str], asked: TimeColumns) -> None:
        self.first = first
        self._table = table
        self._asked = asked

    def alone(self) -> TimeColumns | None:
        """The first column whose first cell is a time by itself."""
        if self._asked.columns:
            cells = " ".join(self.first[name] for name in self._asked.columns)
            with contextlib.suppress(ValueError):
                parse_time(cells, self._asked.zone)
                return self._with(self._asked.columns)
            return None
        with contextlib.suppress(EdgeLstmError):
            return self._with([self._table.header[time_columns(self._table, TimeColumns())[0]]])
        return None

    def times(self, alone: TimeColumns | None) -> FoundTimes:
        """One column of full times; else one with a later date in each row; else date and time of day."""
        sure = alone is not None and not _DATE.fullmatch(cell := " ".join(self.first[name] for name in alone.columns))
        if sure and "/" not in cell:  # slashes are of a spreadsheet, which may drop zeros in a later row
            return FoundTimes(alone)
        dates = [(name, form) for name, cell in self.first.items() for form in date_formats(name, cell)]
        day = self._best([self._with([name], form) for name, form in dates])
        if day.times is not None and (np.diff(parsed_times(self._table, day.times)) > 0).all():
            return day
        best = self._best([*([alone] if sure and alone else []), *self._with_clock(dates)])
        return best if best.times is not None else day if day.times is not None else FoundTimes(alone)

    def _with_clock(self, dates: Sequence[tuple[str, str]]) -> Iterator[TimeColumns]:
        """Candidates for date and time of day that fit the first row: in many columns, in two, in one."""
        yield from self._in_parts()
        clocks = [(name, form) for name, cell in self.first.items() for form in clock_formats(name, cell)]
        for (name, date), (other, clock) in product(dates, clocks):
            if name != other:
                yield from self._full([name, other], date, clock)
        for name, cell in self.first.items():
            for form in moment_formats(cell, self._asked.zone):
                if is_iso_moment(form):
                    yield self._with([name])
                yield self._with([name], form)

    def _in_parts(self) -> Iterator[TimeColumns]:
        """Candidates in columns that are named year, month, day, hour, or year, day of the year, hour."""
        names = {name.lower(): name for name in self.first}
        given = [part for part in _PARTS if part in names]
        if given[:4] == list(_PARTS)[:4]:
            yield self._with([names[part] for part in given], " ".join(_PARTS[part] for part in given))
        of_year = next((names[name] for name in _DAY_OF_YEAR if name in names), None)
        if "year" in names and of_year is not None:
            clock = [part for part in given if part in ("hour", "minute", "second")]
            forms = ["%Y", "%j", *(_PARTS[part] for part in clock)]
            yield self._with([names["year"], of_year, *(names[part] for part in clock)], " ".join(forms))

    def _full(self, columns: Sequence[str], date: str, clock: str) -> Iterator[TimeColumns]:
        if is_iso(date, clock):
            yield self._with(columns)
        yield self._with(columns, f"{date} {clock}")

    def _with(self, columns: Sequence[str], form: str | None = None) -> TimeColumns:
        needs_none = form is not None and is_iso(form) and len(columns) == 1 and _DATE.fullmatch(self.first[columns[0]])
        return TimeColumns(list(columns), None if needs_none else form, zone=self._asked.zone)

    def _best(self, candidates: Iterable[TimeColumns]) -> FoundTimes:
        """The candidate that fits all rows and goes back in time least often; of equals, that with the shortest span.

        So 01/03 to 12/03 is twelve days of March, not the third of twelve months. One that ends after now comes last.
        """
        best: tuple[bool, int, float] | None = None
        fitting: list[tuple[TimeColumns, Doubles]] = []
        for candidate in candidates:
            seconds = parsed_times(self._table, candidate)
            if not seconds.size:
                continue
            backwards = int((np.diff(seconds) < 0).sum())
            rank = (bool(seconds.max() > time.time() + AHEAD_S), backwards, float(np.ptp(seconds)))
            if best is None or rank < best:
                best, fitting = rank, []
            if rank == best:
                fitting.append((candidate, seconds))
        return FoundTimes(fitting[0][0], _other_order(self.first, fitting)) if fitting else FoundTimes(None)


def _other_order(first: dict[str, str], fitting: Sequence[tuple[TimeColumns, Doubles]]) -> list[str]:
    """A note if two formats fit all rows alike, but give other dates."""
    chosen, seconds = fitting[0]
    for other, its in fitting[1:]:
        if list(other.columns) == list(chosen.columns) and not np.array_equal(its, seconds):
            cell = " ".join(first[name] for name in chosen.columns)
            dates = [format_time(float(found[0]))[:10] for found in (seconds, its)]
            return [
                f'day or month first? {cell} is read as {dates[0]} ("{chosen.format}"), but may be {dates[1]} '
                f'("{other.format}"): both fit all rows alike'
            ]
    return []


def parsed_times(table: Table, times: TimeColumns) -> Doubles:
    """(rows,): seconds since 1970; empty where a cell does not have this format."""
    at = [column_index(table, name) for name in times.columns]
    reader = TimeReader(times)
    try:
        blocks = [reader.read(table, one, [one.cells[c] for c in at], times.columns) for one in table.blocks(at)]
    except EdgeLstmError:
        return np.empty(0)
    return np.concatenate(blocks)


def _numbers(table: Table, found: TimeColumns, guess: bool) -> FoundTimes:
    """Times that are numbers: those of today as they are; of others, the unit that makes them so."""
    seconds = parsed_times(table, found)
    if not seconds.size or is_of_this_century(seconds):
        return FoundTimes(found)
    name = found.columns[0]
    (at,) = [column_index(table, name)]
    numbers = np.array([float(text) for block in table.blocks([at]) for text in texts_of(block.cells[at])])
    likely, plain = likely_readings(numbers), as_usual(numbers)
    ways = likely or counted_readings(name, numbers)
    if len(ways) > 1 and not guess:
        return FoundTimes(found)
    chosen, *others = [*ways, plain] if likely else ways
    note = f'times in "{name}" are read as {chosen.text}'
    if others:
        note += f"; not as {others[0].text}"
    start = parse_time(chosen.start) if chosen.start else None
    return FoundTimes(dataclasses.replace(found, unit=chosen.unit, start=start), [note])


def _asked_column(table: Table, asked: TimeColumns) -> str:
    """The column that the given format or unit is for: the first that fits."""
    first = dict(zip(table.header, first_row(table), strict=True))
    if asked.format is not None:
        read = format_reader(asked.format, asked.zone)
        for name, cell in first.items():
            with contextlib.suppress(ValueError):
                read(cell)
                return name
        raise EdgeLstmError(
            f'{table.source}: expected a column of times like "{asked.format}", found none',
            "name it with --time COLUMN",
        )
    return table.header[time_columns(table, TimeColumns())[0]]


def _refuse_unread(table: Table, first: dict[str, str], asked: TimeColumns) -> None:
    """Raises EdgeLstmError for a column that is asked for or named like a time, and whose cells have digits."""
    for name, cell in first.items():
        if re.search(r"\d", cell) and (name in asked.columns or _says_time(name)):
            way = "name its format (--time-format, or time_format in a recipe), like %d.%m.%Y %H:%M"
            raise EdgeLstmError(
                f'{table.source}, column "{name}": expected times, found {cell!r}',
                _zone_hint(cell) or f"{way}; or give the seconds between rows (--interval) if it is no time",
            )


def _says_time(name: str) -> bool:
    words = re.split(r"[^a-zà-ÿ]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return any(word in _TIME_NAMES for word in words)


def _zone_hint(cell: str) -> str | None:
    """What to do about a zone's abbreviation, which is not unique."""
    found = _ABBREVIATION.fullmatch(cell)
    if found is None:
        return None
    zones = list(zones_that_say(found[1]))[:3] or ["the zone's name, like Europe/Berlin"]
    return (
        f"several zones have times called {found[1]}: name yours by --timezone, like {' or '.join(zones)}; in a recipe "
        'by timezone, beside time_format = "%Y-%m-%d %H:%M:%S %Z"'
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
