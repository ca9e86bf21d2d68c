"""The signals that ask a program to end, SIGTERM and Ctrl-C, and one that limits the time of a computation."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

_AGAIN_S = 0.2  # Python ignores what is raised in a finalizer or a callback of the garbage collector


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
    """Raise OutOfTime in the block once `seconds` are over, and again until it leaves the block.

    It is not raised again in code that cleans up after it. At once where the system has no such timer (Windows).
    """
    if not hasattr(signal, "setitimer"):
        raise OutOfTime

    def ring(number: int, frame: object) -> None:
        if not _is_handled(OutOfTime):
            raise OutOfTime

    former = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, former)


def _is_handled(kind: type[BaseException]) -> bool:
    """Whether an exception of this kind, or one that followed from it, is being handled."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None
