"""The parser of the batching client against that of paho over the same bytes, and the check of paho's members."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_lstm.mqtt.client.batching_client import BatchingClient, _header, _refusal, _variable
from edge_lstm.mqtt.client.stock_client import Arrival, CutPayload, StockClient
from edge_lstm.mqtt.options import LARGEST_PACKET, USUALLY_WANTED, Wanted

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
MESSAGE_EXPIRY, CONTENT_TYPE, CORRELATION = 60, "application/json", b"\x00\x01"


class Fed:
    """A client on one end of a pair of sockets, and what it delivers."""

    def __init__(self, kind: type[StockClient], protocol: MQTTProtocolVersion, wanted: Wanted) -> None:
        self.arrivals: list[Arrival] = []
        self.confirmed: list[int] = []
        self.refused: list[int] = []
        self.client = kind(
            "c",
            protocol,
            True,
            self.arrivals.extend,
            self.confirmed.extend,
            lambda packet_id, code, reason: self.refused.append(packet_id),
            wanted=wanted,
        )
        self.broker, ours = socket.socketpair()
        ours.setblocking(False)
        self.client._sock = ours

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.broker.sendall(chunk)
            before = None
            while self.client.socket() is not None and before != (before := self._left()) and before:
                self.client.loop_read()

    def _left(self) -> int:
        """Bytes that the client has not taken yet."""
        try:
            return len(self.client.socket().recv(1 << 20, socket.MSG_PEEK))  # type: ignore[union-attr,call-arg]
        except BlockingIOError:
            return 0


@contextmanager
def fed(kind: type[StockClient], protocol: MQTTProtocolVersion = V5, wanted: Wanted = USUALLY_WANTED) -> Iterator[Fed]:
    one = Fed(kind, protocol, wanted)
    try:
        yield one
    finally:
        one.broker.close()
        one.client._sock_close()


def packed(user: list[tuple[str, str]], more: bool) -> bytes:
    properties = Properties(PacketTypes.PUBLISH)
    if user:
        properties.UserProperty = user
    if more:
        properties.MessageExpiryInterval = MESSAGE_EXPIRY
        properties.ContentType = CONTENT_TYPE
        properties.CorrelationData = CORRELATION
        properties.SubscriptionIdentifier = 300
        properties.PayloadFormatIndicator = 1
    return bytes(properties.pack())


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@st.composite
def publishes(draw: st.DrawFn) -> tuple[int, str, int, list[tuple[str, str]], bool, bytes]:
    """Flags, topic, packet id, user properties, whether there are others, payload."""
    flags = draw(st.sampled_from([0, 1, 2, 3, 10, 11]))
    topic = draw(texts.filter(bool))
    payload = draw(st.binary(max_size=300))
    return (
        flags,
        topic,
        draw(st.integers(1, 65535)),
        draw(st.lists(st.tuples(texts, texts), max_size=3)),
        False,
        payload,
    )


def wire(message: tuple[int, str, int, list[tuple[str, str]], bool, bytes], protocol: int, more: bool) -> bytes:
    flags, topic, packet_id, user, _, payload = message
    body = len(topic.encode()).to_bytes(2, "big") + topic.encode()
    body += packet_id.to_bytes(2, "big") if flags & 6 else b""
    body += packed(user, more) if protocol == V5 else b""
    body += payload
    return _header(flags, len(body)) + body


@given(st.lists(publishes(), min_size=1, max_size=6), st.sampled_from([V5, V311]), st.booleans(), st.data())
@settings(deadline=None, max_examples=60)
def test_any_byte_stream_gives_the_same_messages_as_paho(
    messages: list[Any], protocol: MQTTProtocolVersion, more: bool, data: st.DataObject
) -> None:
    stream = b"".join(wire(message, protocol, more) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    names = sorted({name for message in messages for name, _ in message[3]})
    wanted = Wanted(user_properties=data.draw(st.frozensets(st.sampled_from(names)) if names else st.just(frozenset())))
    with fed(BatchingClient, protocol, wanted) as ours, fed(StockClient, protocol, wanted) as stock:
        ours.feed(*chunks)
        stock.feed(*chunks)
        assert ours.arrivals == stock.arrivals
        assert all(arrival[4].keys() <= wanted.user_properties for arrival in ours.arrivals)
        assert [(a[0].decode(), a[1], a[3]) for a in ours.arrivals] == [(m[1], m[5], 0x30 | m[0]) for m in messages]


@given(st.binary(min_size=2, max_size=60), st.sampled_from([V5, V311]))
@settings(deadline=None, max_examples=300)
def test_no_input_raises_out_of_loop_read(garbage: bytes, protocol: MQTTProtocolVersion) -> None:
    with fed(BatchingClient, protocol) as ours:
        ours.feed(garbage)
        assert ours.client.socket() is None or ours._left() == 0  # it closed the connection, or read all


def test_every_form_of_puback_confirms_its_message() -> None:
    with fed(BatchingClient) as ours:
        ids = ours.client.publish_many([(b"t", b"%d" % number) for number in range(5)], 1)
        forms = [b"\x40\x02%b", b"\x40\x03%b\x00", b"\x40\x03%b\x10", b"\x40\x04%b\x00\x00", b"\x40\x03%b\x97"]
        ours.feed(b"".join(form % packet_id.to_bytes(2, "big") for form, packet_id in zip(forms, ids, strict=True)))
        assert ours.confirmed == ids[:4]
        assert ours.refused == ids[4:]
        assert not ours.client._out_messages
        assert ours.client._inflight_messages == 0


def test_packet_ids_in_use_are_skipped_and_wrap_after_65535() -> None:
    for kind in (BatchingClient, StockClient):
        with fed(kind) as one:
            first = one.client.publish_many([(b"t", b"")], 1)
            one.client._last_mid = 65534
            assert first == [1]
            assert one.client.publish_many([(b"t", b"")] * 3, 1) == [65535, 2, 3]


def test_a_qos_0_packet_confirms_no_message_of_the_same_id() -> None:
    with fed(StockClient) as stock:
        assert stock.client.publish_many([(b"t", b"")], 1) == [1]
        stock.client._last_mid = 0
        stock.client.publish_many([(b"t", b"")], 0)
        assert stock.confirmed == []
        stock.feed(b"\x40\x02\x00\x01")
        assert stock.confirmed == [1]


def test_both_clients_send_the_same_bytes() -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("k", "v")]
    sent = []
    for kind in (BatchingClient, StockClient):
        with fed(kind) as one:
            for qos in (0, 1):
                one.client._last_mid = 0  # stock paho spends ids on QoS 0
                for retain in (False, True):
                    items = [(b"a/b", b"x"), (b"\xc3\xa4", b"y" * 200), (b"c", b"z" * 3000)]
                    one.client.publish_many(items, qos, retain, properties if qos else None)
            one.client.acknowledge_many([1, 300], one.client.connection)
            sent.append(one.broker.recv(1 << 20))
    assert sent[0] == sent[1]
    assert len(sent[0]) == 12_958


@pytest.mark.parametrize("protocol", [V5, V311])
@pytest.mark.parametrize("cut", [3, 20, 70_000])
def test_of_a_message_that_is_too_large_only_the_beginning_is_kept(protocol: MQTTProtocolVersion, cut: int) -> None:
    payload, more = b"begin" + bytes(20_000_000), packed([("unwanted", "x" * 500)], True) if protocol == V5 else b""
    body = b"\0\x05large" + b"\0\x07" + more + payload
    packet = _header(2, len(body)) + body
    small = [wire((2, "t", packet_id, [], False, b"small"), protocol, False) for packet_id in (6, 8)]
    with fed(BatchingClient, protocol, Wanted(200_000)) as ours:
        ours.feed(small[0] + packet[:cut])
        thread = threading.Thread(target=ours.broker.sendall, args=(packet[cut:] + small[1],))
        tracemalloc.start()
        thread.start()
        while len(ours.arrivals) < 3:
            ours.client.loop_read()
        thread.join()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert [arrival[:4] for arrival in (ours.arrivals[0], ours.arrivals[2])] == [
        (b"t", b"small", 6, 0x32),
        (b"t", b"small", 8, 0x32),
    ]
    topic, beginning, packet_id, first, properties = ours.arrivals[1]
    assert (topic, beginning[:10], packet_id, first, properties) == (b"large", b"begin" + bytes(5), 7, 0x32, {})
    assert isinstance(beginning, CutPayload)
    assert len(beginning) == len(payload)
    assert peak < 500_000, "bytes"


def test_any_other_packet_that_is_too_large_ends_the_connection() -> None:
    for packet in (b"\x90" + _header(0, LARGEST_PACKET + 1)[1:], _header(4, LARGEST_PACKET + 1) + b"\0\x01t\0\x01"):
        with fed(BatchingClient) as ours:
            ours.feed(packet)
            assert ours.client.socket() is None


@pytest.mark.parametrize("protocol", [V5, V311])
def test_stock_paho_ends_the_connection_before_a_packet_is_there_that_is_too_large(
    protocol: MQTTProtocolVersion,
) -> None:
    with fed(StockClient, protocol) as stock:
        stock.broker.sendall(_header(0, 20_000_000) + b"\0\x01t" + bytes(1000))
        for _ in range(3):
            stock.client.loop_read()
        assert stock.client.socket() is None


@pytest.mark.parametrize("flood", ["62 02 00 07", "50 02 00 07", "b0 02 00 07"])
def test_a_flood_of_packets_that_are_no_messages_ends_the_connection(flood: str) -> None:
    with fed(BatchingClient, V311) as ours:
        ours.broker.sendall(bytes.fromhex(flood) * 10_000)
        ours.client.loop_read()
        assert ours.client.socket() is None


def test_messages_at_qos_2_are_bounded_until_they_are_released() -> None:
    with fed(BatchingClient) as ours:
        for packet_id in range(1, 400):
            if ours.client.socket() is not None:
                ours.feed(wire((4, "t", packet_id, [], False, b"x"), V5, False))
        assert ours.client.socket() is None


def test_pings_that_are_answered_without_end_are_read_quickly() -> None:
    with fed(BatchingClient) as ours:
        ours.client._packet_handle = lambda: pytest.fail("paho takes microseconds for each")  # type: ignore[method-assign]
        ours.feed(b"\xd0\x00" * 20_000)
        assert ours.client.socket() is not None
        assert ours.client._ping_t == 0.0


def test_packet_lengths_are_complete_incomplete_or_malformed() -> None:
    assert _variable(b"\xff\xff\xff\x7f", 0, 4) == (268_435_455, 4)
    assert _variable(b"\x80\x80", 0, 2)[1] > 2
    with pytest.raises(Exception, match="more than four bytes"):
        _variable(b"\x80\x80\x80\x80\x01", 0, 5)


def test_the_paho_check_names_the_first_different_member() -> None:
    class Renamed(paho.Client):
        _packet_handle = None

    class Longer(paho.Client):
        def _packet_queue(self, command, packet, mid, qos, info=None, more=None):  # type: ignore[no-untyped-def]
            return super()._packet_queue(command, packet, mid, qos, info)

    class OtherState(paho.Client):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._out_messages = []  # type: ignore[assignment]

    assert _refusal() is None
    assert _refusal(Renamed) == "Client._packet_handle(self)"
    assert _refusal(Longer) == "Client._packet_queue(self, command, packet, mid, qos, info)"
    assert _refusal(OtherState) == "Client._out_messages: dict"
