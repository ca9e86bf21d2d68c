"""Labels that no column of a recording holds: windows of time, and how many rows are left."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.foundation.arrays import Doubles, Integers
from edge_lstm.foundation.errors import EdgeLstmError


@dataclass(frozen=True)
class LabelWindow:
    """From `begin` to `end`, both in it, in seconds since 1970; of one stream, or (None) of all."""

    begin: float
    end: float
    stream: str | None = None


@dataclass(frozen=True)
class LabelWindows:
    """1 inside any of the windows, 0 elsewhere."""

    windows: Sequence[LabelWindow]

    def of(self, streams: Sequence[str], stream_of: Integers, times: Doubles) -> Doubles:
        """(rows,). Raises EdgeLstmError where a window names no stream of the recording."""
        inside = np.zeros(len(times), bool)
        for window in self.windows:
            chosen = (times >= window.begin) & (times <= window.end)
            if window.stream is not None:
                if window.stream not in streams:
                    near = difflib.get_close_matches(window.stream, streams, 1, 0.6)
                    raise EdgeLstmError(
                        f'expected windows of streams of the recording, found one of "{window.stream}"',
                        f'did you mean "{near[0]}"?' if near else f"the streams are {', '.join(streams)}",
                    )
                chosen &= stream_of == streams.index(window.stream)
            inside |= chosen
        return inside.astype(np.float64)


@dataclass(frozen=True)
class Countdown:
    """How many rows of its stream follow: the remaining life of what is recorded until it fails."""

    def of(self, streams: Sequence[str], stream_of: Integers, times: Doubles) -> Doubles:
        """(rows,): 0 at each stream's last row in the order of time."""
        left = np.empty(len(times))
        for index in range(len(streams)):
            rows = np.flatnonzero(stream_of == index)
            left[rows[np.argsort(times[rows], kind="stable")]] = np.arange(len(rows))[::-1]
        return left
