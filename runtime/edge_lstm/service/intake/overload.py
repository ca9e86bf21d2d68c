"""What the service does while more messages come than it can keep: when it reconnects, and that it says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.service.intake.inbox import Inbox

log = logging.getLogger(__name__)

_HINT = "let the devices send less, or at QoS 1, and keep the broker's session (session_expiry_s)"
_SILENCE_S = 1.0  # of a broker that owes us confirmations: some give none before they get acknowledgements


class Overload:
    """Decides when to reconnect, so that the broker sends again what the inbox could not keep. Counts how often.

    Not before all that was kept is processed and its predictions are confirmed: else these would be published twice.
    """

    def __init__(
        self,
        inbox: Inbox,
        report: Callable[[Mapping[str, object]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` gets the facts, at most once a minute."""
        self.reconnects = 0
        self._inbox, self._report, self._clock = inbox, report, clock
        self._heard_at = 0.0  # when the broker sent anything last
        self._unconfirmed = 0
        self._lost = 0  # when it was told last
        self._told = RateLimitedLog(log, clock=clock)

    def reconnect_due(self, received: int, unconfirmed: int, busy: bool) -> bool:
        """Whether to reconnect now, after a poll that brought `received` messages.

        `unconfirmed`: predictions that the broker has not confirmed. `busy`: whether messages that were kept are being
        processed; False where all are, and where they wait for confirmations.
        """
        inbox = self._inbox
        if inbox.lost > self._lost and self._told.due():
            self._tell_lost()
        if not inbox.closed:
            return False
        now = self._clock()
        if busy or received or unconfirmed != self._unconfirmed:
            self._heard_at, self._unconfirmed = now, unconfirmed
        if busy or (unconfirmed and now - self._heard_at <= _SILENCE_S):
            return False
        self.reconnects += 1
        self._heard_at = now
        self._told.log(
            logging.WARNING,
            "more messages come than can be kept, the broker sends them again after a reconnect reconnects=%d",
            self.reconnects,
            key="again",
        )
        return True

    def _tell_lost(self) -> None:
        text = "more messages come than can be kept, and those that the broker does not send again are lost"
        log.error("%s lost=%d", text, self._inbox.lost)
        self._report({"error": text, "lost": self._inbox.lost, "hint": _HINT})
        self._lost = self._inbox.lost
