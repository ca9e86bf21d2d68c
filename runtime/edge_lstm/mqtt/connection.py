"""The one door to a broker: connect, read, publish, acknowledge, from one thread, with no callback that can raise.

It keeps its session at the broker, so that what arrives while the service is away waits there, and acknowledges a
message only when told to. Bounded: the socket is read only when asked, so the broker holds what is too much; what is
published beyond the broker's own bound waits here, in order, and its sender sees it in `unconfirmed`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.mqtt.address import LOOPBACK, Address, unreachable, unreachable_reason
from edge_lstm.mqtt.batching_client import LARGEST_PACKET, REFUSAL, BatchingClient
from edge_lstm.mqtt.credentials import Login, Tls
from edge_lstm.mqtt.send_window import PublishProperties, SendWindow, paho_properties
from edge_lstm.mqtt.stock_client import DUP, NO_PROPERTIES, QOS, RETAIN, Arrival, StockClient

log = logging.getLogger(__name__)

ClientKind = Literal["auto", "batching", "stock"]

_CONNECT_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0  # between attempts to reconnect
_SHORT_S = 10.0  # a connection that was accepted and ended sooner; several in a row have a reason
_SHORT_ONES_TOLD = 3
_MOST_A_POLL = 1000  # messages, about
_MOST_A_POLL_BYTES = 1 << 20  # of payload, about: a packet may have 8 MiB
_TOPICS_KEPT = 4096
# of a packet's first byte: QoS, DUP and RETAIN
_FLAGS = [((first & QOS) >> 1, first & DUP != 0, first & RETAIN != 0) for first in range(16)]
MOST_UNCONFIRMED = 1000  # sent and not confirmed; a broker may ask for less


class _GivenUpError(Exception):
    """`give_up` ended an attempt to connect. Not an OSError: on that, `socket` tries the next address."""


class Message(NamedTuple):
    """A message as it arrived; `connection` and `packet_id` say what to acknowledge."""

    topic: str
    payload: bytes
    packet_id: int
    connection: int
    qos: int
    repeated: bool  # the DUP flag: sent before, which does not mean processed before
    retained: bool
    properties: Mapping[str, str] = NO_PROPERTIES  # MQTT 5 user properties; of a name that repeats, the last


@dataclass(frozen=True)
class BrokerCapabilities:
    """What the broker said when it took us in (MQTT 5, 3.2.2.3): the standard's value where it said nothing."""

    session_present: bool
    session_expiry_s: int | None  # None: as we asked
    receive_maximum: int
    maximum_qos: int
    maximum_packet_size: int | None  # None: no limit
    retains: bool
    wildcards: bool

    @staticmethod
    def of(session_present: bool, properties: Any) -> BrokerCapabilities:
        """From paho's CONNACK properties, or None of them (MQTT 3.1.1)."""
        said = functools.partial(getattr, properties)
        return BrokerCapabilities(
            session_present,
            said("SessionExpiryInterval", None),
            said("ReceiveMaximum", 65_535),
            said("MaximumQoS", 2),
            said("MaximumPacketSize", None),
            bool(said("RetainAvailable", 1)),
            bool(said("WildcardSubscriptionAvailable", 1)),
        )


