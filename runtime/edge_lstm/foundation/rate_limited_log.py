"""A log that repeats itself at most once per interval."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable

_MOST_KEYS = 1000


class RateLimitedLog:
    """Writes a line about a key at most once every `interval_s` seconds, and drops the others.

    A key names what a line is about (None: all lines are about the same). Keys do not limit each other, but there is a
    bound of keys within an interval: an untrusted source may choose them, as in the names of topics.
    """

    def __init__(
        self, logger: logging.Logger, interval_s: float = 60.0, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` gives seconds that never run backwards (default: time.monotonic)."""
        self._logger, self._interval_s = logger, interval_s
        self._clock = clock or time.monotonic
        self._written_at: dict[Hashable, float] = {}

    def due(self, key: Hashable = None) -> bool:
        """Whether a line about `key` may be written now. If so, the caller writes it: the interval starts here."""
        now = self._clock()
        written_at = self._written_at.get(key)
        if written_at is not None and now - written_at < self._interval_s:
            return False
        if len(self._written_at) >= _MOST_KEYS:
            self._forget_old(now)
            if len(self._written_at) >= _MOST_KEYS:
                return False
        self._written_at[key] = now
        return True

    def _forget_old(self, now: float) -> None:
        written_at = self._written_at
        self._written_at = {key: at for key, at in written_at.items() if now - at < self._interval_s}

    def log(self, level: int, message: str, *facts: object, key: Hashable = None) -> bool:
        """Write `message % facts` if a line about `key` is due. Returns whether it was written."""
        due = self.due(key)
        if due:
            self._logger.log(level, message, *facts, stacklevel=2)
        return due

    def reset(self) -> None:
        """Start again: the next line about each key is written at once."""
        self._written_at.clear()
