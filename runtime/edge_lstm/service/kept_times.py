"""The newest times in the state database, from which a later process of the service goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping

from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.service.time_judge import TimeJudge

_ARRIVAL, _TIME = "newest_arrival", "newest_time"  # microseconds, and seconds since 1970
_KEPT_EVERY_S = 60.0  # a write to the disk with every batch would wear an SD card


class KeptTimes:
    """Stores the newest arrival time and a bound of all streams' times, about once a minute and at the end."""

    def __init__(self, arrivals: ArrivalClock, judge: TimeJudge, values: MutableMapping[str, str]) -> None:
        """`values`: by key, what the next commit stores."""
        self._arrivals, self._judge, self._values = arrivals, judge, values
        self._arrival = self._bound = -math.inf  # as they were stored, seconds since 1970
        self._begun_again = arrivals.begun_again

    def keep(self) -> None:
        """Before the commit of a batch: store what is due."""
        arrival = self._arrivals.latest
        begun_again = self._arrivals.begun_again
        if arrival > self._arrival + _KEPT_EVERY_S or begun_again != self._begun_again:
            self._arrival, self._begun_again = arrival, begun_again
            self._values[_ARRIVAL] = str(self._arrivals.latest_us)
        newest = max(arrival, self._judge.newest)
        if newest > self._bound:
            self._bound = newest + _KEPT_EVERY_S
            self._values[_TIME] = repr(self._bound)

    def keep_now(self) -> None:
        """At the end: store the newest arrival time itself."""
        self._values[_ARRIVAL] = str(self._arrivals.latest_us)


def newest_arrival_us(values: Mapping[str, str]) -> int | None:
    """The newest arrival time of earlier processes, at most a minute too early; None: there was none."""
    return int(values[_ARRIVAL]) if _ARRIVAL in values else None


def newest_time(values: Mapping[str, str], streams: int) -> float:
    """A time that no stored stream is beyond; inf where a state database without it has streams."""
    return float(values[_TIME]) if _TIME in values else math.inf if streams else -math.inf
