"""The signals that ask a program to end: SIGTERM and Ctrl-C."""

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
