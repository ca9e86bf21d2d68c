"""A computation that takes too long is ended, although Python ignores exceptions in some places."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable

import pytest

from edge_lstm.foundation.signals import OutOfTime, time_limit

LONG_S = 60.0  # never waited for: the limit ends it


def ring() -> None:
    """The timer's signal, as if the time were over now."""
    os.kill(os.getpid(), signal.SIGALRM)


def end_now(heard: list[str]) -> None:
    """Have the timer ring at once, and then as often as it would; wait for it."""
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, signal.getitimer(signal.ITIMER_REAL)[1])
        time.sleep(LONG_S)
    except OutOfTime:
        heard.append("the end")
        raise


def in_a_finalizer(heard: list[str]) -> None:
    class Held:
        def __del__(self) -> None:
            end_now(heard)

    Held()


def in_a_callback_of_the_garbage_collector(heard: list[str]) -> None:
    def called(phase: str, facts: object) -> None:
        if phase == "start":
            gc.callbacks.remove(called)
            end_now(heard)

    gc.callbacks.append(called)
    gc.collect()


def in_code_that_catches_it(heard: list[str]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        end_now(heard)


def test_a_block_is_ended_when_its_time_is_over_and_the_timer_with_it() -> None:
    former = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime), time_limit(0.01):
        time.sleep(LONG_S)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is former


def test_a_block_that_ends_in_time_stops_the_timer() -> None:
    with time_limit(LONG_S):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # how Python tells of the first one
@pytest.mark.parametrize("swallow", [in_a_finalizer, in_a_callback_of_the_garbage_collector, in_code_that_catches_it])
def test_an_end_that_python_ignores_is_repeated(swallow: Callable[[list[str]], None]) -> None:
    heard: list[str] = []

    def work() -> None:
        swallow(heard)
        time.sleep(LONG_S)

    with pytest.raises(OutOfTime), time_limit(LONG_S):
        work()
    assert heard == ["the end"]


def test_code_that_cleans_up_is_not_interrupted_again() -> None:
    cleaned = []

    def work() -> None:
        try:
            ring()
        finally:
            ring()
            cleaned.append("in finally")
            with contextlib.suppress(ValueError):
                follow()

    def follow() -> None:
        try:
            raise ValueError("of the cleaning")
        except ValueError:
            ring()
            cleaned.append("in what follows from it")
            raise

    with pytest.raises(OutOfTime), time_limit(LONG_S):
        work()
    assert cleaned == ["in finally", "in what follows from it"]
