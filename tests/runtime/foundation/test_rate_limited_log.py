"""A repeated log line is written once per interval and key."""

from __future__ import annotations

import logging

import pytest

from edge_lstm.foundation.rate_limited_log import RateLimitedLog

log = logging.getLogger("edge_lstm.test")


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0  # a machine may have started just now

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_the_first_line_is_written_and_the_next_after_the_interval(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    limited = RateLimitedLog(log, 60.0, clock)
    written = []
    for clock.now_s in (0.0, 1.0, 59.9, 60.0, 119.9, 120.0):
        written.append(limited.log(logging.WARNING, "payload refused refused=%d", len(written) + 1))
    assert written == [True, False, False, True, False, True]
    assert [record.getMessage() for record in caplog.records] == [f"payload refused refused={n}" for n in (1, 4, 6)]
    assert {(record.levelname, record.name) for record in caplog.records} == {("WARNING", "edge_lstm.test")}
    assert {record.funcName for record in caplog.records} == {
        "test_the_first_line_is_written_and_the_next_after_the_interval"
    }


def test_a_dropped_line_does_not_lengthen_the_interval(clock: FakeClock) -> None:
    limited = RateLimitedLog(log, 60.0, clock)
    due = []
    for clock.now_s in (0.0, 50.0, 70.0):
        due.append(limited.due())
    assert due == [True, False, True]


def test_keys_do_not_limit_each_other(clock: FakeClock) -> None:
    limited = RateLimitedLog(log, 60.0, clock)
    assert [limited.due(key) for key in ("a", "b", "a", None, "b", None)] == [True, True, False, True, False, False]


def test_a_reset_makes_every_key_due(clock: FakeClock) -> None:
    limited = RateLimitedLog(log, 60.0, clock)
    assert limited.due("a")
    limited.reset()
    assert [limited.due("a"), limited.due("a")] == [True, False]


def test_a_thousand_keys_within_an_interval_are_the_most(clock: FakeClock) -> None:
    limited = RateLimitedLog(log, 60.0, clock)
    assert sum(limited.due(f"topic {number}") for number in range(5000)) == 1000
    assert not limited.due("one more")
    clock.now_s = 61.0
    assert limited.due("one more")
    assert len(limited._written_at) == 1
