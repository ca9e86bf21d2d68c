"""Exactly once: kills at exact points of a batch, kills from outside and broker restarts change no bit of any stream.

Each kill is planned and counted by where it hit. `EDGE_LSTM_READINGS` makes the tests longer.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.bundle.contract import Alarm
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from tests.conftest import free_port
from tests.deadline import wait_until
from tests.flow.killed_service import BEFORE_ACKNOWLEDGE, BEFORE_COMMIT, BEFORE_PUBLISH, POINTS
from tests.flow.received import without_repeats
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

READINGS = int(os.environ.get("EDGE_LSTM_READINGS", "20000"))
STREAMS = 50
ANY_TIME = "any-time"  # from outside, often while the service still starts
CONNECTED = "connected"  # from outside, some messages after the service has connected
_LAST_BATCH = 4  # a process that kills itself does so in one of its first four batches


class Rig:
    """A publisher, a subscriber, a broker, and a service that is killed and started again."""

    def __init__(
        self,
        bundle: Path,
        mosquitto: Any,
        start_service: Make,
        subscribe: Make,
        kills: Mapping[str, int],
        extra: str = "",
        address: Address | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`kills`: how many of each kind, from `ANY_TIME`, `CONNECTED` and the points of killed_service.py.

        `address`: another listener of the same broker, for the service. `environment`: more variables of its processes.
        """
        self.rng = random.Random(7)
        self.mosquitto = mosquitto
        self.hits: Counter[str] = Counter()  # kills by the kind that was observed
        self.connected_kills = 0
        self._plan = [kind for kind, count in kills.items() for _ in range(count)]
        self.rng.shuffle(self._plan)
        self._kinds = iter(self._plan)
        server = address or mosquitto.address
        self._start = lambda killed_at: start_service(
            bundle, server, extra, environment=environment, killed_at=killed_at
        )
        self.subscriber = subscribe(mosquitto.address, "predictions/+")
        self.start()
        self.service.wait_connected()
        self.publisher = MqttConnection(mosquitto.address, "publisher", session_expiry_s=3600)
        self.publisher.open()

    def start(self) -> None:
        """Start the service that the next kill of the plan is for; after the last kill, one that lives on."""
        self.kind = next(self._kinds, None)
        by_itself = self.kind in POINTS
        self.service = self._start((self.kind, self.rng.randint(1, _LAST_BATCH)) if by_itself else None)
        self._messages_more = self.rng.randrange(1, 100)

    def publish(
        self,
        messages: Sequence[tuple[str, str]],
        restarts: int,
        before: Mapping[int, Callable[[], object]] | None = None,
    ) -> None:
        """Publish all messages in order, with the planned kills and `restarts` clean restarts of the broker.

        `before`: by the index of a message, what else happens before it is published.
        """
        share = len(messages) // (len(self._plan) + 1)
        due = [share * (number + 1) + self.rng.randrange(share // 2) for number in range(len(self._plan))]
        restarted = set(self.rng.sample(range(1, len(messages)), restarts))
        for index, (topic, payload) in enumerate(messages):
            while len(self.publisher.unconfirmed) >= 200:
                self.publisher.poll(0.05)
            if before is not None and index in before:
                before[index]()
            self.publisher.publish(topic, payload)
            if index % 20 == 0:
                self.publisher.poll(0.0)
            if due and index >= due[0] and self._killed():
                del due[0]
            if index in restarted:
                self.mosquitto.stop()
                self.mosquitto.start()
                wait_until(self.subscriber.client.is_connected, "the subscriber is connected again")
        while self.publisher.unconfirmed:
            self.publisher.poll(0.05)
        assert not due, f"expected all kills before the last message, found {len(due)} left"

    def _killed(self) -> bool:
        """Do the planned kill and start the next service; False where more messages have to be published before."""
        if self.kind != ANY_TIME:
            self._wait(lambda: self._is_dead or self.service.was_connected, "the service is connected")
        if self.kind == CONNECTED and self._messages_more:
            self._messages_more -= 1  # so that the kill hits a busy service
            return False
        if self.kind in POINTS:
            if not self._is_dead:
                self._let_it_work()  # some batches are missing: messages that follow slowly are a batch each
                return False
            assert self.service.process.returncode == -signal.SIGKILL, self.service.log.read_text()
        else:
            self.service.kill()
        self.hits[self.service.killed_point or str(self.kind)] += 1
        self.connected_kills += self.service.was_connected
        self.start()
        return True

    def _let_it_work(self) -> None:
        """Until the service has published, or died, or half a second is over (it may have got a repeated reading).

        Without this pace, a slow machine has all messages published before the service comes to its last batch.
        """
        seen, deadline = len(self.subscriber.messages), time.monotonic() + 0.5
        while not self._is_dead and len(self.subscriber.messages) == seen and time.monotonic() < deadline:
            self.publisher.poll(0.005)

    @property
    def _is_dead(self) -> bool:
        return self.service.process.poll() is not None

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        """As `wait_until`; the publisher goes on sending what waits in its window."""

        def polled() -> bool:
            self.publisher.poll(0.0)
            return done()

        wait_until(polled, what)

    def wait_for(self, expected: Mapping[Any, Any], fold: Callable[[Sequence[Prediction]], Any], what: str) -> None:
        """Until `fold` of all predictions that arrived is `expected`; looked at when no more arrive for a moment."""
        decoded: list[Prediction] = []
        arrived = compared = 0

        def equal() -> bool:
            nonlocal arrived, compared
            before, arrived = arrived, len(self.subscriber.messages)
            if arrived != before or arrived == compared:
                return False
            fresh = self.subscriber.messages[len(decoded) : arrived]
            decoded.extend(decode_prediction(message.payload.decode()) for message in fresh)
            compared = arrived
            return bool(fold(decoded) == expected)

        wait_until(equal, what, 90)

    def close(self) -> str:
        """Stop the service; its log."""
        self.publisher.close()
        assert self.service.stop() == 0
        return str(self.service.log.read_text())


def readings_of(count: int, streams: int) -> list[Reading]:
    rng = random.Random(3)
    return [
        Reading(
            f"tank-{index % streams}", 1_700_000_000.0 + 60 * (index // streams), {"level": round(rng.gauss(1, 2), 4)}
        )
        for index in range(count)
    ]


def last_revisions(predictions: Sequence[Prediction]) -> dict[tuple[str, float], tuple[Any, ...]]:
    """By stream and time, what a subscriber has in the end; what was sent again must be equal."""
    return {
        (one.stream, one.time): (one.step, one.warm_steps, one.values, one.bands)
        for one in without_repeats(predictions)
    }


def by_step(predictions: Sequence[Prediction]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """By stream and step, the values; what was sent again must be equal."""
    return {(one.stream, one.step): one.values for one in without_repeats(predictions)}


@pytest.mark.timeout(600)
def test_twenty_kills_and_three_broker_restarts_change_no_bit(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(READINGS, STREAMS)
    kills = {ANY_TIME: 8, CONNECTED: 3, BEFORE_COMMIT: 3, BEFORE_PUBLISH: 3, BEFORE_ACKNOWLEDGE: 3}
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, kills)
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], restarts=3)
    expected = last_revisions(Predictor.of(Bundle.open(bundle_path), "numpy").feed(readings))
    rig.wait_for(expected, last_revisions, "the predictions equal those of an undisturbed run")
    assert rig.hits == kills
    assert rig.connected_kills >= 12
    rig.close()


@pytest.mark.timeout(300)
def test_shuffled_and_repeated_readings_end_where_ordered_ones_do(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    bundle_path = banded_bundle(tmp_path, make_bundle)
    ordered = readings_of(READINGS // 5, STREAMS // 5)
    rng = random.Random(4)
    place = [index + rng.uniform(0, 50) for index in range(len(ordered))]  # at most five samples of its stream back
    shuffled = [ordered[index] for index in sorted(range(len(ordered)), key=place.__getitem__)]
    messages = [(f"sensors/{one.stream}", encode_reading(one)) for one in shuffled]
    repeated = [
        again for index, one in enumerate(messages) for again in ([one] if index % 9 else [one, messages[index - 5]])
    ]
    # the publisher's own reconnect shuffles too: it sends the unconfirmed again, after later ones
    kills = {ANY_TIME: 1, CONNECTED: 2, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    rig = Rig(bundle_path, mosquitto, start_service, subscribe, kills, extra="max_rewind = 40")
    rig.publish(repeated, restarts=1)
    expected = last_revisions(Predictor.of(Bundle.open(bundle_path), "numpy").feed(ordered))
    rig.wait_for(expected, last_revisions, "the last revisions equal those of the ordered run")
    assert rig.hits == kills
    assert rig.connected_kills >= 5
    assert "late=0" in rig.close()


def banded_bundle(folder: Path, make_bundle: Make) -> Path:
    """A bundle whose bands each stream goes on calibrating."""
    network = random_network()
    intervals = Intervals(0.9, [1.0, 2.0], [share * width for width in (1.1, 2.2) for share in SHARES])
    make_bundle(folder / "tank.elstm", network, contract_of(network, intervals=intervals))
    return folder / "tank.elstm"


def untimed_bundle(folder: Path, make_bundle: Make) -> Path:
    """A bundle whose predictions depend on the order of the readings alone, not on their times."""
    from edge_lstm.bundle.contract import Sampling

    network = random_network(inputs=1)
    make_bundle(folder / "tank.elstm", network, contract_of(network, clock=[], sampling=Sampling()))
    return folder / "tank.elstm"


@pytest.mark.timeout(300)
def test_readings_without_time_or_sequence_step_exactly_once(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    bundle = untimed_bundle(tmp_path, make_bundle)
    readings = readings_of(READINGS // 5, STREAMS // 5)
    kills = {BEFORE_COMMIT: 2, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 3}
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, extra='input.time_from = "arrival"')
    messages = [(f"sensors/{one.stream}", json.dumps(dict(one.values))) for one in readings]
    rig.publish(messages, restarts=0)  # a broker restart would shuffle them, and nothing in them gives the order
    expected = by_step(Predictor.of(Bundle.open(bundle), "numpy").feed(readings))
    rig.wait_for(expected, by_step, "every step equals that of an undisturbed run")
    assert rig.hits == kills
    assert rig.connected_kills == 6
    rig.close()


@pytest.mark.timeout(300)
def test_repeated_readings_with_a_sequence_number_step_exactly_once(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    bundle = untimed_bundle(tmp_path, make_bundle)
    readings = readings_of(READINGS // 10, STREAMS // 5)
    messages = [
        (f"sensors/{one.stream}", json.dumps({**one.values, "seq": index})) for index, one in enumerate(readings)
    ]
    repeated = [  # by the device, in new messages: often the first was committed by a process that is gone
        again
        for index, one in enumerate(messages)
        for again in ([one] if index % 4 or index < 200 else [one, messages[index - 200]])
    ]
    kills = {CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    extra = 'input.time_from = "arrival"\ninput.sequence = "seq"'
    rig = Rig(bundle, mosquitto, start_service, subscribe, kills, extra)
    rig.publish(repeated, restarts=0)
    expected = by_step(Predictor.of(Bundle.open(bundle), "numpy").feed(readings))
    rig.wait_for(expected, by_step, "every step equals that of an undisturbed run")
    assert rig.hits == kills
    assert rig.connected_kills == 4
    rig.close()


def scores(predictions: Sequence[Prediction]) -> dict[tuple[str, float], tuple[Any, ...]]:
    """By stream and time, step, score as a payload has it (None: no score) and alarm of the highest revision."""
    known: dict[tuple[str, float], Prediction] = {}
    for one in predictions:
        former = known.get((one.stream, one.time))
        if former is None or one.revision > former.revision:
            known[one.stream, one.time] = one
    return {
        place: (one.step, None if one.score is None or math.isnan(one.score) else f"{one.score:.6g}", one.alarm)
        for place, one in known.items()
    }


@pytest.mark.timeout(300)
def test_alarms_are_the_same_with_evictions_late_readings_and_kills(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    network = random_network(inputs=1, outputs=1)
    alarm = Alarm(span_steps=5, settle_steps=3, calibrate_steps=50, quantile=0.9, factor=1.2)
    contract = contract_of(network, task="anomaly", alarm=alarm, horizons=[1], clock=[])
    make_bundle(tmp_path / "tank.elstm", network, contract)
    ordered = readings_of(READINGS // 5, STREAMS // 5)
    rng = random.Random(4)
    place = [index + rng.uniform(0, 50) for index in range(len(ordered))]
    shuffled = [ordered[index] for index in sorted(range(len(ordered)), key=place.__getitem__)]
    kills = {CONNECTED: 2, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    extra = "max_rewind = 12\nmax_streams = 3"
    rig = Rig(tmp_path / "tank.elstm", mosquitto, start_service, subscribe, kills, extra)
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in shuffled], restarts=0)
    expected = scores(Predictor.of(Bundle.open(tmp_path / "tank.elstm"), "numpy").feed(ordered))
    assert sum(bool(alarm) for _, _, alarm in expected.values()) > 100
    rig.wait_for(expected, scores, "the last revisions equal those of the ordered run")
    assert rig.hits == kills
    assert "late=0" in rig.close()


@pytest.mark.timeout(300)
def test_readings_over_a_websocket_step_exactly_once(
    bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    port = free_port()
    broker = start_mosquitto(f"allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol websockets")
    readings = readings_of(READINGS // 5, STREAMS)
    kills = {CONNECTED: 1, BEFORE_COMMIT: 1, BEFORE_PUBLISH: 1, BEFORE_ACKNOWLEDGE: 1}
    address = Address("127.0.0.1", port, path="/mqtt")
    rig = Rig(bundle_path, broker, start_service, subscribe, kills, address=address)
    rig.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], restarts=1)
    expected = last_revisions(Predictor.of(Bundle.open(bundle_path), "numpy").feed(readings))
    rig.wait_for(expected, last_revisions, "the predictions equal those of an undisturbed run")
    assert rig.hits == kills
    assert f"connected address=ws://127.0.0.1:{port}/mqtt" in rig.close()
