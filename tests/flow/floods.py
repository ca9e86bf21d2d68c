"""Floods of messages: what anyone may send who may publish on one input topic, and what a broker may send that lies.

Each attack takes its size, so that tests run it small. `Memory` measures what it takes.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edge_lstm.mqtt.address import Address
from edge_lstm.streaming.reading import Reading

_CONNECT_5 = bytes.fromhex("10 0d 00 04") + b"MQTT" + bytes.fromhex("05 02 00 3c 00 00 00")
_CONNECT_311 = bytes.fromhex("10 0c 00 04") + b"MQTT" + bytes.fromhex("04 02 00 3c 00 00")
_CHUNK = 1 << 16
PINGRESPS = b"\xd0\x00" * 30_000
PUBACKS = b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in range(1, 20_000))
SUBACKS = bytes.fromhex("90 04 00 01 00 01") * 1000
SECOND_CONNACKS = bytes.fromhex("20 03 00 00 00") * 1000
PUBRELS = bytes.fromhex("62 02 00 07") * 10_000


class Memory:
    """The memory of a process, in MiB; its peak is counted from `begin` on."""

    def __init__(self, process_id: int) -> None:
        self._folder = Path(f"/proc/{process_id}")
        self.idle = 0.0

    def begin(self) -> None:
        (self._folder / "clear_refs").write_text("5")
        self.idle = self._value("VmRSS")

    @property
    def above_idle(self) -> float:
        return self._value("VmHWM") - self.idle

    def _value(self, name: str) -> float:
        lines = (self._folder / "status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def variable(number: int) -> bytes:
    """A variable byte integer (MQTT 5, 1.5.5)."""
    coded = b""
    while number > 127:
        coded, number = coded + bytes([number & 127 | 128]), number >> 7
    return coded + bytes([number])


def publish_of(topic: bytes, payload: bytes, packet_id: int = 0, properties: bytes | None = b"") -> bytes:
    """A PUBLISH packet, at QoS 1 with a packet id; `properties` without their length, None for MQTT 3.1.1."""
    head = len(topic).to_bytes(2, "big") + topic + (packet_id.to_bytes(2, "big") if packet_id else b"")
    head += b"" if properties is None else variable(len(properties)) + properties
    return bytes([0x32 if packet_id else 0x30]) + variable(len(head) + len(payload)) + head + payload


def user_properties(count: int, size: int) -> bytes:
    """User properties of other names each, with values of `size` bytes."""
    one = b"\x26\x00\x06%06d" + size.to_bytes(2, "big") + b"v" * size
    return b"".join(one % number for number in range(count))


class Publisher:
    """A client on a plain socket, faster than the service: it sends packets that are made, and reads all answers."""

    def __init__(self, address: Address, version_5: bool = True) -> None:
        self._socket = socket.create_connection((address.host, address.port), 10)
        self._socket.sendall(_CONNECT_5 if version_5 else _CONNECT_311)
        assert self._socket.recv(1024)[0] == 0x20, "expected a CONNACK"
        self._socket.setblocking(False)
        self._answered = 0  # bytes since the CONNACK

    def send(self, packets: Iterable[bytes], until: Callable[[], bool] = lambda: False) -> int:
        """Send the packets, or as many as there is time for; how many were sent."""
        sent = 0
        for several in in_chunks(packets):
            self._send_all(b"".join(several))
            sent += len(several)
            if until():
                break
        return sent

    def wait_confirmed(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait for the answers to `count` packets at QoS 1 (PUBACKs of four bytes; six if nobody subscribes)."""
        deadline = time.monotonic() + timeout_s
        while self._answered < 4 * count:
            assert time.monotonic() < deadline, f"expected {count} confirmations, found {self._answered // 4}"
            select.select([self._socket], [], [], 0.1)
            self._read()

    def close(self) -> None:
        self._socket.close()

    def _send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            readable, writable, _ = select.select([self._socket], [self._socket], [], 10)
            assert readable or writable, "the broker takes nothing more"
            if readable:
                self._read()
            if writable:
                rest = rest[self._socket.send(rest[:_CHUNK]) :]

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        assert data, "the broker has closed the connection"
        self._answered += len(data)


def in_chunks(packets: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The packets in lists of about 64 KiB."""
    several: list[bytes] = []
    size = 0
    for packet in packets:
        several.append(packet)
        size += len(packet)
        if size >= _CHUNK:
            yield several
            several, size = [], 0
    if several:
        yield several


def reading(number: int, streams: int = 5) -> Reading:
    """The reading of this number: every stream has one a minute."""
    step = number // streams
    return Reading(f"s{number % streams}", 1_700_000_000.0 + 60 * step, {"level": step % 7 + 0.25})


def reading_packets(count: int, qos: int = 1, version_5: bool = True) -> Iterator[bytes]:
    """The first `count` readings as packets."""
    ids = itertools.cycle(range(1, 65_536))
    for number in range(count):
        one = reading(number)
        payload = b'{"time": %d, "level": %.2f}' % (one.time, one.values["level"])
        packet_id = next(ids) if qos else 0
        yield publish_of(f"sensors/{one.stream}".encode(), payload, packet_id, b"" if version_5 else None)


def property_readings(count: int, size: int = 72_000) -> Iterator[bytes]:
    """Good readings with `size` bytes of user properties each."""
    unwanted = user_properties(size // 300, 290)
    for number in range(count):
        payload = b'{"time": %d, "level": 4.25}' % (1_700_000_000 + 60 * number)
        yield publish_of(b"sensors/properties", payload, number % 65_535 + 1, unwanted)


def long_topics(count: int, size: int = 60_000) -> Iterator[bytes]:
    """Messages on topics that are long and different, and match sensors/+ (or sensors/#)."""
    for number in range(count):
        yield publish_of(b"sensors/%06d" % number + b"x" * size, b"{}", number % 65_535 + 1)


def large_payload(megabytes: float, version_5: bool = False) -> Iterator[bytes]:
    """One reading whose payload is far over `max_bytes`."""
    payload = b'{"time": 1700000000, "level": 4.25, "more": "' + b"x" * int(megabytes * 1e6) + b'"}'
    yield publish_of(b"sensors/large", payload, 7, b"" if version_5 else None)
