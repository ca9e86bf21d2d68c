"""Messages that a broker does not take, with both clients: denied by its rules, or larger than its limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.mqtt import paused_topics
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import ConnectionOptions
from tests.deadline import wait_until
from tests.flow.conftest import Subscriber
from tests.flow.scripted_broker import CONNACK_5, PUBLISH, ScriptedBroker

Make = Callable[..., Any]
OPEN = "allow_anonymous true"


@pytest.fixture(params=["batching", "stock"])
def connection_to(request: pytest.FixtureRequest) -> Iterator[Callable[..., MqttConnection]]:
    """connection_to(address, **options): connected; the test runs once for each client."""
    made: list[MqttConnection] = []

    def make(address: Address, **options: Any) -> MqttConnection:
        chosen = ConnectionOptions(client=request.param, **options)
        made.append(MqttConnection(address, "refused", session_expiry_s=60, options=chosen))
        drive(made[-1], lambda: made[-1].connection_count == 1, "it connects")
        return made[-1]

    yield make
    for connection in made:
        connection.close(0.2)


def drive(connection: MqttConnection, done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, f"expected within 30 s that {what}"
        connection.poll(0.05)


def numbered(topic: str, numbers: Sequence[int]) -> list[tuple[str, bytes]]:
    return [(topic, b"%d" % number) for number in numbers]


def payloads(subscriber: Subscriber) -> list[bytes]:
    return [message.payload for message in list(subscriber.messages)]


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_over_the_brokers_limit_is_not_sent_and_the_rest_goes_on(
    start_mosquitto: Make, connection_to: Make, subscribe: Make, caplog: pytest.LogCaptureFixture, qos: int
) -> None:
    broker = start_mosquitto(f"{OPEN}\nmax_packet_size 200")
    subscriber = subscribe(broker.address, "out/+")
    connection = connection_to(broker.address)
    drive(connection, lambda: connection.connected, "it is connected")
    assert connection.fits("out/a", b"x" * 180)
    assert not connection.fits("out/a", b"x" * 200)
    items = [("out/a", b"1"), ("out/a", b"x" * 400), ("out/b", b"2"), ("out/b", b"y" * 500)]
    connection.publish_many(items, qos=qos, family="out/+")
    drive(connection, lambda: payloads(subscriber) == [b"1", b"2"], "the small ones arrive")
    drive(connection, lambda: not connection.unconfirmed, "nothing is left")
    assert connection.counts["too_large"] == 2
    assert connection.connection_count == 1
    assert "message of 413 bytes is too large for the broker and is not sent" in caplog.text
    assert "the broker takes 200 bytes topic=out/a" in caplog.text
    assert caplog.text.count("too large for the broker") == 1


def test_a_limit_that_a_later_connection_states_is_kept(connection_to: Make) -> None:
    with ScriptedBroker(connack=CONNACK_5) as broker:
        connection = connection_to(broker.address)
        connection.publish_many([("t", b"x" * 100), ("t", b"1")], family="t")
        drive(connection, lambda: len(broker.received(PUBLISH)) == 2, "both are sent")
        broker._connack = bytes.fromhex("20 08 00 00 05 27 00 00 00 40")  # 64 bytes
        broker.cut()
        drive(connection, lambda: len(broker.packets) > 1 and bool(broker.received(PUBLISH)), "the small one is sent")
        assert [packet[-1:] for packet in broker.received(PUBLISH)] == [b"1"]
        assert connection.counts["too_large"] == 1


def deny_all_but(folder: Path, *topics: str) -> str:
    """mosquitto's settings: everybody may read everything, and write these topics."""
    rules = folder / "acl"
    rules.write_text("topic read #\n" + "".join(f"topic write {topic}\n" for topic in topics))
    return f"{OPEN}\nacl_file {rules}"


def test_a_denied_topic_pauses_and_its_messages_follow_once_allowed(
    tmp_path: Path,
    start_mosquitto: Make,
    connection_to: Make,
    subscribe: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(paused_topics, "_FIRST_PAUSE_S", 2.0)
    broker = start_mosquitto(deny_all_but(tmp_path, "good/#", "status"))
    subscriber = subscribe(broker.address, "+/+")
    connection = connection_to(broker.address, status_topic="status")
    connection.publish_many(numbered("bad/a", [1, 2, 3]), family="bad/+")
    connection.publish_many(numbered("good/a", [4, 5]), family="good/+")
    drive(connection, lambda: payloads(subscriber) == [b"4", b"5"], "the others arrive")
    drive(connection, lambda: connection.waiting == 3, "the denied ones wait")
    assert connection.paused_topics == ["bad/a"]
    assert "broker refuses what we publish topic=bad/a reason=Not authorized bytes=1" in caplog.text
    assert "another client" not in caplog.text
    assert [fault["topic"] for fault in connection.take_faults()] == ["bad/a"]
    deny_all_but(tmp_path, "good/#", "bad/#", "status")
    broker.stop()
    broker.start()
    drive(connection, lambda: not connection.unconfirmed, "nothing is left")
    # a restart of the broker may repeat a message
    wait_until(
        lambda: list(dict.fromkeys(payloads(subscriber))) == [b"4", b"5", b"1", b"2", b"3"], "what waited arrives"
    )
    assert connection.counts["dropped"] == 0


def test_a_denied_status_topic_costs_one_connection_a_pause(
    tmp_path: Path, start_mosquitto: Make, connection_to: Make, subscribe: Make
) -> None:
    broker = start_mosquitto(deny_all_but(tmp_path, "good/#"))
    subscriber = subscribe(broker.address, "good/+")
    connection = connection_to(broker.address, status_topic="status")
    drive(connection, lambda: connection.paused_topics == ["status"], "the status pauses")
    for number in range(50):
        connection.publish_many(numbered("good/a", [number]), family="good/+")
        connection.poll(0.02)
    drive(connection, lambda: len(payloads(subscriber)) >= 50, "the others arrive")
    assert connection.connection_count <= 2


def test_a_broker_that_closes_without_a_reason_gets_the_rest(
    start_mosquitto: Make, connection_to: Make, subscribe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    broker = start_mosquitto(f"{OPEN}\nmax_packet_size 200")  # which MQTT 3.1.1 does not state
    subscriber = subscribe(broker.address, "out/+")
    connection = connection_to(broker.address, protocol="3.1.1")
    connection.publish_many([("out/a", b"x" * 400), ("out/b", b"1")], family="out/{stream}")
    drive(connection, lambda: payloads(subscriber) == [b"1"], "the small one arrives")
    assert connection.paused_topics == ["out/a"]
    assert "broker refuses what we publish topic=out/a reason=it ends the connection" in caplog.text
    assert "bytes=400" in caplog.text


def test_a_message_over_a_limit_that_is_not_stated_stops_nothing(
    start_mosquitto: Make, connection_to: Make, subscribe: Make
) -> None:
    broker = start_mosquitto(f"{OPEN}\nmessage_size_limit 200")  # answered with a code that paho does not know
    subscriber = subscribe(broker.address, "out/+")
    connection = connection_to(broker.address)
    connection.publish_many([("out/a", b"x" * 400), ("out/b", b"1")], family="out/{stream}")
    drive(connection, lambda: set(payloads(subscriber)) == {b"1"}, "the small one arrives")
    drive(connection, lambda: not connection.unconfirmed or connection.waiting == 1, "the large one is set aside")
    assert connection.counts["too_large"] + connection.counts["refused"] == 1
