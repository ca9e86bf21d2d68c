"""A broker that a test scripts: it accepts, sends the given bytes, and keeps what it received."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.deadline import wait_until
from tests.flow.one_client_server import OneClientServer

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


class ScriptedBroker(OneClientServer):
    """It answers CONNECT and SUBSCRIBE with given bytes."""

    def __init__(self, connack: str = CONNACK_5, suback: str = SUBACK_5) -> None:
        super().__init__()
        self._connack, self._suback = bytes.fromhex(connack), suback
        self.packets: list[list[bytes]] = []  # by connection
        self.after_subscribe: Callable[[int], bytes] = lambda connection: b""  # what to send then

    def received(self, kind: int, connection: int = -1) -> list[bytes]:
        """The packets of a kind that a connection's client sent."""
        packets = self.packets[connection] if self.packets else []
        return [packet for packet in list(packets) if packet[0] & 0xF0 == kind]

    def send(self, data: bytes) -> None:
        assert self._client is not None
        self._client.sendall(data)

    def wait_connection(self, number: int) -> None:
        wait_until(lambda: len(self.packets) >= number, f"connection {number} is made")

    def answer(self, client: socket.socket) -> None:
        packets: list[bytes] = []
        self.packets.append(packets)
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
