"""The service: reads messages, steps each stream exactly once per reading, publishes predictions, and stops cleanly.

A batch goes: drain, decode, predict, commit, publish, acknowledge. One transaction commits the states and the
predictions. So a crash leaves nothing (the readings come again) or everything (the predictions go out again, and
repeated readings are recognized). Readings are acknowledged before the broker confirms the predictions: rumqttd
confirms nothing to a client whose window of unacknowledged messages is full, so both would wait without end.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_lstm.backends.protocol import ONE_THREAD, Backend
from edge_lstm.backends.registry import preferred
from edge_lstm.backends.selftest import Isolation, load_verified
from edge_lstm.bundle.archive import Bundle
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.clock import ClockTrust
from edge_lstm.hardware.machine import run_on
from edge_lstm.messages.arrivals import LEAST_STEP_S, ArrivalClock
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.client.received import Message
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import ConnectionOptions, Wanted
from edge_lstm.service.accepted_bundle import open_acceptable
from edge_lstm.service.bundle_versions import BundleVersions
from edge_lstm.service.codecs import message_codecs, publish_properties
from edge_lstm.service.committer import Committer
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.database.history import HistoryLimits
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from edge_lstm.service.intake.inbox import Inbox
from edge_lstm.service.intake.kept_times import kept_times, newest_arrival_us, newest_time
from edge_lstm.service.intake.message_reader import MessageReader, message_identity
from edge_lstm.service.intake.overload import Overload
from edge_lstm.service.intake.sequence_gaps import SequenceGaps
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.service.outbox import Outbox
from edge_lstm.service.proven_bundles import proven
from edge_lstm.service.refusal import refusal_facts, refusal_topic
from edge_lstm.service.stats import ServiceStats
from edge_lstm.service.status_payload import status_payload
from edge_lstm.service.systemd import SystemdNotifier
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.row_format import StoredRow
from edge_lstm.streaming.step_results import Steps

log = logging.getLogger(__name__)

_MOST_UNCONFIRMED = 5000  # predictions; beyond, readings stay at the broker
_LEAST_REPEATED = 2000  # the first messages of a connection, with all repetitions among them: brokers send fewer
_POLL_S = 0.2
_RETRY_COMMIT_S = 1.0
_BESIDE_PAYLOAD = 1 << 17  # bytes of a packet that topic and properties may have
_ID_WINDOW = 256  # of a device's own sequence numbers: more than can be unacknowledged


class _OpenedFiles(NamedTuple):
    """What a service reads once from the files of its config."""

    bundle: Bundle
    access: ConnectionOptions

    @classmethod
    def read(cls, config: ServiceConfig, folder: Path) -> _OpenedFiles:
        """Raises EdgeLstmError if a file is missing or unusable, or the bundle is not acceptable."""
        bundle = open_acceptable(config, folder)
        access = config.mqtt.options(folder)
        if access.tls is not None:
            access.tls.context()  # before the database, which drops the states of another bundle
        return cls(bundle, access)


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
    ) -> None:
        """`folder`: where relative paths of the config start. `manager`: gets ready, alive and status.

        `former`: an ended service of the same config. Its bundle, certificates and password are used again, even if
        their files have changed. `refused`: an error of a reload, to be published at the broker.

        Raises EdgeLstmError if the bundle, its backend's self-test or the database refuses.
        """
        self.config = config
        self._files: _OpenedFiles = _OpenedFiles.read(config, folder) if former is None else former._files
        self._manager = manager or SystemdNotifier({})
        self._refused = refused
        if config.cores is not None:
            run_on(config.cores)
        bundle, rules = self._files.bundle, stepping_rules(config)
        backend, smallest_batch = _proven_backend(config, folder, bundle)
        self._predictor = Predictor(
            bundle.contract, backend, smallest_batch, **rules._asdict(), fetch=self._row, bundle_id=bundle.id
        )
        decoder, self._encoder, self._deadband = message_codecs(config, bundle)
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
        self._mqtt = self._make_connection(known=last_batch > 0 or self._store.count() > 0)
        output = config.output
        publish = functools.partial(
            self._mqtt.publish_many,
            retain=output.retain,
            properties=publish_properties(output),
            family=output.topic,
        )
        self._publish_unconfirmed = functools.partial(publish, qos=0)
        self._outbox = Outbox(publish, lambda: self._mqtt.unconfirmed, last_batch)
        self._outbox.restore(unsent, processed)
        wait = self._wait_for_disk if self._exactly_once else None
        self._committer = Committer(self._store, self._predictor.table, self._outbox, last_batch, wait, self._report)
        self._arrivals, self._times = self._judgement_of_times()
        self._reader = MessageReader(
            decoder, self._arrivals, self._times, self._outbox.knows, self._report, self._predictor.watch
        )
        self._inbox = Inbox(sends_again=config.mqtt.session_expiry_s > 0)
        self._overload = Overload(self._inbox, self._report)
        # the messages of a batch in which an earlier process crashed are among the first
        self._suspects = _LEAST_REPEATED if self._store.ended_badly and self._exactly_once else 0
        self._gaps = None if config.input.sequence is None else SequenceGaps(config.max_streams, self._last_number)
        self._gaps_reported = 0  # of the skipped readings
        self._gaps_connection = 0  # of the last report
        self._stopping = False
        self._preparation: Callable[[Callable[[], None]], None] | None = None
        self._connection = 0  # number of the one that is in use
        self._is_announced = False  # whether it is logged and published
        self.predictions = 0
        self.stats = ServiceStats()
        log.info("self-test passed bundle=%s backend=%s scheme=%s", bundle.id, backend.name, backend.scheme)
        log.info("state loaded streams=%d unsent=%d", self._store.count(), len(self._outbox))
        if self._store.begun is not None:
            log.warning("the service ended while it processed a batch: %.200s", self._store.begun)

    def _make_connection(self, known: bool) -> MqttConnection:
        """`known`: whether this service ran before, so that the broker should have its session."""
        mqtt, mapping, filters = self.config.mqtt, self.config.input, self.config.input.topic_filters
        self._is_new = not known and not self._store.has_subscribed()
        options = dataclasses.replace(
            self._files.access,
            qos=mqtt.qos if self._exactly_once else 0,
            receive_maximum=mqtt.receive_maximum,
            keepalive_s=mqtt.keepalive_s,
            status_topic=self._own_topic("status"),
            former_topics=self._store.subscribe(filters),
            expect_session=known and self._exactly_once,
            wanted=Wanted(mapping.max_bytes + _BESIDE_PAYLOAD, mapping.properties_read),
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
        step_s = self._files.bundle.contract.sampling.max_gap_s or LEAST_STEP_S
        arrivals = ArrivalClock(step_s, newest_arrival_us(kept))
        if config.input.time_from != "arrival":  # devices whose clocks may be ahead a little time the same streams
            step_s = max(step_s, config.max_ahead_s)
        judge = TimeJudge(
            config.max_ahead_s,
            step_s,
            ClockTrust(config.clock.trust),
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
        slot = table.slot(stream)  # first: the table may grow
        return int(table.last_number[slot])

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
        self._receive(self._mqtt.poll(self._pause_s() if self._inbox and free else _POLL_S, read=read))
        if self._inbox and free and self._pause_s() == 0:
            self._process(self._inbox.batch())
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
            self._outbox.expect_repeats(max(_LEAST_REPEATED, 2 * self.config.mqtt.receive_maximum))
        if self._mqtt.connected and not self._is_announced:
            self._is_announced = True
            log.info("connected address=%s", self._mqtt.address)
            self._compare_session()
            self._manager.status(f"connected to {self._mqtt.address}, bundle {self._files.bundle.id}")
            self._publish_facts(refusal_topic(self.config.mqtt.client_id), refusal_facts(self._refused), retain=True)
        self._mqtt.acknowledge(self._inbox.add(messages))
        if self._mqtt.connected and self._overload.reconnect_due(len(messages), len(self._outbox)):
            self._mqtt.reconnect()

    def _process(self, messages: list[Message]) -> None:
        begun = time.monotonic()
        if self._suspects > 0:
            self._suspects -= len(messages)
            self._store.begin(self._committer.batch + 1, [message_identity(message) for message in messages])
        readings = self._reader.readings(messages)
        self._predictor.watch.redelivered = self._reader.redelivered
        if self._gaps is not None:
            self._gaps.add(readings)  # first: it asks for the last number of a stream
        steps = self._predictor.feed_columns(readings)
        predictions = [] if steps is None else self._encoder.messages(self._to_publish(steps))
        self._committer.begin_batch([reading.stream for reading in readings])
        self._committer.values.update(kept_times(self._arrivals, self._times))
        if self._exactly_once:
            identities = self._identities(messages)
            if not self._committer.commit(predictions, identities, [*readings, *self._reader.refusals]):
                return
            received = 0 if self._identifies_messages else len(messages)
            self._outbox.put(self._committer.batch, predictions, identities, received)
            self._mqtt.acknowledge(messages)
        else:
            self._publish_unconfirmed(predictions)
        self._evict()
        self.predictions += 0 if steps is None else len(steps.order)
        self.stats.processed(len(readings), time.monotonic() - begun, readings[-1].time if readings else None)

    def _compare_session(self) -> None:
        """Report a session that does not go with the states. The connection reports a session that is lost."""
        granted = self._mqtt.granted
        if self._is_new and self._exactly_once and granted is not None and granted.session_present:
            self._report_loudly(
                "the broker has a session of this client_id, and the state database is new: every stream starts cold",
                "put the former state database back; if another service uses this client_id, choose another one",
            )
        self._is_new = False

    def _report_gaps(self) -> None:
        """Report readings that never came, by their sequence numbers; once per connection."""
        gaps, granted = self._gaps, self._mqtt.granted
        if gaps is None or granted is None or self._gaps_connection == self._connection:
            return
        if gaps.skipped > self._gaps_reported:
            self._gaps_connection = self._connection
            resumed = granted.session_present
            self._report_loudly(
                f"{gaps.skipped} readings never came, by their sequence numbers, the latest gap at {gaps.stream}",
                "if the service was away, the broker's queue was too short (mosquitto: max_queued_messages 0); "
                "else the devices send with QoS 0 or skip numbers"
                if resumed
                else "the devices send with QoS 0 or skip numbers",
            )
        self._gaps_reported = gaps.skipped

    def _report_loudly(self, error: str, hint: str) -> None:
        log.error("%s; %s", error, hint)
        self._report({"error": error, "hint": hint})

    def _identities(self, messages: Sequence[Message]) -> list[str]:
        """Those of the messages that may come again and are recognized by nothing else.

        A stream that restarts in another time does not know its former readings any more. They were ahead of the clock.
        """
        if not (self._identifies_messages or self._times.may_restart):
            return []
        return [message_identity(message) for message in messages if message.qos]

    def _to_publish(self, steps: Steps) -> Steps:
        """The steps whose predictions are published; corrections always are."""
        if self._deadband is not None:
            return steps.at(self._deadband.moved(steps, self._predictor.table))
        if self.config.output.publish_when == "alarm":
            return steps.at((steps.decisions.turned | (steps.revisions > 0)).nonzero()[0].tolist())
        return steps

    def _wait_for_disk(self) -> bool:
        """Wait a second with a full disk; nothing is read or acknowledged, so the broker keeps all. False: `stop`."""
        deadline = time.monotonic() + _RETRY_COMMIT_S
        while time.monotonic() < deadline:
            if self._stopping:
                return False
            self._mqtt.poll(0.05, read=False)
            self._manager.alive()  # a full disk is waited for; a disk that hangs is not
        return True

    def _row(self, stream: str) -> StoredRow | None:
        return self._store.row(stream)

    def _evict(self) -> None:
        """Remove the longest idle streams beyond `max_streams` from memory; the database has them."""
        table = self._predictor.table
        over = len(table) - self.config.max_streams  # a tenth more is evicted, so that it is rare
        if over > 0:
            for stream in table.least_recently_used(over + self.config.max_streams // 10):
                if stream not in self._committer.unsaved:
                    table.evict(stream)

    def _do_what_is_due(self) -> None:
        now, committer = time.monotonic(), self._committer
        self._predictor.watch.log_counts()
        if not self._exactly_once and committer.unsaved and now - committer.saved_at >= self.config.checkpoint_s:
            committer.commit()
        if not self._inbox:
            self._store.compact_history()
        if self._mqtt.connected and self.stats.due(now, self.config.stats_interval_s):
            self._report_gaps()
            self._publish_facts(self._own_topic("stats"), self._stats(), retain=True)
        for fault in self._mqtt.take_faults():
            self._report(fault)

    def _stats(self) -> dict[str, object]:
        """The payload of the stats topic; docs/predictions.md explains it."""
        return {
            "bundle": self._files.bundle.id,
            "backend": self._predictor.backend.name,
            "scheme": self._predictor.backend.scheme,
            "streams": self._store.count(),
            "streams_in_memory": len(self._predictor.table),
            "queue": len(self._inbox),
            "unconfirmed": len(self._outbox),
            "waiting": self._mqtt.waiting,
            "unsaved": len(self._committer.unsaved),
            **self._totals(),
            **self.stats.figures(),
            "dropped_by_stream": self._predictor.watch.worst(),
        }

    def _totals(self) -> dict[str, int]:
        """How many readings, messages and predictions met each fate since the start."""
        connection = self._mqtt.counts
        return {
            **self._predictor.totals,
            **self._reader.counts,
            "restarted": self._times.restarts,
            "predictions": self.predictions,
            "damaged": self._store.damaged,
            "malformed": connection["malformed"],
            "lost": self._inbox.lost,
            "overloads": self._overload.reconnects,
            "shed": connection["shed"],
            "unwanted": connection["refused"],
            "too_large": connection["too_large"],
            "dropped": connection["dropped"],
            "sessions_lost": connection["sessions_lost"],
            **({} if self._gaps is None else {"skipped": self._gaps.skipped}),
        }

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
        while len(self._outbox) and self._mqtt.connected and time.monotonic() < deadline:
            self._mqtt.poll(0.05)
            self._outbox.take_confirmations()
        if not self._exactly_once:
            self._committer.commit()
        self._mqtt.close(timeout_s=0.3)
        self._store.close(self._outbox.confirmed)
        log.info("stopped %s", " ".join(f"{name}={count}" for name, count in self._totals().items()))


def stepping_rules(config: ServiceConfig) -> SteppingRules:
    """How the service steps late and repeated readings."""
    return SteppingRules(
        config.max_rewind if config.late == "rewind" else 0,
        _ID_WINDOW if config.input.sequence is not None else 0,
        config.input.join_within_s,
    )


def prove(config: ServiceConfig, folder: Path, turn: Callable[[], None]) -> None:
    """The self-test of the config's bundle in a child process, while `turn` is called again and again.

    Raises EdgeLstmError where the bundle or its backend is refused.
    """
    _isolation(config, folder, _OpenedFiles.read(config, folder).bundle, turn)


def _proven_backend(config: ServiceConfig, folder: Path, bundle: Bundle) -> tuple[Backend, int]:
    """The backend and its smallest batch, after the self-test in a child process and then in this one."""
    isolation = _isolation(config, folder, bundle)
    # the child tests on the CPU; a GPU has kernels of its own
    known = isolation if config.execution.providers == ONE_THREAD.providers else None
    name, scheme = preferred(bundle, config.backend, config.scheme)
    return load_verified(bundle, name, scheme, config.execution, known)


def _isolation(
    config: ServiceConfig, folder: Path, bundle: Bundle, turn: Callable[[], None] | None = None
) -> Isolation:
    name, scheme = preferred(bundle, config.backend, config.scheme)
    memory = state_path(folder, config.state).with_suffix(".proven.json")
    return proven(bundle, name, scheme, config.execution, memory, turn)


def state_path(folder: Path, state: str) -> Path:
    """Path of the state database: in the config's folder, or in the unit's StateDirectory= if systemd gives one."""
    return Path(os.environ.get("STATE_DIRECTORY") or folder) / state
