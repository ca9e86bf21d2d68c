"""The proof: many readings, many kills and restarts of the broker, and not a bit of any stream differs.

`EDGE_LSTM_READINGS` makes it longer.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.messages.decoder import encode_reading
from edge_lstm.messages.encoder import decode_prediction
from edge_lstm.mqtt.connection import MqttConnection
from tests.deadline import wait_until
from tests.networks import contract_of, random_network

Make = Callable[..., Any]

READINGS = int(os.environ.get("EDGE_LSTM_READINGS", "20000"))
STREAMS = 50


class Field:
    """A publisher, a subscriber, a broker and a service that is killed again and again."""

    def __init__(self, bundle: Path, mosquitto: Any, start_service: Make, subscribe: Make, extra: str = "") -> None:
        self.rng = random.Random(7)
        self.mosquitto = mosquitto
        self.start = lambda: start_service(bundle, mosquitto.address, extra)
        self.subscriber = subscribe(mosquitto.address, "predictions/+")
        self.service = self.start()
        self.service.wait_connected()
        self.publisher = MqttConnection(mosquitto.address, "publisher", session_expiry_s=3600)
        self.publisher.open()
        self.kills = 0

    def publish(self, messages: Sequence[tuple[str, str]], kills: int, restarts: int) -> None:
        """All messages in order, with kills of the service at random moments and clean restarts of the broker."""
        killed = set(self.rng.sample(range(1, len(messages)), kills))
        restarted = set(self.rng.sample(range(1, len(messages)), restarts))
        for index, (topic, payload) in enumerate(messages):
            while len(self.publisher.unconfirmed) >= 200:
                self.publisher.poll(0.05)
            self.publisher.publish(topic, payload)
            if index % 20 == 0:
                self.publisher.poll(0.0)
            if index in killed:
                time.sleep(self.rng.random() * 0.05)  # the moment of the kill is meant to be anywhere
                self.service.kill()
                self.service = self.start()
                self.kills += 1
            if index in restarted:
                self.mosquitto.stop()
                self.mosquitto.start()
                wait_until(self.subscriber.client.is_connected, "the subscriber is back")
        while self.publisher.unconfirmed:
            self.publisher.poll(0.05)

    def close(self) -> str:
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


def last_of_each_time(predictions: Sequence[Prediction]) -> dict[tuple[str, float], tuple[Any, ...]]:
    """By stream and time, what the highest revision says; the same revision twice has to say the same."""
    known: dict[tuple[str, float], Prediction] = {}
    for one in predictions:
        former = known.get((one.stream, one.time))
        if former is not None and former.revision == one.revision:
            assert former == one, "the same step was predicted twice, differently"
        if former is None or one.revision > former.revision:
            known[one.stream, one.time] = one
    return {place: (one.step, one.warm_steps, one.values) for place, one in known.items()}


def heard(field: Field) -> list[Prediction]:
    return [decode_prediction(message.payload.decode()) for message in list(field.subscriber.messages)]


@pytest.mark.timeout(600)
def test_twenty_kills_and_three_broker_restarts_change_no_bit(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(READINGS, STREAMS)
    field = Field(bundle_path, mosquitto, start_service, subscribe)
    field.publish([(f"sensors/{one.stream}", encode_reading(one)) for one in readings], kills=20, restarts=3)
    expected = Predictor.of(Bundle.open(bundle_path), "numpy").feed(readings)
    wait_until(lambda: len(field.subscriber.messages) >= len(readings), "a prediction for every reading", 120)
    wanted = last_of_each_time(expected)
    wait_until(lambda: last_of_each_time(heard(field)) == wanted, "every prediction is the undisturbed run's", 60)
    assert field.kills == 20
    field.close()


@pytest.mark.timeout(300)
def test_shuffled_repeated_readings_end_where_ordered_ones_do(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    ordered = readings_of(READINGS // 5, STREAMS // 5)
    rng = random.Random(4)
    place = [index + rng.uniform(0, 50) for index in range(len(ordered))]  # at most five samples of its stream back
    shuffled = [ordered[index] for index in sorted(range(len(ordered)), key=place.__getitem__)]
    messages = [(f"sensors/{one.stream}", encode_reading(one)) for one in shuffled]
    repeated = [
        again for index, one in enumerate(messages) for again in ([one] if index % 9 else [one, messages[index - 5]])
    ]
    # the publisher's own reconnect shuffles too: what was unconfirmed goes out again, after what was
    field = Field(bundle_path, mosquitto, start_service, subscribe, extra="max_rewind = 40")
    field.publish(repeated, kills=6, restarts=1)
    wanted = last_of_each_time(Predictor.of(Bundle.open(bundle_path), "numpy").feed(ordered))
    wait_until(lambda: last_of_each_time(heard(field)) == wanted, "the last revisions are the ordered run's", 90)
    assert "late=0" in field.close()


@pytest.mark.timeout(300)
def test_readings_without_time_or_sequence_step_exactly_once(
    tmp_path: Path, make_bundle: Make, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    from edge_lstm.bundle.contract import Sampling

    network = random_network(inputs=1)
    contract = contract_of(network, clock=[], sampling=Sampling())  # what it says depends on the order alone
    make_bundle(tmp_path / "tank.elstm", network, contract)
    readings = readings_of(READINGS // 5, STREAMS // 5)
    field = Field(tmp_path / "tank.elstm", mosquitto, start_service, subscribe, extra='input.time_from = "arrival"')
    messages = [(f"sensors/{one.stream}", json.dumps(dict(one.values))) for one in readings]
    field.publish(messages, kills=6, restarts=0)  # a broker's restart would shuffle them, and nothing tells the order
    expected = Predictor.of(Bundle.open(tmp_path / "tank.elstm"), "numpy").feed(readings)
    wanted = {(one.stream, one.step): one.values for one in expected}
    wait_until(lambda: len(field.subscriber.messages) >= len(readings), "a prediction for every reading", 90)
    wait_until(
        lambda: {(one.stream, one.step): one.values for one in heard(field)} == wanted,
        "each step is as undisturbed",
        30,
    )
    field.close()
