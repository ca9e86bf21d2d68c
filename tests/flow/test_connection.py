"""The connection over both clients, while brokers restart, networks break and packets are malformed."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.client.batching_client import REFUSAL, BatchingClient
from edge_lstm.mqtt.client.received import Message
from edge_lstm.mqtt.client.stock_client import StockClient
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.mqtt.options import ConnectionOptions, Wanted
from edge_lstm.mqtt.send_window import PublishProperties
from tests.flow.proxy import Proxy
from tests.flow.scripted_broker import (
    CONNACK_311,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    SUBACK_311,
    ScriptedBroker,
    publish_packet,
)

Make = Callable[..., Any]


@pytest.fixture(params=["batching", "stock"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., MqttConnection]]:
    """client_of(address, client_id, topics, session_expiry_s, **options): not connected yet.

    The test runs once for each client.
    """
    made: list[MqttConnection] = []

    def make(
        address: Address, client_id: str = "", topics: Sequence[str] = (), session_expiry_s: int = 0, **options: Any
    ) -> MqttConnection:
        chosen = ConnectionOptions(client=request.param, **options)
        made.append(MqttConnection(address, client_id, topics, session_expiry_s=session_expiry_s, options=chosen))
        return made[-1]

    yield make
    for connection in made:
        connection.close(0.2)


def drive(connection: MqttConnection, done: Callable[[], bool], what: str, acknowledge: bool = True) -> list[Message]:
    """Poll until `done()`; what arrived, acknowledged where told to."""
    arrived: list[Message] = []
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, f"expected within 30 s that {what}"
        messages = connection.poll(0.05)
        arrived += messages
        if acknowledge:
            connection.acknowledge(messages)
    return arrived


def take(connection: MqttConnection, count: int, acknowledge: bool = True) -> list[Message]:
    """Poll until at least `count` messages arrived."""
    arrived: list[Message] = []
    deadline = time.monotonic() + 30
    while len(arrived) < count:
        assert time.monotonic() < deadline, f"expected {count} messages within 30 s, found {len(arrived)}"
        messages = connection.poll(0.05)
        arrived += messages
        if acknowledge:
            connection.acknowledge(messages)
    return arrived


def connect(connection: MqttConnection) -> MqttConnection:
    """As a service does: by polling, so that nobody has to be there at first."""
    drive(connection, lambda: connection.connected, "the connection is connected")
    return connection


def settle(connection: MqttConnection) -> None:
    drive(connection, lambda: not connection.unconfirmed, "everything is confirmed")


def numbered(count: int, topic: str = "t/in") -> list[tuple[str, bytes]]:
    return [(topic, b"%d" % number) for number in range(count)]


def numbers(messages: list[Message]) -> list[int]:
    return [int(message.payload) for message in messages]


# order and counts


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_qos_1_messages_arrive_once_and_in_order(mosquitto: Any, client_of: Make, protocol: str) -> None:
    source = connect(client_of(mosquitto.address, protocol=protocol))
    sink = connect(client_of(mosquitto.address, "sink", topics=["t/+"], session_expiry_s=60, protocol=protocol))
    sent = source.publish_many(numbered(3000))
    assert len(set(sent)) == 3000
    arrived: list[Message] = []
    while source.unconfirmed or len(arrived) < 3000:
        source.poll(0.01)
        messages = sink.poll(0.01)
        sink.acknowledge(messages)
        arrived += messages
    assert numbers(arrived) == list(range(3000))
    assert {(message.topic, message.qos, message.repeated) for message in arrived} == {("t/in", 1, False)}
    sink.close()
    again = connect(client_of(mosquitto.address, "sink", topics=["t/+"], session_expiry_s=60, protocol=protocol))
    source.publish("t/in", "3000")
    assert numbers(take(again, 1)) == [3000], "what was acknowledged does not come again"


def test_the_embedded_broker_delivers_messages(client_of: Make) -> None:
    with EmbeddedBroker() as broker:
        sink = connect(client_of(broker.address, "sink", topics=["a/+", "b/#"]))
        source = connect(client_of(broker.address_311, protocol="3.1.1"))
        source.publish_many([*numbered(150, "a/x"), *numbered(150, "b/x/y")])
        settle(source)
        arrived = take(sink, 300)
        assert numbers([message for message in arrived if message.topic == "a/x"]) == list(range(150))
        assert numbers([message for message in arrived if message.topic == "b/x/y"]) == list(range(150))


def test_messages_beyond_the_send_window_wait_in_order(client_of: Make) -> None:
    with ScriptedBroker(connack="20 06 00 00 03 21 00 05") as broker:  # Receive Maximum 5
        connection = connect(client_of(broker.address))
        connection.publish_many(numbered(12))
        connection.publish("t/in", "12", retain=True)
        acknowledged = 0
        while acknowledged < 13:
            connection.poll(0.05)
            outstanding = broker.received(PUBLISH)[acknowledged:]
            assert len(outstanding) <= 4, "one is kept for the status"
            for packet in outstanding[:1]:
                broker.send(b"\x40\x02" + packet[7:9])
                acknowledged += 1
        settle(connection)
        packets = broker.received(PUBLISH)
        assert [int(packet[10:]) for packet in packets] == list(range(13))
        assert [packet[0] for packet in packets] == [0x32] * 12 + [0x33]


def test_a_message_stays_unconfirmed_until_its_puback(client_of: Make) -> None:
    with ScriptedBroker() as broker:
        connection = connect(client_of(broker.address))
        first, second = connection.publish_many(numbered(2))
        drive(connection, lambda: len(broker.received(PUBLISH)) == 2, "both are sent")
        assert connection.unconfirmed == {first, second}
        broker.send(b"\x40\x04" + broker.received(PUBLISH)[1][7:9] + b"\x10\x00")  # with a reason: no subscriber
        drive(connection, lambda: connection.unconfirmed == {first}, "the second is confirmed")


def test_messages_refused_by_the_broker_are_counted_and_logged_once(
    client_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedBroker() as broker:
        connection = connect(client_of(broker.address))
        connection.publish_many(numbered(2))
        drive(connection, lambda: len(broker.received(PUBLISH)) == 2, "both are sent")
        for packet in broker.received(PUBLISH):
            broker.send(b"\x40\x03" + packet[7:9] + b"\x87")
        settle(connection)
        assert connection.counts["refused"] == 2
        assert caplog.text.count("broker refuses what we publish") == 1
        assert "Not authorized" in caplog.text


def test_qos_0_messages_are_dropped_and_counted_without_a_broker(mosquitto: Any, client_of: Make) -> None:
    connection = client_of(mosquitto.address, topics=["t/+"], qos=0)
    connection.publish_many(numbered(3), qos=0)
    assert connection.counts["shed"] == 3
    assert not connection.unconfirmed
    connect(connection)
    assert connection.publish_many(numbered(500), qos=0) == []
    arrived = take(connection, 500)
    assert numbers(arrived) == list(range(500))
    assert {message.qos for message in arrived} == {0}
    assert connection.counts["shed"] == 3


def test_an_invalid_topic_is_refused_and_nothing_is_sent(mosquitto: Any, client_of: Make) -> None:
    connection = connect(client_of(mosquitto.address))
    for topic in ("", "a/+", "#", "a\0b", "x" * 65536, "\ud800"):
        with pytest.raises(EdgeLstmError, match="expected a topic to publish to"):
            connection.publish_many([("good", b""), (topic, b"")])
    assert not connection.unconfirmed


def test_wanted_user_properties_content_type_and_expiry_arrive(mosquitto: Any, client_of: Make) -> None:
    wanted = Wanted(user_properties=frozenset({"unit", "site"}))
    connection = connect(client_of(mosquitto.address, topics=["t/+"], wanted=wanted))
    said = PublishProperties(
        expiry_s=60, content_type="application/json", user=(("unit", "°C"), ("more", "x"), ("site", "a"))
    )
    connection.publish_many(numbered(2), properties=said)
    connection.publish("t/in", "2")
    arrived = take(connection, 3)
    assert [message.properties for message in arrived] == [{"unit": "°C", "site": "a"}] * 2 + [{}]
    assert numbers(arrived) == [0, 1, 2]


def test_properties_are_sent_with_mqtt_5_and_not_with_3_1_1(client_of: Make) -> None:
    said = PublishProperties(expiry_s=60, content_type="x/y", user=(("k", "v"),))
    with ScriptedBroker() as broker:
        connection = connect(client_of(broker.address))
        connection.publish("t", b"p", properties=said)
        drive(connection, lambda: broker.received(PUBLISH) != [], "it is sent")
        (packet,) = broker.received(PUBLISH)
        assert packet[6:-1] in (
            bytes.fromhex("12 02 0000003c 03 0003 782f79 26 0001 6b 0001 76"),
            bytes.fromhex("12 03 0003 782f79 02 0000003c 26 0001 6b 0001 76"),
        )
    with ScriptedBroker(CONNACK_311, SUBACK_311) as broker:
        connection = connect(client_of(broker.address, protocol="3.1.1"))
        connection.publish("t", b"p", properties=said)
        drive(connection, lambda: broker.received(PUBLISH) != [], "it is sent")
        (packet,) = broker.received(PUBLISH)
        assert packet[1:4] == b"\x00\x01t"
        assert packet[6:] == b"p"


def test_a_qos_2_message_is_delivered_and_completed(client_of: Make) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: (
            publish_packet("t/in", b"0", 7, qos=2) + b"\x62\x02\x00\x07" + publish_packet("t/in", b"1", 8)
        )
        connection = client_of(broker.address, topics=["t/+"])
        arrived = take(connection, 2)
        assert [(message.payload, message.qos) for message in arrived] == [(b"0", 2), (b"1", 1)]
        drive(connection, lambda: broker.received(PUBCOMP) != [], "QoS 2 is completed")
        assert broker.received(PUBCOMP) == [b"\x70\x00\x07"]
        assert broker.received(PUBACK) == [b"\x40\x00\x08"]


# bounds


def test_an_unread_socket_bounds_memory_and_stays_connected(mosquitto: Any, client_of: Make) -> None:
    sink = connect(client_of(mosquitto.address, "sink", topics=["t/+"], session_expiry_s=60, keepalive_s=1))
    source = connect(client_of(mosquitto.address))
    count, payload = 4000, b"%06d" + b" " * 4000
    source.publish_many([("t/in", payload % number) for number in range(count)], properties=None)
    settle(source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = sink.connection_count
    until = time.monotonic() + 3.5  # more than twice the keepalive
    while time.monotonic() < until:
        assert sink.poll(0.1, read=False) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000, "KiB, of 16,000 on their way"
    arrived = take(sink, count)
    assert numbers(arrived) == list(range(count))
    assert sink.connection_count == connection


def test_one_poll_takes_a_bounded_number_of_messages(mosquitto: Any, client_of: Make) -> None:
    sink = connect(client_of(mosquitto.address, topics=["t/+"], qos=0))
    source = connect(client_of(mosquitto.address))
    source.publish_many(numbered(20_000), qos=0)
    sizes = []
    while sum(sizes) < 20_000:
        source.poll(0.0)
        sizes.append(len(sink.poll(0.5)))
    assert max(sizes) < 6000


def test_one_poll_takes_a_bounded_number_of_bytes(mosquitto: Any, client_of: Make) -> None:
    sink = connect(client_of(mosquitto.address, topics=["t/+"]))
    source = connect(client_of(mosquitto.address))
    source.publish_many([("t/in", bytes(500_000))] * 20)
    settle(source)
    sizes = []
    while sum(sizes) < 20:
        messages = sink.poll(0.5)
        sink.acknowledge(messages)
        sizes.append(len(messages))
    assert max(sizes) <= 4, "1 MiB and what the last read brought"


# brokers that come and go


def test_a_broker_restart_loses_nothing_in_either_direction(mosquitto: Any, client_of: Make) -> None:
    connection = connect(client_of(mosquitto.address, "echo", topics=["t/+"], session_expiry_s=600))
    connection.publish_many(numbered(100))
    held = take(connection, 100, acknowledge=False)
    settle(connection)
    mosquitto.stop()
    drive(connection, lambda: not connection.connected, "the loss is noticed")
    waiting = connection.publish_many([("t/in", b"%d" % number) for number in range(100, 200)])
    assert connection.unconfirmed == set(waiting)
    mosquitto.start()
    before = connection.connection_count
    arrived = take(connection, 200)
    assert connection.connection_count == before + 1
    assert numbers(arrived) == list(range(200)), "unacknowledged ones come again, then what waited here"
    assert [message.repeated for message in arrived[:100]] == [True] * 100
    assert held[0].payload == arrived[0].payload
    settle(connection)


def test_a_lost_session_is_logged_as_an_error(
    mosquitto: Any, client_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect(client_of(mosquitto.address, "kept", topics=["t/+"], session_expiry_s=600))
    assert connection.counts["sessions_lost"] == 0
    mosquitto.stop()
    (mosquitto.folder / "mosquitto.db").unlink()
    mosquitto.start()
    drive(connection, lambda: connection.connection_count == 2 and connection.connected, "the connection is back")
    assert connection.counts["sessions_lost"] == 1
    assert [r.levelname for r in caplog.records if "broker lost our session" in r.message] == ["ERROR"]
    other = connect(client_of(mosquitto.address, "new", session_expiry_s=600, expect_session=True))
    assert other.counts["sessions_lost"] == 1


def test_the_status_topic_reports_each_connect_and_a_crash(mosquitto: Any, client_of: Make) -> None:
    watcher = connect(client_of(mosquitto.address, topics=["status"]))
    heard: list[bytes] = []

    def receive(expected: bytes) -> None:
        while heard[-1:] != [expected]:  # "online" may come again after a cut, as QoS 1 may
            heard.extend(message.payload for message in take(watcher, 1))

    with Proxy(mosquitto.address) as proxy:
        connection = connect(client_of(proxy.address, status_topic="status"))
        receive(b"online")
        proxy.cut()
        receive(b"offline")
        drive(connection, lambda: connection.connection_count == 2 and connection.connected, "the connection is back")
        receive(b"online")
        connection.close()
        receive(b"offline")
    late = connect(client_of(mosquitto.address, topics=["status"]))
    (message,) = take(late, 1)
    assert (message.payload, message.retained) == (b"offline", True)


def test_an_absent_broker_is_logged_once_and_retried(
    mosquitto: Any, client_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.stop()
    connection = client_of(mosquitto.address)
    with pytest.raises(EdgeLstmError, match=r"expected an MQTT broker at .*, found: Connection refused"):
        connection.open()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert connection.poll(0.1) == []
    assert caplog.text.count("broker unreachable") == 1
    mosquitto.start()
    connect(connection)


def test_open_fails_at_a_broker_that_closes_or_has_another_version(client_of: Make) -> None:
    with ScriptedBroker(connack="20 02 00 01") as broker:
        for protocol in ("5", "3.1.1"):
            connection = client_of(broker.address, protocol=protocol)
            with pytest.raises(EdgeLstmError, match=f"expected the MQTT {protocol} broker .* to accept us, found: "):
                connection.open(60)
    # nobody listens on port 1; the error is not: no answer within 60 s
    with Proxy(Address("127.0.0.1", 1)) as proxy, pytest.raises(EdgeLstmError, match="it closed the connection"):
        client_of(proxy.address).open(60)


# networks that break


@pytest.mark.parametrize("breakage", ["cut", "half_close", "swallow"])
def test_a_broken_connection_is_detected_and_nothing_is_lost(mosquitto: Any, client_of: Make, breakage: str) -> None:
    with Proxy(mosquitto.address) as proxy:
        connection = connect(client_of(proxy.address, "echo", topics=["t/+"], session_expiry_s=600, keepalive_s=1))
        connection.publish_many(numbered(50))
        assert len(take(connection, 50)) == 50
        settle(connection)
        getattr(proxy, breakage)()
        connection.publish_many([("t/in", b"%d" % number) for number in range(50, 100)])
        missing = set(range(50, 100))
        deadline = time.monotonic() + 30
        while missing or connection.unconfirmed:
            assert time.monotonic() < deadline, f"expected every message after {breakage}, {len(missing)} are missing"
            messages = connection.poll(0.05)
            missing.difference_update(numbers(messages))  # those whose acknowledgement broke off come again
            connection.acknowledge(messages)
        assert proxy.connections >= 2


def test_a_slow_network_loses_nothing(mosquitto: Any, client_of: Make) -> None:
    with Proxy(mosquitto.address) as proxy:
        proxy.delay_s = 0.1
        connection = connect(client_of(proxy.address, topics=["t/+"], keepalive_s=1))
        connection.publish_many(numbered(300))
        assert numbers(take(connection, 300)) == list(range(300))
        settle(connection)
        assert proxy.connections == 1


def test_8000_messages_survive_connections_cut_inside_packets(mosquitto: Any, client_of: Make) -> None:
    count = 8000
    source = connect(client_of(mosquitto.address))
    sink = connect(client_of(mosquitto.address, "sink", topics=["out/+"], session_expiry_s=600))
    with Proxy(mosquitto.address) as proxy:
        proxy.cut_after = 40_009
        echo = connect(client_of(proxy.address, "echo", topics=["in/+"], session_expiry_s=600))
        source.publish_many([("in/x", b"%d" % number) for number in range(count)])
        echoed: set[int] = set()
        heard: set[int] = set()
        deadline = time.monotonic() + 30
        while len(heard) < count:
            assert time.monotonic() < deadline, f"expected {count} messages, found {len(heard)}"
            source.poll(0.0)
            messages = echo.poll(0.005)
            fresh = dict.fromkeys(number for number in numbers(messages) if number not in echoed)
            echoed.update(fresh)
            echo.publish_many([("out/x", b"%d" % number) for number in fresh])
            echo.acknowledge(messages)
            answers = sink.poll(0.005)
            heard.update(numbers(answers))
            sink.acknowledge(answers)
        assert heard == set(range(count))
        assert proxy.connections >= 4


def test_an_acknowledgement_of_an_earlier_connection_is_ignored(client_of: Make) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: publish_packet("t/in", b"%d" % connection, 7)
        connection = client_of(broker.address, topics=["t/+"], session_expiry_s=60)
        (first,) = take(connection, 1, acknowledge=False)
        broker.cut()
        drive(connection, lambda: not connection.connected, "the loss is noticed")
        connection.acknowledge([first])
        (second,) = take(connection, 1, acknowledge=False)
        assert (first.packet_id, second.packet_id) == (7, 7)
        connection.acknowledge([first])
        connection.publish("t/in", "after")
        drive(connection, lambda: broker.received(PUBLISH) != [], "what came after it is sent")
        assert broker.received(PUBACK) == []
        connection.acknowledge([second])
        drive(connection, lambda: broker.received(PUBACK) == [b"\x40\x00\x07"], "the second is acknowledged")


def test_the_client_drops_acknowledgements_of_another_connection(client_of: Make) -> None:
    with ScriptedBroker() as broker:
        connection = connect(client_of(broker.address))
        connection._client.acknowledge_many([1, 2], connection._client.connection - 1)
        connection._client.acknowledge_many([3], connection._client.connection)
        drive(connection, lambda: broker.received(PUBACK) != [], "an acknowledgement is sent")
        assert broker.received(PUBACK) == [b"\x40\x00\x03"]


def test_close_publishes_offline_even_with_a_full_window(mosquitto: Any, client_of: Make) -> None:
    watcher = connect(client_of(mosquitto.address, topics=["status"]))
    with Proxy(mosquitto.address) as proxy:
        for stuck in (False, True):
            connection = connect(client_of(proxy.address, status_topic="status"))
            connection._publisher.window.size = 0
            connection.publish("t/in", "which nobody takes")
            assert [m.payload for m in take(watcher, 1)] == [b"online"]
            if stuck:
                proxy.swallow()
                connection._client.loop_write = lambda: None
            connection.close(0.1)
            if stuck:
                proxy.cut()  # as the network would in the end
            assert [m.payload for m in take(watcher, 1)] == [b"offline"]


# packets that are no packets

MALFORMED = {
    "a topic longer than its packet": "30 05 00 7f 61 00 00",
    "no topic": "30 01 00",
    "nothing at all": "32 00",
    "no packet id": "32 03 00 01 61",
    "QoS 3": "36 06 00 01 61 00 07 00",
    "properties longer than the packet": "30 05 00 01 61 7f 00",
    "a property that there is none of": "30 06 00 01 61 02 7e 00",
    "a property of another packet": "30 09 00 01 61 05 11 00 00 00 01",
    "half a user property": "30 0a 00 01 61 05 26 00 01 6b 00 00",
    "a user property that is no text": "30 0b 00 01 61 07 26 00 01 6b 00 01 ff",
    "a length that never ends": "30 ff ff ff ff ff",
    "a confirmation without an id": "40 01 00",
    "a subscription answer without an id": "90 01 00",
    "a second packet of a client": "10 02 00 00",
    "a type that there is none of": "00 00",
    "an AUTH that nobody asked for": "f0 02 18 00",
}


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_packet_ends_the_connection_without_an_exception(client_of: Make, packet: str) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: (
            publish_packet("t/in", b"%d" % connection, 1) + (bytes.fromhex(packet) if connection == 1 else b"")
        )
        connection = client_of(broker.address, topics=["t/+"], wanted=Wanted(user_properties=frozenset("k")))
        drive(connection, lambda: connection.connection_count == 2, "the connection is made again")
        assert numbers(take(connection, 1)) == [2], "nothing of the broken connection is handed out after it"


def test_a_topic_that_is_not_utf8_is_acknowledged_and_counted(client_of: Make) -> None:
    with ScriptedBroker() as broker:
        packet = bytes.fromhex("32 06 00 01 ff 00 09 00")
        broker.after_subscribe = lambda connection: packet + publish_packet("t/in", b"1", 10)
        connection = client_of(broker.address, topics=["t/+"])
        assert numbers(take(connection, 1)) == [1]
        drive(connection, lambda: len(broker.received(PUBACK)) == 2, "both are acknowledged")
        assert connection.counts["malformed"] == 1


def test_a_packet_that_arrives_byte_by_byte_is_read(client_of: Make) -> None:
    with ScriptedBroker() as broker:
        connection = connect(client_of(broker.address, topics=["t/+"]))
        payload = b"7" * 20
        arrived: list[Message] = []
        for byte in publish_packet("t/in", payload, 1) * 2:
            broker.send(bytes([byte]))
            arrived += connection.poll(0.005)
        drive(connection, lambda: len(broker.packets) == 1, "the connection stands")
        arrived += take(connection, 2 - len(arrived)) if len(arrived) < 2 else []
        assert [message.payload for message in arrived] == [payload] * 2


def test_an_exception_in_a_callback_is_logged_and_the_loop_continues(
    client_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: publish_packet("t/in", b"%d" % connection, 1)
        connection = client_of(broker.address, topics=["t/+"])
        kept = connection._client._on_arrivals

        def raise_once(arrivals: object) -> None:
            connection._client._on_arrivals = kept
            raise RuntimeError("a fault of ours")

        connection._client._on_arrivals = raise_once
        assert numbers(take(connection, 1)) == [2]
        assert "a fault of ours" in caplog.text
        assert "Traceback" in caplog.text


# which client


def test_auto_chooses_the_batching_client_with_the_installed_paho() -> None:
    assert REFUSAL is None
    assert type(MqttConnection(Address("127.0.0.1", 1))._client) is BatchingClient
    assert (
        type(MqttConnection(Address("127.0.0.1", 1), options=ConnectionOptions(client="stock"))._client) is StockClient
    )


def test_an_unknown_paho_falls_back_to_the_stock_client_and_logs_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_lstm.mqtt.client.client_choice.REFUSAL", "Client._packet_handle(self)")
    assert type(MqttConnection(Address("127.0.0.1", 1))._client) is StockClient
    assert type(MqttConnection(Address("127.0.0.1", 1))._client) is StockClient
    assert [r.levelno for r in caplog.records if "stock paho is used" in r.message] == [logging.WARNING]
    with pytest.raises(EdgeLstmError, match=r"found one without Client._packet_handle\(self\)"):
        MqttConnection(Address("127.0.0.1", 1), options=ConnectionOptions(client="batching"))


def test_open_fails_when_the_broker_refuses_the_subscription(client_of: Make) -> None:
    refused = pytest.raises(EdgeLstmError, match="subscription refused: Not authorized")
    with ScriptedBroker(suback="90 04 {id} 00 87") as broker, refused:
        client_of(broker.address, topics=["t/+"]).open(5)
