"""The figures of a running service: what the stats topic, the metrics and the last line of the log say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_lstm.bundle.archive import Bundle
from edge_lstm.decisions.forecasts.learner import Learner, learns
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.service.database.store import Store
from edge_lstm.service.feedback.feedback import Feedback
from edge_lstm.service.intake.inbox import Inbox
from edge_lstm.service.intake.message_reader import MessageReader
from edge_lstm.service.intake.name_limit import NameLimit
from edge_lstm.service.intake.overload import Overload
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.service.processing.committer import Committer
from edge_lstm.service.processing.delivery import Delivery
from edge_lstm.service.processing.outbox import Outbox
from edge_lstm.service.reports.loss_reports import LossReports
from edge_lstm.service.reports.published_state import BATCH
from edge_lstm.service.reports.stats import ServiceStats
from edge_lstm.service.reports.stats_requests import Snapshot
from edge_lstm.streaming.model_health import health_facts
from edge_lstm.streaming.predictor import Predictor

_MOST_DEGRADED = 20  # streams that are named


class _Counting(Protocol):
    """A part that only some services have."""

    @property
    def counts(self) -> Mapping[str, int]: ...


class Figures:
    """Collects the figures from the parts of a service."""

    def __init__(
        self,
        bundle: Bundle,
        rules: DecisionRules,
        measured: ServiceStats,
        predictor: Predictor,
        store: Store,
        mqtt: MqttConnection,
        inbox: Inbox,
        outbox: Outbox,
        reader: MessageReader,
        names: NameLimit,
        times: TimeJudge,
        committer: Committer,
        delivery: Delivery,
        losses: LossReports,
        overload: Overload,
        others: Sequence[_Counting],
        feedback: Feedback | None,
    ) -> None:
        """`others`: further parts that count."""
        self._bundle, self._rules, self._measured, self._predictor = bundle, rules, measured, predictor
        self._store, self._mqtt, self._inbox, self._outbox = store, mqtt, inbox, outbox
        self._reader, self._names, self._times = reader, names, times
        self._committer, self._delivery, self._losses, self._overload = committer, delivery, losses, overload
        self._others, self._feedback = others, feedback

    def snapshot(self) -> Snapshot:
        """The figures for the metrics."""
        return Snapshot(self.stats(), self._measured.durations, self._mqtt.connected)

    def stats(self) -> dict[str, object]:
        """The payload of the stats topic; docs/predictions.md explains it."""
        contract, table = self._bundle.contract, self._predictor.table
        health = health_facts(contract, table)
        return {
            "bundle": self._bundle.id,
            BATCH: self._store.batch,
            "backend": self._predictor.backend.name,
            "scheme": self._predictor.backend.scheme,
            "streams": self._store.count(),
            "streams_in_memory": len(table),
            **({} if contract.alarm is None else {"in_alarm": table.in_alarm()}),
            "queue": len(self._inbox),
            "unconfirmed": len(self._outbox),
            "waiting": self._mqtt.waiting,
            "unsaved": len(self._committer.unsaved),
            **self.totals(),
            **self._measured.figures(),
            **self._corrections(),
            **({} if self._feedback is None else self._feedback.figures()),
            "dropped_by_stream": self._predictor.watch.worst(),
            **({} if health is None else {"model_health": health}),
            "degraded": self._predictor.degraded(_MOST_DEGRADED),
        }

    def _corrections(self) -> dict[str, object]:
        """What is corrected by `[learn]` in the streams that are in memory."""
        contract, table = self._bundle.contract, self._predictor.table
        if not learns(contract, self._rules):
            return {}
        found = Learner(contract, self._rules).standing(table.current["learned"][table.slots([*table.names])])
        return {"corrected": found.corrected, "corrected_error": found.error_share}

    def totals(self) -> dict[str, int]:
        """How many readings, messages and predictions met each fate since the start."""
        connection = self._mqtt.counts
        found = {
            **self._predictor.totals,
            **self._reader.counts,
            "names_refused": self._names.refused + self._reader.counts["names_refused"],
            "names_forgotten": self._names.forgotten,
            "restarted": self._times.restarts,
            "predictions": self._delivery.predictions,
            "set_aside": self._delivery.set_aside,
            "damaged": self._store.damaged,
            "rolled_back": self._losses.rolled_back,
            "malformed": connection["malformed"],
            "lost": self._inbox.lost,
            "overloads": self._overload.reconnects,
            "shed": connection["shed"],
            "unwanted": connection["refused"],
            "too_large": connection["too_large"],
            "dropped": connection["dropped"],
            "sessions_lost": connection["sessions_lost"],
        }
        for part in self._others:
            found.update(part.counts)
        return found
