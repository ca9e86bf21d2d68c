"""Waiting for an event, with a deadline, instead of sleeping for luck."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(done: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Until `done()` is true; a failure that names `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"expected within {timeout_s:.0f} s that {what}"
        time.sleep(0.02)
