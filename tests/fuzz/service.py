"""Strange messages into the whole service: each is acknowledged, no reading steps twice, memory stays flat.

`make fuzz` runs it. Only the broker is simulated (`SimulatedBroker`). It sends good readings, repeated and late ones,
messages of other devices, and broken and hostile ones. It cuts connections, and kills the service between two batches,
before a commit, before the predictions are published and before the readings are acknowledged. Then it sends again what
was not acknowledged. Decoder, predictor, database and outbox are those of the service.

The run fails at any exception, at a batch over ten seconds, at a revision that is not higher than the one before, where
the number of steps of a stream is not that of its readings, where a message stays unacknowledged, where a kind of kill
never happened, and where memory grows by more than a twentieth.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import random
import shutil
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.capabilities import BrokerCapabilities
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.config import read_service_config
from edge_lstm.service.service import Service
from tests.device_messages import device_messages
from tests.fuzz.memory import rss_mib
from tests.paths import PUMP, ROOT

FOLDER = ROOT / "build/fuzz-service"
STREAMS = 300  # of which the service keeps 200 in memory
UNKNOWN_DEVICES = 50
_STEADY = 0.2  # of the run, after which caches and the database are what they will be
_TIMES_KEPT = 30
_START_S = 1_700_000_000.0
_LONGEST_BATCH_S = 10.0
_HOSTILE = [
    b"",
    b"\xff\xfe\x00",
    b"[" * 9000,
    b'{"a":' * 5000,
    b" " * 1_000_000,
    b'{"time": 1e400, "pressure": 1, "flow": 1}',
    b'{"time": "9999-12-31T23:59:59Z", "pressure": 4, "flow": 12}',
    b'{"time": -1e18, "pressure": 4, "flow": 12}',
    b'{"time": true, "pressure": [], "flow": {}}',
    b'{"time": 1700000000, "pressure": NaN, "flow": -Infinity}',
    b'{"time": 1700000000, "pressure": 3.4e38, "flow": -3.4e38}',
    b'{"time": 1700000060, "pressure": "\\ud800", "flow": "12,5"}',
    b'{"time": 1700000120, "pressure": ' + b"9" * 5000 + b', "flow": 1}',
    b"[" + b'{"time": 1700000000, "pressure": 4, "flow": 12},' * 500 + b"7]",
]
_STRANGE_TOPICS = ["sensors/", "sensors/a/b", "sensors/\x01", "sensors/" + "x" * 300, "elsewhere", "sensors/$SYS"]


KILLS = ("between batches", "before commit", "before publish", "before acknowledge")


class KilledError(Exception):
    """Ends the service where a kill would end its process."""


class SimulatedBroker:
    """In place of the connection: it delivers messages at least once, in order, until they are acknowledged."""

    def __init__(self, messages: int, seed: int) -> None:
        self.address, self.connected, self.connection_count = Address("fuzz", 1883), True, 1
        self.granted, self.waiting = BrokerCapabilities.of(True, None), 0
        self.counts: Counter[str] = Counter()
        self.granted, self.waiting = None, 0
        self.unconfirmed: set[int] = set()
        self.readings: Counter[str] = Counter()  # distinct predicted times, by stream
        self.steps: Counter[str] = Counter()  # the highest number of a step, by stream
        self._revisions: dict[str, dict[str, dict[int, int]]] = {}  # digests by stream, time and revision; recent ones
        self.sent = self.cuts = 0
        self.kills: Counter[str] = Counter()
        self.serving = False  # so that a kill ends `run`
        self.longest_s = 0.0
        self.stop: Callable[[], None] = lambda: None
        self._left = messages
        self._random = random.Random(seed)
        self._others = device_messages()
        self._clock = [0] * STREAMS
        self._recent: deque[tuple[str, bytes]] = deque(maxlen=500)
        self._held: list[tuple[str, bytes]] = []
        self._unacknowledged: dict[int, Message] = {}
        self._packet_id = self._number = 0
        self._polled_at = time.monotonic()

    def kill_sometimes(self, point: str) -> None:
        """End the service here, in one of 30 calls."""
        if self.serving and self._random.random() < 1 / 30:
            self.kills[point] += 1
            raise KilledError

    # what a service calls on its connection

    def poll(self, timeout_s: float, *, read: bool = True) -> list[Message]:
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self._polled_at)
        chance = self._random.random()
        if chance < 0.5:
            self._confirm()
        self.kill_sometimes("between batches")
        if chance > 0.965:
            messages = self.cut()
        elif not self._left and not self._unacknowledged:
            self.stop()
            messages = []
        else:
            room = 1000 - len(self._unacknowledged)
            count = min(self._random.randrange(300), self._left, room) if read else 0
            self._left -= count
            messages = [self._next() for _ in range(count)]
        self._polled_at = time.monotonic()
        return messages

    def publish_many(self, items: Sequence[tuple[str, bytes]], **how: Any) -> list[int]:
        predictions = [payload for topic, payload in items if topic.startswith("predictions/")]
        if predictions:
            self.kill_sometimes("before publish")
        for payload in predictions:
            self._check(payload)
        numbers = list(range(self._number, self._number + len(items)))
        self._number += len(items)
        self.unconfirmed.update(numbers)
        return numbers

    def publish(self, topic: str, payload: str | bytes, **how: Any) -> int:
        if payload:  # an empty one deletes a retained message
            json.loads(payload)
        return 0

    def fits(self, topic: str, payload: bytes) -> bool:
        return True

    def take_faults(self) -> list[dict[str, object]]:
        return []

    def acknowledge(self, messages: Iterable[Message]) -> None:
        self.kill_sometimes("before acknowledge")
        for message in messages:
            if message.connection == self.connection_count:
                self._unacknowledged.pop(message.packet_id, None)

    def abort_connect(self) -> None:
        """Nothing to do: there is no connection attempt here."""

    def close(self, timeout_s: float = 1.0) -> None:
        self.connected = False

    # what happens to it

    def cut(self) -> list[Message]:
        """A new connection; what is not acknowledged comes again."""
        self.cuts += 1
        self.connected, self.connection_count = True, self.connection_count + 1
        self._confirm()
        again = [one._replace(repeated=True, connection=self.connection_count) for one in self._unacknowledged.values()]
        self._unacknowledged = {message.packet_id: message for message in again}
        return again

    def _confirm(self) -> None:
        self.unconfirmed -= set(list(self.unconfirmed)[: self._random.randrange(1, 2000)])

    def _check(self, payload: bytes) -> None:
        facts = json.loads(payload)
        stream, revision = facts["stream"], facts["revision"]
        if not stream.startswith("pump-"):
            return
        by_time = self._revisions.setdefault(stream, {})
        former = by_time.setdefault(facts["time"], {})
        digest = hash(payload)
        if revision not in former and revision < max(former, default=0):
            raise AssertionError(f"expected a revision above {max(former)}, found: {facts}")
        self.readings[stream] += not former
        if former.setdefault(revision, digest) != digest:  # what goes out again after a kill is the same
            raise AssertionError(f"expected what went out before at revision {revision}, found: {facts}")
        if len(by_time) > _TIMES_KEPT:
            del by_time[next(iter(by_time))]
        self.steps[stream] = max(self.steps[stream], facts["step"])

    def _next(self) -> Message:
        self.sent += 1
        chance = self._random.random()
        retained, qos = False, 1
        if chance < 0.72:
            if chance < 0.04:
                self._held.append(self._fresh())
            topic, payload = self._fresh()
        elif chance < 0.78 and self._recent:
            topic, payload = self._random.choice(self._recent)
        elif chance < 0.82 and self._held:
            topic, payload = self._held.pop(0)
        elif chance < 0.90:
            other = self._random.choice(self._others)
            topic, payload = self._random.choice([other.topic, self._unknown_device()]), other.payload
        elif chance < 0.96:
            topic, payload = self._unknown_device(), self._mutated(self._fresh_payload(0))
        else:
            topic = self._random.choice([self._unknown_device(), *_STRANGE_TOPICS])
            payload = self._random.choice(_HOSTILE)
            retained, qos = self._random.random() < 0.2, self._random.choice([0, 1])
        self._packet_id = self._packet_id % 65535 + 1
        message = Message(topic, payload, self._packet_id if qos else 0, self.connection_count, qos, False, retained)
        if qos:
            self._unacknowledged[self._packet_id] = message
        return message

    def _unknown_device(self) -> str:
        return f"sensors/unknown-{self._random.randrange(UNKNOWN_DEVICES)}"

    def _fresh(self) -> tuple[str, bytes]:
        stream = self._random.randrange(STREAMS)
        self._clock[stream] += 60 if self._random.random() < 0.98 else 3600
        message = f"sensors/pump-{stream}", self._fresh_payload(self._clock[stream])
        self._recent.append(message)
        return message

    def _fresh_payload(self, seconds: int) -> bytes:
        facts = {"time": _START_S + seconds, "pressure": round(self._random.gauss(4, 1), 3), "flow": 12.5}
        if self._random.random() < 0.05:
            facts["pressure"] = None
        return json.dumps(facts).encode()

    def _mutated(self, payload: bytes) -> bytes:
        at = self._random.randrange(len(payload))
        return payload[:at] + self._random.randbytes(self._random.randrange(4)) + payload[at + 1 :]


def serve(broker: SimulatedBroker, config: Path) -> Counter[str]:
    """The service until the broker has sent all, started again after every kill; what it counted in total."""
    counts: Counter[str] = Counter()
    while True:
        with mock.patch("edge_lstm.service.service.MqttConnection", return_value=broker):
            service = Service(read_service_config(config), config.parent)
        broker.stop = service.stop
        commit = service._store.commit

        def killed_or_commit(*arguments: Any, commit: Callable[..., None] = commit, **options: Any) -> None:
            broker.kill_sometimes("before commit")
            commit(*arguments, **options)

        service._store.commit = killed_or_commit  # type: ignore[method-assign]
        ended = True
        if counts:
            service._receive(broker.cut())
        broker.serving = True
        try:
            service.run()
        except KilledError:
            service._store._database.close()  # as the kernel does for a dead process
            ended = False
        finally:
            broker.serving = False
        counts += Counter({**service.figures.totals(), "readings": int(service.stats.figures()["readings"]), "runs": 1})
        broker.stop = lambda: None
        del service, commit, killed_or_commit
        gc.collect()  # a kill gives back all memory; what is in cycles here would stay until Python looks for it
        if ended:
            return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=200_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # it logs much about such a broker
    warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, where a hostile value overflows
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    shutil.copy(PUMP, FOLDER)
    config = FOLDER / "service.toml"
    config.write_text(
        f'bundle = "{PUMP.name}"\nbackend = "numpy"\nmax_streams = 200\nmax_rewind = 20\nstats_interval_s = 1\n'
        'mqtt.url = "mqtt://fuzz"\n'
    )
    early = int(_STEADY * arguments.messages)
    broker = SimulatedBroker(early, arguments.seed)
    begun = time.monotonic()
    counts = serve(broker, config)
    steady = rss_mib()
    broker._left, broker.connected = arguments.messages - early, True
    counts += serve(broker, config)
    seconds, at_end = time.monotonic() - begun, rss_mib()
    killed = ", ".join(f"{broker.kills[point]} kills {point}" for point in KILLS)
    counted = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count)
    print(f"{broker.sent:,} messages in {seconds:.0f} s, {killed}, {broker.cuts} cuts: {counted}")
    print(
        f"the longest batch took {broker.longest_s:.2f} s; RSS {steady:.1f} MiB after a fifth, {at_end:.1f} at the end"
    )
    if broker.readings != broker.steps:
        raise AssertionError(f"expected a step per reading, found more: {broker.steps - broker.readings}")
    if not all(broker.kills[point] for point in KILLS):
        raise AssertionError(f"expected every kind of kill, found {dict(broker.kills)}")
    if broker.longest_s > _LONGEST_BATCH_S:
        raise AssertionError("a batch took longer than ten seconds")
    if at_end > 1.05 * steady:
        raise AssertionError("memory grew by more than a twentieth")


if __name__ == "__main__":
    main()
