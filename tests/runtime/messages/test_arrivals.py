"""Arrival times: distinct and in order, also when rounded to microseconds, and whatever happens to the clock."""

import logging

import pytest

from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.streaming.reading import Reading

_NOW_US = 1_795_300_000_123_456


class Clocks:
    """The time of day and the time since boot, in microseconds."""

    def __init__(self) -> None:
        self.day, self.boot = _NOW_US, 50_000_000

    def run(self, seconds: float) -> None:
        """Time passes."""
        self.day += int(seconds * 1e6)
        self.boot += int(seconds * 1e6)

    def set(self, by_seconds: float) -> None:
        """Somebody sets the time of day."""
        self.day += int(by_seconds * 1e6)

    def arrivals(self, step_s: float = 600.0, newest_us: int | None = None) -> ArrivalClock:
        return ArrivalClock(step_s, newest_us, time_of_day=lambda: self.day, since_boot=lambda: self.boot)


def us(seconds: float) -> int:
    return round(seconds * 1e6)


def test_simultaneous_messages_get_times_a_microsecond_apart() -> None:
    arrivals = Clocks().arrivals()
    written = [us(arrivals.next()), *(us(arrivals.another()) for _ in range(5000))]
    written += [us(arrivals.next()) for _ in range(5000)]
    assert written == list(range(_NOW_US, _NOW_US + 10_001))


def test_readings_of_one_message_get_distinct_times() -> None:
    arrivals = Clocks().arrivals()
    arrival = arrivals.next()
    own = [arrivals.with_own_time(Reading("pump", arrival, {}), arrival).time for _ in range(100)]
    assert own[0] == arrival
    assert [us(time) for time in own] == list(range(_NOW_US, _NOW_US + 100))
    assert arrivals.next() > own[-1]
    assert arrivals.with_own_time(Reading("pump", 5.0, {}), arrival).time == 5.0


def test_arrival_times_follow_a_clock_that_is_set_forward(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    arrivals = clocks.arrivals()
    arrivals.next()
    clocks.run(10)
    clocks.set(500)
    assert us(arrivals.next()) == clocks.day
    assert not caplog.records
    clocks.set(3 * 86_400)
    assert us(arrivals.next()) == clocks.day
    assert [record.getMessage() for record in caplog.records] == ["clock was set forward by_s=259200.0"]
    assert arrivals.begun_again == 0


def test_a_clock_set_back_a_little_lets_arrival_times_go_on_slower(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    arrivals = clocks.arrivals()
    before = us(arrivals.next())
    clocks.set(-500)
    times = []
    for _ in range(12):
        clocks.run(800)
        times.append(us(arrivals.next()))
    assert times[0] - before == 750_000_000  # a sixteenth slower
    assert times[8] == times[0] + 8 * 750_000_000 > clocks.day - 3 * 800_000_000
    assert times[-1] == clocks.day  # they agree again
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage().startswith("clock was set back by_s=500.0")


def test_a_clock_set_far_back_lets_arrival_times_begin_again(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    arrivals = clocks.arrivals()
    arrivals.next()
    clocks.run(3600)  # nothing came for an hour
    clocks.set(-1000)
    assert us(arrivals.next()) == clocks.day
    clocks.run(1)
    assert us(arrivals.next()) == clocks.day
    assert [record.getMessage() for record in caplog.records] == [
        "clock was set back by_s=1000.0, arrival times begin again"
    ]
    assert arrivals.begun_again == 1


@pytest.mark.parametrize(("back_s", "goes_on"), [(-30, True), (0, True), (500, True), (700, False), (3600, False)])
def test_a_later_process_goes_on_from_the_newest_arrival(back_s: float, goes_on: bool) -> None:
    clocks = Clocks()
    newest = clocks.day
    clocks.set(-back_s)
    arrivals = clocks.arrivals(newest_us=newest)
    first = us(arrivals.next())
    assert first == (max(clocks.day, newest + 1) if goes_on else clocks.day)
    assert arrivals.begun_again == (not goes_on)
    clocks.run(1)
    assert first < us(arrivals.next()) <= first + 1_000_000


def test_days_without_the_service_are_no_step_of_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    newest = clocks.day
    clocks.run(5 * 86_400)
    assert us(clocks.arrivals(newest_us=newest).next()) == clocks.day
    assert not caplog.records


def test_time_in_suspend_is_no_step_of_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    arrivals = clocks.arrivals()
    arrivals.next()
    clocks.run(8 * 3600)  # the time since boot counts while the machine is suspended
    assert us(arrivals.next()) == clocks.day
    assert not caplog.records
