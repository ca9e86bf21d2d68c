"""Forgets streams that had no reading for many days, some at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_lstm.service.intake.name_limit import NameLimit

log = logging.getLogger(__name__)

_DAY_S = 86_400.0
_LOOKED_EVERY_S = 600.0
_MOST_FORGOTTEN = 500  # at once


class IdleStreams:
    """Looks for idle streams; not soon after the start: they may not have had time to send."""

    def __init__(self, names: NameLimit, days: float | None, clock_is_right: Callable[[], bool]) -> None:
        """`days`: without a reading, None: no stream is forgotten. `clock_is_right`: whether it is known to be."""
        self._names, self._days, self._clock_is_right = names, days, clock_is_right
        self._due = time.monotonic() + _DAY_S * min(days or 0.0, 1.0)

    def forget(self, now: float) -> None:
        """Forget idle streams where it is due at `now` (monotonic seconds)."""
        days = self._days
        if days is None or now < self._due or not self._clock_is_right():
            return
        count = self._names.forget_idle(time.time() - _DAY_S * days, _MOST_FORGOTTEN)
        self._due = now + (min(_LOOKED_EVERY_S, _DAY_S * days) if count < _MOST_FORGOTTEN else 0.0)
        if count:
            log.info("streams without readings forgotten streams=%d forget_after=%g", count, days)
