"""MQTT over a WebSocket, with both clients: large and many messages, cut connections, and what is not a WebSocket."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.client.batching_client import BatchingClient
from edge_lstm.mqtt.client.websocket_frames import read_and_write_frames
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.options import ConnectionOptions
from tests.conftest import HOST, free_port
from tests.flow.proxy import Proxy

Make = Callable[..., Any]


@pytest.fixture
def listener(start_mosquitto: Make) -> Address:
    """The address of a WebSocket listener."""
    port = free_port()  # beside the TCP listener: mosquitto does not start without one
    start_mosquitto(f"allow_anonymous true\nlistener {port} {HOST}\nprotocol websockets")
    return Address(HOST, port, path="/mqtt")


@pytest.fixture(params=["batching", "stock"])
def connection_to(request: pytest.FixtureRequest) -> Iterator[Callable[..., MqttConnection]]:
    """connection_to(address, **options): not connected yet, subscribed to t/+; the test runs once for each client."""
    made: list[MqttConnection] = []

    def make(address: Address, **options: Any) -> MqttConnection:
        chosen = ConnectionOptions(client=request.param, **options)
        made.append(MqttConnection(address, "websocket", ["t/+"], session_expiry_s=60, options=chosen))
        return made[-1]

    yield make
    for connection in made:
        connection.close(0.2)


def echo(connection: MqttConnection, payloads: list[bytes]) -> set[bytes]:
    """Publish to itself until all came back; what came back."""
    connection.publish_many([("t/in", payload) for payload in payloads])
    arrived: set[bytes] = set()
    deadline = time.monotonic() + 30
    while arrived != set(payloads) or connection.unconfirmed:
        assert time.monotonic() < deadline, f"expected {len(payloads)} messages, found {len(arrived)}"
        messages = connection.poll(0.05)
        connection.acknowledge(messages)
        arrived.update(message.payload for message in messages)
    return arrived


def numbered(count: int, size: int = 20) -> list[bytes]:
    return [b"%06d" % number + b" " * size for number in range(count)]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_small_and_large_messages_go_over_a_websocket(listener: Address, connection_to: Make, protocol: str) -> None:
    connection = connection_to(listener, protocol=protocol)
    connection.open()
    assert len(echo(connection, numbered(2000))) == 2000
    assert len(echo(connection, numbered(3, size=50_000))) == 3


def test_messages_survive_websockets_that_are_cut(listener: Address, connection_to: Make) -> None:
    with Proxy(listener) as proxy:
        proxy.cut_after = 20_011
        connection = connection_to(proxy.address)
        assert len(echo(connection, numbered(2000))) == 2000
        assert proxy.connections >= 3


def test_the_batching_client_is_used_over_a_websocket(listener: Address) -> None:
    assert type(MqttConnection(listener)._client) is BatchingClient


def test_a_listener_without_websocket_is_named(mosquitto: Any, listener: Address, connection_to: Make) -> None:
    no_websocket = replace(mosquitto.address, path="/mqtt")
    with pytest.raises(EdgeLstmError, match=f"{no_websocket}, found: no WebSocket for MQTT at /mqtt") as caught:
        connection_to(no_websocket).open()
    assert caught.value.hint.startswith("check port and path of the broker's WebSocket listener")
    with pytest.raises(EdgeLstmError, match="expected the MQTT 5 broker at mqtt://"):
        connection_to(replace(listener, path=None)).open(2)


def answered_ping(listener: socket.socket, answers: list[bytes]) -> None:
    """A server that accepts one WebSocket, sends a ping and a CONNACK, and keeps the frame that answers the ping."""
    client, _ = listener.accept()
    with client:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += client.recv(4096)
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        client.sendall(b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + accept, b"", b""]))
        client.recv(4096)  # CONNECT
        client.sendall(b"\x89\x04ping" + b"\x82\x05\x20\x03\x00\x00\x00")
        answers.append(client.recv(4096))


def test_a_websocket_ping_is_answered_with_a_masked_frame(connection_to: Make) -> None:
    answers: list[bytes] = []
    with socket.create_server((HOST, 0)) as server:
        thread = threading.Thread(target=answered_ping, args=(server, answers))
        thread.start()
        connection = connection_to(Address(HOST, server.getsockname()[1], path="/mqtt"))
        deadline = time.monotonic() + 10
        while not answers and time.monotonic() < deadline:
            connection.poll(0.05)
        thread.join(10)
    assert answers[0][:2] == b"\x8a\x84", "a pong of four bytes, with the bit that says masked"
    assert bytes(byte ^ answers[0][2 + at] for at, byte in enumerate(answers[0][6:10])) == b"ping"


class Sent:
    """A socket that gives these bytes, `step` at a time, and keeps what is sent."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = memoryview(data), step
        self.sent = b""

    def recv(self, count: int) -> bytes:
        taken = min(count, self._step)
        data, self._data = self._data[:taken], self._data[taken:]
        if not data:
            raise BlockingIOError
        return bytes(data)

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)


class Wrapper:
    """As paho's wrapper of a WebSocket, as far as frames are concerned."""

    def __init__(self, sent: Sent) -> None:
        self._socket = sent
        self._recv_impl = None

    def _create_frame(self, opcode: int, data: bytearray, masked: int) -> bytes:
        return bytes([0x80 | opcode, masked << 7 | len(data)]) + bytes(data)


def frame(first: int, payload: bytes) -> bytes:
    if len(payload) < 126:
        return bytes([first, len(payload)]) + payload
    size = (b"\x7e", 2) if len(payload) < 65_536 else (b"\x7f", 8)
    return bytes([first]) + size[0] + len(payload).to_bytes(size[1], "big") + payload


@pytest.mark.parametrize("step", [1, 3, 100_000])
def test_frames_are_handed_on_as_they_come_whatever_is_between_them(step: int) -> None:
    parts = [b"a", bytes(200), b"", bytes(range(256)) * 400]
    data = b"".join(frame(0x82, part) + frame(0x89, b"ping") for part in parts[:-1])
    data += frame(0x02, parts[-1][:70_000]) + frame(0x8A, b"pong") + frame(0x80, parts[-1][70_000:])
    wrapper: Any = Wrapper(Sent(data, step))
    read_and_write_frames(wrapper)
    found, silent = b"", 0
    while silent < 20:  # also where only a control frame or part of a head is there
        try:
            found, silent = found + wrapper._recv_impl(4096), 0
        except BlockingIOError:
            silent += 1
    assert found == b"".join(parts)
    assert wrapper._socket.sent == (b"\x8a\x84" + b"ping") * 3


@pytest.mark.parametrize("head", ["81 01 61", "82 81 00000000 61", "89 7e 0100", "83 00"])
def test_frames_that_a_server_must_not_send_end_the_connection(head: str) -> None:
    wrapper: Any = Wrapper(Sent(bytes.fromhex(head), 100))
    read_and_write_frames(wrapper)
    with pytest.raises(ConnectionAbortedError):
        wrapper._recv_impl(100)


def test_a_frame_of_20_megabytes_is_handed_on_in_parts() -> None:
    # mosquitto 2.0.11 sends no frames over 250 KB to the end, so there is no broker in this test
    wrapper: Any = Wrapper(Sent(frame(0x82, bytes(20_000_000)), 4096))
    read_and_write_frames(wrapper)
    tracemalloc.start()
    try:
        sizes = [len(wrapper._recv_impl(1 << 16)) for _ in range(20_000_000 // 4096)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(sizes) == {4096}
    assert peak < 1_000_000, "bytes"
