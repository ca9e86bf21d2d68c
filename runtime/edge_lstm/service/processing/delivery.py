"""What becomes of a slice: it is committed, its predictions are published, and then its messages are acknowledged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.kept_forecasts import KeptForecasts
from edge_lstm.service.intake.message_reader import message_identity
from edge_lstm.service.intake.name_limit import NameLimit
from edge_lstm.service.processing.committer import Committer
from edge_lstm.service.processing.outbox import Outbox, Outgoing
from edge_lstm.service.processing.processor import Slice
from edge_lstm.service.processing.slices import Slices
from edge_lstm.service.processing.suspects import facts_of
from edge_lstm.service.reports.stats import ServiceStats
from edge_lstm.streaming.stream_table import StreamTable
from edge_lstm.streaming.stream_watch import StreamWatch

log = logging.getLogger(__name__)


class Delivery:
    """Takes the slices in their order."""

    def __init__(
        self,
        committer: Committer,
        outbox: Outbox,
        slices: Slices,
        names: NameLimit,
        table: StreamTable,
        watch: StreamWatch,
        max_streams: int,
        forecasts: KeptForecasts | None,
        values: Callable[[], Mapping[str, str]],
        identifies: Callable[[], bool],
        acknowledge: Callable[[Iterable[Message]], None],
        publish_unconfirmed: Callable[[Sequence[Outgoing]], object] | None,
        report: Callable[[Mapping[str, object]], None],
        stats: ServiceStats,
    ) -> None:
        """`values`: of the service, for a commit. `identifies`: whether nothing but its identity shows at present that
        a message came again. `publish_unconfirmed`: with QoS 0 and without a commit; None: exactly once.
        """
        self.predictions = self.set_aside = 0
        self._committer, self._outbox, self._slices, self._names = committer, outbox, slices, names
        self._table, self._watch, self._max_streams = table, watch, max_streams
        self._forecasts = forecasts
        self._costly = 0  # readings when they were reported
        self._costly_reports = RateLimitedLog(log)
        self._values, self._identifies = values, identifies
        self._acknowledge, self._publish_unconfirmed = acknowledge, publish_unconfirmed
        self._report, self._stats = report, stats

    def take(self, one: Slice, begun: float) -> bool:
        """Commit, publish and acknowledge a slice on which work began at `begun`, in monotonic seconds.

        Returns whether it is committed.
        """
        committer, readings, identifies = self._committer, one.readings, self._identifies()
        committer.begin_batch([reading.stream for reading in readings])
        committer.values.update(self._values())
        committer.values.update(self._slices.values())
        if self._forecasts is not None:
            committer.forecasts.update(self._forecasts.settled(self._slices.unacknowledged))
        records = [
            *self._names.take_records(),
            *one.refusals,
            *one.commands,
        ]  # after `begin_batch`, which says what is unsaved
        if self._publish_unconfirmed is None:
            identities = [message_identity(message) for message, _ in one.set_aside]
            if identifies:
                identities += [message_identity(message) for message in one.finished if message.qos]
            if not committer.commit(one.predictions, identities, records):
                return False
            received = 0 if identifies else len(one.finished)
            self._outbox.put(committer.batch, one.predictions, identities, received)
        else:
            self._publish_unconfirmed(one.predictions)
        if self._slices:
            self._acknowledge(self._slices.committed(committer.batch))
            self._outbox.hold(self._slices.held)
        else:
            self._acknowledge(one.finished)
        for message, reason in one.set_aside:
            self.set_aside += 1
            log.error("message set aside topic=%s: %s", message.topic, reason)
            self._report(facts_of(message, reason, self.set_aside))
        if self._watch.counts["costly"] > self._costly and self._costly_reports.due():
            self._report_costly()
        self._evict()
        self.predictions += one.steps
        self._stats.processed(len(readings), time.monotonic() - begun, readings[-1].time if readings else None)
        return True

    def _report_costly(self) -> None:
        """Report readings that were dropped for their steps; the log has the first one of each stream."""
        self._costly = self._watch.counts["costly"]
        stream, reason = self._watch.last["costly"]
        hint = "raise max_steps_per_reading if the device is right"
        self._report({"stream": stream, "error": f"reading dropped: {reason}", "costly": self._costly, "hint": hint})

    def _evict(self) -> None:
        """Remove the longest idle streams beyond `max_streams` from memory; the database has them."""
        over = len(self._table) - self._max_streams  # a tenth more is evicted, so that it is rare
        if over > 0:
            for stream in self._table.least_recently_used(over + self._max_streams // 10):
                if stream not in self._committer.unsaved:
                    self._table.evict(stream)

    def withdraw(self, stream: str) -> None:
        """Remove a stream from memory: its next reading finds the row of the last commit."""
        self._names.withdraw(stream)
        self._committer.unsaved.pop(stream, None)
