"""The newest times, from one process of the service to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.service.intake.kept_times import kept_times, newest_arrival_us, newest_time
from edge_lstm.service.intake.time_judge import TimeJudge

NOW_US = 1_800_000_000_123_457


def judge_of(newest: float) -> TimeJudge:
    return TimeJudge(300.0, 600.0, lambda: False, lambda stream: math.nan, newest)


def never() -> Iterator[float]:
    raise AssertionError("no stream is looked up where the newest time is known")


@pytest.mark.parametrize(("newest", "expected"), [(-math.inf, 1_800_000_000.123457), (1_900_000_000.25,) * 2])
def test_a_later_process_gets_the_times_bit_for_bit(newest: float, expected: float) -> None:
    arrivals = ArrivalClock(time_of_day=lambda: NOW_US, since_boot=lambda: 5)
    arrivals.next()
    kept = kept_times(arrivals, judge_of(newest))
    assert newest_arrival_us(kept) == NOW_US
    assert newest_time(kept, never) == expected


def test_without_kept_times_the_streams_are_looked_up() -> None:
    assert newest_arrival_us({}) is None
    assert newest_time({}, lambda: iter([3.0, math.nan, 7.5])) == 7.5
    assert newest_time({}, lambda: iter([])) == -math.inf
