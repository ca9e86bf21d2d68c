"""Reads the cells of the columns of times, as seconds since 1970; errors name file, row and column."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime, timezone, tzinfo

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.text import format_time, local_time_parser, time_parser
from edge_lstm.foundation.times.units import is_wall_unit
from edge_lstm.foundation.times.zones import Change, changes, offset_s, require_existing
from edge_lstm.recordings.columns import TimeColumns, blocks_of, cell_error, texts_of
from edge_lstm.recordings.tables.plain_rows import PlainCells
from edge_lstm.recordings.tables.table import Block, Cells, Table
from edge_lstm.recordings.times.number_times import is_of_this_century, refuse_doubtful_numbers
from edge_lstm.recordings.times.repeated_hours import settled
from edge_lstm.recordings.times.time_formats import date_formats, moment_formats

_FIX = "fix or remove that row"
_HOUR_S = 3600.0
_HALF_DAY_S = 10 * _HOUR_S  # nearly: from 12:00 back to 01:00 are eleven hours
_MANY_YEARS = 100  # some of these times may be wrong
_CACHED_TIMES = 65_536  # the same times occur in every file of a recording


class TimeReader:
    """Reads cells that are times, block by block; after the last one, `finished` looks at all of them."""

    def __init__(self, times: TimeColumns) -> None:
        self._times = times
        arguments = (times.format, times.unit, times.zone, times.start)
        parse = time_parser(*arguments)
        slow = times.format is not None or is_wall_unit(times.unit, times.start)
        self._parse = functools.lru_cache(_CACHED_TIMES)(parse) if slow else parse
        self._local = local_time_parser(*arguments)
        self._rows = 0
        self._numbers: list[Doubles] = []  # the cells that are numbers without a unit, and no times of today
        self._place = ("", "")  # file and column
        self._repeated: list[tuple[int, float]] = []  # row of all blocks, seconds to its second occurrence

    def read(self, table: Table, block: Block, columns: Sequence[Cells], names: Sequence[str]) -> Doubles:
        """(rows,). Raises EdgeLstmError at the first cell that is not a time."""
        if len(columns) == 1 and isinstance(columns[0], PlainCells):
            return self._read_plain(table, block, columns[0], names)
        texts: Sequence[str] | Sequence[float]
        if len(columns) == 1:
            texts = columns[0].tolist() if isinstance(columns[0], np.ndarray) else columns[0]
        else:
            texts = list(map(" ".join, zip(*map(texts_of, columns), strict=True)))
        try:
            seconds = self._seconds(texts)
            if not isinstance(self._times.zone, timezone):
                self._find_set_clocks(texts, seconds)
        except _CellError as error:
            message = cell_error(table, block, error.row, '" and "'.join(names), str(error)).message
            raise EdgeLstmError(message, error.hint or self._format_hint(texts[error.row])) from None
        bare = self._times.format is None and self._times.unit is None and _is_number(texts[0])
        if bare and not is_of_this_century(seconds):
            self._numbers.append(np.array([float(text) if _is_number(text) else np.nan for text in texts]))
        self._place = self._place if self._rows else (table.source, names[-1])
        self._rows += len(texts)
        return seconds

    def _read_plain(self, table: Table, block: Block, cells: PlainCells, names: Sequence[str]) -> Doubles:
        """The times of a long block, all at once where they are ISO 8601 in UTC."""
        times = self._times
        usual = times.format is None and times.unit is None and times.zone is timezone.utc
        seconds = cells.times() if usual else None
        if seconds is None:
            parts = blocks_of(block, cells)
            return np.concatenate([self.read(table, part, [of.texts], names) for part, of in parts])
        self._place = self._place if self._rows else (table.source, names[-1])
        self._rows += len(seconds)
        return seconds

    def _seconds(self, texts: Sequence[str] | Sequence[float]) -> Doubles:
        """(rows,). Raises _CellError at the first that is not a time."""
        try:
            return np.fromiter(map(self._parse, texts), np.float64, len(texts))
        except ValueError:
            pass  # which one?
        for row, text in enumerate(texts):
            try:
                self._parse(text)
            except ValueError as error:
                raise _CellError(row, str(error)) from None
        raise AssertionError  # one of them was no time

    def _format_hint(self, cell: str | float) -> str:
        """What to do about a text that is not a time: set its format, if it has one."""
        if not isinstance(cell, str) or self._times.format is not None or self._times.unit is not None:
            return _FIX
        forms = moment_formats(cell.strip(), self._times.zone) or date_formats("date", cell.strip())
        ways = " or ".join(f'time_format = "{form}"' for form in forms)
        return f"if all rows are like it, set {ways}; else {_FIX}" if forms else _FIX

    def finished(self, times: Doubles, stream_of: Integers) -> Doubles:
        """(rows,): the times of all blocks; where clocks were set back, those of the second occurrence are later.

        Raises EdgeLstmError if the times are numbers of which most give no time from 2000 until now, or if their clock
        has twelve hours without AM and PM.
        """
        if self._numbers:
            refuse_doubtful_numbers(*self._place, np.concatenate(self._numbers), times)
        elif self._rows and self._times.unit is None and "%p" not in (self._times.format or ""):
            self._refuse_half_days(times)
        rows = np.array([row for row, _ in self._repeated], np.int64)
        return settled(times, stream_of, rows, np.array([shift for _, shift in self._repeated]))

    def _refuse_half_days(self, times: Doubles) -> None:
        """Raises EdgeLstmError for a clock of twelve hours without AM and PM: each of its times may be one of two."""
        if (np.diff(times) > -_HALF_DAY_S).all():
            return
        local = times + offsets(self._times.zone, times)
        steps = np.diff(local)
        back = np.flatnonzero((steps < -_HALF_DAY_S) & (steps > -12 * _HOUR_S))
        if not len(back) or not np.array_equal(np.unique(local // _HOUR_S % 24), np.arange(1, 13)):
            return
        from_text, to_text = (format_time(float(local[row]))[11:16] for row in (back[0], back[0] + 1))
        source, column = self._place
        found = f"hours 1 to 12, and {to_text} after {from_text}"
        raise EdgeLstmError(
            f'{source}, column "{column}": expected times of 24 hours, or with AM and PM, found {found}',
            "each of these times may be one of two: export the recording with 24 hours, or with AM and PM",
        )

    def _find_set_clocks(self, texts: Sequence[str] | Sequence[float], seconds: Doubles) -> None:
        """Note the rows whose local time occurs twice. Raises _CellError for one that does not exist."""
        zone = self._times.zone
        for change in changes(zone, _years(seconds)):
            length = abs(change.after - change.before)
            begin = change.at if change.after > change.before else change.at - length
            for row in np.flatnonzero((seconds >= begin) & (seconds < begin + length)).tolist():
                local = self._local(texts[row])
                if local is not None:
                    self._note(row, local, change)

    def _note(self, row: int, local: datetime, change: Change) -> None:
        try:
            require_existing(local, self._times.zone)
        except ValueError as error:
            raise _CellError(row, str(error), "set timezone to the zone of its clock") from None
        if change.after < change.before:
            self._repeated.append((self._rows + row, change.before - change.after))


def offsets(zone: tzinfo, seconds: Doubles) -> Doubles:
    """(rows,): the offset of the zone from UTC at these times, in seconds."""
    middle = float(np.median(seconds))
    begins = changes(zone, _years(seconds))
    if not begins:
        return np.full(len(seconds), offset_s(zone, middle))
    after = np.array([begins[0].before, *(change.after for change in begins)])
    return after[np.searchsorted([change.at for change in begins], seconds, side="right")]


class _CellError(ValueError):
    """A cell that cannot be read; `row` is its index in the block."""

    def __init__(self, row: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.row = row
        self.hint = hint


def _years(seconds: Doubles) -> Sequence[int]:
    """The years of these times, and those beside them at the turn of a year."""
    ends = np.array([seconds.min() - 86_400.0, seconds.max() + 86_400.0])
    first, last = _year_of(ends).tolist()
    if last - first < _MANY_YEARS:
        return range(first, last + 1)
    return np.unique(np.concatenate([_year_of(seconds - 86_400.0), _year_of(seconds + 86_400.0)])).tolist()  # type: ignore[no-any-return]


def _year_of(seconds: Doubles) -> Integers:
    return seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970


def _is_number(cell: str | float) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
