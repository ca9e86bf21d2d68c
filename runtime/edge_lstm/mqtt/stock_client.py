"""paho as the door wants it, by public members only: arrivals, confirmations and publishes by the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties

# topic, payload, packet id, the PUBLISH packet's first byte, user properties; a plain tuple, since one
# is made for every message
Arrival = tuple[bytes, bytes, int, int, Mapping[str, str]]

NO_PROPERTIES: Mapping[str, str] = {}
_NO_TEXT = b"\xff"  # no UTF-8, as the topic that it stands for, which paho does not give away
PUBLISH = 0x30
DUP, QOS, RETAIN = 0x08, 0x06, 0x01  # bits of its first byte


class StockClient(paho.Client):
    """A client without a queue and a window of its own: its caller bounds what is outstanding.

    Drive it from one thread with `loop_read`, `loop_write` and `loop_misc`. paho looks through everything that is
    outstanding at every confirmation to see what its window lets through; without a window (0) it does not.
    """

    def __init__(
        self,
        client_id: str,
        protocol: MQTTProtocolVersion,
        clean: bool,
        on_arrivals: Callable[[Sequence[Arrival]], None],
        on_confirmed: Callable[[Sequence[int]], None],
        on_refused: Callable[[int, str], None],
    ) -> None:
        """`on_confirmed` gets the packet ids that the broker has, `on_refused` one that it does not want, and why."""
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else clean,
            protocol=protocol,
            reconnect_on_failure=False,  # else a refusal of 3.1.1 is tried again as 3.1, unasked
            manual_ack=True,
        )
        self.max_inflight_messages_set(0)
        self.connection = 0  # counts the connections tried: packet ids belong to one
        self._on_arrivals, self._on_confirmed, self._on_refused = on_arrivals, on_confirmed, on_refused
        self._sending_unconfirmed = False
        self._unsent: set[int] = set()  # packet ids that paho gave to QoS 0 messages which the socket did not take yet
        self.on_message = self._take_message
        self.on_publish = self._take_confirmation

    def reconnect(self) -> MQTTErrorCode:
        self.connection += 1
        self._unsent.clear()
        return super().reconnect()

    def publish_many(
        self,
        items: Sequence[tuple[bytes, bytes]],
        qos: int,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> list[int]:
        """Send (topic, payload) pairs; return the packet ids that will be confirmed (none at QoS 0).

        The topics are fit to publish to. What is sent at QoS 1 survives a reconnect, in its order.
        """
        packet_ids = []
        for topic, payload in items:
            self._sending_unconfirmed = qos == 0
            info = self.publish(topic.decode(), payload, qos, retain, properties)
            while qos and info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:  # an id that is still in use: take the next
                info = self.publish(topic.decode(), payload, qos, retain, properties)
            self._sending_unconfirmed = False
            if qos:
                packet_ids.append(info.mid)
            elif self.want_write():
                self._unsent.add(info.mid)
        return packet_ids

    def acknowledge_many(self, packet_ids: Sequence[int], connection: int) -> None:
        """Acknowledge QoS 1 messages of this `connection`; an older one's ids mean other messages by now."""
        if connection == self.connection:
            for packet_id in packet_ids:
                self.ack(packet_id, 1)

    def _take_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        first = PUBLISH | (message.dup and DUP) | message.qos << 1 | (message.retain and RETAIN)
        pairs = getattr(message.properties, "UserProperty", ())
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            topic = _NO_TEXT
        self._on_arrivals([(topic, bytes(message.payload), message.mid, first, dict(pairs) or NO_PROPERTIES)])

    def _take_confirmation(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        # paho calls this for QoS 0 messages too, once they are sent, and their ids may be those of QoS 1 messages
        if self._sending_unconfirmed:
            return
        if mid in self._unsent:
            self._unsent.discard(mid)
        elif reason.is_failure:
            self._on_refused(mid, str(reason))
        else:
            self._on_confirmed([mid])
