"""Reports of what was lost: a session or a database that does not go with the other one, gaps in sequences."""

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
        last_batch: int,
        published: Callable[[], int | None],
    ) -> None:
        """`gaps`: of the devices' sequence numbers. `granted`: by the broker, None without a connection.

        `is_new`: whether this service never ran before with its state database, so that the broker has no session.
        `last_batch`: in the database when it was opened. `published`: the batch in the published statistics, if any.
        """
        self.rolled_back = 0  # batches
        self._gaps, self._granted, self._report, self._is_new = gaps, granted, report, is_new
        self._last_batch, self._published = last_batch, published
        self._reported = 0  # of the skipped readings
        self._connection = 0  # of the last report

    def compare(self) -> None:
        """Report a session or statistics at the broker that do not go with the states, at the first connection."""
        self._compare_session()
        self._compare_published()

    def _compare_session(self) -> None:
        granted = self._granted()
        if self._is_new and granted is not None and granted.session_present:
            self._report_loudly(
                "the broker has a session of this client_id, and the state database is new: every stream starts cold",
                "put the former state database back; if another service uses this client_id, choose another one",
            )
        self._is_new = False

    def _compare_published(self) -> None:
        """Report a database that is older than the statistics which the service has published."""
        former, self._last_batch = self._last_batch, 0
        published = self._published() if former else None
        if published is not None and published > former:
            self.rolled_back = published - former
            self._report_loudly(
                f"the state database was rolled back: it ends with batch {former}, and the service had stored batch "
                f"{published} when it published its statistics; every stream goes on from an older state",
                "put the newest copy of the database back, with its -wal file, while the service is stopped; "
                "if there is none, check the disk: it may lose what is written",
            )

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
                "if the service was away, the broker's queue was too short (mosquitto: max_queued_messages 0), or an "
                "older copy of the state database was put back; else the devices send with QoS 0 or skip numbers"
                if resumed
                else "the devices send with QoS 0 or skip numbers",
            )
        self._reported = gaps.skipped

    def _report_loudly(self, error: str, hint: str) -> None:
        log.error("%s; %s", error, hint)
        self._report({"error": error, "hint": hint})
