"""A client with a hot path that works in batches; everything rare (TLS, reconnect, last will) is paho's own.

It reads all that the socket holds at once, delivers the messages as one list, and sends a list of publishes or
acknowledgements in one write. It uses private members of paho 2.0 to 2.2. `REFUSAL` names the first one that is not as
expected in the installed paho; then `StockClient` is used instead.
"""

from __future__ import annotations

import contextlib
import inspect
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt import properties as paho_properties
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties

from edge_lstm.mqtt.client.stock_client import NO_PROPERTIES, PUBLISH, QOS, Arrival, CutPayload, StockClient
from edge_lstm.mqtt.reason_codes import reason_text

_READ_BYTES = 1 << 16
_PUBACK, _PINGRESP = 0x40, 0xD0
_QOS_1, _QOS_2 = 0x02, 0x04
_FAILURE = 0x80  # the first reason code of a failure
_SHOWN_BYTES = 64  # of a payload that is not kept
_MOST_RARE = 2000  # packets of one read that paho handles
_MOST_UNRELEASED, _MOST_UNRELEASED_BYTES = 200, 1 << 20  # messages at QoS 2, which nobody asked for
_LONGEST_HEAD = 2 + 65_535 + 2 + 4  # bytes of a PUBLISH packet: topic, packet id, length of the properties
_ACCEPTED = (0x00, 0x10)  # success; success without a subscriber
_USER_PROPERTY, _SUBSCRIPTION_ID = 0x26, 0x0B
_TEXTS = (0x03, 0x08, 0x09)  # content type, response topic, correlation data
_WIDTHS = {0x01: 1, 0x02: 4, 0x23: 2}  # payload format, expiry, topic alias: bytes
# what paho raises if a broker sends malformed packets; 2.2 turns most of it into one exception of its own
_MALFORMED = (getattr(paho_properties, "MQTTException", ValueError), struct.error, LookupError, ValueError)


class _PacketError(Exception):
    """A malformed packet."""


class _NoInfo:
    """Replaces paho's MQTTMessageInfo, which makes a lock for every message. We wait for none of them."""

    rc = MQTTErrorCode.MQTT_ERR_SUCCESS

    def _set_as_published(self) -> None:
        """Nothing waits for it."""


_NO_INFO: Any = _NoInfo()
_WAIT_FOR_PUBACK = getattr(paho, "mqtt_ms_wait_for_puback", None)


class _Outgoing(paho.MQTTMessage):
    """A message that paho sends again after a reconnect."""

    __slots__ = ()

    def __init__(
        self, mid: int, topic: bytes, payload: bytes, retain: bool, properties: Properties | None, state: Any
    ) -> None:
        # paho's own initializer makes the lock above
        self._topic, self.payload, self.properties = topic, payload, properties
        self.mid, self.qos, self.retain, self.dup = mid, 1, retain, False
        self.state, self.timestamp, self.info = state, 0.0, _NO_INFO


