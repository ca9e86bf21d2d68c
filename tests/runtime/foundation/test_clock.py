"""The clocks of this machine, and when its time of day is known to be right."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from edge_lstm.foundation.times.clock import ClockTrust, Trust, kernel_synchronized, since_boot_us, time_of_day_us


def difference(first: Callable[[], float], second: Callable[[], float]) -> float:
    """Of two clocks: the least that was found, since a busy machine may pause between them."""
    return min(first() - second() for _ in range(20))


def test_reading_the_clock_state_does_not_change_the_clock() -> None:
    before = difference(time.time, time.monotonic)
    assert kernel_synchronized() in (True, False, None)
    assert difference(time.time, time.monotonic) == pytest.approx(before, abs=1)


def test_the_time_since_boot_rises_as_the_time_of_day_does() -> None:
    before = difference(time_of_day_us, since_boot_us)
    assert difference(time_of_day_us, since_boot_us) == pytest.approx(before, abs=1_000_000)


@pytest.mark.parametrize("said", [True, False, None])
@pytest.mark.parametrize(("trust", "right"), [("kernel", None), ("always", True), ("never", False)])
def test_the_clock_is_right_if_the_config_or_the_kernel_says_so(
    trust: Trust, right: bool | None, said: bool | None
) -> None:
    assert ClockTrust(trust, lambda: said)() is (said is True if right is None else right)


def test_the_kernel_is_asked_at_most_once_a_second() -> None:
    now, answers = [100.0], [False, True, False]
    trusted = ClockTrust("kernel", lambda: answers.pop(0), lambda: now[0])
    found = []
    for now[0] in (100.0, 100.9, 101.0, 101.5, 102.5):
        found.append(trusted())
    assert found == [False, False, True, True, False]
    assert answers == []
