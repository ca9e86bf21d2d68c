"""Arrival times of messages: whole microseconds that always rise, even if the clock is set back.

They are counted as integers. A float of seconds since 1970 resolves a quarter of a microsecond only, so an added
microsecond may be less than one in print.
"""

from __future__ import annotations

import logging
import time

from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

_SET_BACK_US = 1_000_000  # a smaller step is a normal correction of the clock


class ArrivalClock:
    """Gives each message an arrival time, and each reading if a message holds several without a time."""

    def __init__(self) -> None:
        self._us = 0
        self._behind = False
        self.latest = 0.0  # seconds since 1970

    def next(self) -> float:
        """Now, in seconds since 1970, but later than all times before.

        So messages that arrive together keep their order, and a clock that is set back makes no reading late.
        """
        now = time.time_ns() // 1000
        behind = now < self._us - _SET_BACK_US
        if behind and not self._behind:
            log.warning("clock was set back by_s=%.1f", (self._us - now) / 1e6)
        self._behind = behind
        return self._advance(max(now, self._us + 1))

    def with_own_time(self, reading: Reading, arrival: float) -> Reading:
        """The reading with a time of its own, if its time is its message's `arrival`."""
        if reading.time != arrival:
            return reading
        own_time = self.latest
        self._advance(self._us + 1)
        return reading._replace(time=own_time)

    def _advance(self, us: int) -> float:
        self._us, self.latest = us, us / 1e6
        return self.latest
