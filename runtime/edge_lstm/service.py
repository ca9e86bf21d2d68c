"""The service: takes readings, steps each stream exactly once a reading, publishes predictions, and stops cleanly.

A batch goes: drain, decode, predict, commit, publish, acknowledge. The commit holds the states and the predictions, so
a crash leaves either nothing (the readings come again) or everything (the predictions go out again, and readings that
come again are known). Nothing waits for the broker to confirm predictions before it acknowledges readings: rumqttd
confirms nothing to a client whose window of unacknowledged messages is full, and both would wait for ever.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.bundle import Bundle
from edge_lstm.codec import STREAM, Decoder, PayloadError, encode_prediction
from edge_lstm.mqtt import Door, Message, parse_address
from edge_lstm.predictor import Predictor
from edge_lstm.reading import Reading
from edge_lstm.service_config import ServiceConfig
from edge_lstm.store import Store

log = logging.getLogger(__name__)

_MOST_UNSENT = 5000  # predictions that the broker has not confirmed, before readings are left with it
_MOST_A_BATCH = 200
_POLL_S = 0.2
_REFUSALS_LOGGED_EVERY_S = 60.0


@dataclass(frozen=True)
class _Sent:
    """A committed batch whose predictions are on their way."""

    number: int
    packet_ids: frozenset[int]  # of its predictions
    identities: frozenset[str]  # of its readings' messages


class Service:
    """One bundle between two topics of a broker. It owns its state database; one thread does everything."""

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        """`folder`: where relative paths of the config start.

        Raises EdgeLstmError where the bundle, its backend's self-test or the database refuses.
        """
        bundle = Bundle.open(folder / config.bundle)
        self._bundle_id = bundle.id
        self._predictor = Predictor.of(bundle, config.backend, config.scheme)
        self._decoder = Decoder(config.input, [feature.name for feature in bundle.contract.features])
        self._output_topic = config.output.topic
        self._store = Store(folder / config.state, bundle.id)
        self._door = Door(
            parse_address(config.mqtt.url),
            config.mqtt.client_id,
            config.input.topic_filters,
            f"edge-lstm/{config.mqtt.client_id}/status",
            config.mqtt.session_expiry_s,
        )
        self._batch, self._outbox, self._known = self._store.load(self._predictor.table)
        self._sent: deque[_Sent] = deque()
        self._waiting: list[Message] = []  # taken in, not processed yet
        self._stopping = False
        self._connection = 0
        self._refused_at = -_REFUSALS_LOGGED_EVERY_S
        self.counts: Counter[str] = Counter(refused=0, retained=0, repeated=0, predictions=0)
        backend = self._predictor.backend
        log.info("self-test passed bundle=%s backend=%s scheme=%s", bundle.id, backend.name, backend.scheme)
        log.info("state loaded streams=%d unsent=%d", len(self._predictor.table), len(self._outbox))

    def stop(self) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`. The broker may come and go; this keeps trying."""
        self._send(self._batch, self._outbox, frozenset(self._known))
        while not self._stopping:
            free = len(self._door.unconfirmed) < _MOST_UNSENT
            self._take(self._door.poll(0.0 if self._waiting and free else _POLL_S))
            self._forget_confirmed()
            if self._waiting and free:
                batch, self._waiting = self._waiting[:_MOST_A_BATCH], self._waiting[_MOST_A_BATCH:]
                self._process(batch)
        self._finish()

    def _take(self, messages: Sequence[Message]) -> None:
        if self._door.connection != self._connection and self._door.connected:
            self._connection = self._door.connection
            log.info("connected address=%s", self._door.address)
            # what the former connection left unacknowledged comes again
            self._waiting = [message for message in self._waiting if message.connection == self._connection]
        self._waiting += messages

    def _process(self, messages: list[Message]) -> None:
        arrival = time.time()
        readings = [reading for message in messages for reading in self._readings(message, arrival)]
        predictions = self._predictor.feed(readings)
        outbox = [
            (self._output_topic.replace(STREAM, prediction.stream), encode_prediction(prediction, self._bundle_id))
            for prediction in predictions
        ]
        table = self._predictor.table
        stepped = dict.fromkeys(prediction.stream for prediction in predictions)
        identities = frozenset(map(_identity, messages))
        confirmed = self._confirmed()
        self._batch += 1
        known = self._unacknowledged() | identities
        self._store.commit(self._batch, [(stream, table.row(stream)) for stream in stepped], outbox, confirmed, known)
        self._send(self._batch, outbox, identities)
        self._door.acknowledge(messages)
        self.counts["predictions"] += len(predictions)

    def _confirmed(self) -> int:
        """The last batch of which, and of all before it, the broker has every prediction."""
        return self._sent[0].number - 1 if self._sent else self._batch

    def _unacknowledged(self) -> set[str]:
        """The messages that are processed, and may still come again because their acknowledgement got lost."""
        return self._known.union(*(sent.identities for sent in self._sent))

    def _send(self, batch: int, outbox: Sequence[tuple[str, str]], identities: frozenset[str]) -> None:
        packet_ids = frozenset(self._door.publish(topic, payload) for topic, payload in outbox)
        self._sent.append(_Sent(batch, packet_ids, identities))

    def _forget_confirmed(self) -> None:
        """Let go of batches that the broker has.

        A batch's acknowledgements went out before the next batch's predictions on the same connection, so once those
        are confirmed its messages cannot come again.
        """
        unconfirmed = self._door.unconfirmed
        while self._sent and not self._sent[0].packet_ids & unconfirmed:
            sent = self._sent.popleft()
            self._known = set(sent.identities) if sent.packet_ids else self._known | sent.identities

    def _readings(self, message: Message, arrival: float) -> list[Reading]:
        """The readings in a message, or none after counting why."""
        if message.retained:
            self.counts["retained"] += 1  # what was true once, not a fresh reading
            return []
        if message.repeated and _identity(message) in self._unacknowledged():
            self.counts["repeated"] += 1
            return []
        try:
            return self._decoder.readings(message.topic, message.payload, {}, arrival)
        except PayloadError as error:
            self.counts["refused"] += 1
            if time.monotonic() - self._refused_at >= _REFUSALS_LOGGED_EVERY_S:
                self._refused_at = time.monotonic()
                log.warning("payload refused topic=%s refused=%d: %s", message.topic, self.counts["refused"], error)
            return error.readings

    def _finish(self) -> None:
        """What is committed gets out if the broker takes it within a second; else the next start sends it."""
        deadline = time.monotonic() + 0.5
        while self._door.unconfirmed and self._door.connected and time.monotonic() < deadline:
            self._door.poll(0.05)
        self._forget_confirmed()
        self._door.close(timeout_s=0.3)
        self._store.close(self._confirmed())
        counts = {**self._predictor.counts, **self.counts}
        log.info("stopped %s", " ".join(f"{name}={count}" for name, count in counts.items()))


def _identity(message: Message) -> str:
    """What a message has in common with its own repetition in the same session (MQTT 5, 4.4), and with no other."""
    digest = hashlib.sha256(message.topic.encode() + b"\0" + message.payload).hexdigest()[:16]
    return f"{message.packet_id}:{digest}"
