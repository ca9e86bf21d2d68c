"""The connection to an MQTT broker: connect, read, publish, acknowledge. One thread drives it, and no callback raises.

It keeps its session at the broker, so messages wait there while the service is away. It acknowledges a message only
when its caller asks for it. Memory is bounded: it reads the socket only when asked, so the broker holds the rest.
Published messages beyond the broker's window wait here, in order.

Incoming messages are *acknowledged*, by us; outgoing ones are *confirmed*, by the broker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.mqtt.address import LOOPBACK, Address, unreachable, unreachable_reason
from edge_lstm.mqtt.capabilities import BrokerCapabilities
from edge_lstm.mqtt.client.client_choice import make_client
from edge_lstm.mqtt.client.received import Message, ReceivedMessages
from edge_lstm.mqtt.client.stock_client import QOS, Arrival, StockClient, tcp_socket
from edge_lstm.mqtt.client.topic_cache import EncodedTopics
from edge_lstm.mqtt.client.websocket_frames import read_and_write_frames
from edge_lstm.mqtt.credentials import Tls
from edge_lstm.mqtt.options import LARGEST_PACKET, ConnectionOptions
from edge_lstm.mqtt.paused_topics import PausedTopics
from edge_lstm.mqtt.publisher import Publisher, delivery_of
from edge_lstm.mqtt.reason_codes import UNSPECIFIED
from edge_lstm.mqtt.reconnect import ReconnectTimer
from edge_lstm.mqtt.send_window import Delivery, PublishProperties, PublishRun, paho_properties

log = logging.getLogger(__name__)

MOST_UNCONFIRMED = 1000  # sent and not confirmed; a broker may ask for less
_CONNECT_TIMEOUT_S = 5.0
_LONGEST_READ_S = 0.1  # of one poll, before its caller does something else: a broker may send what is no message
_LONGEST_GOODBYE_S = 0.5
_DEFAULTS = ConnectionOptions()


class _ConnectAbortedError(Exception):
    """`abort_connect` ended an attempt to connect. Not an OSError: after one, `socket` tries the next address."""


class MqttConnection:
    """A client of one broker. It works only while its caller calls `poll`."""

    def __init__(
        self,
        address: Address,
        client_id: str = "",
        topics: Sequence[str] = (),
        *,
        session_expiry_s: int = 0,
        options: ConnectionOptions = _DEFAULTS,
    ) -> None:
        """Prepare a connection; `open` or the first `poll` makes it.

        `topics`: the topic filters to subscribe to. With `session_expiry_s` > 0 the broker keeps the session
        (subscriptions, missed messages) under `client_id` for so long. MQTT 3.1.1 has no expiry: there the broker
        decides how long.

        Raises EdgeLstmError if a file of `options.tls` is unusable.
        """
        self.address = address
        self.connected = False  # and subscribed
        self.unsubscribed = False  # the broker has confirmed that we want no more
        # shed: QoS 0 publishes that could not be sent; refused, too_large, dropped: see `Publisher`;
        # malformed: messages whose topic is not UTF-8; sessions_lost: sessions that the broker did not keep
        self.counts: Counter[str] = Counter(shed=0, refused=0, too_large=0, dropped=0, malformed=0, sessions_lost=0)
        self.granted: BrokerCapabilities | None = None  # by the latest connection
        self.granted_qos: Sequence[int] = ()  # of each topic, by the latest subscription; 128 and above: refused
        self._options = options
        self._client_id, self._topics, self._session_expiry_s = client_id, topics, session_expiry_s
        self._version_5 = options.protocol == "5"
        self._subscribes = True  # at the next connect
        self._expects_session = options.expect_session
        self._connection_count = 0
        self._connecting_thread: int | None = None  # the one that waits for the answer to an attempt
        self._accepted = False  # between CONNACK and the end of the connection
        self._broken = False  # its socket is of no use any more, though paho still holds it
        self._refusal = ""  # why the broker refused us; empty if it did not
        self._timer = ReconnectTimer()
        self._received = ReceivedMessages()
        self._publisher = Publisher(MOST_UNCONFIRMED, self._version_5, self.counts, PausedTopics())
        self._publish_topics = EncodedTopics()
        self._unreachable, self._shed, self._refusals = (RateLimitedLog(log) for _ in range(3))
        login = options.login
        if login is not None and login.password and not (address.tls or address.host in LOOPBACK):
            log.warning("password goes to the broker unencrypted; use mqtts:// or wss:// address=%s", address)
        self._client = self._make_client()

    def _make_client(self) -> StockClient:
        options = self._options
        protocol = MQTTProtocolVersion.MQTTv5 if self._version_5 else MQTTProtocolVersion.MQTTv311
        callbacks = (self._on_arrivals, self._on_confirmed, self._on_refused)
        clean = self._session_expiry_s == 0
        path, wanted = self.address.path, options.wanted
        client = make_client(options.client, self._client_id, protocol, clean, *callbacks, path, wanted)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        if log.isEnabledFor(logging.DEBUG):
            client.enable_logger(log)  # every packet that paho itself handles
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        if self.address.tls:
            client.tls_set_context((options.tls or Tls()).context())
        if options.login is not None:
            client.username_pw_set(options.login.username, options.login.password)
        if options.status_topic is not None:
            client.will_set(options.status_topic, b"offline", qos=1, retain=True)
        return client

    @property
    def connection_count(self) -> int:
        """How many connections were made. With a new one, everything unacknowledged comes again."""
        return self._connection_count

    @property
    def encryption(self) -> tuple[str, str] | None:
        """(TLS version, end of the broker's certificate); None if nothing is encrypted or connected."""
        connection: Any = tcp_socket(self._client.socket())
        if not self.address.tls or connection is None:
            return None
        certificate: Any = connection.getpeercert() or {}
        return connection.version() or "TLS", str(certificate.get("notAfter", ""))

    @property
    def unconfirmed(self) -> AbstractSet[int]:
        """The numbers of messages published at QoS 1 that the broker has not confirmed yet."""
        return self._publisher.window.unconfirmed

    @property
    def waiting(self) -> int:
        """How many messages wait because the broker refuses their topic."""
        return self._publisher.paused.kept

    @property
    def paused_topics(self) -> list[str]:
        """The topics, or families of topics, that the broker refuses at present."""
        return [pause.name for pause in self._publisher.paused]

    def take_faults(self) -> list[Mapping[str, object]]:
        """Remove and return the facts of messages that were refused or too large, to be reported."""
        faults = self._publisher.faults
        return [faults.popleft() for _ in range(len(faults))]

    def fits(self, topic: str, payload: bytes) -> bool:
        """Whether the broker takes a message of this size. True while no connection has shown its limit."""
        return self._publisher.fits(self._publish_topics[topic], payload)

    def open(self, timeout_s: float = 10.0) -> None:
        """Connect; afterwards `poll` reconnects. Raises EdgeLstmError if the broker is unreachable or refuses."""
        try:
            self._connect()
        except (OSError, UnicodeError) as error:
            raise unreachable(self.address, error) from None
        deadline = time.monotonic() + timeout_s
        while not self.connected:
            if self._refusal or self._closed or time.monotonic() > deadline:
                found = self._refusal or (
                    "it closed the connection" if self._closed else f"no answer within {timeout_s:.0f} s"
                )
                self._client.disconnect()
                raise EdgeLstmError(
                    f"expected the MQTT {self._options.protocol} broker at {self.address} to accept us, found: {found}",
                    "check that it supports this version of MQTT and allows this client",
                )
            self._exchange(0.1, read=True)

    def poll(self, timeout_s: float, *, read: bool = True) -> list[Message]:
        """Work on the connection for at most `timeout_s`; return what arrived.

        With `read` false nothing is read from the socket, confirmations included, but the keep-alive is still sent.
        Reconnects by itself, with growing pauses; an attempt may take 5 s.
        """
        if self._closed:
            self._reconnect(timeout_s)
        else:
            self._exchange(timeout_s, read)
        return self._received.take()

    def publish(
        self,
        topic: str,
        payload: str | bytes,
        *,
        qos: Literal[0, 1] = 1,
        retain: bool = False,
        properties: PublishProperties | None = None,
        latest: bool = False,
    ) -> int:
        """`publish_many` of one message; return its number, or 0 at QoS 0. `latest`: it replaces earlier ones of its
        topic that wait because the broker refuses them."""
        data = payload.encode() if isinstance(payload, str) else payload
        delivery = delivery_of(retain, properties, topic if latest else None, latest)
        numbers = self._publish([(topic, data)], qos, delivery)
        return numbers[0] if numbers else 0

    def publish_many(
        self,
        items: Sequence[tuple[str, bytes]],
        *,
        qos: Literal[0, 1] = 1,
        retain: bool = False,
        properties: PublishProperties | None = None,
        family: str | None = None,
    ) -> Sequence[int]:
        """Send (topic, payload) pairs, in order and in one write.

        At QoS 1 each gets a number. It is in `unconfirmed` until the broker confirms the message. The message survives
        a reconnect, and waits if the broker's window is full. At QoS 0 there are no numbers; without a connection, or
        if the socket takes nothing, messages are dropped and counted (shed).

        A topic that the broker refuses pauses (`PausedTopics`). With a `family`, a name for what the topics have in
        common, the latest of its messages wait; without one they are dropped and counted (`counts`). Messages larger
        than the broker's limit are counted and never sent.

        Raises EdgeLstmError, and sends nothing, if MQTT does not allow a topic.
        """
        return self._publish(items, qos, delivery_of(retain, properties, family))

    def _publish(self, items: Sequence[tuple[str, bytes]], qos: Literal[0, 1], delivery: Delivery) -> Sequence[int]:
        topics = self._publish_topics
        encoded = [(topics[topic], payload) for topic, payload in items]
        if qos == 0:
            self._publish_unconfirmed(encoded, delivery)
            return []
        numbers = self._publisher.window.add(encoded, delivery)
        self._send()
        return numbers

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Tell the broker not to send these again. Those of an earlier connection come again anyway."""
        if not self._accepted:
            return
        current = [message for message in messages if message.connection == self._connection_count and message.qos]
        self._client.acknowledge_many(
            [message.packet_id for message in current if message.qos == 1], self._client.connection
        )
        for message in current:
            if message.qos == 2:  # more than we subscribed to: a broker may do so
                self._client.ack(message.packet_id, 2)

    def unsubscribe(self) -> bool:
        """Ask the broker for no new messages. Returns whether we did: not if it keeps our session and its queue.

        May be called again. A broker answers in order: messages that arrive before `unsubscribed` were queued before.
        """
        if not self.connected or not self._topics or self._session_expiry_s:
            return False
        self._client.unsubscribe(list(self._topics))
        self._subscribes = self.unsubscribed = False
        return True

    def reconnect(self) -> None:
        """End this connection in order; the next `poll` makes another one. Then the broker sends everything again that
        is not acknowledged, in order. It does not publish our last will.
        """
        if self._closed:
            return
        ours: Any = tcp_socket(self._client.socket())
        # paho closes its socket behind the DISCONNECT packet. With bytes unread, that would reset the connection, and
        # the broker would lose the acknowledgements before it. So the connection stays open until the broker ends it.
        with socket.socket(fileno=os.dup(ours.fileno())) as left:
            self._client.disconnect()
            deadline = time.monotonic() + _LONGEST_GOODBYE_S
            while not self._closed and time.monotonic() < deadline:
                self._exchange(0.05, read=False)
            if not self._closed:
                self._abort()
            _read_to_the_end(left, deadline)
        self._timer.reconnect_at_once()

    def abort_connect(self) -> None:
        """End an attempt to connect in this thread. For a signal handler, which else waits for it up to 5 s."""
        if self._connecting_thread == threading.get_ident():
            raise _ConnectAbortedError

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait for confirmations, publish "offline" to the status topic, disconnect."""
        deadline = time.monotonic() + timeout_s
        while self.connected and self.unconfirmed and time.monotonic() < deadline:
            self._exchange(0.05, read=True)
        if self.connected and self._options.status_topic is not None:
            self._publish_status(b"offline")
        self._client.disconnect()
        while self._client.want_write() and not self._closed and time.monotonic() < deadline:
            self._exchange(0.05, read=False)
        if not self._closed:
            self._abort()  # the socket takes nothing any more; the broker publishes "offline", our last will

    # the connection

    @property
    def _closed(self) -> bool:
        return self._broken or self._client.socket() is None

    def _connect(self) -> None:
        """Open a socket and send CONNECT. Raises OSError, or UnicodeError for an impossible host name."""
        self._broken = self._accepted = self.connected = False
        self._refusal = ""
        self._timer.attempt_begins()
        if self._publisher.sends_again:
            self._replace_client()
        settings: dict[str, Any] = {}
        if self._version_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = self._session_expiry_s
            properties.ReceiveMaximum = self._options.receive_maximum
            properties.MaximumPacketSize = max(LARGEST_PACKET, self._options.wanted.largest_packet)
            settings = {"clean_start": self._session_expiry_s == 0, "properties": properties}
        try:
            self._connecting_thread = threading.get_ident()
            self._client.connect(self.address.host, self.address.port, keepalive=self._options.keepalive_s, **settings)
        finally:
            self._connecting_thread = None

    def _replace_client(self) -> None:
        """Use a new client: the former one would send all its messages again at once, even those that must wait."""
        former = self._client.socket()
        if former is not None:
            former.close()
        self._publisher.window.send_again()
        self._client = self._make_client()

    def _reconnect(self, timeout_s: float) -> None:
        if (wait_s := self._timer.wait_s) > 0:
            time.sleep(min(timeout_s, wait_s))
            return
        try:
            self._connect()
        except _ConnectAbortedError:
            self._timer.attempt_failed()
        except (OSError, UnicodeError) as error:
            self._timer.attempt_failed()
            self._unreachable.log(
                logging.WARNING,
                "broker unreachable address=%s error=%s",
                self.address,
                unreachable_reason(self.address, error),
            )

    def _exchange(self, timeout_s: float, read: bool) -> None:
        """Wait for the socket once, then read and write what it allows."""
        connection: Any = self._client.socket()
        if connection is None:
            return
        buffered = read and self._has_decrypted(connection)
        readers = [connection] if read else []
        writers = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select(readers, writers, [], 0.0 if buffered else timeout_s)
        try:
            if readable or buffered:
                self._read_packets(connection)
            if writable:
                self._client.loop_write()
            if not read:
                self._client.forget_ping()
            self._client.loop_misc()
        except Exception:  # paho before 2.2 lets through what a malformed packet raises
            log.exception("connection dropped after a fault address=%s", self.address)
            self._publisher.connection_lost(UNSPECIFIED, "an answer that is malformed")
            self._abort()
        self._send()

    def _has_decrypted(self, connection: Any) -> bool:
        """Whether TLS holds bytes that it took from the socket already: select does not see those."""
        return self.address.tls and connection.pending() > 0

    def _read_packets(self, connection: Any) -> None:
        deadline = time.monotonic() + _LONGEST_READ_S
        while True:
            self._client.loop_read()
            left: Any = self._client.socket()
            if left is not connection:
                return
            enough = self._received.enough or time.monotonic() > deadline
            if enough or not (self._has_decrypted(left) or select.select([left], [], [], 0)[0]):
                _acknowledge_at_once(connection)
                return

    def _abort(self) -> None:
        """End this connection ourselves; `poll` makes another."""
        connection: Any = tcp_socket(self._client.socket())
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # the broker sends our last will
        self._broken = True
        self._end_connection()

    def _end_connection(self) -> None:
        self.connected = self._accepted = False
        self._received.drop_unacknowledged()
        self._timer.connection_ended()

    # publishing

    def _send(self) -> None:
        """Send as much as the broker's window takes."""
        while self.connected and (run := self._publisher.take()):
            delivery = run.delivery
            properties = self._paho_properties(delivery.properties)
            packet_ids = self._client.publish_many(run.items, 1, delivery.retain, properties)
            self._publisher.window.note_sent(run, packet_ids)

    def _publish_unconfirmed(self, items: Sequence[tuple[bytes, bytes]], delivery: Delivery) -> None:
        if self.connected and self._client.want_write():
            self._client.loop_write()
        if self.connected and not self._client.want_write():
            allowed = self._publisher.allowed_unkept(items, delivery)
            self._client.publish_many(allowed, 0, delivery.retain, self._paho_properties(delivery.properties))
            return
        self.counts["shed"] += len(items)
        if self.connected:
            shed = self.counts["shed"]
            self._shed.log(
                logging.WARNING, "broker does not keep up, messages are shed address=%s shed=%d", self.address, shed
            )

    def _publish_status(self, status: bytes) -> None:
        """Publish past the window: in its queue the message might not be sent in time."""
        if self._options.status_topic is None:
            return
        item = (self._publish_topics[self._options.status_topic], status)
        delivery = delivery_of(True, None, self._options.status_topic, True)
        if self._publisher.allows(*item, delivery):
            packet_ids = self._client.publish_many([item], 1, retain=True)
            self._publisher.window.note_sent(PublishRun([0], [item], delivery), packet_ids)

    def _paho_properties(self, properties: PublishProperties | None) -> Properties | None:
        return paho_properties(properties) if properties is not None and self._version_5 else None

    # paho's callbacks. None of them may raise: paho would end its loop, or drop the error.

    def _on_socket_open(self, client: paho.Client, userdata: Any, connection: Any) -> None:
        # a prediction and an acknowledgement are small packets in a row: Nagle's algorithm delays the second by 40 ms
        tcp_socket(connection).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_and_write_frames(connection)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._accepted:  # a second CONNACK
            self._abort()
            return
        if reason.is_failure:
            self._refusal = str(reason)
            self._log_limited(logging.ERROR, f"broker refuses us address={self.address} reason={reason}")
            return
        self._connection_count += 1
        self._accepted = True
        self.granted = BrokerCapabilities.of(flags.session_present, properties)
        self._unreachable.reset()
        # one less than the broker allows, for the status message
        window = max(1, min(MOST_UNCONFIRMED, self.granted.receive_maximum - 1))
        if self._publisher.connection_made(window, self.granted.maximum_packet_size):
            self._abort()  # before paho sends again what is too large
            return
        if self._expects_session and not flags.session_present:
            self.counts["sessions_lost"] += 1
            text = "broker lost our session: readings sent while we were away are gone"
            remedy = "enable persistence on the broker, or raise session_expiry_s"
            log.error("%s; %s address=%s", text, remedy, self.address)
            self._publisher.faults.append({"error": text, "hint": remedy})
        self._expects_session = self._session_expiry_s > 0
        if self._options.former_topics and flags.session_present:
            client.unsubscribe(list(self._options.former_topics))
        if self._topics and self._subscribes:
            qos: Any = SubscribeOptions(qos=self._options.qos) if self._version_5 else self._options.qos
            client.subscribe([(topic, qos) for topic in self._topics])
        else:
            self._set_connected()

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self.granted_qos = [reason.value for reason in reasons]
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            reason = ", ".join(refused)
            self._refusal = f"subscription refused: {reason}"
            self._log_limited(logging.ERROR, f"broker refuses our subscription address={self.address} reason={reason}")
            self._abort()
            return
        if any(reason.value < self._options.qos for reason in reasons):
            log.error("broker grants QoS 0 only: readings may get lost address=%s", self.address)
        self._set_connected()

    def _on_unsubscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self.unsubscribed = True

    def _set_connected(self) -> None:
        if self.connected:  # a second SUBACK
            return
        self.connected = True
        self._publish_status(b"online")

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            if self._accepted:
                log.warning("connection lost address=%s reason=%s", self.address, reason)
                unanswered = self._publisher.connection_lost(reason.value, str(reason))
                if unanswered is None:
                    self._timer.lost_for_a_reason()
                elif self._timer.lost_again():
                    self._log_limited(
                        logging.ERROR,
                        "connections do not last: is there another client with this client_id? "
                        f"address={self.address} client_id={self._client_id} reason={reason} unanswered={unanswered}",
                    )
            elif not self._refusal:
                self._log_limited(
                    logging.WARNING, f"connection closed before it was accepted address={self.address} reason={reason}"
                )
        self._end_connection()

    def _log_limited(self, level: int, text: str) -> None:
        """Log the same text once a minute only: we try a broker again every few seconds."""
        self._refusals.log(level, "%s", text, key=text)

    def _on_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        for _, _, packet_id, first, _ in self._received.add(arrivals, self._connection_count):
            # a topic that is not UTF-8 is not MQTT (5, 1.5.4); unacknowledged, it would come again for ever
            self.counts["malformed"] += 1
            if first & QOS:
                self._client.ack(packet_id, (first & QOS) >> 1)

    def _on_confirmed(self, packet_ids: Sequence[int]) -> None:
        self._publisher.confirm(packet_ids)

    def _on_refused(self, packet_id: int, code: int, reason: str) -> None:
        self._publisher.refuse(packet_id, code, reason)


def _read_to_the_end(connection: socket.socket, deadline: float) -> None:
    """Send no more, and read what the peer still sends until it closes."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv(1 << 16):
                return


def _acknowledge_at_once(connection: Any) -> None:
    """Send TCP's acknowledgement now (Linux only). The kernel forgets this option, so it is set after every read.

    Brokers use Nagle's algorithm (mosquitto's set_tcp_nodelay is off by default): they hold the next reading until TCP
    acknowledges the confirmation of our last prediction. The kernel would delay that by 40 ms.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        tcp_socket(connection).setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
