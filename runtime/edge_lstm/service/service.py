"""The service: takes readings, steps each stream exactly once a reading, publishes predictions, and stops cleanly.

A batch goes: drain, decode, predict, commit, publish, acknowledge. The commit holds the states and the predictions, so
a crash leaves either nothing (the readings come again) or everything (the predictions go out again, and readings that
come again are known). Nothing waits for the broker to confirm predictions before it acknowledges readings: rumqttd
confirms nothing to a client whose window of unacknowledged messages is full, and both would wait for ever.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.signing import require_trusted_signature
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.hashing import sha256
from edge_lstm.foundation.times import CLOCK_UNSET_BEFORE
from edge_lstm.hardware.machine import run_on
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.messages.deadband import Deadband
from edge_lstm.messages.decoder import Decoder, PayloadError
from edge_lstm.messages.encoder import Encoder
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.messages.payloads import shown_bytes
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.connection import Message, MqttConnection
from edge_lstm.mqtt.credentials import Login, Tls
from edge_lstm.mqtt.send_window import PublishProperties
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.inbox import Inbox
from edge_lstm.service.outbox import Outbox, Outgoing
from edge_lstm.service.refusal import refusal_payload, refusal_topic
from edge_lstm.service.stats import ServiceStats
from edge_lstm.service.store import SteppingRules, Store, StoreFullError
from edge_lstm.service.systemd import SystemdNotifier
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm.streaming.step_results import Steps

log = logging.getLogger(__name__)

_MOST_UNSENT = 5000  # predictions that the broker has not confirmed, before readings are left with it
_LEAST_HELD = 2000  # messages of a new connection among which all repetitions are: more than brokers leave under way
_POLL_S = 0.2
_RETRY_COMMIT_S = 1.0
_REFUSALS_TOLD_EVERY_S = 60.0
_IGNORED_TOLD_EVERY_S = 3600.0
_ID_WINDOW = 256  # of a device's own sequence numbers: more than can be under way


class _OpenedFiles(NamedTuple):
    """What a service reads from the files that its config names, once."""

    bundle: Bundle
    tls: Tls | None
    login: Login | None


class Service:
    """One bundle between two topics of a broker. It owns its state database; one thread does everything."""

    def __init__(
        self,
        config: ServiceConfig,
        folder: Path,
        *,
        manager: SystemdNotifier | None = None,
        former: Service | None = None,
        refused: EdgeLstmError | None = None,
    ) -> None:
        """`folder`: where relative paths of the config start; `manager`: who hears that it is ready and alive;
        `former`: an ended one of the same config, whose bundle, certificates and password it goes on with, whatever
        became of their files; `refused`: what was refused before this one was made, told to the broker.

        Raises EdgeLstmError where the bundle, its backend's self-test or the database refuses.
        """
        self.config = config
        self._brought: _OpenedFiles = _from_files(config, folder) if former is None else former._brought
        bundle, tls, login = self._brought
        self._bundle_id = bundle.id
        self._manager = manager or SystemdNotifier({})
        self._refused: EdgeLstmError | None = refused
        if config.cores is not None:
            run_on(config.cores)
        rules = SteppingRules(
            config.max_rewind if config.late == "rewind" else 0, _ID_WINDOW if config.input.sequence is not None else 0
        )
        self._predictor = Predictor.of(
            bundle, config.backend, config.scheme, execution=config.execution, **rules._asdict(), fetch=self._row
        )
        self._decoder, self._encoder, self._deadband = message_codecs(config, bundle)
        layout = self._predictor.table.layout
        self._store = Store(state_path(folder, config.state), bundle.id, layout, config.history, config.sync, rules)
        self._batch, unsent, known = self._store.load()
        filters = config.input.topic_filters
        former_filters = self._store.subscribe(filters)
        self._exactly_once = config.durability == "exactly-once"
        # a reading that comes again is known by its own time; else its message has to be
        self._by_message = self._exactly_once and not self._decoder.timed
        self._mqtt = MqttConnection(
            parse_address(config.mqtt.url),
            config.mqtt.client_id,
            filters,
            f"edge-lstm/{config.mqtt.client_id}/status",
            config.mqtt.session_expiry_s,
            protocol=config.mqtt.protocol,
            qos=config.mqtt.qos if self._exactly_once else 0,
            tls=tls,
            login=login,
            receive_maximum=config.mqtt.receive_maximum,
            keepalive_s=config.mqtt.keepalive_s,
            expect_session=(self._batch > 0 or self._store.count() > 0) and self._exactly_once,
            former_topics=former_filters,
        )
        say = functools.partial(
            self._mqtt.publish_many, retain=config.output.retain, properties=_said_beside(config.output)
        )
        self._say_unconfirmed = functools.partial(say, qos=0)
        self._outbox = Outbox(say, lambda: self._mqtt.unconfirmed, self._batch)
        for batch, messages in unsent:
            self._outbox.put(batch, messages, ())
        self._outbox.put(self._batch, (), known)
        self._intake = Inbox()
        self._unsaved: dict[str, None] = {}  # streams that stepped since the last commit, where durability waits
        self._saved_at = time.monotonic()
        self._disk_refuses = False
        self._stopping = False
        self._connection = 0
        self._arrivals = ArrivalClock()
        self._told_at = -_REFUSALS_TOLD_EVERY_S
        self._ignored_at = -_IGNORED_TOLD_EVERY_S
        self.counts: Counter[str] = Counter(refused=0, ignored=0, retained=0, repeated=0, predictions=0)
        self.health = ServiceStats()
        backend = self._predictor.backend
        log.info("self-test passed bundle=%s backend=%s scheme=%s", bundle.id, backend.name, backend.scheme)
        log.info("state loaded streams=%d unsent=%d", self._store.count(), len(self._outbox))

    def stop(self) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self._stopping = True
        self._mqtt.give_up()

    def run(self) -> None:
        """Serve until `stop`. The broker may come and go; this keeps trying."""
        self._manager.status(f"connecting to {self._mqtt.address}")
        self._manager.ready()
        while not self._stopping:
            self._manager.alive()
            self._outbox.settle()
            free = len(self._outbox) < _MOST_UNSENT
            # confirmations come over the same socket, so with too few of them it is read on, come what may
            read = not self._intake.full or not free
            self._take(self._mqtt.poll(self._pause_s() if self._intake and free else _POLL_S, read=read))
            if self._intake and free and self._pause_s() == 0:
                self._process(self._intake.batch())
            self._do_what_is_due()
        self._finish()

    def _pause_s(self) -> float:
        """How long what waits has to: commits keep their distance, unless a whole batch waits."""
        if not self._exactly_once or self._intake.has_a_whole_batch:
            return 0.0
        return min(max(self._saved_at + self.config.commit_interval_s - time.monotonic(), 0.0), _POLL_S)

    def _take(self, messages: Sequence[Message]) -> None:
        if self._mqtt.connection != self._connection and self._mqtt.connected:
            self._connection = self._mqtt.connection
            log.info("connected address=%s", self._mqtt.address)
            self._manager.status(f"connected to {self._mqtt.address}, bundle {self._bundle_id}")
            self._mqtt.publish(refusal_topic(self.config.mqtt.client_id), refusal_payload(self._refused), retain=True)
            self._intake.keep_only(self._connection)
            self._outbox.hold(max(_LEAST_HELD, 2 * self.config.mqtt.receive_maximum))
        self._intake.add(messages)

    def _process(self, messages: list[Message]) -> None:
        begun = time.monotonic()
        readings = self._readings(messages)
        steps = self._predictor.feed_columns(readings)
        outbox = [] if steps is None else self._encoder.messages(self._worth_saying(steps))
        identities = [_identity(message) for message in messages] if self._by_message else []
        self._unsaved.update(dict.fromkeys([reading.stream for reading in readings]))
        self._batch += 1
        if self._exactly_once and not self._commit(outbox, identities, readings):
            return
        if self._exactly_once:
            self._outbox.put(self._batch, outbox, identities)
            self._mqtt.acknowledge(messages)
        else:
            self._say_unconfirmed(outbox)
        self._evict()
        self.counts["predictions"] += 0 if steps is None else len(steps.order)
        self.health.processed(len(readings), time.monotonic() - begun)

    def _worth_saying(self, steps: Steps) -> Steps:
        """Those that are published; corrections always are."""
        if self._deadband is not None:
            return steps.at(self._deadband.moved(steps, self._predictor.table))
        if self.config.output.publish_when == "alarm":
            return steps.at((steps.decisions.turned | (steps.revisions > 0)).nonzero()[0].tolist())
        return steps

    def _readings(self, messages: Sequence[Message]) -> list[Reading]:
        """The readings in messages; what has none is counted, and why."""
        timed, decode = self._decoder.timed, self._decoder.readings
        arrival = self._arrivals.next()
        readings: list[Reading] = []
        for message in messages:
            if (message.retained or message.repeated) and self._is_old(message):
                continue
            if not timed:
                arrival = self._arrivals.next()
            try:
                found = decode(message.topic, message.payload, message.properties, arrival)
            except PayloadError as error:
                self._refuse(message, str(error))
                found = error.readings
            else:
                if not found:
                    self._ignore(message)
            for reading in found:
                if reading.time < arrival:  # as it should be
                    readings.append(reading)
                elif self._plausible(message, reading):
                    readings.append(self._arrivals.own(reading, arrival))
        return readings

    def _is_old(self, message: Message) -> bool:
        """Whether it holds no fresh reading but what was true once, or was processed already; counted where so."""
        if message.retained:
            self.counts["retained"] += 1
            return True
        known = self._outbox.knows(_identity(message))
        self.counts["repeated"] += known
        return known

    def _plausible(self, message: Message, reading: Reading) -> bool:
        """Whether its time is not absurdly far ahead; counted and told where it is."""
        ahead = reading.time - self._arrivals.latest
        if ahead > self.config.max_ahead_s and self._arrivals.latest > CLOCK_UNSET_BEFORE:
            self._refuse(message, f"expected a time up to now, found one {ahead:.0f} s ahead")
            return False
        return True

    def _ignore(self, message: Message) -> None:
        """Count a message without any key of the mapping: devices send such, but so does a mistyped key, so say it."""
        self.counts["ignored"] += 1
        now = time.monotonic()
        if now - self._ignored_at >= _IGNORED_TOLD_EVERY_S:
            self._ignored_at = now
            log.warning(
                "message ignored, it has no key of [input] topic=%s ignored=%d payload=%s",
                message.topic,
                self.counts["ignored"],
                shown_bytes(message.payload),
            )

    def _refuse(self, message: Message, found: str) -> None:
        """Count it, and say so on the log and the errors topic, but not more than once in a while."""
        self.counts["refused"] += 1
        now = time.monotonic()
        if now - self._told_at < _REFUSALS_TOLD_EVERY_S:
            return
        self._told_at = now
        log.warning("payload refused topic=%s refused=%d: %s", message.topic, self.counts["refused"], found)
        facts = {"topic": message.topic, "refused": self.counts["refused"], "error": found}
        self._mqtt.publish(self._own_topic("errors"), json.dumps(facts))

    def _row(self, stream: str) -> bytes | None:
        return self._store.row(stream)

    def _commit(self, outbox: Sequence[Outgoing], identities: Sequence[str], readings: Sequence[Reading]) -> bool:
        """Put the batch on the disk, however long the disk needs; False where `stop` came first.

        While the disk refuses, nothing is read, sent or acknowledged: the broker keeps it all. With durability
        at-most-once it keeps nothing, so all goes on, and the states are put there at a later checkpoint.
        """
        table = self._predictor.table
        rows = list(zip(self._unsaved, table.rows(self._unsaved), strict=True))
        confirmed, acknowledged = self._outbox.confirmed, self._outbox.forgettable
        while True:
            try:
                self._store.commit(self._batch, rows, outbox, confirmed, identities, acknowledged, readings)
                break
            except StoreFullError as error:
                if not self._disk_refuses:
                    log.error("commit refused, trying again and again: %s", error.message)
                    self._mqtt.publish(self._own_topic("errors"), json.dumps({"error": error.message}))
                self._disk_refuses = True
            if not self._exactly_once:
                self._saved_at = time.monotonic()
                return False
            deadline = time.monotonic() + _RETRY_COMMIT_S
            while time.monotonic() < deadline:
                if self._stopping:
                    return False
                self._mqtt.poll(0.05, read=False)
                self._manager.alive()  # a disk that is full is waited for; one that never answers is not
        if self._disk_refuses:
            self._disk_refuses = False
            log.warning("commit taken, going on batch=%d", self._batch)
        self._unsaved.clear()
        self._saved_at = time.monotonic()
        return True

    def _evict(self) -> None:
        """Let the longest idle streams go, beyond what memory is meant for; the database has them."""
        table = self._predictor.table
        over = len(table) - self.config.max_streams
        if over > 0:
            for stream in table.least_recently_used(over + self.config.max_streams // 10):  # many at once, so seldom
                if stream not in self._unsaved:
                    table.evict(stream)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if not self._exactly_once and self._unsaved and now - self._saved_at >= self.config.checkpoint_s:
            self._commit((), (), ())
        if self._mqtt.connected and self.health.due(now, self.config.stats_interval_s):
            self._mqtt.publish(self._own_topic("stats"), json.dumps(self._stats()), retain=True)

    def _stats(self) -> dict[str, object]:
        """What stands on the stats topic; docs/predictions.md explains it."""
        return {
            "bundle": self._bundle_id,
            "backend": self._predictor.backend.name,
            "scheme": self._predictor.backend.scheme,
            "streams": self._store.count(),
            "streams_in_memory": len(self._predictor.table),
            "queue": len(self._intake),
            "unconfirmed": len(self._outbox),
            "unsaved": len(self._unsaved),
            **self._totals(),
            **self.health.figures(),
        }

    def _totals(self) -> dict[str, int]:
        """What became of readings, messages and predictions, from the start on."""
        connection = self._mqtt.counts
        return {
            **self._predictor.totals,
            **self.counts,
            "malformed": connection["malformed"],
            "shed": connection["shed"],
            "unwanted": connection["refused"],
            "sessions_lost": connection["sessions_lost"],
        }

    def _own_topic(self, name: str) -> str:
        return f"edge-lstm/{self.config.mqtt.client_id}/{name}"

    def _finish(self) -> None:
        """What is committed gets out if the broker takes it within a second; else the next start sends it."""
        deadline = time.monotonic() + 0.5
        while len(self._outbox) and self._mqtt.connected and time.monotonic() < deadline:
            self._mqtt.poll(0.05)
            self._outbox.settle()
        if not self._exactly_once:
            self._commit((), (), ())
        self._mqtt.close(timeout_s=0.3)
        self._store.close(self._outbox.confirmed)
        log.info("stopped %s", " ".join(f"{name}={count}" for name, count in self._totals().items()))


def _from_files(config: ServiceConfig, folder: Path) -> _OpenedFiles:
    bundle = Bundle.open(folder / config.bundle)
    if config.trust is not None:
        require_trusted_signature(bundle, folder / config.trust)
    return _OpenedFiles(bundle, config.mqtt.tls(folder), config.mqtt.login(folder))


def _said_beside(output: OutputMapping) -> PublishProperties | None:
    """What goes with every prediction beside its payload; None where nothing does."""
    if not output.needs_mqtt_5:
        return None
    return PublishProperties(output.expiry_s, output.content_type or "", tuple(output.user_properties.items()))


def message_codecs(config: ServiceConfig, bundle: Bundle) -> tuple[Decoder, Encoder, Deadband | None]:
    """Messages to readings, predictions to messages, and which of them to say (None: all).

    Raises EdgeLstmError where [input] or [output] do not fit what the bundle takes and gives.
    """
    contract, output = bundle.contract, config.output
    categories = {feature.name: feature.categories for feature in contract.features if feature.categories}
    decoder = Decoder(config.input, [feature.name for feature in contract.features], categories)
    if output.publish_when == "alarm" and contract.task not in ("classify", "anomaly"):
        raise EdgeLstmError(
            f'expected a bundle with labels or alarms for publish_when = "alarm", found the task {contract.task}',
            'set publish_when = "change" and a deadband under [output] in the service config, or remove the key',
        )
    deadband = Deadband(contract, output.deadband) if output.publish_when == "change" else None
    return decoder, Encoder(output, bundle.id), deadband


def state_path(folder: Path, state: str) -> Path:
    """Where the database lies: beside the config, or in the unit's StateDirectory= where systemd gives one."""
    return Path(os.environ.get("STATE_DIRECTORY") or folder) / state


def _identity(message: Message) -> str:
    """What a message has in common with its own repetition in the same session (MQTT 5, 4.4), and with no other."""
    digest = sha256(message.topic.encode() + b"\0" + message.payload).hexdigest()[:16]
    return f"{message.packet_id}:{digest}"
