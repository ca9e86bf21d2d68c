"""When to connect to a broker again."""

from __future__ import annotations

import random
import time

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_SHORT_S = 10.0  # an accepted connection that lasts less
_MOST_SHORT = 3  # in a row, before they have a reason


class ReconnectTimer:
    """Pauses between attempts to connect: none after a connection that lasted, else random ones that double."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._retry_at = 0.0
        self._begun_at = 0.0
        self._short_in_a_row = 0

    @property
    def wait_s(self) -> float:
        """Seconds until the next attempt; 0 or less: now."""
        return self._retry_at - time.monotonic()

    def attempt_begins(self) -> None:
        """Note when the connection begins."""
        self._begun_at = time.monotonic()

    def attempt_failed(self) -> None:
        """Pause longer. Random, so that a thousand devices do not return to a broker at the same moment."""
        self._retry_at = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def connection_ended(self) -> None:
        """Pause after a connection that ended at once, as after a failed attempt: the broker may refuse us."""
        if time.monotonic() - self._begun_at < _LONGEST_PAUSE_S:
            self.attempt_failed()
        else:
            self._retry_at, self._pause_s = 0.0, _FIRST_PAUSE_S

    def reconnect_at_once(self) -> None:
        """Do not pause after a connection that we ended ourselves."""
        self._retry_at, self._pause_s = 0.0, _FIRST_PAUSE_S

    def lost_for_a_reason(self) -> None:
        """Note the loss of an accepted connection whose reason is known."""
        self._short_in_a_row = 0

    def lost_again(self) -> bool:
        """Count the loss of an accepted connection. Returns whether several in a row were short.

        Brokers end a connection when its client id connects again, and some do not state the reason.
        """
        short = time.monotonic() - self._begun_at < _SHORT_S
        self._short_in_a_row = self._short_in_a_row + 1 if short else 0
        return self._short_in_a_row >= _MOST_SHORT
