"""Labels that are computed, not read from a column: windows of time, and the number of remaining rows."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import decoded
from edge_lstm.foundation.times.text import parse_time

_NEEDED = ("from", "to", "stream")


@dataclass(frozen=True)
class LabelWindow:
    """The time from `begin` to `end` (inclusive, seconds since 1970), of one stream or (None) of all."""

    begin: float
    end: float
    stream: str | None = None


@dataclass(frozen=True)
class LabelWindows:
    """Label 1 inside any of the windows, 0 outside."""

    windows: Sequence[LabelWindow]

    def values(self, streams: Sequence[str], stream_of: Integers, times: Doubles) -> Doubles:
        """(rows,). Raises EdgeLstmError where a window names a stream that the recording does not have."""
        inside = np.zeros(len(times), bool)
        for window in self.windows:
            chosen = (times >= window.begin) & (times <= window.end)
            if window.stream is not None:
                if window.stream not in streams:
                    near = difflib.get_close_matches(window.stream, streams, 1, 0.6)
                    raise EdgeLstmError(
                        f'expected windows for streams of the recording, found one for "{window.stream}"',
                        f'did you mean "{near[0]}"?' if near else f"the streams are {', '.join(streams)}",
                    )
                chosen &= stream_of == streams.index(window.stream)
            inside |= chosen
        return inside.astype(np.float64)


def read_windows(path: Path, kind: str | None, zone: tzinfo) -> list[LabelWindow]:
    """The windows of a CSV file with the columns from, to, stream and kind; an empty stream means all streams.

    `kind`: of the windows that are taken, None: all; `zone`: of times that name none. Raises EdgeLstmError if the file
    or a line of it does not fit.
    """
    try:
        lines = list(csv.DictReader(decoded(path.read_bytes()).splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EdgeLstmError(
            f"expected a CSV file of windows at {path}, found: {error}",
            "name the file that edge-lstm feedback export wrote",
        ) from None
    columns = (*_NEEDED, "kind") if kind is not None else _NEEDED
    if lines and (missing := [name for name in columns if name not in lines[0]]):
        raise EdgeLstmError(
            f"expected the columns {', '.join(columns)} in {path}, found none named {', '.join(missing)}",
            "name the file that edge-lstm feedback export wrote",
        )
    chosen = [(number, line) for number, line in enumerate(lines, 2) if kind is None or line["kind"] == kind]
    return [_window(path, number, line, zone) for number, line in chosen]


def _window(path: Path, number: int, line: Mapping[str, str | None], zone: tzinfo) -> LabelWindow:
    try:
        begin, end = (parse_time(line[name], zone) for name in ("from", "to"))
    except ValueError as error:
        raise EdgeLstmError(f"{path}, line {number}: {error}", "correct the line") from None
    if begin > end:
        raise EdgeLstmError(
            f"{path}, line {number}: expected an end after its begin, found {line['from']} to {line['to']}",
            "correct the line",
        )
    return LabelWindow(begin, end, line["stream"] or None)


@dataclass(frozen=True)
class Countdown:
    """The number of later rows of the same stream: its remaining life, if it is recorded until a failure."""

    def values(self, streams: Sequence[str], stream_of: Integers, times: Doubles) -> Doubles:
        """(rows,): 0 at the latest row of each stream."""
        left = np.empty(len(times))
        for index in range(len(streams)):
            rows = np.flatnonzero(stream_of == index)
            left[rows[np.argsort(times[rows], kind="stable")]] = np.arange(len(rows))[::-1]
        return left
