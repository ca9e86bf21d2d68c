"""When messages came: moments in whole microseconds, each later than all before, whatever the clock does.

A time in seconds since 1970 is a float that knows a quarter of a microsecond, so adding a microsecond to it may add
less than one when it is written out; counting in integers cannot.
"""

from __future__ import annotations

import logging
import time

from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

_SET_BACK_US = 1_000_000  # a smaller step is a clock that is being disciplined


class ArrivalClock:
    """Moments for messages and, where a message has many readings without a time, for each of those."""

    def __init__(self) -> None:
        self._us = 0
        self._behind = False
        self.latest = 0.0  # seconds since 1970

    def next(self) -> float:
        """Now, in seconds since 1970, and later than ever before: two messages of a moment are two, in their order,
        and a clock that is set back makes nothing late."""
        now = time.time_ns() // 1000
        behind = now < self._us - _SET_BACK_US
        if behind and not self._behind:
            log.warning("clock was set back by_s=%.1f", (self._us - now) / 1e6)
        self._behind = behind
        return self._advance(max(now, self._us + 1))

    def own(self, reading: Reading, arrival: float) -> Reading:
        """The reading with a moment of its own, where its time is that of its message's `arrival`."""
        if reading.time != arrival:
            return reading
        moment = self.latest
        self._advance(self._us + 1)
        return reading._replace(time=moment)

    def _advance(self, us: int) -> float:
        self._us, self.latest = us, us / 1e6
        return self.latest
