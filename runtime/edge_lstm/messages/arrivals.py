"""Arrival times of messages: whole microseconds that rise, whatever happens to the clock, until it is set far back.

They are counted as integers. A float of seconds since 1970 resolves a quarter of a microsecond only, so an added
microsecond may be less than one in print.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_lstm.foundation.times.clock import since_boot_us, time_of_day_us
from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

LEAST_STEP_S = 300.0  # where a bundle has no max_gap_s: a smaller step is a correction of the clock, not another time
_NOTED_US = 1_000_000  # a smaller step is a normal correction, not worth a line
_SLOWER = 16  # until it agrees with a clock that was set back, arrival time loses one part in so many


class ArrivalClock:
    """Gives each message an arrival time, and each reading if a message holds several without a time.

    The time of day is compared with the time since the start of the machine, which nobody sets. If the clock is set
    forward, arrival times follow at once. If it is set back by at most `step_s`, they go on, a sixteenth slower until
    both agree: no reading is late, and the time between two readings stays nearly right. If it is set back further,
    arrival times begin again at the clock's time; `begun_again` counts that.
    """

    def __init__(
        self,
        step_s: float = LEAST_STEP_S,
        newest_us: int | None = None,
        *,
        time_of_day: Callable[[], int] = time_of_day_us,
        since_boot: Callable[[], int] = since_boot_us,
    ) -> None:
        """`newest_us`: about the last arrival time of an earlier process, in microseconds since 1970.

        `time_of_day` and `since_boot` return microseconds.
        """
        self._step_us = int(step_s * 1e6)
        self._time_of_day, self._since_boot = time_of_day, since_boot
        self._read_at = since_boot()
        self._resumes = newest_us is not None
        self._base = time_of_day() if newest_us is None else newest_us  # arrival time when the clocks were read last
        self._us = self._base if self._resumes else 0  # the last time that was given
        self._behind = False
        self.begun_again = 0

    @property
    def latest(self) -> float:
        """The last time that was given, in seconds since 1970."""
        return self._us / 1e6

    @property
    def latest_us(self) -> int:
        """The last time that was given, in microseconds since 1970."""
        return self._us

    def next(self) -> float:
        """Now, in seconds since 1970."""
        now, read_at = self._time_of_day(), self._since_boot()
        elapsed = max(read_at - self._read_at, 0)
        steady = self._base + elapsed
        self._read_at = read_at
        ahead = now - steady
        if ahead >= 0:
            self._base = now
            if ahead > self._step_us and not self._resumes:  # the service may have been off for any time
                log.warning("clock was set forward by_s=%.1f", ahead / 1e6)
        elif -ahead <= self._step_us:
            self._base = steady - min(-ahead, elapsed // _SLOWER)
            if -ahead > _NOTED_US and not self._behind:
                log.warning(
                    "clock was set back by_s=%.1f, arrival times run slower until it has caught up", -ahead / 1e6
                )
        else:
            log.warning("clock was set back by_s=%.1f, arrival times begin again", -ahead / 1e6)
            self._base = now
            self._us = min(self._us, now - 1)
            self.begun_again += 1
        self._behind = now < self._base - _NOTED_US
        self._resumes = False
        self._us = max(self._base, self._us + 1)
        return self.latest

    def another(self) -> float:
        """A microsecond later: messages that were received together keep their order."""
        self._us += 1
        return self.latest

    def with_own_time(self, reading: Reading, arrival: float) -> Reading:
        """The reading with a time of its own, if its time is its message's `arrival`."""
        if reading.time != arrival:
            return reading
        own_time = self.latest
        self._us += 1
        return reading._replace(time=own_time)
