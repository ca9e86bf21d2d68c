"""Reports of readings that were lost on their way: a session that does not go with the states, gaps in sequences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from edge_lstm.mqtt.capabilities import BrokerCapabilities
from edge_lstm.service.intake.sequence_gaps import SequenceGaps

log = logging.getLogger(__name__)


class LossReports:
    """Writes what was lost to the log and to the errors topic. The connection itself reports a session that is lost."""

    def __init__(
        self,
        gaps: SequenceGaps | None,
        granted: Callable[[], BrokerCapabilities | None],
        report: Callable[[Mapping[str, object]], None],
        is_new: bool,
    ) -> None:
        """`gaps`: of the devices' sequence numbers. `granted`: by the broker, None without a connection.

        `is_new`: whether this service never ran before with its state database, so that the broker has no session.
        """
        self._gaps, self._granted, self._report, self._is_new = gaps, granted, report, is_new
        self._reported = 0  # of the skipped readings
        self._connection = 0  # of the last report

    def compare_session(self) -> None:
        """Report a session that does not go with the states, at the first connection."""
        granted = self._granted()
        if self._is_new and granted is not None and granted.session_present:
            self._report_loudly(
                "the broker has a session of this client_id, and the state database is new: every stream starts cold",
                "put the former state database back; if another service uses this client_id, choose another one",
            )
        self._is_new = False

    def report_gaps(self, connection: int) -> None:
        """Report readings that never came, by their sequence numbers; once per `connection`."""
        gaps, granted = self._gaps, self._granted()
        if gaps is None or granted is None or self._connection == connection:
            return
        if gaps.skipped > self._reported:
            self._connection = connection
            resumed = granted.session_present
            self._report_loudly(
                f"{gaps.skipped} readings never came, by their sequence numbers, the latest gap at {gaps.stream}",
                "if the service was away, the broker's queue was too short (mosquitto: max_queued_messages 0); "
                "else the devices send with QoS 0 or skip numbers"
                if resumed
                else "the devices send with QoS 0 or skip numbers",
            )
        self._reported = gaps.skipped

    def _report_loudly(self, error: str, hint: str) -> None:
        log.error("%s; %s", error, hint)
        self._report({"error": error, "hint": hint})
