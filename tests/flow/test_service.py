"""The service as a process, a real broker, a subscriber as anybody would write it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.broker import EmbeddedBroker
from edge_lstm.codec import encode_prediction, encode_reading
from tests.deadline import wait_until

Make = Callable[..., Any]


def readings_of(streams: int, steps: int) -> list[Reading]:
    rng = random.Random(0)
    return [
        Reading(f"tank-{stream}", 1_700_000_000.0 + 60 * step, {"level": round(rng.gauss(1, 2), 3)})
        for step in range(steps)
        for stream in range(streams)
    ]


def undisturbed(bundle: Path, readings: list[Reading]) -> dict[str, list[str]]:
    """What a service that nothing ever happens to publishes, by stream."""
    opened = Bundle.open(bundle)
    published: dict[str, list[str]] = {}
    for prediction in Predictor.of(opened, "numpy").feed(readings):
        published.setdefault(prediction.stream, []).append(encode_prediction(prediction, opened.id))
    return published


def by_stream_without_repeats(messages: list[Any]) -> dict[str, list[str]]:
    published: dict[str, dict[int, str]] = {}
    for message in messages:
        facts = json.loads(message.payload)
        former = published.setdefault(facts["stream"], {}).setdefault(facts["step"], message.payload.decode())
        assert former == message.payload.decode(), "the same step was predicted twice, differently"
    return {stream: list(steps.values()) for stream, steps in published.items()}


def test_every_reading_gets_the_prediction_that_replay_gives(
    bundle_path: Path, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=3, steps=100)
    with EmbeddedBroker() as broker:
        subscriber = subscribe(broker.address_311, "predictions/+")
        service = start_service(bundle_path, broker.address)
        service.wait_connected()
        for reading in readings:
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        wait_until(lambda: len(subscriber.messages) >= 300, "300 predictions arrive")
        assert service.stop() == 0
        assert by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings)
        assert len(subscriber.messages) == 300
        subscriber.close()


@pytest.mark.timeout(180)
def test_kills_and_a_broker_restart_change_no_bit_of_any_stream(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=5, steps=120)
    rng = random.Random(1)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    for index, reading in enumerate(readings):
        subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        if index % 100 == 70:
            time.sleep(rng.random() * 0.05)  # the moment of the kill is meant to be anywhere
            service.kill()
            service = start_service(bundle_path, mosquitto.address)
        if index == 300:
            mosquitto.stop()
            mosquitto.start()
            wait_until(subscriber.client.is_connected, "the subscriber is back")
    expected = undisturbed(bundle_path, readings)
    wait_until(
        lambda: by_stream_without_repeats(subscriber.messages) == expected, "every step is predicted, as undisturbed"
    )
    assert service.stop() == 0


def test_a_restart_continues_the_state_and_the_step_count(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    readings = readings_of(streams=1, steps=20)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    for part in (readings[:10], readings[10:]):
        service = start_service(bundle_path, mosquitto.address)
        service.wait_connected()
        before = len(subscriber.messages)
        for reading in part:
            subscriber.publish(f"sensors/{reading.stream}", encode_reading(reading))
        wait_until(lambda before=before: len(subscriber.messages) >= before + 10, "ten predictions arrive")
        assert service.stop() == 0
    assert [facts["step"] for facts in subscriber.payloads()] == list(range(1, 21))
    assert by_stream_without_repeats(subscriber.messages) == undisturbed(bundle_path, readings)


def test_a_payload_that_the_mapping_does_not_fit_is_logged_once_and_costs_nothing(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    bad = [b"21.5", b"\xff\xfe", b'{"level": "warm", "time": 1}', b'{"level": 1}', b"[" * 9000]
    for payload in [*bad, b"", b'{"time": 5}']:  # the last two are not refused but not for this service
        subscriber.publish("sensors/tank-0", payload)
    (reading,) = readings_of(1, 1)
    subscriber.publish("sensors/tank-0", encode_reading(reading))
    wait_until(lambda: len(subscriber.messages) == 1, "the good reading is predicted")
    assert service.stop() == 0
    log = service.log.read_text()
    assert log.count("payload refused") == 1
    assert "refused=5" in log
    assert "Traceback" not in log


def test_a_retained_reading_is_not_a_fresh_one(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    old, fresh = readings_of(1, 2)
    subscriber = subscribe(mosquitto.address, "predictions/+")
    subscriber.publish("sensors/tank-0", encode_reading(old), retain=True)
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    subscriber.publish("sensors/tank-0", encode_reading(fresh))
    wait_until(lambda: len(subscriber.messages) >= 1, "the fresh reading is predicted")
    assert service.stop() == 0
    assert [facts["step"] for facts in subscriber.payloads()] == [1]
    assert "retained=1" in service.log.read_text()


def test_a_device_is_read_as_it_speaks_and_what_it_says_besides_is_left_alone(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    mapping = '[input]\npreset = "tasmota"\ntimezone = "Europe/Berlin"\nvalues = { level = "SR04.Distance" }'
    service = start_service(bundle_path, mosquitto.address, mapping)
    service.wait_connected()
    subscriber.publish("tele/cistern/LWT", "Online", retain=True)
    subscriber.publish("tele/cistern/STATE", '{"Time":"2024-07-01T14:00:00","Uptime":"0T00:05:00"}')
    subscriber.publish("tele/cistern/SENSOR", '{"Time":"2024-07-01T14:00:00","SR04":{"Distance":"1.25"}}')
    subscriber.publish("tele/cistern/SENSOR", '{"Time":"2024-07-01T14:01:00","SR04":{"Distance":nan}}')
    subscriber.publish("tele/cistern/SENSOR", '{"Time":"2024-07-01T14:02:00","SR04":{"Distance":1.5}}')
    wait_until(lambda: len(subscriber.messages) >= 2, "two predictions arrive")
    assert service.stop() == 0
    said = [(facts["stream"], facts["time"], facts["step"]) for facts in subscriber.payloads()]
    assert said == [("cistern", "2024-07-01T12:00:00Z", 1), ("cistern", "2024-07-01T12:02:00Z", 2)]
    assert "refused=1" in service.log.read_text()


def test_the_service_waits_for_a_broker_that_is_not_there_and_says_so_when_it_goes(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    mosquitto.stop()
    service = start_service(bundle_path, mosquitto.address)
    wait_until(lambda: "broker unreachable" in service.log.read_text(), "the log names the missing broker")
    mosquitto.start()
    service.wait_connected()
    status = subscribe(mosquitto.address, "edge-lstm/edge-lstm-test/status")
    wait_until(lambda: [m.payload for m in status.messages] == [b"online"], "the status is online")
    service.kill()
    wait_until(lambda: [m.payload for m in status.messages] == [b"online", b"offline"], "the last will is heard")


def test_sigterm_ends_it_within_a_second_and_the_state_is_whole(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "predictions/+")
    service = start_service(bundle_path, mosquitto.address)
    service.wait_connected()
    (reading,) = readings_of(1, 1)
    subscriber.publish("sensors/tank-0", encode_reading(reading))
    wait_until(lambda: len(subscriber.messages) == 1, "a prediction arrives")
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(5) == 0
    assert time.monotonic() - begun < 1.0
    assert "stopped samples=1" in service.log.read_text()


def test_two_services_cannot_share_a_state(bundle_path: Path, mosquitto: Any, start_service: Make) -> None:
    first = start_service(bundle_path, mosquitto.address)
    first.wait_connected()
    second = start_service(bundle_path, mosquitto.address)
    assert second.process.wait(15) == 1
    assert "end the other service that uses it" in second.log.read_text()
