"""Messages that arrived from a broker and wait for the next poll."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from edge_lstm.mqtt.client.stock_client import DUP, NO_PROPERTIES, QOS, RETAIN, Arrival
from edge_lstm.mqtt.client.topic_cache import DecodedTopics

_MOST_A_POLL = 1000  # messages, about
_MOST_A_POLL_BYTES = 1 << 20  # about: one message may be larger
# of a packet's first byte: QoS, DUP and RETAIN
_FLAGS = [((first & QOS) >> 1, first & DUP != 0, first & RETAIN != 0) for first in range(16)]


_TOPIC, _PAYLOAD, _PROPERTIES = map(itemgetter, (0, 1, 7))


class Message(NamedTuple):
    """A message as it arrived; `connection` and `packet_id` identify what to acknowledge."""

    topic: str
    payload: bytes
    packet_id: int
    connection: int
    qos: int
    repeated: bool  # the DUP flag: sent before, which does not mean processed before
    retained: bool
    properties: Mapping[str, str] = NO_PROPERTIES  # MQTT 5 user properties; the last one if a name repeats


def message_bytes(message: Message) -> int:
    """The size of what a sender chooses: topic, payload and properties."""
    topic, payload, _, _, _, _, _, properties = message  # twice as fast as by name
    size = len(topic) + len(payload)
    return size + sum(map(len, properties.values())) if properties else size


def bytes_of(messages: Sequence[Message]) -> int:
    """The sum of `message_bytes`, in half the time."""
    if any(map(_PROPERTIES, messages)):
        return sum(map(message_bytes, messages))
    return sum(map(len, map(_TOPIC, messages))) + sum(map(len, map(_PAYLOAD, messages)))


class ReceivedMessages:
    """Messages in the order of their arrival, with their size."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._bytes = 0
        self._topics = DecodedTopics()

    @property
    def enough(self) -> bool:
        """Whether one poll should read no more."""
        return len(self._messages) >= _MOST_A_POLL or self._bytes >= _MOST_A_POLL_BYTES

    def add(self, arrivals: Sequence[Arrival], connection: int) -> list[Arrival]:
        """Keep what arrived on that connection. Returns those whose topic is not UTF-8: they are not kept."""
        topics, messages = self._topics, self._messages
        malformed = []
        for arrival in arrivals:
            raw, payload, packet_id, first, properties = arrival
            try:
                topic = topics[raw]
            except UnicodeDecodeError:
                malformed.append(arrival)
                continue
            qos, repeated, retained = _FLAGS[first & 15]
            self._bytes += len(raw) + len(payload)
            if properties:
                self._bytes += sum(map(len, properties.values()))
            facts = (topic, payload, packet_id, connection, qos, repeated, retained, properties)
            messages.append(tuple.__new__(Message, facts))  # in half the time of Message(*facts)
        return malformed

    def take(self) -> list[Message]:
        """All of them; none are left."""
        taken, self._messages, self._bytes = self._messages, [], 0
        return taken

    def drop_unacknowledged(self) -> None:
        """Drop those above QoS 0. Their connection ended, so the broker sends them again."""
        self._messages = [message for message in self._messages if not message.qos]
