"""The newest times as values in the state database, from which a later process of the service goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.service.intake.time_judge import TimeJudge

_ARRIVAL, _TIME = "newest_arrival", "newest_time"  # microseconds, and seconds since 1970


def kept_times(arrivals: ArrivalClock, judge: TimeJudge) -> dict[str, str]:
    """What a commit stores: the newest arrival time, and the newest time that any stream has."""
    return {_ARRIVAL: str(arrivals.latest_us), _TIME: repr(max(arrivals.latest, judge.newest))}


def newest_arrival_us(values: Mapping[str, str]) -> int | None:
    """The newest arrival time of earlier processes; None: there was none."""
    return int(values[_ARRIVAL]) if _ARRIVAL in values else None


def newest_time(values: Mapping[str, str], last_times: Callable[[], Iterable[float]]) -> float:
    """The time that no stored stream is beyond. Databases of 0.1.0 do not have it: found in the `last_times` of all."""
    if _TIME in values:
        return float(values[_TIME])
    return max((time for time in last_times() if not math.isnan(time)), default=-math.inf)
