"""The newest times as values in the state database, from which a later process of the service goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.service.time_judge import TimeJudge

_ARRIVAL, _TIME = "newest_arrival", "newest_time"  # microseconds, and seconds since 1970


def kept_times(arrivals: ArrivalClock, judge: TimeJudge) -> dict[str, str]:
    """What a commit stores: the newest arrival time, and the newest time that any stream has."""
    return {_ARRIVAL: str(arrivals.latest_us), _TIME: repr(max(arrivals.latest, judge.newest))}


def newest_arrival_us(values: Mapping[str, str]) -> int | None:
    """The newest arrival time of earlier processes; None: there was none."""
    return int(values[_ARRIVAL]) if _ARRIVAL in values else None


def newest_time(values: Mapping[str, str], streams: int) -> float:
    """The time that no stored stream is beyond; inf where a state database without it has streams."""
    return float(values[_TIME]) if _TIME in values else math.inf if streams else -math.inf
