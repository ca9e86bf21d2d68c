"""Judges the times of readings: which are too far ahead of the clock, and at which a stream restarts in another time.

docs/time.md has the rules as a table. This reads no clock: it gets the time of arrival, and whether that is right.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE, format_time
from edge_lstm.streaming.reading import Reading, Refusal

log = logging.getLogger(__name__)

_LEAST_TOLERANCE_S = 60.0  # messages take time, and clocks differ: no stream restarts for less
_LINES_A_MINUTE = 20
_UNREFUSED_LOGGED_EVERY_S = 3600.0


class TimeJudge:
    """Returns each reading as it has to be stepped, or a Refusal. The readings come in the order of their arrival.

    A stream whose last time lies more than `max_ahead_s` ahead of the clock restarts at a reading that does not. If the
    clock is not known to be right, it takes more: the stream goes back by more than `step_s`, and the reading is less
    than half as far from the clock as the last time, before or after it. Then two clocks agree against one.
    """

    def __init__(
        self,
        max_ahead_s: float,
        step_s: float,
        is_right: Callable[[], bool],
        last_time: Callable[[str], float],
        newest: float = math.inf,
        newest_now: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`step_s`: a stream that goes back by less is put in order by other means.

        `is_right`: whether the clock is known to be right. `last_time`: of a stream, in seconds since 1970; NaN for a
        new one. `newest`: no stream has a later time (inf: unknown), so that most batches need no look at any stream.
        `newest_now` says the same about the present, and may take some time.
        """
        self.newest = newest
        self.restarts = 0
        self.may_restart = False  # whether a stream may be ahead of the clock, so that it may restart
        self._max_ahead_s, self._step_s = max_ahead_s, step_s
        self._tolerance_s = max(max_ahead_s, _LEAST_TOLERANCE_S)
        self._is_right, self._last_time, self._newest_now = is_right, last_time, newest_now
        # of readings in this batch, which are not stepped yet
        self._restarted_at: dict[str, float] = {}
        self._latest: dict[str, float] = {}
        self._recount = RateLimitedLog(log)
        self._unrefused = RateLimitedLog(log, _UNREFUSED_LOGGED_EVERY_S)
        self._minute = RateLimitedLog(log)
        self._lines = 0  # in this minute

    def begin_batch(self, arrival: float) -> float:
        """Forget the readings that were not stepped; `needs_none_below`, at the begin of a batch."""
        self._restarted_at.clear()
        self._latest.clear()
        if self.newest - arrival > self._tolerance_s and self._recount.due():
            self.newest = min(self.newest, self._newest_now())
        self.newest = max(self.newest, arrival)  # the readings that need no judgement are not later
        return self.needs_none_below(arrival)

    def needs_none_below(self, arrival: float) -> float:
        """The time below which a reading that comes at `arrival` needs no judgement."""
        self.may_restart = self.newest - arrival > self._tolerance_s
        return -math.inf if self.may_restart else arrival

    def arrival_timed(self, reading: Reading) -> Reading:
        """A reading with the time of its arrival. It is never late."""
        time = reading.time
        if time > self.newest:  # the usual case
            self.newest = time
            return reading
        last = self._last(reading.stream)
        if last - time > self._step_s:
            return self._restart(reading, last, time)
        if last >= time:
            time = (round(last * 1e6) + 1) / 1e6
            reading = reading._replace(time=time)
        self._note(reading.stream, time)
        return reading

    def own_timed(self, reading: Reading, now: float) -> Reading | Refusal:
        """A reading with the time of its device, which came at `now`."""
        time, tolerance_s = reading.time, self._tolerance_s
        ahead_s = time - now
        if ahead_s > self._max_ahead_s:
            if self._is_known(now):
                return Refusal(reading.stream, time, self._reason(ahead_s))
            self._unrefused.log(
                logging.WARNING,
                "reading far ahead of the clock, which is not known to be right, so it is used stream=%s ahead_s=%.0f",
                reading.stream,
                ahead_s,
            )
        if self.newest - now > tolerance_s:
            last = self._last(reading.stream)
            if min(last - now, last - time) > tolerance_s and self._is_nearer(time, last, now):
                return self._restart(reading, last, now)
        if ahead_s > 0:
            self._note(reading.stream, time)
        return reading

    def _is_nearer(self, time: float, last: float, now: float) -> bool:
        """Whether a time agrees with the clock where the last one, which is ahead of it, does not."""
        if last - time > self._step_s and 2 * abs(time - now) < last - now:
            return True
        return time - now <= self._tolerance_s and self._is_known(now)

    def _is_known(self, now: float) -> bool:
        return now > CLOCK_UNSET_BEFORE and self._is_right()

    def _last(self, stream: str) -> float:
        """The last time of the stream, with the readings of this batch."""
        stepped = self._restarted_at.get(stream)
        if stepped is None:
            stepped = self._last_time(stream)
        latest = self._latest.get(stream, -math.inf)
        return stepped if stepped > latest else latest  # NaN is the time of a new stream

    def _note(self, stream: str, time: float) -> None:
        self._latest[stream] = max(time, self._latest.get(stream, time))
        self.newest = max(time, self.newest)

    def _restart(self, reading: Reading, last: float, now: float) -> Reading:
        self._restarted_at[reading.stream] = reading.time
        self._latest.pop(reading.stream, None)
        self.restarts += 1
        if self._minute.due():
            self._lines = 0
        self._lines += 1
        if self._lines <= _LINES_A_MINUTE:
            log.warning(
                "stream restarts, its last time was ahead of the clock stream=%s ahead_s=%.0f last=%s time=%s",
                reading.stream,
                last - now,
                format_time(round(last)),
                format_time(round(reading.time)),
            )
        elif self._lines == _LINES_A_MINUTE + 1:
            log.warning("more streams restart, the statistics count them as restarted")
        return reading._replace(restart=True)

    def _reason(self, ahead_s: float) -> str:
        return (
            f"expected a time at most {self._max_ahead_s:g} s ahead of this machine's clock (max_ahead_s), found one "
            f"{ahead_s:.0f} s ahead; the device's clock may be ahead, or this machine's behind"
        )
