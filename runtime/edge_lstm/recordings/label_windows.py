"""Labels that are computed, not read from a column: windows of time, and the number of remaining rows."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.errors import EdgeLstmError


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
