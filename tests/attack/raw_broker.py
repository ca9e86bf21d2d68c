"""A broker that says whatever it is told to: raw bytes to a service, and what the service sent."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.flow.one_client_server import OneClientServer

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 0x10, 0x20, 0x30, 0x40, 0x80, 0x90, 0xC0
PINGRESP = b"\xd0\x00"
RECEIVE_MAXIMUM = 1000  # of a service's config


def length_bytes(length: int) -> bytes:
    """The remaining length of a packet."""
    parts = bytearray()
    while True:
        length, part = length >> 7, length & 0x7F
        parts.append(part | (0x80 if length else 0))
        if not length:
            return bytes(parts)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + length_bytes(len(body)) + body


def text(content: str | bytes) -> bytes:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return struct.pack(">H", len(raw)) + raw


def publish(topic: str | bytes, payload: bytes, packet_id: int = 0, properties: bytes = b"", flags: int = 0) -> bytes:
    """A PUBLISH of MQTT 5: QoS 1 with a packet id, else QoS 0. `flags`: of its first byte, beside QoS."""
    body = [text(topic), struct.pack(">H", packet_id) if packet_id else b"", length_bytes(len(properties)), properties]
    return packet(PUBLISH | (2 if packet_id else 0) | flags, b"".join(body) + payload)


def publish_311(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A PUBLISH of MQTT 3.1.1 at QoS 1."""
    return packet(PUBLISH | 2, text(topic) + struct.pack(">H", packet_id) + payload)


class RawBroker(OneClientServer):
    """It accepts, and confirms what the client publishes."""

    def __init__(self, five: bool = True) -> None:
        """`five`: speaks MQTT 5, not 3.1.1."""
        super().__init__()
        self.five = five
        self.connack = b"\x20\x03\x00\x00\x00" if five else b"\x20\x02\x00\x00"
        self.confirms = True  # whether it sends a PUBACK for a prediction
        self.published: dict[str, list[dict[str, Any]]] = {}  # predictions by stream
        self.said: list[tuple[str, bytes]] = []  # other topics of the service
        self.connections = 0
        self.acknowledged: set[int] = set()  # packet ids
        self._subscribed = threading.Event()
        self._sending = threading.Lock()

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether the condition comes true in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def wait_subscribed(self, timeout_s: float = 40.0) -> bool:
        return self._subscribed.wait(timeout_s)

    def send(self, data: bytes, timeout_s: float = 60.0) -> bool:
        """Whether the present client took all of it in time."""
        client = self._client
        if client is None:
            return False
        with self._sending:
            try:
                client.settimeout(timeout_s)
                client.sendall(data)
            except OSError:
                return False
        return True

    def outstanding(self, sent: int) -> int:
        """How many of the packet ids 1 … sent are unacknowledged."""
        return sent - len(self.acknowledged)

    def cut(self) -> None:
        super().cut()
        self._client = None
        self._subscribed.clear()

    def answer(self, client: socket.socket) -> None:
        self.connections += 1
        try:
            self._answer_packets(client)
        finally:
            if self._client is client:
                self._client = None
            self._subscribed.clear()

    def _answer_packets(self, client: socket.socket) -> None:
        received = b""
        while True:
            try:
                part = client.recv(1 << 18)
            except TimeoutError:  # of a send on the same socket
                continue
            if not part:
                return
            received += part
            begin = 0
            answers = []
            while (whole := _whole_packet(received, begin)) is not None:
                end, body_at = whole
                answers.append(self._reply(received[begin], received[body_at:end]))
                begin = end
            received = received[begin:]
            if answer := b"".join(answers):
                self.send(answer)

    def _reply(self, first: int, body: bytes) -> bytes:
        kind = first & 0xF0
        if kind == CONNECT:
            return self.connack
        if kind == SUBSCRIBE:
            self.send(packet(SUBACK, body[:2] + (b"\x00\x01" if self.five else b"\x01")))
            self._subscribed.set()
        elif kind == PUBACK:
            self.acknowledged.add(body[0] << 8 | body[1])
        elif kind == PINGREQ:
            return PINGRESP
        elif kind == PUBLISH:
            return self._keep(first, body)
        return b""

    def _keep(self, first: int, body: bytes) -> bytes:
        size = body[0] << 8 | body[1]
        topic, at = body[2 : 2 + size].decode(), 2 + size
        qos = first >> 1 & 3
        packet_id = body[at : at + 2] if qos else b""
        at += len(packet_id)
        if self.five:
            at += 1 + body[at]  # the service's properties are short
        if topic.startswith("predictions/"):
            kept, facts = self.published.setdefault(topic[12:], []), json.loads(body[at:])
            if facts not in kept[-50:]:  # else sent again after a new connection
                kept.append(facts)
        else:
            self.said.append((topic, body[at:]))
        return packet(PUBACK, packet_id) if qos and self.confirms else b""


def _whole_packet(data: bytes, begin: int) -> tuple[int, int] | None:
    """(end, begin of the body) of the packet at `begin`; None: more bytes are needed."""
    length, shift, at = 0, 0, begin + 1
    while True:
        if at >= len(data):
            return None
        length |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    return (at + length, at) if at + length <= len(data) else None
