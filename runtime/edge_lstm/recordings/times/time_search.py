"""Finds the columns of times of a recording and how they are written; it reports what has more than one answer."""

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
from edge_lstm.foundation.times.formats import format_reader
from edge_lstm.foundation.times.text import format_time, parse_time
from edge_lstm.foundation.times.units import AHEAD_S
from edge_lstm.recordings.columns import TimeColumns, texts_of
from edge_lstm.recordings.recording import first_row, time_columns
from edge_lstm.recordings.tables.table import Table, column_index
from edge_lstm.recordings.times.number_times import (
    as_usual,
    counted_readings,
    is_of_this_century,
    likely_readings,
)
from edge_lstm.recordings.times.time_formats import (
    clock_formats,
    date_formats,
    is_iso,
    is_iso_moment,
    moment_formats,
    says_clock,
)
from edge_lstm.recordings.times.time_reader import TimeReader
from edge_lstm.recordings.times.unread_times import refuse_days_alone, refuse_unread, says_time, unread_notes

_PARTS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
_DAY_OF_YEAR = ("doy", "yday", "dayofyear", "day_of_year", "julian_day", "julianday")
_DATE = re.compile(r"\d{4}[-/]\d\d[-/]\d\d|(?:19|20)\d{6}")
_COUNTER_NAMES = {
    *(
        "millis",
        "ms",
        "msec",
        "msecs",
        "milliseconds",
        "micros",
        "us",
        "microseconds",
        "seconds",
        "secs",
        "sec",
        "elapsed",
    ),
    *("elapsed_s", "elapsed_ms", "t_s", "t_ms", "t_us", "t [s]", "t (s)", "t/s", "t [ms]", "t (ms)"),
}
_COMMA_NUMBER = re.compile(r"\d+,\d+")
_MOST_COUNTED = 1e8  # three years in seconds; larger numbers count from a known moment, which is asked for


@dataclass(frozen=True)
class FoundTimes:
    """The columns of times, and what a user has to know or to check about them."""

    times: TimeColumns | None  # None: no column of times
    notes: Sequence[str] = field(default=())
    counted: bool = False  # whether the times are numbers that count from any start


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
        numbers = _numbers(table, alone, guess)
        if not numbers.counted:
            return numbers
        in_parts = search.times(None)  # 100 may be one o'clock, beside a date
        return in_parts if in_parts.times is not None and len(in_parts.times.columns) > 1 else numbers
    found = search.times(alone)
    if found.times is not None:
        (date, *others), cells = found.times.columns, search.first
        if not others and date_formats("date", cells[date]):
            refuse_days_alone(table, cells, date, parsed_times(table, found.times))
        return found
    if (counted := search.counted()) is not None:
        return _numbers(table, counted, guess)
    refuse_unread(table, search.first, asked)
    return FoundTimes(None, list(unread_notes(search.first)))


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

    def counted(self) -> TimeColumns | None:
        """A column of numbers with a decimal comma that is named like a time, or one like `millis` that ascends."""
        for name, cell in self.first.items():
            if says_time(name) and _COMMA_NUMBER.fullmatch(cell):
                return self._with([name])
            if name.lower() in _COUNTER_NAMES and _is_number(cell):
                (at,) = [column_index(self._table, name)]
                numbers = _column_numbers(self._table, at)
                if numbers.size > 1 and (np.diff(numbers) > 0).all():
                    return self._with([name])
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
        if best.times is None:  # only then: 0 to 23 are hours, not minutes
            best = self._best(self._with_hours_and_minutes(dates))
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
            if not clock and any(map(says_clock, self.first)):
                return  # its hours and minutes are in one number
            yield self._with([names["year"], of_year, *(names[part] for part in clock)], " ".join(forms))

    def _with_hours_and_minutes(self, dates: Sequence[tuple[str, str]]) -> Iterator[TimeColumns]:
        """Candidates with a time of day like 0, 100 or 2330, beside a date or the day of a year."""
        names = {name.lower(): name for name in self.first}
        of_year = [names[name] for name in ("year", *_DAY_OF_YEAR) if name in names]
        for clock, cell in self.first.items():
            if says_clock(clock) and re.fullmatch(r"\d{1,4}", cell):
                yield from (self._with([name, clock], f"{form} %H%M") for name, form in dates if name != clock)
                if len(of_year) == 2:
                    yield self._with([*of_year, clock], "%Y %j %H%M")

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
    if seconds.size and is_of_this_century(seconds):
        return FoundTimes(found)
    name = found.columns[0]
    (at,) = [column_index(table, name)]
    numbers = _column_numbers(table, at)
    if not numbers.size:
        return FoundTimes(found)
    likely, plain = likely_readings(numbers), as_usual(numbers)
    if not likely and not 0 <= numbers.min() <= numbers.max() < _MOST_COUNTED:
        return FoundTimes(found)
    ways = likely or counted_readings(name, numbers)
    if len(ways) > 1 and not guess:
        return FoundTimes(found, counted=not likely)
    if likely and ways[0].unit == "s":  # with a decimal comma
        return FoundTimes(dataclasses.replace(found, unit="s"))
    chosen, *others = [*ways, plain] if likely else ways
    note = f'times in "{name}" are read as {chosen.text}'
    if others:
        note += f"; not as {others[0].text}"
    start = parse_time(chosen.start) if chosen.start else None
    return FoundTimes(dataclasses.replace(found, unit=chosen.unit, start=start), [note], not likely)


def _column_numbers(table: Table, at: int) -> Doubles:
    """(rows,): the numbers of a column; empty if a cell is none."""
    try:
        cells = (text.replace(",", ".") for block in table.blocks([at]) for text in texts_of(block.cells[at]))
        return np.array([float(cell) for cell in cells])
    except ValueError:
        return np.empty(0)


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


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
