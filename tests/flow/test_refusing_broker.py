"""The service at a broker that refuses, limits or forgets: it goes on, and reports what is wrong and what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_lstm.foundation.times.text import format_time
from tests.deadline import wait_until

Make = Callable[..., Any]
OPEN = "allow_anonymous true"


def reading(number: int, **more: object) -> str:
    return json.dumps({"time": format_time(time.time() - 3600 + number), "level": 1.5 + number % 3, **more})


def last_stats(subscriber: Any) -> dict[str, Any]:
    stats = [message for message in list(subscriber.messages) if message.topic.endswith("/stats") and message.payload]
    return json.loads(stats[-1].payload) if stats else {}


def errors(subscriber: Any) -> list[str]:
    return [
        json.loads(message.payload)["error"]
        for message in list(subscriber.messages)
        if message.topic.endswith("/errors")
    ]


def test_denied_predictions_pause_while_readings_are_stepped(
    tmp_path: Path, bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write sensors/#\ntopic write edge-lstm/#\n")
    broker = start_mosquitto(f"{OPEN}\nacl_file {rules}")
    subscriber = subscribe(broker.address, "edge-lstm/#")
    service = start_service(bundle_path, broker.address, extra="stats_interval_s = 0.2")
    service.wait_connected()
    for number in range(30):
        subscriber.publish(f"sensors/tank-{number % 5}", reading(number))
    wait_until(lambda: last_stats(subscriber).get("samples") == 30, "all readings are stepped")
    wait_until(lambda: last_stats(subscriber).get("waiting") == 30, "the predictions wait")
    assert service.process.poll() is None
    log = service.log.read_text()
    assert "broker refuses what we publish topic=predictions/tank-" in log
    assert "reason=Not authorized" in log
    assert "another client" not in log
    assert log.count("connection lost") <= 9, "three for each of three topics, before the whole family pauses"
    assert any(error.startswith("broker refuses what we publish: Not authorized") for error in errors(subscriber))


def test_the_latest_denied_predictions_wait_on_the_disk_and_are_sent_later(
    tmp_path: Path, bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write sensors/#\ntopic write edge-lstm/#\n")
    broker = start_mosquitto(f"{OPEN}\nacl_file {rules}")
    subscriber = subscribe(broker.address, "edge-lstm/#")
    service = start_service(bundle_path, broker.address, extra="stats_interval_s = 0.2")
    service.wait_connected()
    for number in range(1200):
        subscriber.publish("sensors/tank", reading(number))
    wait_until(lambda: last_stats(subscriber).get("samples") == 1200, "all readings are stepped")
    wait_until(lambda: last_stats(subscriber).get("waiting") == 1000, "the latest predictions wait")
    assert last_stats(subscriber)["dropped"] == 200
    assert service.stop() == 0
    rules.write_text("topic readwrite #\n")
    broker.stop()
    broker.start()
    predictions = subscribe(broker.address, "predictions/+")
    start_service(bundle_path, broker.address)
    wait_until(lambda: len(predictions.messages) >= 1000, "they are sent")
    wait_until(lambda: predictions.payloads()[-1]["step"] == 1200, "the last one arrives")
    steps = list(dict.fromkeys(facts["step"] for facts in predictions.payloads()))
    assert steps == list(range(steps[0], 1201))
    assert steps[0] <= 201, "a batch stays on the disk as long as one of its predictions waits"


def test_a_small_packet_limit_makes_the_stats_smaller(
    bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    broker = start_mosquitto(f"{OPEN}\nmax_packet_size 300")
    subscriber, predictions = subscribe(broker.address, "edge-lstm/#"), subscribe(broker.address, "predictions/#")
    service = start_service(bundle_path, broker.address, extra="stats_interval_s = 0.2")
    service.wait_connected()
    for number in range(20):
        subscriber.publish("sensors/tank", reading(number))
    wait_until(lambda: len(predictions.messages) == 20, "the predictions arrive")
    wait_until(lambda: last_stats(subscriber).get("predictions") == 20, "the stats arrive")
    assert last_stats(subscriber)["too_large"] == 0
    assert set(last_stats(subscriber)) <= {
        "readings", "predictions", "refused", "queue", "unconfirmed", "waiting", "too_large", "lag_s",
    }  # fmt: skip
    assert "connection lost" not in service.log.read_text()


def test_a_prediction_over_the_limit_is_counted_and_reported_once(
    bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    broker = start_mosquitto(f"{OPEN}\nmax_packet_size 330")
    subscriber, predictions = subscribe(broker.address, "edge-lstm/#"), subscribe(broker.address, "predictions/#")
    service = start_service(bundle_path, broker.address, extra="stats_interval_s = 0.2")
    service.wait_connected()
    long_name = "tank-" + "x" * 90  # in the topic and in the payload
    for number in range(10):
        subscriber.publish(f"sensors/{long_name if number % 2 else 'tank'}", reading(number))
    wait_until(lambda: last_stats(subscriber).get("too_large") == 5, "five are too large")
    wait_until(lambda: len(predictions.messages) == 5, "the others arrive")
    wait_until(lambda: last_stats(subscriber).get("unconfirmed") == 0, "nothing waits")
    log = service.log.read_text()
    assert log.count("too large for the broker") == 1
    assert f"topic=predictions/{long_name}" in log
    assert "the broker takes 330 bytes" in log
    assert "connection lost" not in log
    assert any("too large for the broker" in error for error in errors(subscriber))


def test_the_lag_of_readings_shows_in_the_stats(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "edge-lstm/#")
    start_service(bundle_path, mosquitto.address, extra="stats_interval_s = 0.2").wait_connected()
    assert "lag_s" not in last_stats(subscriber)
    subscriber.publish("sensors/tank", reading(0))
    wait_until(lambda: "lag_s" in last_stats(subscriber), "there is a lag")
    stats = last_stats(subscriber)
    assert 3600 <= stats["lag_s"] == stats["lag_s_p50"] == stats["lag_s_p99"] < 3660
    subscriber.publish("sensors/tank", reading(3600))
    wait_until(lambda: last_stats(subscriber)["lag_s"] < 60, "the lag is small")


def test_a_session_without_its_state_database_is_reported_once(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber = subscribe(mosquitto.address, "edge-lstm/#")
    found = "the broker has a session of this client_id, and the state database is new"
    for _ in range(2):
        service = start_service(bundle_path, mosquitto.address)
        service.wait_connected()
        assert service.stop() == 0
        assert found not in service.log.read_text()
    for path in bundle_path.parent.glob("state.db*"):
        path.unlink()
    service = start_service(bundle_path, mosquitto.address)
    wait_until(lambda: errors(subscriber) != [], "it is reported")
    assert errors(subscriber)[0].startswith(found)
    assert service.log.read_text().count(found) == 1
    assert "if another service uses this client_id, choose another one" in service.log.read_text()


def test_readings_that_the_brokers_queue_dropped_are_reported(
    bundle_path: Path, start_mosquitto: Make, start_service: Make, subscribe: Make
) -> None:
    broker = start_mosquitto(f"{OPEN}\nmax_queued_messages 10\nmax_inflight_messages 10")
    subscriber = subscribe(broker.address, "edge-lstm/#")
    extra = 'stats_interval_s = 0.2\ninput.sequence = "seq"'
    service = start_service(bundle_path, broker.address, extra=extra)
    service.wait_connected()
    subscriber.publish("sensors/tank", reading(0, seq=0))
    wait_until(lambda: last_stats(subscriber).get("samples") == 1, "it is stepped")
    assert service.stop() == 0
    for number in range(1, 50):
        subscriber.publish("sensors/tank", reading(number, seq=number))
    service = start_service(bundle_path, broker.address, extra=extra)
    service.wait_connected()
    wait_until(lambda: last_stats(subscriber).get("samples", 0) > 1, "the queue is stepped")
    subscriber.publish("sensors/tank", reading(50, seq=50))
    wait_until(lambda: last_stats(subscriber).get("skipped", 0) > 10, "the gap is counted")
    stats = last_stats(subscriber)
    assert stats["skipped"] == 50 - stats["samples"]
    wait_until(lambda: "readings never came" in service.log.read_text(), "it is logged")
    assert "the broker's queue was too short (mosquitto: max_queued_messages 0)" in service.log.read_text()
    assert any("readings never came, by their sequence numbers" in error for error in errors(subscriber))
