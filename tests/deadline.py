"""Waits for an event with a deadline, in place of a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 30.0  # for what takes well below a second on a quiet machine


def wait_until(done: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until `done()` is true; fail with `what` in the message after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"expected within {timeout_s:.0f} s that {what}"
        time.sleep(0.02)
