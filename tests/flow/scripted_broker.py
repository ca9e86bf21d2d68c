"""A broker that a test scripts: it accepts, sends the given bytes, and keeps what it received."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from edge_lstm.mqtt.address import Address
from tests.deadline import wait_until

CONNECT, PUBLISH, PUBACK, PUBCOMP, SUBSCRIBE = 0x10, 0x30, 0x40, 0x70, 0x80
CONNACK_5, SUBACK_5 = "20 03 00 00 00", "90 04 {id} 00 01"
CONNACK_311, SUBACK_311 = "20 02 00 00", "90 03 {id} 01"


def publish_packet(
    topic: str, payload: bytes, packet_id: int = 0, properties: bytes | None = b"\0", qos: int = 1
) -> bytes:
    """A PUBLISH packet; `properties` is None for MQTT 3.1.1."""
    body = len(topic).to_bytes(2, "big") + topic.encode()
    body += (packet_id.to_bytes(2, "big") if qos else b"") + (properties or b"") + payload
    assert len(body) < 128
    return bytes([0x30 | qos << 1, len(body)]) + body


class ScriptedBroker:
    """One client at a time, within a `with` block."""

    def __init__(self, connack: str = CONNACK_5, suback: str = SUBACK_5) -> None:
        self._connack, self._suback = bytes.fromhex(connack), suback
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self.packets: list[list[bytes]] = []  # by connection
        self.after_subscribe: Callable[[int], bytes] = lambda connection: b""  # what to send then
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ScriptedBroker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(10)

    def received(self, kind: int, connection: int = -1) -> list[bytes]:
        """The packets of a kind that a connection's client sent."""
        packets = self.packets[connection] if self.packets else []
        return [packet for packet in list(packets) if packet[0] & 0xF0 == kind]

    def send(self, data: bytes) -> None:
        assert self._client is not None
        self._client.sendall(data)

    def cut(self) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def wait_connection(self, number: int) -> None:
        wait_until(lambda: len(self.packets) >= number, f"connection {number} is made")

    def _serve(self) -> None:
        while True:
            try:
                self._client, _ = self._listener.accept()
            except OSError:
                return
            self.packets.append([])
            with self._client, contextlib.suppress(OSError):
                self._answer(self._client, self.packets[-1])

    def _answer(self, client: socket.socket, packets: list[bytes]) -> None:
        stream = client.makefile("rb")
        with stream:
            while (first := stream.read(1)) != b"":
                length, shift = 0, 0
                while True:
                    byte = stream.read(1)[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                packets.append(first + stream.read(length))
                if first[0] == CONNECT:
                    client.sendall(self._connack)
                elif first[0] & 0xF0 == SUBSCRIBE:
                    client.sendall(bytes.fromhex(self._suback.format(id=packets[-1][1:3].hex())))
                    client.sendall(self.after_subscribe(len(self.packets)))
