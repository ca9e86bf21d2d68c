"""MQTT over a WebSocket, with both clients: large and many messages, cut connections, and what is not a WebSocket."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.mqtt.address import Address
from edge_lstm.mqtt.client.batching_client import BatchingClient
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
