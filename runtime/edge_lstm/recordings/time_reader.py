"""Reads the cells of the columns of times, as seconds since 1970; errors name file, row and column."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime, timezone, tzinfo

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.local_times import Change, changes, instant, offset_s
from edge_lstm.foundation.time_units import is_wall_unit
from edge_lstm.foundation.times import format_time, local_time_parser, time_parser
from edge_lstm.recordings.columns import TimeColumns, cell_error, texts_of
from edge_lstm.recordings.number_times import refuse_doubtful_numbers
from edge_lstm.recordings.repeated_hours import settled
from edge_lstm.recordings.tables import Block, Cells, Table

_HOUR_S = 3600.0
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
        self._numbers: list[Doubles] = []  # the cells, if they are numbers without a unit
        self._place = ""  # file and column
        self._repeated: list[tuple[int, float]] = []  # row of all blocks, seconds to its second occurrence

    def read(self, table: Table, block: Block, columns: Sequence[Cells], names: Sequence[str]) -> Doubles:
        """(rows,). Raises EdgeLstmError at the first cell that is not a time."""
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
            if not isinstance(self._times.zone, timezone):
                self._find_set_clocks(texts, seconds)
        except _CellError as error:
            raise cell_error(table, block, error.row, '" and "'.join(names), str(error)) from None
        except ValueError as error:
            raise cell_error(table, block, row, '" and "'.join(names), str(error)) from None
        if self._times.format is None and self._times.unit is None and _is_number(texts[0]):
            self._numbers.append(np.array([float(text) if _is_number(text) else np.nan for text in texts]))
        self._place = self._place or f'{table.source}, column "{names[-1]}"'
        self._rows += len(texts)
        return seconds

    def finished(self, times: Doubles, stream_of: Integers) -> Doubles:
        """(rows,): the times of all blocks; where clocks were set back, those of the second occurrence are later.

        Raises EdgeLstmError if the times are numbers of which most give no time from 2000 until now, or if their clock
        has twelve hours without AM and PM.
        """
        if self._numbers:
            refuse_doubtful_numbers(self._place, np.concatenate(self._numbers), times)
        elif self._rows and self._times.unit is None and "%p" not in (self._times.format or ""):
            refuse_half_days(self._place, times + offsets(self._times.zone, times))
        rows = np.array([row for row, _ in self._repeated], np.int64)
        return settled(times, stream_of, rows, np.array([shift for _, shift in self._repeated]))

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
            instant(local, self._times.zone)
        except ValueError as error:
            raise _CellError(row, str(error)) from None
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


def refuse_half_days(place: str, local: Doubles) -> None:
    """Raises EdgeLstmError for a clock of twelve hours without AM and PM: each of its times may be one of two.

    `local`: (rows,) local times. `place`: file and column.
    """
    steps = np.diff(local)
    back = np.flatnonzero((steps < -10 * _HOUR_S) & (steps > -12 * _HOUR_S))
    if not len(back) or not np.array_equal(np.unique(local // _HOUR_S % 24), np.arange(1, 13)):
        return
    from_text, to_text = (format_time(float(local[row]))[11:16] for row in (back[0], back[0] + 1))
    raise EdgeLstmError(
        f"{place}: expected times of 24 hours, or with AM and PM, found hours 1 to 12, and {to_text} after {from_text}",
        "each of these times may be one of two: export the recording with 24 hours, or with AM and PM",
    )


class _CellError(ValueError):
    """A cell that cannot be read; `row` is its index in the block."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def _years(seconds: Doubles) -> list[int]:
    """The years of these times, and those beside them at the turn of a year."""
    near = np.concatenate([seconds - 86_400.0, seconds + 86_400.0])
    years: list[int] = (
        np.unique(near.astype("datetime64[s]").astype("datetime64[Y]")).astype(np.int64) + 1970
    ).tolist()
    return years


def _is_number(cell: str | float) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
