"""Counts what happens to the readings of each stream, and logs it in few lines. No reading is dropped without a line.

The first dropped reading of a stream is logged with its reason; after that, the counts are logged once an hour.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from edge_lstm.bundle.contract import Sampling
from edge_lstm.foundation.rate_limited_log import RateLimitedLog

log = logging.getLogger(__name__)

_HOUR_S = 3600.0
_MOST_STREAMS = 4096  # that are counted; strangers can make up any number of names
_LONGEST_NAME = 200  # characters; a topic that is counted in place of a stream may be longer
_MOST_LINES = 20  # about single streams, an hour
_DROPPED_IN_A_ROW = 20  # readings of a stream
_ALL_DROPPED_IN_A_ROW = 200  # readings of all streams
_RESTARTS_IN_A_ROW = 3
_YEAR_2000 = 946_684_800.0


class _Tally:
    """What happened to the readings of one stream."""

    __slots__ = ("dropped_at", "dropped_in_a_row", "fates", "logged_at", "restarted_at", "restarts_in_a_row")

    def __init__(self) -> None:
        self.fates: Counter[str] = Counter()
        self.dropped_at = -1  # the stream's step at the last dropped reading
        self.dropped_in_a_row = 0
        self.restarted_at = -1  # the stream's step at the last restart
        self.restarts_in_a_row = 0
        self.logged_at = -math.inf  # when the restarts were logged


class StreamWatch:
    """The counts of dropped readings and restarts, in all and by stream. Its memory is bounded."""

    def __init__(self, sampling: Sampling, clock: Callable[[], float] = time.monotonic) -> None:
        """`sampling`: of the bundle. `clock` gives seconds that never run backwards, for the rate of log lines."""
        self.counts: Counter[str] = Counter(duplicate=0, late=0, costly=0)
        self.redelivered: Collection[str] = ()  # streams whose messages the broker repeats: drops are normal
        self.is_repeating = False  # whether samples are stepped again after a late one: nothing new happens
        self.drops: Counter[str] = Counter()  # by stream, until the caller clears it: those of a batch
        self.dropped_in_a_row = 0  # of all streams; the caller sets 0 when a reading is used
        self.last: dict[str, tuple[str, str]] = {}  # by fate: stream and reason of the reading that was dropped last
        self._sampling, self._clock = sampling, clock
        self._streams: dict[str, _Tally] = {}
        self._hour: Counter[str] = Counter()  # fates since the last line of counts
        self._hour_begun = -math.inf
        self._lines = 0  # about single streams, in this hour
        self._restarts = RateLimitedLog(log, clock=clock)
        self._none_used = RateLimitedLog(log, _HOUR_S, clock)
        self._numbers_logged: set[str] = set()

    def dropped(self, stream: str, fate: str, reason: str, step: int) -> None:
        """A reading of the stream is dropped: `fate` is duplicate, late or costly.

        `step`: of the stream; readings that are dropped without a step between them are dropped in a row.
        """
        self.counts[fate] += 1
        self.drops[stream] += 1
        self.last[fate] = stream, reason
        normal = stream in self.redelivered  # one that was received long ago counts as late
        tally = self._tally(stream)
        if self._is_first(tally, fate):
            level = logging.INFO if normal else logging.WARNING
            what = " that the broker sent again" if normal else ""
            log.log(level, "reading dropped%s fate=%s stream=%s: %s", what, fate, stream, reason)
        if not normal:
            self._count_in_a_row(stream, tally, fate, reason, step)

    def refused(self, stream: str) -> bool:
        """A message or reading of the stream is refused. Returns whether the caller should log it as the first one."""
        return self._is_first(self._tally(stream), "refused")

    def restarted(self, stream: str, step: int, time: float, gap_s: float = math.nan) -> None:
        """The state of the stream restarts at its reading of this time, after `step` steps.

        `gap_s`: the silence before it; NaN: its times began again.
        """
        if self.is_repeating:
            return
        tally = self._tally(stream)
        tally.fates["restarts"] += 1
        apart = step - tally.restarted_at
        tally.restarts_in_a_row = tally.restarts_in_a_row + 1 if 0 < apart <= 2 else 1
        tally.restarted_at = step
        if not math.isnan(gap_s):
            facts = (stream, gap_s, tally.fates["restarts"])
            self._restarts.log(logging.INFO, "stream restarts stream=%s gap_s=%.1f restarts=%d", *facts)
        due = self._clock() - tally.logged_at >= _HOUR_S
        if tally.restarts_in_a_row >= _RESTARTS_IN_A_ROW and due and self._may_log():
            tally.logged_at = self._clock()
            log.warning(
                "stream restarts at most of its readings stream=%s restarts=%d%s: %s",
                stream,
                tally.fates["restarts"],
                "" if math.isnan(gap_s) else f" gap_s={gap_s:.1f}",
                self._cause(time, gap_s),
            )

    def number_fell(self, stream: str, last: int, number: int, bits: int | None) -> None:
        """The device's sequence went from `last` to a smaller `number`: a counter of `bits` wrapped, or it restarted.

        It is logged once for each stream.
        """
        if stream in self._numbers_logged or len(self._numbers_logged) >= _MOST_STREAMS:
            return
        self._numbers_logged.add(stream)
        if bits is not None:
            log.info("sequence wraps, as one of %d bits does stream=%s from=%d to=%d", bits, stream, last, number)
        else:
            log.warning(
                "sequence begins again, as after a restart of the device stream=%s from=%d to=%d", stream, last, number
            )

    def log_counts(self) -> None:
        """Log the counts of dropped readings if an hour has passed since the first of them."""
        if not self._hour or self._clock() - self._hour_begun < _HOUR_S:
            return
        counts = " ".join(f"{fate}={count}" for fate, count in sorted(self._hour.items()))
        worst = ", ".join(str(one["stream"]) for one in self.worst(3))
        log.warning("readings dropped in the last hour %s; since the start most of %s", counts, worst)
        self._hour.clear()
        self._lines = 0

    def worst(self, most: int = 10) -> list[dict[str, Any]]:
        """The streams with most dropped readings and restarts, and their counts by fate."""
        busy = sorted(self._streams.items(), key=lambda item: (-item[1].fates.total(), item[0]))[:most]
        return [{"stream": stream, **tally.fates} for stream, tally in busy]

    def _is_first(self, tally: _Tally, fate: str) -> bool:
        """Count a reading. Returns whether it is the first of its stream with this fate, and may be logged."""
        self.log_counts()
        if not self._hour:
            self._hour_begun = self._clock()
        self._hour[fate] += 1
        tally.fates[fate] += 1
        return tally.fates[fate] == 1 and self._may_log()

    def _count_in_a_row(self, stream: str, tally: _Tally, fate: str, reason: str, step: int) -> None:
        tally.dropped_in_a_row = tally.dropped_in_a_row + 1 if step == tally.dropped_at else 1
        tally.dropped_at = step
        if tally.dropped_in_a_row == _DROPPED_IN_A_ROW and self._may_log():
            facts = (stream, _DROPPED_IN_A_ROW, fate, reason)
            log.warning(
                "stream stands still stream=%s: its last %d readings were dropped, the last one as %s: %s", *facts
            )
        self.dropped_in_a_row += 1
        if self.dropped_in_a_row >= _ALL_DROPPED_IN_A_ROW and self._none_used.due():
            counts = " ".join(f"{name}={count}" for name, count in sorted(self._hour.items()))
            log.warning("no reading is used, the last %d were dropped %s", self.dropped_in_a_row, counts)

    def _cause(self, time: float, gap_s: float) -> str:
        """The likely cause of restarts at most readings."""
        interval_s, max_gap_s = self._sampling.interval_s, self._sampling.max_gap_s
        if math.isnan(gap_s):
            return "its times jump: two devices have one name, or a time zone is wrong (timezone)"
        if time < _YEAR_2000:
            return (
                "its times lie before 2000: they count from the start of the device, or are in another unit (time_unit)"
            )
        if interval_s and 300 <= gap_s / interval_s <= 3000:
            return (
                "its gaps are about 1000 intervals: its times may be milliseconds that were read as seconds (time_unit)"
            )
        return f"interval_s={interval_s} and max_gap_s={max_gap_s} of the bundle do not fit readings so far apart"

    def _tally(self, stream: str) -> _Tally:
        tally = self._streams.get(stream)
        if tally is None and len(stream) > _LONGEST_NAME:
            return self._tally(f"{stream[: _LONGEST_NAME - 1]}…")
        if tally is None:
            if len(self._streams) >= _MOST_STREAMS:
                self._streams = dict(
                    sorted(self._streams.items(), key=lambda item: -item[1].fates.total())[: _MOST_STREAMS // 2]
                )
            tally = self._streams[stream] = _Tally()
        return tally

    def _may_log(self) -> bool:
        """Whether a line about one stream may be logged; if so, it is counted."""
        self._lines += 1
        return self._lines <= _MOST_LINES
