"""paho with lists of messages in and out, by its public members and a few private ones (mostly for a WebSocket)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.client import WebsocketConnectionError
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties

from edge_lstm.mqtt.options import USUALLY_WANTED, Wanted

if TYPE_CHECKING:
    import ssl  # loads OpenSSL, which most services do not need

# topic, payload, packet id, the PUBLISH packet's first byte, user properties; a plain tuple, since one
# is made for every message
Arrival = tuple[bytes, bytes, int, int, Mapping[str, str]]

NO_PROPERTIES: Mapping[str, str] = {}
_NO_TEXT = b"\xff"  # not UTF-8, like the topic that it stands for: paho does not give that one
PUBLISH = 0x30
DUP, QOS, RETAIN = 0x08, 0x06, 0x01  # bits of its first byte


class CutPayload(bytes):
    """The beginning of a payload whose rest was not kept, since its packet is too large. `len` is that of the whole."""

    whole: int

    @classmethod
    def of(cls, beginning: bytes, whole: int) -> CutPayload:
        """`whole`: bytes of the whole payload."""
        cut = cls(beginning)
        cut.whole = whole
        return cut

    def __len__(self) -> int:
        return self.whole


class StockClient(paho.Client):
    """A client without a queue and a send window: its caller bounds what is unconfirmed.

    Drive it from one thread with `loop_read`, `loop_write` and `loop_misc`. With a window, paho goes through all
    unconfirmed messages at every confirmation; without one (0) it does not.
    """

    def __init__(
        self,
        client_id: str,
        protocol: MQTTProtocolVersion,
        clean: bool,
        on_arrivals: Callable[[Sequence[Arrival]], None],
        on_confirmed: Callable[[Sequence[int]], None],
        on_refused: Callable[[int, int, str], None],
        websocket_path: str | None = None,
        wanted: Wanted = USUALLY_WANTED,
    ) -> None:
        """`on_confirmed` gets packet ids that the broker acknowledged; `on_refused` one that it refused, with the
        reason as a code and as text. With `websocket_path` it connects to the WebSocket at that path."""
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else clean,
            protocol=protocol,
            transport="tcp" if websocket_path is None else "websockets",
            reconnect_on_failure=False,  # else paho tries a refused 3.1.1 again as 3.1
            manual_ack=True,
        )
        if websocket_path is not None:
            self.ws_set_options(websocket_path)
        self.max_inflight_messages_set(0)
        self._largest = wanted.largest_packet
        self._wanted = frozenset(name.encode() for name in wanted.user_properties)
        self.connection = 0  # counts the attempts to connect: packet ids belong to one
        self._on_arrivals, self._on_confirmed, self._on_refused = on_arrivals, on_confirmed, on_refused
        self._opened: Any = None  # the TCP or TLS socket that was opened last
        self._sending_unconfirmed = False
        self._unsent: set[int] = set()  # packet ids of QoS 0 messages that the socket did not take yet
        self.on_message = self._take_message
        self.on_publish = self._take_confirmation

    def reconnect(self) -> MQTTErrorCode:
        self.connection += 1
        self._unsent.clear()
        try:
            return super().reconnect()
        except WebsocketConnectionError:
            self._opened.close()  # paho leaves that to the garbage collector
            raise

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """As paho's; a packet that is too large ends the connection before all of it is read."""
        result = super().loop_read(max_packets)
        packet = getattr(self, "_in_packet", {})
        if self._sock is not None and packet.get("remaining_length", 0) > self._largest:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)
        return result

    def _create_socket_connection(self) -> socket.socket:
        opened = self._opened = super()._create_socket_connection()
        return opened

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        opened = self._opened = super()._ssl_wrap_socket(tcp_sock)
        return opened

    def publish_many(
        self,
        items: Sequence[tuple[bytes, bytes]],
        qos: int,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> list[int]:
        """Send (topic, payload) pairs. Returns the packet ids that will be confirmed (none at QoS 0).

        The topics have to be valid. Messages at QoS 1 survive a reconnect, in order.
        """
        packet_ids = []
        for topic, payload in items:
            self._sending_unconfirmed = qos == 0
            info = self.publish(topic.decode(), payload, qos, retain, properties)
            while qos and info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:  # the id is in use: take the next
                info = self.publish(topic.decode(), payload, qos, retain, properties)
            self._sending_unconfirmed = False
            if qos:
                packet_ids.append(info.mid)
            elif self.want_write():
                self._unsent.add(info.mid)
        return packet_ids

    def acknowledge_many(self, packet_ids: Sequence[int], connection: int) -> None:
        """Acknowledge QoS 1 messages of this `connection`. Ids of an older one mean other messages by now."""
        if connection == self.connection:
            for packet_id in packet_ids:
                self.ack(packet_id, 1)

    def forget_ping(self) -> None:
        """Expect no answer to the last ping.

        While the caller does not read, the answer waits in the socket. paho would take the connection for dead.
        """
        if UNKNOWN_PING is None:
            self._ping_t = 0.0

    def _take_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        first = PUBLISH | (message.dup and DUP) | message.qos << 1 | (message.retain and RETAIN)
        pairs = [pair for pair in getattr(message.properties, "UserProperty", ()) if pair[0].encode() in self._wanted]
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            topic = _NO_TEXT
        self._on_arrivals([(topic, bytes(message.payload), message.mid, first, dict(pairs) or NO_PROPERTIES)])

    def _take_confirmation(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        # paho also calls this for sent QoS 0 messages, whose ids may be those of QoS 1 messages
        if self._sending_unconfirmed:
            return
        if mid in self._unsent:
            self._unsent.discard(mid)
        elif reason.is_failure:
            self._on_refused(mid, reason.value, str(reason))
        else:
            self._on_confirmed([mid])


def tcp_socket(connection: Any) -> Any:
    """The TCP or TLS socket of a connection: paho puts a wrapper around that of a WebSocket."""
    return getattr(connection, "_socket", connection)


def unknown_ping(client: type[paho.Client] = paho.Client) -> str | None:
    """The private member of paho that `forget_ping` sets, if it is not as in paho 2.0 to 2.2; None if it is."""
    made = client(CallbackAPIVersion.VERSION2)
    return None if isinstance(getattr(made, "_ping_t", None), float) else "Client._ping_t: float"


UNKNOWN_PING = unknown_ping()
