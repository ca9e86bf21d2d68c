"""Arrival times: distinct and in order, also when rounded to microseconds."""

import logging
from typing import Any

import pytest

from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.streaming.reading import Reading

_NOW_NS = 1_795_300_000_123_456_789


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock of one cell, in nanoseconds since 1970."""
    cell = [_NOW_NS]
    monkeypatch.setattr("edge_lstm.messages.arrivals.time.time_ns", lambda: cell[0])
    return cell


def test_simultaneous_messages_get_times_a_microsecond_apart(clock: list[int]) -> None:
    arrivals = ArrivalClock()
    written = [round(arrivals.next() * 1e6) for _ in range(10_000)]
    assert written == list(range(_NOW_NS // 1000, _NOW_NS // 1000 + 10_000))


def test_readings_of_one_message_get_distinct_times(clock: list[int]) -> None:
    arrivals = ArrivalClock()
    arrival = arrivals.next()
    own = [arrivals.with_own_time(Reading("pump", arrival, {}), arrival).time for _ in range(100)]
    assert own[0] == arrival
    first = _NOW_NS // 1000
    assert [round(time * 1e6) for time in own] == list(range(first, first + 100))
    assert arrivals.next() > own[-1]
    assert arrivals.with_own_time(Reading("pump", 5.0, {}), arrival).time == 5.0


def test_a_clock_set_back_makes_nothing_late_and_is_logged_once(clock: list[int], caplog: Any) -> None:
    arrivals = ArrivalClock()
    before = arrivals.next()
    clock[0] -= 3600 * 10**9
    with caplog.at_level(logging.WARNING):
        assert before < arrivals.next() < arrivals.next() < before + 1e-5
    assert [record.getMessage() for record in caplog.records] == ["clock was set back by_s=3600.0"]