class MqttConnection:
    """A client of one broker, driven by whoever calls `poll`."""

    def __init__(
        self,
        address: Address,
        client_id: str = "",
        topics: Sequence[str] = (),
        status_topic: str | None = None,
        session_expiry_s: int = 0,
        *,
        protocol: Literal["5", "3.1.1"] = "5",
        qos: Literal[0, 1] = 1,
        tls: Tls | None = None,
        login: Login | None = None,
        receive_maximum: int = 1000,
        keepalive_s: int = 30,
        expect_session: bool = False,
        former_topics: Sequence[str] = (),
        client: ClientKind = "auto",
    ) -> None:
        """`topics` are the filters to subscribe to, at `qos`; `former_topics` what a kept session may still subscribe
        to, and no longer should.

        `session_expiry_s` > 0 keeps the session (subscriptions, what was missed) under `client_id`; MQTT 3.1.1 knows
        no expiry, so there the broker keeps it for as long as it likes. `expect_session` says that there should be one
        from before: a broker that lost it is told of in the log, at once and not only from the second connect on.
        `status_topic` gets "online" at every connect and "offline" when the connection ends, both retained.
        `receive_maximum` bounds what the broker sends before the first acknowledgement (MQTT 5).
        `client` chooses between paho's own hot path and ours: "auto" takes ours where the paho installed allows it.

        Raises EdgeLstmError where a file of `tls` is unfit.
        """
        self.address = address
        self.connected = False  # and subscribed
        self.unsubscribed = False  # the broker has heard that we want no more
        self._wants_more = True
        # shed: QoS 0 publishes that found no way out; refused: publishes that the broker did not want;
        # malformed: messages with a topic that is no text; sessions_lost: as said in the log
        self.counts: Counter[str] = Counter(shed=0, refused=0, malformed=0, sessions_lost=0)
        self.granted: BrokerCapabilities | None = None  # by the latest connection
        self.granted_qos: Sequence[int] = ()  # of each topic, by the latest subscription; 128 and above: refused
        self._topics, self._former_topics, self._qos = topics, former_topics, qos
        self._status_topic, self._client_id = status_topic, client_id
        self._session_expiry_s = session_expiry_s
        self._receive_maximum, self._keepalive_s = receive_maximum, keepalive_s
        self._five = protocol == "5"
        self._connection = 0
        self._connecting_in: int | None = None  # the thread that waits for an answer to its attempt
        self._accepted = False  # between CONNACK and the end of the connection
        self._broken = False  # its socket is of no use any more, though paho still holds it
        self._expect_session = expect_session
        self._arrived: list[Message] = []
        self._arrived_bytes = 0
        self._outgoing = SendWindow(MOST_UNCONFIRMED)
        self._known_topics: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._refused = ""
        self._since = self._retry_at = 0.0
        self._unreachable, self._shed, self._refusals = (RateLimitedLog(log) for _ in range(3))
        self._short_ones = 0  # connections in a row
        self._pause_s = _FIRST_PAUSE_S
        self._client = self._make_client(client, client_id)
        self._client.connect_timeout = _CONNECT_TIMEOUT_S
        if log.isEnabledFor(logging.DEBUG):
            self._client.enable_logger(log)  # every packet that paho itself handles
        self._client.on_socket_open = self._on_socket_open
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_unsubscribe
        if address.tls:
            self._client.tls_set_context((tls or Tls()).context())
        if login is not None:
            if login.password and not (address.tls or address.host in LOOPBACK):
                log.warning("password goes to the broker unencrypted; use mqtts:// address=%s", address)
            self._client.username_pw_set(login.username, login.password)
        if status_topic is not None:
            self._client.will_set(status_topic, b"offline", qos=1, retain=True)

    def _make_client(self, kind: ClientKind, client_id: str) -> StockClient:
        if kind == "batching" and REFUSAL is not None:
            raise EdgeLstmError(
                f"expected a paho-mqtt that the batching client knows, found one without {REFUSAL}",
                'install paho-mqtt 2.0 to 2.2, or choose client = "stock"',
            )
        if kind == "auto" and REFUSAL is not None:
            _say_stock_once(REFUSAL)
        chosen = StockClient if kind == "stock" or REFUSAL is not None else BatchingClient
        return chosen(
            client_id,
            MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            self._session_expiry_s == 0,
            self._on_arrivals,
            self._on_confirmed,
            self._on_refused,
        )

    @property
    def connection(self) -> int:
        """Counts the connections made; it changes when everything unacknowledged will come again."""
        return self._connection

    @property
    def encryption(self) -> tuple[str, str] | None:
        """(version of TLS, when the broker's certificate ends); None: nothing is encrypted, or nothing connected."""
        connection: Any = self._client.socket()
        if not self.address.tls or connection is None:
            return None
        certificate: Any = connection.getpeercert() or {}
        return connection.version() or "TLS", str(certificate.get("notAfter", ""))

    @property
    def unconfirmed(self) -> AbstractSet[int]:
        """The numbers of messages published at QoS 1 that the broker has not confirmed yet."""
        return self._outgoing.unconfirmed

    def open(self, timeout_s: float = 10.0) -> None:
        """Connect, or raise EdgeLstmError where the broker is not there or refuses. Afterwards `poll` reconnects."""
        try:
            self._connect()
        except (OSError, UnicodeError) as error:
            raise unreachable(self.address, error) from None
        deadline = time.monotonic() + timeout_s
        while not self.connected:
            if self._refused or self._gone or time.monotonic() > deadline:
                found = self._refused or (
                    "it closed the connection" if self._gone else f"no answer within {timeout_s:.0f} s"
                )
                self._client.disconnect()
                raise EdgeLstmError(
                    f"expected the MQTT {'5' if self._five else '3.1.1'} broker at {self.address} to accept us, "
                    f"found: {found}",
                    "check that it speaks this version of MQTT and allows this client",
                )
            self._exchange(0.1, read=True)

    def poll(self, timeout_s: float, *, read: bool = True) -> list[Message]:
        """Do what is due on the connection, for at most `timeout_s`; return what arrived.

        With `read` false nothing is taken from the socket, confirmations included, but what keeps the connection
        alive is still sent. Reconnects by itself, with growing pauses; an attempt may take 5 s.
        """
        if self._gone:
            self._reconnect(timeout_s)
        else:
            self._exchange(timeout_s, read)
        arrived, self._arrived, self._arrived_bytes = self._arrived, [], 0
        return arrived

    def publish(
        self,
        topic: str,
        payload: str | bytes,
        *,
        qos: Literal[0, 1] = 1,
        retain: bool = False,
        properties: PublishProperties | None = None,
    ) -> int:
        """`publish_many` of one message; return its number, or 0 at QoS 0."""
        data = payload.encode() if isinstance(payload, str) else payload
        numbers = self.publish_many([(topic, data)], qos=qos, retain=retain, properties=properties)
        return numbers[0] if numbers else 0

    def publish_many(
        self,
        items: Sequence[tuple[str, bytes]],
        *,
        qos: Literal[0, 1] = 1,
        retain: bool = False,
        properties: PublishProperties | None = None,
    ) -> Sequence[int]:
        """Send (topic, payload) pairs, in order and in one write.

        At QoS 1 each gets a number, which is in `unconfirmed` until the broker has it or refuses it (`counts`); it
        survives a reconnect, and beyond the broker's window it waits. At QoS 0 there are no numbers, and what finds
        no connection or a socket that takes nothing is shed and counted.
        Raises EdgeLstmError, and sends nothing, where a topic is unfit.
        """
        encoded = [(self._known_topics.get(topic) or self._encode_topic(topic), payload) for topic, payload in items]
        if qos == 0:
            self._publish_unconfirmed(encoded, retain, properties)
            return []
        numbers = self._outgoing.add(encoded, retain, properties)
        self._send()
        return numbers

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Tell the broker that these need not come again. Those of an earlier connection will come again anyway."""
        if not self._accepted:
            return
        current = [message for message in messages if message.connection == self._connection and message.qos]
        self._client.acknowledge_many(
            [message.packet_id for message in current if message.qos == 1], self._client.connection
        )
        for message in current:
            if message.qos == 2:  # more than we subscribed to, which a broker may do
                self._client.ack(message.packet_id, 2)

    def unsubscribe(self) -> bool:
        """Ask for no more than the broker has queued for us already, and say whether we did: not where it keeps our
        session, since it goes on queueing for that. May be asked again, as a broker answers in turn: what comes before
        `unsubscribed` it sent for what we acknowledged before."""
        if not self.connected or not self._topics or self._session_expiry_s:
            return False
        self._client.unsubscribe(list(self._topics))
        self._wants_more = self.unsubscribed = False
        return True

    def give_up(self) -> None:
        """End an attempt to connect that is under way in this thread: for the handler of a signal, which interrupts
        it and would else wait with it, 5 s for an address that does not answer."""
        if self._connecting_in == threading.get_ident():
            raise _GivenUpError

    def close(self, timeout_s: float = 1.0) -> None:
        """Say goodbye: confirm what is under way, "offline" to the status topic, disconnect."""
        deadline = time.monotonic() + timeout_s
        while self.connected and self.unconfirmed and time.monotonic() < deadline:
            self._exchange(0.05, read=True)
        if self.connected and self._status_topic is not None:
            # past the window, since a goodbye that waits for its turn would not be said
            self._client.publish(self._status_topic, b"offline", qos=1, retain=True)
        self._client.disconnect()
        while self._client.want_write() and not self._gone and time.monotonic() < deadline:
            self._exchange(0.05, read=False)
        if not self._gone:
            self._drop()  # it takes nothing any more; the broker says "offline" for us

    # the connection

    @property
    def _gone(self) -> bool:
        return self._broken or self._client.socket() is None

    def _connect(self) -> None:
        """Open a socket and ask to be let in. Raises OSError, or UnicodeError for a host that no name can be."""
        self._broken = self._accepted = self.connected = False
        self._refused = ""
        self._since = time.monotonic()
        settings: dict[str, Any] = {}
        if self._five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = self._session_expiry_s
            properties.ReceiveMaximum = self._receive_maximum
            properties.MaximumPacketSize = LARGEST_PACKET
            settings = {"clean_start": self._session_expiry_s == 0, "properties": properties}
        try:
            self._connecting_in = threading.get_ident()
            self._client.connect(self.address.host, self.address.port, keepalive=self._keepalive_s, **settings)
        finally:
            self._connecting_in = None

    def _reconnect(self, timeout_s: float) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            time.sleep(min(timeout_s, self._retry_at - now))
            return
        try:
            self._connect()
        except _GivenUpError:
            self._wait_longer()
        except (OSError, UnicodeError) as error:
            self._wait_longer()
            self._unreachable.log(
                logging.WARNING,
                "broker unreachable address=%s error=%s",
                self.address,
                unreachable_reason(self.address, error),
            )

    def _wait_longer(self) -> None:
        """Random, so that a thousand devices do not come back to a broker at the same moment."""
        self._retry_at = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _exchange(self, timeout_s: float, read: bool) -> None:
        """One wait for the socket and what follows from it."""
        connection: Any = self._client.socket()
        if connection is None:
            return
        held = read and self._decrypted(connection)
        readers = [connection] if read else []
        writers = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select(readers, writers, [], 0.0 if held else timeout_s)
        try:
            if readable or held:
                self._read_packets(connection)
            if writable:
                self._client.loop_write()
            if not read:
                # the answer to our last ping lies unread in the socket, and its lateness says nothing
                self._client._ping_t = 0.0
            self._client.loop_misc()
        except Exception:  # paho before 2.2 raises whatever a malformed packet makes of it
            log.exception("connection dropped after a fault address=%s", self.address)
            self._drop()
        self._send()

    def _decrypted(self, connection: Any) -> bool:
        """Whether TLS holds what it took from the socket already, which select does not see."""
        return self.address.tls and connection.pending() > 0

    def _read_packets(self, connection: Any) -> None:
        while True:
            self._client.loop_read()
            left: Any = self._client.socket()
            if left is not connection:
                return
            more = self._decrypted(left) or select.select([left], [], [], 0)[0]
            enough = len(self._arrived) >= _MOST_A_POLL or self._arrived_bytes >= _MOST_A_POLL_BYTES
            if enough or not more:
                _acknowledge_at_once(connection)
                return

    def _drop(self) -> None:
        """End this connection ourselves; `poll` makes another."""
        connection: Any = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # the broker sends our last will
        self._broken = True
        self._end_connection()

    def _end_connection(self) -> None:
        self.connected = self._accepted = False
        # what was not acknowledged the broker sends again
        self._arrived = [message for message in self._arrived if not message.qos]
        if time.monotonic() - self._since < _LONGEST_PAUSE_S:
            self._wait_longer()  # a broker that takes us in to throw us out is not asked without a pause
        else:
            self._retry_at, self._pause_s = 0.0, _FIRST_PAUSE_S

    # publishing

    def _encode_topic(self, topic: str) -> bytes:
        try:
            encoded = topic.encode()
        except UnicodeEncodeError:
            encoded = b""
        if not 0 < len(encoded) < 65536 or any(sign in topic for sign in "+#\x00"):
            raise EdgeLstmError(
                f"expected a topic to publish to, found {topic[:80]!r}", "no + # in it, and 65,535 bytes at most"
            )
        if len(self._known_topics) >= _TOPICS_KEPT:
            self._known_topics.clear()
        self._known_topics[topic] = encoded
        return encoded

    def _send(self) -> None:
        """As much as the broker's window takes."""
        while self.connected and (run := self._outgoing.take()):
            packet_ids = self._client.publish_many(run.items, 1, run.retain, self._packed(run.properties))
            self._outgoing.note_sent(run, packet_ids)

    def _publish_unconfirmed(
        self, items: list[tuple[bytes, bytes]], retain: bool, properties: PublishProperties | None
    ) -> None:
        if self.connected and self._client.want_write():
            self._client.loop_write()
        if self.connected and not self._client.want_write():
            self._client.publish_many(items, 0, retain, self._packed(properties))
            return
        self.counts["shed"] += len(items)
        if self.connected:
            shed = self.counts["shed"]
            self._shed.log(
                logging.WARNING, "broker does not keep up, messages are shed address=%s shed=%d", self.address, shed
            )

    def _packed(self, properties: PublishProperties | None) -> Properties | None:
        return paho_properties(properties) if properties is not None and self._five else None

    # paho's callbacks. None of them may raise: paho would end its loop, or swallow it.

    def _on_socket_open(self, client: paho.Client, userdata: Any, connection: Any) -> None:
        # a prediction and an acknowledgement are small packets in a row: Nagle would hold the second for 40 ms
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            self._tell(logging.ERROR, f"broker refuses us address={self.address} reason={reason}")
            return
        self._connection += 1
        self._accepted = True
        self.granted = BrokerCapabilities.of(flags.session_present, properties)
        self._unreachable.reset()
        # one less than the broker allows, for the status message
        self._outgoing.size = max(1, min(MOST_UNCONFIRMED, self.granted.receive_maximum - 1))
        if self._expect_session and not flags.session_present:
            self.counts["sessions_lost"] += 1
            log.error("broker lost our session: readings sent while we were away are gone address=%s", self.address)
        self._expect_session = self._session_expiry_s > 0
        if self._former_topics and flags.session_present:
            client.unsubscribe(list(self._former_topics))
        if self._topics and self._wants_more:
            wish: Any = SubscribeOptions(qos=self._qos) if self._five else self._qos
            client.subscribe([(topic, wish) for topic in self._topics])
        else:
            self._ready()

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self.granted_qos = [reason.value for reason in reasons]
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._refused = f"subscription refused: {', '.join(refused)}"
            self._tell(
                logging.ERROR, f"broker refuses our subscription address={self.address} reason={', '.join(refused)}"
            )
            self._drop()
            return
        if any(reason.value < self._qos for reason in reasons):
            log.error("broker grants QoS 0 only: readings may get lost address=%s", self.address)
        self._ready()

    def _on_unsubscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self.unsubscribed = True

    def _ready(self) -> None:
        self.connected = True
        if self._status_topic is not None:
            self._client.publish(self._status_topic, b"online", qos=1, retain=True)

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            if self._accepted:
                log.warning("connection lost address=%s reason=%s", self.address, reason)
                self._note_short()
            elif not self._refused:
                self._tell(
                    logging.WARNING, f"connection closed before it was accepted address={self.address} reason={reason}"
                )
        self._end_connection()

    def _note_short(self) -> None:
        """Brokers end a connection whose client id comes again, and some do not say so."""
        short = time.monotonic() - self._since < _SHORT_S
        self._short_ones = self._short_ones + 1 if short else 0
        if self._short_ones >= _SHORT_ONES_TOLD:
            self._tell(
                logging.ERROR,
                f"connections do not last: is there another client with this client_id? address={self.address} "
                f"client_id={self._client_id}",
            )

    def _tell(self, level: int, text: str) -> None:
        """On the log, but the same only once a minute: a broker is asked again every few seconds."""
        self._refusals.log(level, "%s", text, key=text)

    def _on_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        connection, names, arrived = self._connection, self._names, self._arrived
        for raw, payload, packet_id, first, properties in arrivals:
            topic = names.get(raw) or self._name(raw)
            if topic is None:  # not MQTT (5, 1.5.4), so a broker at fault; acknowledged, or it would come for ever
                self.counts["malformed"] += 1
                if first & QOS:
                    self._client.ack(packet_id, (first & QOS) >> 1)
                continue
            qos, repeated, retained = _FLAGS[first & 15]
            self._arrived_bytes += len(payload)
            facts = (topic, payload, packet_id, connection, qos, repeated, retained, properties)
            arrived.append(tuple.__new__(Message, facts))  # half of what a named tuple's own takes

    def _name(self, raw: bytes) -> str | None:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            return None
        if len(self._names) >= _TOPICS_KEPT:
            self._names.clear()
        self._names[raw] = name
        return name

    def _on_confirmed(self, packet_ids: Sequence[int]) -> None:
        self._outgoing.confirm(packet_ids)

    def _on_refused(self, packet_id: int, reason: str) -> None:
        if not self.counts["refused"]:
            log.error("broker refuses what we publish address=%s reason=%s", self.address, reason)
        self.counts["refused"] += 1
        self._on_confirmed([packet_id])  # it would refuse it again


@functools.lru_cache(maxsize=1)
def _say_stock_once(missing: str) -> None:
    log.warning("paho-mqtt is not as the batching client expects, stock paho is used missing=%s", missing)


def _acknowledge_at_once(connection: Any) -> None:
    """Send TCP's acknowledgement now, on Linux; the kernel forgets this wish, so it is told after every read.

    Brokers leave Nagle on (mosquitto's set_tcp_nodelay is off by default): they hold the next reading until the
    confirmation of our last prediction is acknowledged, which the kernel would delay by 40 ms.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
