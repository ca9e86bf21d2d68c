"""The signals that ask a program to end, SIGTERM and Ctrl-C, and one that limits the time of a computation."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def ended_by_signals(end: Callable[[], object]) -> Iterator[list[int]]:
    """Within the block, SIGTERM and Ctrl-C call `end()` and append their number to the yielded list."""
    ended: list[int] = []

    def handle(number: int, frame: object) -> None:
        ended.append(number)
        end()

    signals = (signal.SIGTERM, signal.SIGINT)
    former = [signal.signal(number, handle) for number in signals]
    try:
        yield ended
    finally:
        for number, handler in zip(signals, former, strict=True):
            signal.signal(number, handler)


class OutOfTime(KeyboardInterrupt):
    """The time of a computation is over. A Ctrl-C by itself: code that cleans up after one does it here too."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block once `seconds` are over; at once where the system has no such timer (Windows)."""
    if not hasattr(signal, "setitimer"):
        raise OutOfTime

    def ring(number: int, frame: object) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