class BatchingClient(StockClient):
    """A client that cuts messages out of one buffer."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._parts: list[bytes] = []  # of a packet that is not complete yet
        self._parts_bytes = 0
        self._needed = 0  # bytes before the next attempt to parse
        self._too_large: Arrival | None = None  # what is kept of a packet that is too large
        self._to_skip = 0  # bytes of it that have not come yet
        self._packed_of: Properties | None = None
        self._packed = b"\x00"

    def reconnect(self) -> MQTTErrorCode:
        self._keep_rest(b"", 0)
        self._too_large, self._to_skip = None, 0
        return super().reconnect()

    # in

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read what the socket holds, at most about 64 KiB, and deliver the complete packets."""
        connection: Any = self._sock
        if connection is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            data = self._receive(connection)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            data = b""
        if not data:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        setattr(self, _LAST_RECEIVED, paho.time_func())
        try:
            result = self._parse(connection, data)
        except (_PacketError, *_MALFORMED):
            result = MQTTErrorCode.MQTT_ERR_PROTOCOL
        return self._loop_rc_handle(result) if result > 0 else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _receive(self, connection: Any) -> bytes:
        """Bytes from the socket; b"" if the peer has closed. Raises OSError."""
        data = self._sock_recv(_READ_BYTES)
        if hasattr(connection, "pending"):  # TLS returns one record at a time, 16 KiB at most
            with contextlib.suppress(BlockingIOError):  # a WebSocket's frame that is not complete yet
                while data and len(data) < _READ_BYTES and connection.pending():
                    data += self._sock_recv(_READ_BYTES)
        return bytes(data)  # paho 2.0 gives a bytearray for a WebSocket

    def _keep_rest(self, rest: bytes, needed: int) -> None:
        self._parts, self._parts_bytes, self._needed = [rest] if rest else [], len(rest), needed

    def _parse(self, connection: Any, data: bytes) -> MQTTErrorCode:
        """Parse and deliver packets, in order. Raises _PacketError, or what paho raises, for a malformed one."""
        arrivals: list[Arrival] = []
        if self._too_large is not None:
            if self._to_skip > len(data):
                self._to_skip -= len(data)
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            data, arrivals = data[self._to_skip :], [self._too_large]
            self._too_large, self._to_skip = None, 0
        if self._parts:
            self._parts.append(data)
            self._parts_bytes += len(data)
            if self._parts_bytes < self._needed:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            data = b"".join(self._parts)
        version_5, wanted = self._protocol == MQTTProtocolVersion.MQTTv5, self._wanted
        start, end, needed, rare = 0, len(data), 2, 0
        confirmed: list[int] = []
        while end - start >= 2:
            first, length, body = data[start], data[start + 1], start + 2
            if length > 127:
                length, body = _variable(data, start + 1, end)
                if body > end:  # the length itself is not complete
                    needed = end - start + 1
                    break
            after = body + length
            if after > end:
                needed = after - start
                if length > self._largest and (needed := self._skip(data, start, body, after, version_5)) == 0:
                    start = end
                break
            if first & 0xF0 == PUBLISH and first & _QOS_2 == 0:
                arrivals.append(_publish(data, first, body, after, version_5, wanted))
            elif first == _PUBACK and (length == 2 or _is_plain_success(data, body, length)):
                confirmed.append(data[body] << 8 | data[body + 1])
            elif first == _PINGRESP and not length:
                self._ping_t = 0.0
            else:
                rare += 1
                if rare > _MOST_RARE:
                    raise _PacketError("a flood of packets")
                self._deliver(arrivals, confirmed)
                arrivals, confirmed = [], []
                result = self._handle_rare(first, length, data[body:after])
                if result or self._sock is not connection:
                    return result
            start = after
        self._keep_rest(data[start:], needed)
        self._deliver(arrivals, confirmed)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _skip(self, data: bytes, start: int, body: int, after: int, version_5: bool) -> int:
        """Keep the beginning of a packet that is too large, and let `_parse` skip its other bytes as they come.

        Its message is delivered in its turn, without most of its payload: unacknowledged, a broker would send it again
        without end. Returns 0, or how many bytes of the packet have to be there first.

        Raises _PacketError for any other kind of packet than a PUBLISH at QoS 0 or 1.
        """
        first, end = data[start], len(data)
        if first & 0xF0 != PUBLISH or first & _QOS_2:
            raise _PacketError(f"a packet of {after - body} bytes")
        if (head := min(body + _LONGEST_HEAD, after)) > end:
            return head - start
        at = _after_topic(data, body)
        topic, packet_id = data[body + 2 : at], 0
        if first & _QOS_1:
            packet_id, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        if not topic or bool(packet_id) != bool(first & _QOS_1):
            raise _PacketError("a PUBLISH packet without a topic or packet id")
        if version_5:
            length, at = _variable(data, at, end)
            at += length
        payload = CutPayload.of(data[at : at + _SHOWN_BYTES], max(after - at, self._largest))
        self._too_large, self._to_skip = (topic, payload, packet_id, first, NO_PROPERTIES), after - end
        return 0

    def _handle_rare(self, first: int, length: int, body: bytes) -> MQTTErrorCode:
        """paho handles everything but a plain PUBLISH and a plain PUBACK, for instance QoS 2."""
        if first & 0xF0 == PUBLISH and first & QOS == QOS:
            raise _PacketError("QoS 3")
        if first & 0xF0 == PUBLISH:
            unreleased = sum(len(message.payload) for message in self._in_messages.values())
            if unreleased > _MOST_UNRELEASED_BYTES or len(self._in_messages) >= _MOST_UNRELEASED:
                raise _PacketError("too many messages at QoS 2")
        if first == _PUBACK and length > 2:
            self._take_refusal(body)
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        packet = self._in_packet
        packet["command"], packet["remaining_length"] = first, length
        packet["packet"], packet["pos"] = bytearray(body), 0
        try:
            return self._packet_handle()
        finally:
            packet["command"], packet["packet"] = 0, bytearray()

    def _take_refusal(self, body: bytes) -> None:
        """A PUBACK with a reason. paho ends the connection over codes that mosquitto sends against the standard."""
        packet_id, code = body[0] << 8 | body[1], body[2]
        if code < _FAILURE:
            self._deliver([], [packet_id])
            return
        with self._out_message_mutex:
            known = self._out_messages.pop(packet_id, None) is not None
            self._inflight_messages -= known
        if known:
            self._on_refused(packet_id, code, reason_text(code))

    def _deliver(self, arrivals: list[Arrival], confirmed: list[int]) -> None:
        if confirmed:
            known = []
            with self._out_message_mutex:
                for packet_id in confirmed:
                    message = self._out_messages.pop(packet_id, None)
                    if message is not None:
                        message.info._set_as_published()
                        known.append(packet_id)
                self._inflight_messages -= len(known)
            self._on_confirmed(known)
        if arrivals:
            self._on_arrivals(arrivals)

    # out

    def publish_many(
        self,
        items: Sequence[tuple[bytes, bytes]],
        qos: int,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> list[int]:
        """As `StockClient.publish_many`, in one write. At QoS 0 nothing is kept without a connection."""
        fixed = self._fixed(properties)
        headers = _HEADERS[qos << 1 | retain]
        packet_ids: list[int] = []
        pieces: list[bytes] = []
        if qos == 0:
            for topic, payload in items:
                size = 2 + len(topic) + len(fixed) + len(payload)
                header = headers[size] if size < _HEADERS_KEPT else _header(retain, size)
                pieces += (header, len(topic).to_bytes(2, "big"), topic, fixed, payload)
        else:
            with self._out_message_mutex, self._mid_generate_mutex:
                kept, packet_id = self._out_messages, self._last_mid
                for topic, payload in items:
                    packet_id = packet_id % 65535 + 1
                    while packet_id in kept:
                        packet_id = packet_id % 65535 + 1
                    packet_ids.append(packet_id)
                    kept[packet_id] = _Outgoing(packet_id, topic, payload, retain, properties, _WAIT_FOR_PUBACK)
                    size = 4 + len(topic) + len(fixed) + len(payload)
                    header = headers[size] if size < _HEADERS_KEPT else _header(_QOS_1 | retain, size)
                    number = packet_id.to_bytes(2, "big")
                    pieces += (header, len(topic).to_bytes(2, "big"), topic, number, fixed, payload)
                self._last_mid = packet_id
                self._inflight_messages += len(items)
        self._write(b"".join(pieces))
        return packet_ids

    def acknowledge_many(self, packet_ids: Sequence[int], connection: int) -> None:
        if connection == self.connection:
            self._write(b"".join([b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids]))

    def _write(self, packets: bytes) -> None:
        """Queue and send.

        For paho this is one packet: paho completes a partial write, and drops the packet with its connection. After a
        reconnect it sends the kept and unconfirmed messages again.
        """
        if packets and self._sock is not None:
            self._packet_queue(_PUBACK, packets, 0, 1)

    def _fixed(self, properties: Properties | None) -> bytes:
        """The property bytes of a PUBLISH packet, packed again only if they change."""
        if self._protocol != MQTTProtocolVersion.MQTTv5:
            return b""
        if properties is not self._packed_of:
            packed = b"\x00" if properties is None else bytes(properties.pack())  # type: ignore[no-untyped-call]
            self._packed_of, self._packed = properties, packed
        return self._packed


def _after_topic(data: bytes, body: int) -> int:
    """Where the topic of the PUBLISH packet ends whose variable header starts at `body`."""
    return body + 2 + (data[body] << 8 | data[body + 1])


def _publish(
    data: bytes, first: int, body: int, after: int, version_5: bool, wanted: Collection[bytes] = ()
) -> Arrival:
    """The PUBLISH packet whose variable header starts at `body`; QoS 0 or 1. `wanted`: names of user properties.

    Raises _PacketError.
    """
    if after - body < 2:
        raise _PacketError("a PUBLISH packet without a topic")
    at = body + 2 + (data[body] << 8 | data[body + 1])
    topic = data[body + 2 : at]
    packet_id = 0
    if first & _QOS_1:
        packet_id = int.from_bytes(data[at : at + 2], "big")
        at += 2
        if not packet_id:
            raise _PacketError("a packet id of 0")
    properties = NO_PROPERTIES
    if version_5:
        if at < after and data[at] == 0:
            at += 1
        elif wanted:
            properties, at = _user_properties(data, at, after, wanted)
        else:
            length, at = _variable(data, at, after)
            at += length
    if at > after or not topic:  # an empty topic needs a topic alias, which we did not allow
        raise _PacketError("a PUBLISH packet whose parts are longer than it")
    return topic, data[at:after], packet_id, first, properties


def _is_plain_success(data: bytes, body: int, length: int) -> bool:
    """Whether a PUBACK with a reason code means success and has no reason string (MQTT 5, 3.4.2)."""
    return (
        data[body + 2] in _ACCEPTED and (length == 3 or (length == 4 and data[body + 3] == 0)) if length > 2 else False
    )


def _variable(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer (MQTT 5, 1.5.5) and its end; a value after `end` if the integer is not complete."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 21:
            raise _PacketError("a length of more than four bytes")
    return 0, end + 1


def _user_properties(data: bytes, at: int, end: int, wanted: Collection[bytes]) -> tuple[Mapping[str, str], int]:
    """The wanted user properties of a PUBLISH packet (MQTT 5, 3.3.2.3), and where the payload starts. If a name
    repeats, the last one counts.

    Raises _PacketError, UnicodeDecodeError if a text is not UTF-8, or IndexError if a byte is missing.
    """
    length, at = _variable(data, at, end)
    stop = at + length
    if stop > end:
        raise _PacketError("properties longer than their packet")
    found = {}
    while at < stop:
        kind = data[at]
        at += 1
        if kind == _USER_PROPERTY:
            middle = at + 2 + (data[at] << 8 | data[at + 1])
            last = middle + 2 + (data[middle] << 8 | data[middle + 1])
            if (name := data[at + 2 : middle]) in wanted:
                found[name.decode()] = data[middle + 2 : last].decode()
            at = last
        elif kind in _TEXTS:
            at += 2 + (data[at] << 8 | data[at + 1])
        elif kind == _SUBSCRIPTION_ID:
            _, at = _variable(data, at, stop)
        elif kind in _WIDTHS:
            at += _WIDTHS[kind]
        else:
            raise _PacketError(f"property {kind} in a PUBLISH packet")
    if at != stop:
        raise _PacketError("a property longer than all of them")
    return found, stop


def _header(flags: int, size: int) -> bytes:
    """A PUBLISH packet's fixed header (MQTT 5, 2.1): first byte and remaining length."""
    header = bytearray((PUBLISH | flags,))
    while size > 127:
        header.append(size & 127 | 128)
        size >>= 7
    header.append(size)
    return bytes(header)


_HEADERS_KEPT = 2048  # sizes that sensors send
_HEADERS = {flags: [_header(flags, size) for size in range(_HEADERS_KEPT)] for flags in (0, 1, _QOS_1, _QOS_1 | 1)}

# The private members of paho that are used, as found in 2.0.0, 2.1.0 and 2.2.0.
_METHODS = {
    "loop_read": ["self", "max_packets"],
    "reconnect": ["self"],
    "_sock_recv": ["self", "bufsize"],
    "_loop_rc_handle": ["self", "rc"],
    "_packet_handle": ["self"],
    "_packet_queue": ["self", "command", "packet", "mid", "qos", "info"],
    "_send_publish": ["self", "mid", "topic", "payload", "qos", "retain", "dup", "info", "properties"],
    "_messages_reconnect_reset_out": ["self"],
    "_do_on_publish": ["self", "mid", "reason_code", "properties"],
}
_ATTRIBUTES = {
    "_sock": type(None),
    "_protocol": int,
    "_in_packet": dict,
    "_out_messages": dict,
    "_in_messages": dict,
    "_last_mid": int,
    "_inflight_messages": int,
    "_ping_t": float,
}
_LOCKS = ("_out_message_mutex", "_mid_generate_mutex")
_IN_PACKET = {"command", "remaining_length", "packet", "pos"}
_MESSAGE = {"timestamp", "state", "dup", "mid", "_topic", "payload", "qos", "retain", "info", "properties"}
_LAST_RECEIVED_NAMES = ("_last_bytes_received", "_last_msg_in")  # since 2.2; before


def _refusal(client: type[paho.Client] = paho.Client) -> str | None:
    """The first member of paho that is not as this module expects; None if all are."""
    for name, parameters in _METHODS.items():
        method = getattr(client, name, None)
        if method is None or list(inspect.signature(method).parameters) != parameters:
            return f"Client.{name}({', '.join(parameters)})"
    made: Any = client(CallbackAPIVersion.VERSION2)
    for name, kind in _ATTRIBUTES.items():
        if not isinstance(getattr(made, name, ...), kind):
            return f"Client.{name}: {kind.__name__}"
    for name in _LOCKS:
        if not hasattr(getattr(made, name, None), "__enter__"):
            return f"Client.{name}: a lock"
    if not set(made._in_packet) >= _IN_PACKET:
        return f"Client._in_packet: {', '.join(sorted(_IN_PACKET))}"
    if set(getattr(paho.MQTTMessage, "__slots__", ())) != _MESSAGE:
        return f"MQTTMessage: {', '.join(sorted(_MESSAGE))}"
    if _WAIT_FOR_PUBACK is None or not hasattr(paho, "time_func"):
        return "mqtt_ms_wait_for_puback, time_func"
    if not any(hasattr(made, name) for name in _LAST_RECEIVED_NAMES):
        return f"Client.{_LAST_RECEIVED_NAMES[0]}"
    return None


REFUSAL = _refusal()
_PAHO = paho.Client(CallbackAPIVersion.VERSION2)
_LAST_RECEIVED = next((name for name in _LAST_RECEIVED_NAMES if hasattr(_PAHO, name)), "")
