"""Local times that a zone has twice or never: which of the two a time is, by the order of a stream's readings.

Only times near a change of the clocks are looked at. It keeps the last time of each stream then, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo

from edge_lstm.foundation.times.text import CLOCK_UNSET_BEFORE

_EPOCH = datetime(1970, 1, 1)
_DAY_S = 86_400.0
_MOST_DAYS = 60  # looked at on each side of a time
_MARGIN_S = 3 * _DAY_S  # around a change of the clocks
_HALF_S = 1800.0
_MOST_STREAMS = 10_000  # whose last time is kept; strangers can make up any number of names
_AN_HOUR_EAST = timezone(timedelta(hours=1))


class LocalTimes:
    """The times of one zone."""

    def __init__(self, zone: tzinfo, parse: Callable[[object, tzinfo], float]) -> None:
        """`parse`: a value to seconds since 1970, where a time without a zone is in the given one."""
        self._zone, self._parse = zone, parse
        self._last: dict[str, tuple[float, float]] = {}  # by stream: time and arrival
        self.unchanged = (0.0, 0.0)  # from, until: seconds since 1970 between which the clocks do not change
        self._near = (0.0, 0.0)  # from, until: around one of their changes

    def read(self, value: object, seconds: float, stream: str, arrival: float) -> float:
        """The time of a stream's reading, which `parse` read as `seconds`.

        Raises ValueError if the value is a local time that does not exist.
        """
        if not self._changes_at(seconds):
            return seconds
        both = self._both(value)
        if both is not None and both[0] != both[1]:
            first, second = both
            if first > second:
                raise ValueError(
                    f"{value!r} does not exist in {self._zone}, where the clocks were set forward then: "
                    "set timezone to the zone of the device's clock"
                )
            seconds = self._chosen(first, second, stream, arrival)
        self._last.pop(stream, None)
        self._last[stream] = seconds, arrival
        if len(self._last) > _MOST_STREAMS:
            del self._last[next(iter(self._last))]
        return seconds

    def _changes_at(self, seconds: float) -> bool:
        """Whether the clocks of the zone may change around that time. This finds out where they do not."""
        low, high = self.unchanged
        if low <= seconds < high:
            return False
        near_from, near_until = self._near
        if near_from <= seconds < near_until:
            return True
        begin, end = _same_offset(self._zone, seconds)
        if begin + _MARGIN_S <= seconds < end - _MARGIN_S:
            self.unchanged = begin + _MARGIN_S, end - _MARGIN_S
            return False
        change = begin if seconds < begin + _MARGIN_S else end  # to a day
        self._near = change - _MARGIN_S, change + _MARGIN_S
        return True

    def _both(self, value: object) -> tuple[float, float] | None:
        """The first and the second time that a local time can be; None if the value has a zone of its own."""
        try:
            wall = self._parse(value, timezone.utc)
            if wall - self._parse(value, _AN_HOUR_EAST) != 3600.0:
                return None
        except ValueError:
            return None  # it names a zone that only this zone knows
        local = _EPOCH + timedelta(seconds=wall)
        first, second = (local.replace(tzinfo=self._zone, fold=fold).timestamp() for fold in (0, 1))
        return first, second

    def _chosen(self, first: float, second: float, stream: str, arrival: float) -> float:
        """Which of the two times it is: none that is still to come, and else the nearest to the stream's last time."""
        clock_is_set = arrival > CLOCK_UNSET_BEFORE
        if clock_is_set and arrival < second - 60.0:
            return first
        last, arrived = self._last.get(stream, (-_DAY_S, 0.0))
        if last == first:  # the same text again: a repetition, or hourly readings
            return second if arrival - arrived >= _HALF_S else first
        if first - 3600.0 <= last < second + 3600.0:
            return second if second - last <= last - first else first
        return second if clock_is_set and arrival - second < _HALF_S else first


def _same_offset(zone: tzinfo, seconds: float) -> tuple[float, float]:
    """From, until: the days around `seconds` at which the zone has the same offset, at most 60 on each side."""
    offset = _offset(zone, seconds)
    ends = []
    for step in (-_DAY_S, _DAY_S):
        at = seconds
        for _ in range(_MOST_DAYS):
            if _offset(zone, at + step) != offset:
                break
            at += step
        ends.append(at)
    return ends[0], ends[1]


def _offset(zone: tzinfo, seconds: float) -> timedelta | None:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=timezone.utc).astimezone(zone).utcoffset()
    except (OverflowError, ValueError):
        return None  # at an end of the calendar
