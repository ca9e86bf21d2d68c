"""The connection over both clients, while brokers restart, networks break and packets are malformed."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.batching_client import REFUSAL, BatchingClient
from edge_lstm.mqtt.connection import Message, MqttConnection
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.mqtt.send_window import PublishProperties
from edge_lstm.mqtt.stock_client import StockClient
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
def make_door(request: pytest.FixtureRequest) -> Iterator[Callable[..., MqttConnection]]:
    """make_door(address, client_id="", **settings): not connected yet; the test runs once for each client."""
    made: list[MqttConnection] = []

    def make(address: Address, client_id: str = "", **settings: Any) -> MqttConnection:
        made.append(MqttConnection(address, client_id, client=request.param, **settings))
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
    drive(connection, lambda: connection.connected, "the door is connected")
    return connection


def settle(connection: MqttConnection) -> None:
    drive(connection, lambda: not connection.unconfirmed, "everything is confirmed")


def numbered(count: int, topic: str = "t/in") -> list[tuple[str, bytes]]:
    return [(topic, b"%d" % number) for number in range(count)]


def numbers(messages: list[Message]) -> list[int]:
    return [int(message.payload) for message in messages]


# order and counts


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_goes_in_at_qos_1_comes_out_once_and_in_order(mosquitto: Any, make_door: Make, protocol: str) -> None:
    source = connect(make_door(mosquitto.address, protocol=protocol))
    sink = connect(make_door(mosquitto.address, "sink", topics=["t/+"], session_expiry_s=60, protocol=protocol))
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
    again = connect(make_door(mosquitto.address, "sink", topics=["t/+"], session_expiry_s=60, protocol=protocol))
    source.publish("t/in", "3000")
    assert numbers(take(again, 1)) == [3000], "what was acknowledged does not come again"


def test_the_embedded_broker_echoes_too(make_door: Make) -> None:
    with EmbeddedBroker() as broker:
        sink = connect(make_door(broker.address, "sink", topics=["a/+", "b/#"]))
        source = connect(make_door(broker.address_311, protocol="3.1.1"))
        source.publish_many([*numbered(150, "a/x"), *numbered(150, "b/x/y")])
        settle(source)
        arrived = take(sink, 300)
        assert numbers([message for message in arrived if message.topic == "a/x"]) == list(range(150))
        assert numbers([message for message in arrived if message.topic == "b/x/y"]) == list(range(150))


def test_messages_beyond_the_brokers_window_wait_in_order(make_door: Make) -> None:
    with ScriptedBroker(connack="20 06 00 00 03 21 00 05") as broker:  # Receive Maximum 5
        connection = connect(make_door(broker.address))
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


def test_a_number_stays_unconfirmed_until_the_broker_has_its_message(make_door: Make) -> None:
    with ScriptedBroker() as broker:
        connection = connect(make_door(broker.address))
        first, second = connection.publish_many(numbered(2))
        drive(connection, lambda: len(broker.received(PUBLISH)) == 2, "both are sent")
        assert connection.unconfirmed == {first, second}
        broker.send(b"\x40\x04" + broker.received(PUBLISH)[1][7:9] + b"\x10\x00")  # with a reason: no subscriber
        drive(connection, lambda: connection.unconfirmed == {first}, "the second is confirmed")


def test_what_the_broker_does_not_want_is_counted_and_told_once(
    make_door: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedBroker() as broker:
        connection = connect(make_door(broker.address))
        connection.publish_many(numbered(2))
        drive(connection, lambda: len(broker.received(PUBLISH)) == 2, "both are sent")
        for packet in broker.received(PUBLISH):
            broker.send(b"\x40\x03" + packet[7:9] + b"\x87")
        settle(connection)
        assert connection.counts["refused"] == 2
        assert caplog.text.count("broker refuses what we publish") == 1
        assert "Not authorized" in caplog.text


def test_qos_0_is_shed_and_counted_while_there_is_no_broker(mosquitto: Any, make_door: Make) -> None:
    connection = make_door(mosquitto.address, topics=["t/+"], qos=0)
    connection.publish_many(numbered(3), qos=0)
    assert connection.counts["shed"] == 3
    assert not connection.unconfirmed
    connect(connection)
    assert connection.publish_many(numbered(500), qos=0) == []
    arrived = take(connection, 500)
    assert numbers(arrived) == list(range(500))
    assert {message.qos for message in arrived} == {0}
    assert connection.counts["shed"] == 3


def test_a_topic_that_nobody_can_publish_to_is_refused_and_nothing_is_sent(mosquitto: Any, make_door: Make) -> None:
    connection = connect(make_door(mosquitto.address))
    for topic in ("", "a/+", "#", "a\0b", "x" * 65536, "\ud800"):
        with pytest.raises(EdgeLstmError, match="expected a topic to publish to"):
            connection.publish_many([("good", b""), (topic, b"")])
    assert not connection.unconfirmed


def test_user_properties_content_type_and_expiry_arrive(mosquitto: Any, make_door: Make) -> None:
    connection = connect(make_door(mosquitto.address, topics=["t/+"]))
    said = PublishProperties(expiry_s=60, content_type="application/json", user=(("unit", "°C"), ("site", "a")))
    connection.publish_many(numbered(2), properties=said)
    connection.publish("t/in", "2")
    arrived = take(connection, 3)
    assert [message.properties for message in arrived] == [{"unit": "°C", "site": "a"}] * 2 + [{}]
    assert numbers(arrived) == [0, 1, 2]


def test_properties_are_on_the_wire_as_mqtt_5_writes_them_and_not_in_3_1_1(make_door: Make) -> None:
    said = PublishProperties(expiry_s=60, content_type="x/y", user=(("k", "v"),))
    with ScriptedBroker() as broker:
        connection = connect(make_door(broker.address))
        connection.publish("t", b"p", properties=said)
        drive(connection, lambda: broker.received(PUBLISH) != [], "it is sent")
        (packet,) = broker.received(PUBLISH)
        assert packet[6:-1] in (
            bytes.fromhex("12 02 0000003c 03 0003 782f79 26 0001 6b 0001 76"),
            bytes.fromhex("12 03 0003 782f79 02 0000003c 26 0001 6b 0001 76"),
        )
    with ScriptedBroker(CONNACK_311, SUBACK_311) as broker:
        connection = connect(make_door(broker.address, protocol="3.1.1"))
        connection.publish("t", b"p", properties=said)
        drive(connection, lambda: broker.received(PUBLISH) != [], "it is sent")
        (packet,) = broker.received(PUBLISH)
        assert packet[1:4] == b"\x00\x01t"
        assert packet[6:] == b"p"


def test_a_message_of_qos_2_goes_the_way_of_the_others_and_is_completed(make_door: Make) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: (
            publish_packet("t/in", b"0", 7, qos=2) + b"\x62\x02\x00\x07" + publish_packet("t/in", b"1", 8)
        )
        connection = make_door(broker.address, topics=["t/+"])
        arrived = take(connection, 2)
        assert [(message.payload, message.qos) for message in arrived] == [(b"0", 2), (b"1", 1)]
        drive(connection, lambda: broker.received(PUBCOMP) != [], "QoS 2 is completed")
        assert broker.received(PUBCOMP) == [b"\x70\x00\x07"]
        assert broker.received(PUBACK) == [b"\x40\x00\x08"]


# bounds


def test_an_unread_socket_bounds_memory_and_keeps_its_connection(mosquitto: Any, make_door: Make) -> None:
    sink = connect(make_door(mosquitto.address, "sink", topics=["t/+"], session_expiry_s=60, keepalive_s=1))
    source = connect(make_door(mosquitto.address))
    count, payload = 4000, b"%06d" + b" " * 4000
    source.publish_many([("t/in", payload % number) for number in range(count)], properties=None)
    settle(source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = sink.connection
    until = time.monotonic() + 3.5  # more than twice the keepalive
    while time.monotonic() < until:
        assert sink.poll(0.1, read=False) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000, "KiB, of 16,000 on their way"
    arrived = take(sink, count)
    assert numbers(arrived) == list(range(count))
    assert sink.connection == connection


def test_one_poll_takes_a_bounded_part_of_what_waits(mosquitto: Any, make_door: Make) -> None:
    sink = connect(make_door(mosquitto.address, topics=["t/+"], qos=0))
    source = connect(make_door(mosquitto.address))
    source.publish_many(numbered(20_000), qos=0)
    sizes = []
    while sum(sizes) < 20_000:
        source.poll(0.0)
        sizes.append(len(sink.poll(0.5)))
    assert max(sizes) < 6000


def test_one_poll_takes_a_bounded_part_of_large_messages_too(mosquitto: Any, make_door: Make) -> None:
    sink = connect(make_door(mosquitto.address, topics=["t/+"]))
    source = connect(make_door(mosquitto.address))
    source.publish_many([("t/in", bytes(500_000))] * 20)
    settle(source)
    sizes = []
    while sum(sizes) < 20:
        messages = sink.poll(0.5)
        sink.acknowledge(messages)
        sizes.append(len(messages))
    assert max(sizes) <= 4, "1 MiB and what the last read brought"


# brokers that come and go


def test_a_broker_restart_loses_nothing_in_either_direction(mosquitto: Any, make_door: Make) -> None:
    connection = connect(make_door(mosquitto.address, "echo", topics=["t/+"], session_expiry_s=600))
    connection.publish_many(numbered(100))
    held = take(connection, 100, acknowledge=False)
    settle(connection)
    mosquitto.stop()
    drive(connection, lambda: not connection.connected, "the loss is noticed")
    waiting = connection.publish_many([("t/in", b"%d" % number) for number in range(100, 200)])
    assert connection.unconfirmed == set(waiting)
    mosquitto.start()
    connection = connection.connection
    arrived = take(connection, 200)
    assert connection.connection == connection + 1
    assert numbers(arrived) == list(range(200)), "unacknowledged ones come again, then what waited here"
    assert [message.repeated for message in arrived[:100]] == [True] * 100
    assert held[0].payload == arrived[0].payload
    settle(connection)


def test_a_lost_session_is_said_loudly_at_the_next_connect_and_at_the_first_where_one_is_expected(
    mosquitto: Any, make_door: Make, caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect(make_door(mosquitto.address, "kept", topics=["t/+"], session_expiry_s=600))
    assert connection.counts["sessions_lost"] == 0
    mosquitto.stop()
    (mosquitto.folder / "mosquitto.db").unlink()
    mosquitto.start()
    drive(connection, lambda: connection.connection == 2 and connection.connected, "the door is back")
    assert connection.counts["sessions_lost"] == 1
    assert [r.levelname for r in caplog.records if "broker lost our session" in r.message] == ["ERROR"]
    other = connect(make_door(mosquitto.address, "new", session_expiry_s=600, expect_session=True))
    assert other.counts["sessions_lost"] == 1


def test_the_availability_topic_tells_of_every_connect_and_of_a_death(mosquitto: Any, make_door: Make) -> None:
    watcher = connect(make_door(mosquitto.address, topics=["status"]))
    heard: list[bytes] = []

    def hear(expected: bytes) -> None:
        while heard[-1:] != [expected]:  # "online" may come again after a cut, as QoS 1 may
            heard.extend(message.payload for message in take(watcher, 1))

    with Proxy(mosquitto.address) as proxy:
        connection = connect(make_door(proxy.address, status_topic="status"))
        hear(b"online")
        proxy.cut()
        hear(b"offline")
        drive(connection, lambda: connection.connection == 2 and connection.connected, "the door is back")
        hear(b"online")
        connection.close()
        hear(b"offline")
    late = connect(make_door(mosquitto.address, topics=["status"]))
    (message,) = take(late, 1)
    assert (message.payload, message.retained) == (b"offline", True)


def test_an_absent_broker_is_told_of_once_and_waited_for(
    mosquitto: Any, make_door: Make, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.stop()
    connection = make_door(mosquitto.address)
    with pytest.raises(EdgeLstmError, match=r"expected an MQTT broker at .*, found: Connection refused"):
        connection.open()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert connection.poll(0.1) == []
    assert caplog.text.count("broker unreachable") == 1
    mosquitto.start()
    connect(connection)


def test_a_broker_that_closes_at_once_or_speaks_another_version_is_an_error_at_open(make_door: Make) -> None:
    with ScriptedBroker(connack="20 02 00 01") as broker:
        for protocol in ("5", "3.1.1"):
            connection = make_door(broker.address, protocol=protocol)
            with pytest.raises(EdgeLstmError, match=f"expected the MQTT {protocol} broker .* to accept us, found: "):
                connection.open(5)
    with Proxy(Address("127.0.0.1", 1)) as proxy:  # which nobody listens on
        begun = time.monotonic()
        with pytest.raises(EdgeLstmError, match="it closed the connection"):
            make_door(proxy.address).open(5)
        assert time.monotonic() - begun < 3


# networks that break


@pytest.mark.parametrize("breakage", ["cut", "half_close", "swallow"])
def test_a_broken_connection_is_noticed_and_nothing_is_lost(mosquitto: Any, make_door: Make, breakage: str) -> None:
    with Proxy(mosquitto.address) as proxy:
        connection = connect(make_door(proxy.address, "echo", topics=["t/+"], session_expiry_s=600, keepalive_s=1))
        connection.publish_many(numbered(50))
        assert len(take(connection, 50)) == 50
        settle(connection)
        getattr(proxy, breakage)()
        connection.publish_many([("t/in", b"%d" % number) for number in range(50, 100)])
        missing = set(range(50, 100))
        deadline = time.monotonic() + 20
        while missing or connection.unconfirmed:
            assert time.monotonic() < deadline, f"expected every message after {breakage}, {len(missing)} are missing"
            messages = connection.poll(0.05)
            missing.difference_update(numbers(messages))  # those whose acknowledgement broke off come again
            connection.acknowledge(messages)
        assert proxy.connections >= 2


def test_a_slow_network_only_takes_longer(mosquitto: Any, make_door: Make) -> None:
    with Proxy(mosquitto.address) as proxy:
        proxy.delay_s = 0.1
        connection = connect(make_door(proxy.address, topics=["t/+"], keepalive_s=1))
        connection.publish_many(numbered(300))
        assert numbers(take(connection, 300)) == list(range(300))
        settle(connection)
        assert proxy.connections == 1


def test_8000_messages_survive_connections_that_are_cut_in_the_middle_of_packets(
    mosquitto: Any, make_door: Make
) -> None:
    count = 8000
    source = connect(make_door(mosquitto.address))
    sink = connect(make_door(mosquitto.address, "sink", topics=["out/+"], session_expiry_s=600))
    with Proxy(mosquitto.address) as proxy:
        proxy.cut_after = 40_009
        echo = connect(make_door(proxy.address, "echo", topics=["in/+"], session_expiry_s=600))
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


def test_an_acknowledgement_of_a_former_connection_does_not_touch_the_ids_of_this_one(make_door: Make) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: publish_packet("t/in", b"%d" % connection, 7)
        connection = make_door(broker.address, topics=["t/+"], session_expiry_s=60)
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


def test_the_client_itself_drops_acknowledgements_of_another_connection(make_door: Make) -> None:
    with ScriptedBroker() as broker:
        connection = connect(make_door(broker.address))
        connection._client.acknowledge_many([1, 2], connection._client.connection - 1)
        connection._client.acknowledge_many([3], connection._client.connection)
        drive(connection, lambda: broker.received(PUBACK) != [], "an acknowledgement is sent")
        assert broker.received(PUBACK) == [b"\x40\x00\x03"]


def test_a_goodbye_is_said_even_with_a_full_window_and_by_the_broker_where_nothing_goes_out(
    mosquitto: Any, make_door: Make
) -> None:
    watcher = connect(make_door(mosquitto.address, topics=["status"]))
    with Proxy(mosquitto.address) as proxy:
        for stuck in (False, True):
            connection = connect(make_door(proxy.address, status_topic="status"))
            connection._outgoing.size = 0
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
    "a user property that is no text": "30 0c 00 01 61 07 26 00 01 ff 00 01 76 00",
    "a length that never ends": "30 ff ff ff ff ff",
    "a confirmation without an id": "40 01 00",
    "a subscription answer without an id": "90 01 00",
    "a second packet of a client": "10 02 00 00",
    "a type that there is none of": "00 00",
    "an AUTH that nobody asked for": "f0 02 18 00",
}


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_packet_ends_its_connection_and_never_raises_out(make_door: Make, packet: str) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: (
            publish_packet("t/in", b"%d" % connection, 1) + (bytes.fromhex(packet) if connection == 1 else b"")
        )
        connection = make_door(broker.address, topics=["t/+"])
        drive(connection, lambda: connection.connection == 2, "the connection is made again")
        assert numbers(take(connection, 1)) == [2], "nothing of the broken connection is handed out after it"


def test_a_topic_that_is_no_text_is_acknowledged_and_counted(make_door: Make) -> None:
    with ScriptedBroker() as broker:
        packet = bytes.fromhex("32 06 00 01 ff 00 09 00")
        broker.after_subscribe = lambda connection: packet + publish_packet("t/in", b"1", 10)
        connection = make_door(broker.address, topics=["t/+"])
        assert numbers(take(connection, 1)) == [1]
        drive(connection, lambda: len(broker.received(PUBACK)) == 2, "both are acknowledged")
        assert connection.counts["malformed"] == 1


def test_a_packet_in_single_bytes_is_a_packet(make_door: Make) -> None:
    with ScriptedBroker() as broker:
        connection = connect(make_door(broker.address, topics=["t/+"]))
        payload = b"7" * 20
        arrived: list[Message] = []
        for byte in publish_packet("t/in", payload, 1) * 2:
            broker.send(bytes([byte]))
            arrived += connection.poll(0.005)
        drive(connection, lambda: len(broker.packets) == 1, "the connection stands")
        arrived += take(connection, 2 - len(arrived)) if len(arrived) < 2 else []
        assert [message.payload for message in arrived] == [payload] * 2


def test_a_callback_that_raises_is_logged_with_its_trace_and_the_loop_goes_on(
    make_door: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedBroker() as broker:
        broker.after_subscribe = lambda connection: publish_packet("t/in", b"%d" % connection, 1)
        connection = make_door(broker.address, topics=["t/+"])
        kept = connection._client._on_arrivals

        def raise_once(arrivals: object) -> None:
            connection._client._on_arrivals = kept
            raise RuntimeError("a fault of ours")

        connection._client._on_arrivals = raise_once
        assert numbers(take(connection, 1)) == [2]
        assert "a fault of ours" in caplog.text
        assert "Traceback" in caplog.text


# which client


def test_auto_takes_the_batching_client_with_the_paho_installed_here() -> None:
    assert REFUSAL is None
    assert type(MqttConnection(Address("127.0.0.1", 1))._client) is BatchingClient
    assert type(MqttConnection(Address("127.0.0.1", 1), client="stock")._client) is StockClient


def test_a_paho_that_differs_means_stock_paho_said_once_and_a_refusal_of_batching(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_lstm.mqtt.connection.REFUSAL", "Client._packet_handle(self)")
    assert type(MqttConnection(Address("127.0.0.1", 1))._client) is StockClient
    assert type(MqttConnection(Address("127.0.0.1", 1))._client) is StockClient
    assert [r.levelno for r in caplog.records if "stock paho is used" in r.message] == [logging.WARNING]
    with pytest.raises(EdgeLstmError, match=r"found one without Client._packet_handle\(self\)"):
        MqttConnection(Address("127.0.0.1", 1), client="batching")


def test_a_subscription_that_the_broker_refuses_is_an_error_at_open(make_door: Make) -> None:
    refused = pytest.raises(EdgeLstmError, match="subscription refused: Not authorized")
    with ScriptedBroker(suback="90 04 {id} 00 87") as broker, refused:
        make_door(broker.address, topics=["t/+"]).open(5)
