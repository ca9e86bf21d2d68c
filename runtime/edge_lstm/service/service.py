"""The service: reads messages, steps each stream exactly once per reading, publishes predictions, and stops cleanly.

A batch goes: drain, decode, predict, commit, publish, acknowledge. One transaction commits the states and the
predictions. So a crash leaves nothing (the readings come again) or everything (the predictions go out again, and
repeated readings are recognized). Readings are acknowledged before the broker confirms the predictions: rumqttd
confirms nothing to a client whose window of unacknowledged messages is full, so both would wait without end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_lstm.decisions.forecasts.learner import why_not
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.clock import ClockTrust
from edge_lstm.hardware.machine import run_on
from edge_lstm.messages.arrivals import LEAST_STEP_S, ArrivalClock
from edge_lstm.messages.events.alarm_events import AlarmEvents
from edge_lstm.messages.events.health_events import HealthEvents
from edge_lstm.messages.events.sensor_events import SensorEvents
from edge_lstm.messages.topics import filters_of
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.client.received import Message
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import Wanted
from edge_lstm.service.bundle_versions import BundleVersions
from edge_lstm.service.codecs import forecast_decoder, message_codecs, outgoing, publish_properties
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.database.history import HistoryLimits
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from edge_lstm.service.feedback.config import answers_topic, feedback_topic
from edge_lstm.service.feedback.feedback import Feedback
from edge_lstm.service.intake.idle_streams import IdleStreams
from edge_lstm.service.intake.inbox import Inbox
from edge_lstm.service.intake.kept_forecasts import KeptForecasts
from edge_lstm.service.intake.kept_times import kept_times, newest_arrival_us, newest_time
from edge_lstm.service.intake.message_reader import MessageReader
from edge_lstm.service.intake.name_limit import NameLimit
from edge_lstm.service.intake.overload import Overload
from edge_lstm.service.intake.sequence_gaps import SequenceGaps
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.service.opened_files import OpenedFiles, proven_backend, state_path
from edge_lstm.service.processing.committer import Committer
from edge_lstm.service.processing.delivery import Delivery
from edge_lstm.service.processing.outbox import Outbox
from edge_lstm.service.processing.processor import Processor, Slice, StoppedError
from edge_lstm.service.processing.publication import publication
from edge_lstm.service.processing.slices import Slices
from edge_lstm.service.processing.suspects import Suspects
from edge_lstm.service.reports.figures import Figures
from edge_lstm.service.reports.loss_reports import LossReports
from edge_lstm.service.reports.published_state import published_batch
from edge_lstm.service.reports.refusal import refusal_facts, refusal_topic
from edge_lstm.service.reports.stats import ServiceStats
from edge_lstm.service.reports.stats_requests import StatsRequests
from edge_lstm.service.reports.status_payload import status_payload
from edge_lstm.service.systemd import SystemdNotifier
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.row_format import StoredRow

log = logging.getLogger(__name__)

_MOST_UNCONFIRMED = 5000  # predictions; beyond, readings stay at the broker
_LEAST_REPEATED = 2000  # the first messages of a connection, with all repetitions among them: brokers send fewer
_POLL_S = 0.2
_LONGEST_SLICE_S = 1.0  # without work on the connection; single readings may take longer
_RETRY_COMMIT_S = 1.0
_BESIDE_PAYLOAD = 1 << 17  # bytes of a packet that topic and properties may have
_ID_WINDOW = 256  # of a device's own sequence numbers: more than can be unacknowledged


class Service:
    """One bundle between two topics of a broker. It owns its state database. One thread does everything."""

    def __init__(
        self,
        config: ServiceConfig,
        folder: Path,
        *,
        manager: SystemdNotifier | None = None,
        former: Service | None = None,
        refused: EdgeLstmError | None = None,
        requests: StatsRequests | None = None,
    ) -> None:
        """`folder`: where relative paths of the config start. `manager`: gets ready, alive and status.

        `former`: an ended service of the same config. Its bundle, certificates and password are used again, even if
        their files have changed. `refused`: an error of a reload, to be published at the broker.
        `requests`: of another thread for figures.

        Raises EdgeLstmError if the bundle, its backend's self-test or the database refuses.
        """
        self.config = config
        self._files: OpenedFiles = OpenedFiles.read(config, folder) if former is None else former._files
        self._manager = manager or SystemdNotifier({})
        self._refused, self._requests = refused, requests
        if config.cores is not None:
            run_on(config.cores)
        bundle, rules = self._files.bundle, stepping_rules(config)
        backend, smallest_batch = proven_backend(config, folder, bundle)
        self._predictor = Predictor(
            bundle.contract, backend, smallest_batch, **rules._asdict(), fetch=self._row, bundle_id=bundle.id
        )
        decoder, encoder, deadband = message_codecs(config, bundle)
        forecasts = forecast_decoder(config, bundle.contract)
        self._exactly_once = config.durability == "exactly-once"
        # a repeated reading is recognized by its own time, or else by its message
        self._identifies_messages = self._exactly_once and not decoder.timed
        self._store = Store(
            state_path(folder, config.state),
            bundle.id,
            self._predictor.table.layout,
            HistoryLimits(config.history, config.history_per_stream, config.history_max_mb, config.history_days),
            config.sync,
            rules,
            lambda text, former_id: (
                BundleVersions.from_text(text, former_id).after(bundle, config.allow_downgrade).text
            ),
        )
        last_batch, unsent, processed = self._store.load()
        self._forecasts = (
            None
            if forecasts is None
            else KeptForecasts(
                bundle.contract, forecasts, self._store.forecasts(), config.max_stream_names, self._has_session
            )
        )
        self._mqtt = self._make_connection(known=last_batch > 0 or self._store.count() > 0)
        publish = publication(self._mqtt, config.output, publish_properties(config.output), config.mqtt.client_id)
        self._outbox = Outbox(publish, lambda: self._mqtt.unconfirmed, last_batch)
        self._outbox.restore(unsent, processed)
        wait = self._wait_for_disk if self._exactly_once else None
        self._committer = Committer(self._store, self._predictor.table, self._outbox, last_batch, wait, self._report)
        self._names = NameLimit(
            config.max_stream_names, self._store, self._predictor, self._committer, self._free_bytes, self._report
        )
        self._arrivals, self._times = self._judgement_of_times()
        self._slices = Slices(self._store.service_values())
        self._reader = MessageReader(
            decoder,
            self._arrivals,
            self._times,
            self._outbox.knows,
            self._report,
            self._predictor.watch,
            lambda: self._slices.progress,
            self._forecasts,
        )
        self._inbox = Inbox(
            sends_again=config.mqtt.session_expiry_s > 0,
            apart=feedback_topic(config.mqtt.client_id) if config.feedback.enabled else None,
        )
        self._overload = Overload(self._inbox, self._report)
        most = min(config.max_streams, config.max_stream_names)
        self._gaps = None if config.input.sequence is None else SequenceGaps(most, self._last_number)
        self._losses = LossReports(
            self._gaps,
            lambda: self._mqtt.granted,
            self._report,
            self._is_new and self._exactly_once,
            last_batch,
            lambda: published_batch(self._mqtt.address, self._files.access, self._own_topic("stats")),
        )
        self._idle = IdleStreams(self._names, config.forget_after, self._clock_is_right)
        self._stopping = False
        self._preparation: Callable[[Callable[[], None]], None] | None = None
        self._connection = 0  # number of the one that is in use
        self._is_announced = False  # whether it is logged and published
        self._polled_at = time.monotonic()
        self.stats = ServiceStats()
        self._delivery = Delivery(
            self._committer,
            self._outbox,
            self._slices,
            self._names,
            self._predictor.table,
            self._predictor.watch,
            config.max_streams,
            self._forecasts,
            lambda: kept_times(self._arrivals, self._times),
            # a stream that restarts in another time does not know its former readings, which were ahead of the clock;
            # neither does one that is forgotten, or begins as a new device
            lambda: (
                self._identifies_messages
                or self._times.may_restart
                or self._names.may_forget
                or config.feedback.enabled
            ),
            self._mqtt.acknowledge,
            None if self._exactly_once else functools.partial(publish, qos=0),
            self._report,
            self.stats,
        )
        table, names = self._predictor.table, [feature.name for feature in bundle.contract.features]
        # the messages of a batch in which an earlier process crashed are among the first
        suspects = Suspects(self._store, _LEAST_REPEATED if self._exactly_once else 0)
        self._feedback: Feedback | None = None
        if config.feedback.enabled:
            self._feedback = Feedback(
                config.feedback,
                answers_topic(config.mqtt.client_id),
                self._predictor,
                self._store,
                self._committer,
                suspects,
                self._outbox.knows,
                self._between_steps,
            )
        self._processor = Processor(
            self._reader,
            self._predictor,
            outgoing(
                config,
                table,
                encoder,
                deadband,
                AlarmEvents(bundle.id, table),
                HealthEvents(bundle.contract, bundle.id),
                SensorEvents(names, table),
            ),
            self._names,
            self._gaps,
            self._slices,
            suspects,
            self._delivery.withdraw,
            self._between_steps,
            lambda: self._committer.batch + 1,
        )
        self.figures = Figures(
            bundle,
            rules.decision_rules,
            self.stats,
            self._predictor,
            self._store,
            self._mqtt,
            self._inbox,
            self._outbox,
            self._reader,
            self._names,
            self._times,
            self._committer,
            self._delivery,
            self._losses,
            self._overload,
            [part for part in (self._gaps, self._forecasts) if part is not None],
            self._feedback,
        )
        log.info("self-test passed bundle=%s backend=%s scheme=%s", bundle.id, backend.name, backend.scheme)
        if config.learn.enabled and (reason := why_not(bundle.contract)):
            log.warning("nothing is learned, though [learn] is enabled: %s", reason)
        log.info("state loaded streams=%d unsent=%d", self._store.count(), len(self._outbox))

    def _make_connection(self, known: bool) -> MqttConnection:
        """`known`: whether this service ran before, so that the broker should have its session."""
        mqtt, mapping, filters = self.config.mqtt, self.config.input, self.config.subscriptions
        most_bytes = mapping.max_bytes
        if self._forecasts is not None:
            filters = filters_of([*filters, *self._forecasts.topic_filters])
            most_bytes = max(most_bytes, self._forecasts.max_bytes)
        self._is_new = not known and not self._store.has_subscribed()
        options = dataclasses.replace(
            self._files.access,
            qos=mqtt.qos if self._exactly_once else 0,
            receive_maximum=mqtt.receive_maximum,
            keepalive_s=mqtt.keepalive_s,
            status_topic=self._own_topic("status"),
            former_topics=self._store.subscribe(filters),
            expect_session=known and self._exactly_once,
            wanted=Wanted(most_bytes + _BESIDE_PAYLOAD, mapping.properties_read),
        )
        return MqttConnection(
            parse_address(mqtt.url),
            mqtt.client_id,
            filters,
            session_expiry_s=mqtt.session_expiry_s,
            options=options,
        )

    def _judgement_of_times(self) -> tuple[ArrivalClock, TimeJudge]:
        """The clock of arrivals, which goes on from an earlier process, and the judge of the readings' times."""
        config, kept = self.config, self._store.service_values()
        self._clock_is_right = ClockTrust(config.clock.trust)
        step_s = self._files.bundle.contract.sampling.max_gap_s or LEAST_STEP_S
        arrivals = ArrivalClock(step_s, newest_arrival_us(kept))
        if config.input.time_from != "arrival":  # devices whose clocks may be ahead a little time the same streams
            step_s = max(step_s, config.max_ahead_s)
        judge = TimeJudge(
            config.max_ahead_s,
            step_s,
            self._clock_is_right,
            self._predictor.table.last_time,
            newest_time(kept, self._last_times),
            self._newest_time,
        )
        return arrivals, judge

    def _last_times(self) -> Iterator[float]:
        """The last time of each stream in the database."""
        table = self._predictor.table
        for stream in self._store.streams():
            yield table.last_time(stream)
            table.evict(stream)

    def _last_number(self, stream: str) -> int:
        """The last sequence number of the stream; -1: it had none."""
        table = self._predictor.table
        table.last_time(stream)  # it fetches the stream, and gives no slot to a new one
        return int(table.last_number[table.slot(stream)]) if stream in table.names else -1

    def _newest_time(self) -> float:
        """The time that no stream is beyond; inf while some are only in the database."""
        table = self._predictor.table
        in_memory = len(table) - len(self._committer.unsaved)  # these may not be in the database yet
        return table.newest_time() if in_memory >= self._store.count() else math.inf

    def stop(self) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self._stopping = True
        self._mqtt.abort_connect()

    def stop_after(self, preparation: Callable[[Callable[[], None]], None]) -> None:
        """Ask `run` to call `preparation(turn)` and to return then; safe in a signal handler.

        `preparation` calls `turn` again and again, which serves meanwhile. `turn` raises EdgeLstmError after `stop`.
        """
        self._preparation = preparation

    def run(self) -> None:
        """Serve until `stop`. While the broker is away, this tries to reconnect."""
        self._manager.status(f"connecting to {self._mqtt.address}")
        self._manager.ready()
        while not self._stopping:
            self._turn()
            if self._preparation is not None:
                preparation, self._preparation = self._preparation, None
                preparation(self._turn_unless_stopped)
                self.stop()
        self._finish()

    def _turn(self) -> None:
        """Read what came, process a batch, and do what is due."""
        self._manager.alive()
        self._outbox.take_confirmations()
        free = len(self._outbox) < _MOST_UNCONFIRMED
        # confirmations come over the same socket: with too few of them, read in any case
        read = not self._inbox.full or not free
        is_idle = not self._inbox and not self._slices
        self._receive(self._mqtt.poll(_POLL_S if is_idle or not free else self._pause_s(), read=read))
        self._polled_at = time.monotonic()
        if free and self._pause_s() == 0:
            if self._slices:
                self._deliver(self._processor.go_on())
            if self._inbox and self._slices.has_room:
                self._process_next()
        self._do_what_is_due()

    def _turn_unless_stopped(self) -> None:
        if self._stopping:
            raise EdgeLstmError("the service ends")
        self._turn()

    def _pause_s(self) -> float:
        """How long waiting messages still wait: `commit_interval_s` between commits, unless a batch is full."""
        if not self._exactly_once or self._inbox.has_full_batch:
            return 0.0
        return min(max(self._committer.saved_at + self.config.commit_interval_s - time.monotonic(), 0.0), _POLL_S)

    def _receive(self, messages: Sequence[Message]) -> None:
        if self._mqtt.connection_count != self._connection:  # a broker repeats messages before it confirms topics
            self._connection, self._is_announced = self._mqtt.connection_count, False
            self._inbox.keep_only(self._connection)
            repeats = max(_LEAST_REPEATED, 2 * self.config.mqtt.receive_maximum)
            self._outbox.expect_repeats(repeats)
            self._slices.expect_repeats(self._connection, repeats)
            self._outbox.hold(self._slices.held)
        if self._mqtt.connected and not self._is_announced:
            self._is_announced = True
            log.info("connected address=%s", self._mqtt.address)
            self._losses.compare()
            self._manager.status(f"connected to {self._mqtt.address}, bundle {self._files.bundle.id}")
            self._publish_facts(refusal_topic(self.config.mqtt.client_id), refusal_facts(self._refused), retain=True)
        self._mqtt.acknowledge(self._inbox.add(messages))
        unconfirmed = len(self._outbox)
        busy = unconfirmed < _MOST_UNCONFIRMED and bool(self._inbox or self._slices)
        if self._mqtt.connected and self._overload.reconnect_due(len(messages), unconfirmed, busy):
            self._mqtt.reconnect()

    def _process(self, messages: list[Message]) -> None:
        """Process messages until they are committed, or wait for their next slice."""
        self._deliver(self._processor.process(messages))

    def _process_next(self) -> None:
        """Process the next batch of readings, or the next command."""
        if self._feedback is None or not self._inbox.next_is_apart:
            self._process(self._inbox.batch())
        elif not self._slices:  # a command comes after all readings before it
            self._deliver(self._feedback.process(*self._inbox.batch()))

    def _deliver(self, slices: Iterator[Slice]) -> None:
        """Commit and publish each slice, until the service ends."""
        begun = time.monotonic()
        with contextlib.suppress(StoppedError):
            for one in slices:
                if not self._delivery.take(one, begun):
                    return
                begun = time.monotonic()

    def _between_steps(self) -> None:
        """Within a slice: tell systemd and the broker that the loop lives. Raises StoppedError after `stop`."""
        self._manager.alive()
        if self._stopping:
            raise StoppedError("the service ends")
        if self._mqtt.connected and time.monotonic() - self._polled_at > _LONGEST_SLICE_S:
            self._mqtt.poll(0.0, read=False)
            self._polled_at = time.monotonic()

    def _wait_for_disk(self) -> bool:
        """Wait a second with a full disk; nothing is read or acknowledged, so the broker keeps all. False: `stop`."""
        deadline = time.monotonic() + _RETRY_COMMIT_S
        while time.monotonic() < deadline:
            if self._stopping:
                return False
            self._mqtt.poll(0.05, read=False)
            self._manager.alive()  # a full disk is waited for; a disk that hangs is not
        return True

    def _has_session(self) -> bool:
        granted = self._mqtt.granted
        return granted is not None and granted.session_present

    def _row(self, stream: str) -> StoredRow | None:
        return None if stream in self._committer.forgotten else self._store.row(stream)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._store.folder).free

    def _do_what_is_due(self) -> None:
        now, committer = time.monotonic(), self._committer
        self._predictor.watch.log_counts()
        if not self._exactly_once and committer.unsaved and now - committer.saved_at >= self.config.checkpoint_s:
            committer.commit()
        if not self._inbox:
            self._store.compact_history()
        self._idle.forget(now)
        if self._mqtt.connected and self.stats.due(now, self.config.stats_interval_s):
            self._losses.report_gaps(self._connection)
            self._publish_facts(self._own_topic("stats"), self.figures.stats(), retain=True)
        for fault in self._mqtt.take_faults():
            self._report(fault)
        if self._requests is not None:
            self._requests.answer(self.figures.snapshot)

    def _report(self, facts: Mapping[str, object]) -> None:
        self._publish_facts(self._own_topic("errors"), facts)

    def _publish_facts(self, topic: str, facts: Mapping[str, object], *, retain: bool = False) -> None:
        """Publish facts as JSON, fewer of them where the broker has a size limit; no facts: an empty message."""
        payload = status_payload(facts, functools.partial(self._mqtt.fits, topic)) if facts else b""
        self._mqtt.publish(topic, payload, retain=retain, latest=True)

    def _own_topic(self, name: str) -> str:
        return f"edge-lstm/{self.config.mqtt.client_id}/{name}"

    def _finish(self) -> None:
        """Send what is committed, if the broker takes it within half a second; else the next start sends it."""
        deadline = time.monotonic() + 0.5
        if self._mqtt.connected:
            self._publish_facts(self._own_topic("stats"), self.figures.stats(), retain=True)  # with the last batch
        while len(self._outbox) and self._mqtt.connected and time.monotonic() < deadline:
            self._mqtt.poll(0.05)
            self._outbox.take_confirmations()
        if not self._exactly_once:
            self._committer.commit()
        self._mqtt.close(timeout_s=0.3)
        self._store.close(self._outbox.confirmed)
        log.info("stopped %s", " ".join(f"{name}={count}" for name, count in self.figures.totals().items()))


def stepping_rules(config: ServiceConfig) -> SteppingRules:
    """How the service steps late and repeated readings."""
    return SteppingRules(
        config.max_rewind if config.late == "rewind" else 0,
        _ID_WINDOW if config.input.sequence is not None else 0,
        config.input.join_within_s,
        config.max_steps_per_reading,
        decision_rules=config.feedback.rules._replace(
            learn=config.learn.enabled,
            learn_memory_steps=config.learn.memory_steps,
            learn_margin=config.learn.margin,
            sensor_timeout_s=config.sensor_timeout_s,
        ),
    )
