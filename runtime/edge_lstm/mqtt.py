"""The one door to paho: connect, read, publish, acknowledge, from one thread, with no callback that can raise.

It keeps its session at the broker, so that what arrives while the service is away waits there, and acknowledges a
message only when told to. Bounded: the socket is read only when asked, so the broker holds what is too much.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_lstm.errors import EdgeLstmError

log = logging.getLogger(__name__)

_KEEPALIVE_S = 30
_CONNECT_TIMEOUT_S = 5.0
_LONGEST_PAUSE_S = 5.0  # between attempts to reconnect
_PACKETS_A_POLL = 200
# paho looks through all that is outstanding at every PUBACK, so more than this costs more than it hides.
MOST_UNCONFIRMED = 200


@dataclass(frozen=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"mqtt://{self.host}:{self.port}"


def parse_address(url: str) -> Address:
    """`mqtt://host[:port]`, port 1883 where it is left out. Raises EdgeLstmError otherwise."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "mqtt" and parts.hostname and not parts.username and not parts.path.strip("/"):
            return Address(parts.hostname, parts.port or 1883)
    except ValueError:
        pass  # a port that is no number: the same answer as to any other text
    raise EdgeLstmError(f'expected an address like mqtt://host:1883, found "{url}"', "mend the address")


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it arrived; `connection` and `packet_id` say what to acknowledge."""

    topic: str
    payload: bytes
    packet_id: int
    connection: int
    qos: int
    repeated: bool  # the DUP flag: sent before, which does not mean processed before
    retained: bool


class Door:
    """A client of one broker, driven by whoever calls `poll`."""

    def __init__(
        self,
        address: Address,
        client_id: str = "",
        topics: Sequence[str] = (),
        status_topic: str | None = None,
        session_expiry_s: int = 0,
    ) -> None:
        """`session_expiry_s` > 0 keeps the session (subscriptions, what was missed) under `client_id`.

        `status_topic` gets "online" at every connect and "offline" when the connection ends, both retained.
        """
        self.address = address
        self.connected = False  # and subscribed
        self._topics = topics
        self._status_topic = status_topic
        self._session_expiry_s = session_expiry_s
        self._connection = 0
        self._expect_session = False
        self._arrived: list[Message] = []
        self._unconfirmed: set[int] = set()
        self._refused = ""
        self._retry_at = 0.0
        self._pause_s = 0.1
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, manual_ack=True
        )
        if log.isEnabledFor(logging.DEBUG):
            self._client.enable_logger(log)  # every packet
        self._client.connect_timeout = _CONNECT_TIMEOUT_S
        self._client.max_inflight_messages_set(MOST_UNCONFIRMED)
        self._client.on_socket_open = self._on_socket_open
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        if status_topic is not None:
            self._client.will_set(status_topic, b"offline", qos=1, retain=True)

    @property
    def connection(self) -> int:
        """Counts the connections made; it changes when everything unacknowledged will come again."""
        return self._connection

    @property
    def unconfirmed(self) -> AbstractSet[int]:
        """The packet ids of messages published that the broker has not confirmed yet."""
        return self._unconfirmed

    def open(self, timeout_s: float = 10.0) -> None:
        """Connect, or raise EdgeLstmError where the broker is not there or refuses. Afterwards `poll` reconnects."""
        try:
            self._connect()
        except OSError as error:
            raise self._absent(error) from None
        deadline = time.monotonic() + timeout_s
        while not self.connected:
            if self._refused or time.monotonic() > deadline:
                found = self._refused or f"no answer within {timeout_s:.0f} s"
                self._client.disconnect()
                raise EdgeLstmError(
                    f"expected the MQTT 5 broker at {self.address} to accept us, found: {found}",
                    "check that it speaks MQTT 5 and allows this client",
                )
            self._exchange(0.1, read=True)

    def poll(self, timeout_s: float, *, read: bool = True) -> list[Message]:
        """Do what is due on the connection, for at most `timeout_s`; return what arrived.

        With `read` false nothing is taken from the socket but what keeps the connection alive is still sent.
        Reconnects by itself, with growing pauses.
        """
        if self._client.socket() is None:
            self._reconnect(timeout_s)
        else:
            self._exchange(timeout_s, read)
        arrived, self._arrived = self._arrived, []
        return arrived

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> int:
        """Send at QoS 1; the packet id is in `unconfirmed` until the broker has it. It survives a reconnect."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN, paho.MQTT_ERR_CONN_LOST):
            raise EdgeLstmError(f"expected to publish to {topic}, found: {paho.error_string(info.rc)}")
        self._unconfirmed.add(info.mid)
        return info.mid

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Tell the broker that these need not come again. Those of an earlier connection will come again anyway."""
        for message in messages:
            if message.connection == self._connection and message.qos:
                self._client.ack(message.packet_id, message.qos)

    def close(self, timeout_s: float = 1.0) -> None:
        """Say goodbye: confirm what is under way, "offline" to the status topic, disconnect."""
        if self.connected and self._status_topic is not None:
            self.publish(self._status_topic, "offline", retain=True)
        deadline = time.monotonic() + timeout_s
        while self.connected and (self._unconfirmed or self._client.want_write()) and time.monotonic() < deadline:
            self._exchange(0.05, read=True)
        self._client.disconnect()

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry_s
        self._client.connect(
            self.address.host,
            self.address.port,
            keepalive=_KEEPALIVE_S,
            clean_start=self._session_expiry_s == 0,
            properties=properties,
        )

    def _reconnect(self, timeout_s: float) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            time.sleep(min(timeout_s, self._retry_at - now))
            return
        try:
            self._connect()
        except OSError as error:
            log.warning("broker unreachable address=%s error=%s retry_s=%.1f", self.address, error, self._pause_s)
            self._wait_longer()

    def _wait_longer(self) -> None:
        self._retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _exchange(self, timeout_s: float, read: bool) -> None:
        """One wait for the socket and what follows from it."""
        connection = self._client.socket()
        if connection is None:
            return
        writers = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select([connection] if read else [], writers, [], timeout_s)
        if readable:
            self._read_packets()
        if writable:
            self._client.loop_write()
        self._client.loop_misc()

    def _read_packets(self) -> None:
        for _ in range(_PACKETS_A_POLL):
            self._client.loop_read()
            connection = self._client.socket()
            if connection is None:
                return
            if not select.select([connection], [], [], 0)[0]:
                _acknowledge_at_once(connection)
                return

    def _absent(self, error: OSError) -> EdgeLstmError:
        found = "no such host" if isinstance(error, socket.gaierror) else error.strerror or str(error)
        return EdgeLstmError(
            f"expected an MQTT broker at {self.address}, found: {found}",
            "start one (edge-lstm broker), or mend the address",
        )

    # paho's callbacks. None of them may raise: paho would end its loop, or swallow it.

    def _on_socket_open(self, client: paho.Client, userdata: Any, connection: Any) -> None:
        # a prediction and an acknowledgement are small packets in a row: Nagle would hold the second for 40 ms
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            log.error("broker refuses us address=%s reason=%s", self.address, reason)
            self._wait_longer()
            return
        self._connection += 1
        self._pause_s = 0.1
        self._refused = ""
        if self._expect_session and not flags.session_present:
            log.error("broker lost our session: readings sent while we were away are gone address=%s", self.address)
        self._expect_session = self._session_expiry_s > 0
        if self._topics:
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in self._topics])
        else:
            self._ready()

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._refused = f"subscription refused: {', '.join(refused)}"
            log.error("broker refuses our subscription address=%s reason=%s", self.address, ", ".join(refused))
        self._ready()

    def _ready(self) -> None:
        self.connected = True
        if self._status_topic is not None:
            self._client.publish(self._status_topic, b"online", qos=1, retain=True)

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self.connected and reason.is_failure:
            log.warning("connection lost address=%s reason=%s", self.address, reason)
        self.connected = False
        self._arrived.clear()  # unacknowledged, so the broker sends them again

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # not MQTT (5, 1.5.4), so a broker at fault; never a reading of ours
            client.ack(message.mid, message.qos)
            return
        payload = bytes(message.payload)
        connection = self._connection
        self._arrived.append(Message(topic, payload, message.mid, connection, message.qos, message.dup, message.retain))

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._unconfirmed.discard(mid)


def _acknowledge_at_once(connection: Any) -> None:
    """Send TCP's acknowledgement now, on Linux; the kernel forgets this wish, so it is told after every read.

    Brokers leave Nagle on (mosquitto's set_tcp_nodelay is off by default): they hold the next reading until the
    confirmation of our last prediction is acknowledged, which the kernel would delay by 40 ms.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
