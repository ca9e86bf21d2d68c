"""The send window for QoS 1: how many messages may be unconfirmed; the others wait in order."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_MOST_A_RUN = 500  # messages: bounds what it costs to cut a piece off a run


@dataclass(frozen=True)
class PublishProperties:
    """MQTT 5 properties of a message; with MQTT 3.1.1 they are left out."""

    expiry_s: int | None = None  # after which the broker delivers it no more
    content_type: str = ""  # as "application/json"
    user: tuple[tuple[str, str], ...] = ()


@functools.lru_cache(maxsize=64)
def paho_properties(properties: PublishProperties) -> Properties:
    """The same as paho's type."""
    packed = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if properties.expiry_s is not None:
        packed.MessageExpiryInterval = properties.expiry_s
    if properties.content_type:
        packed.ContentType = properties.content_type
    if properties.user:
        packed.UserProperty = list(properties.user)
    return packed


class PublishRun(NamedTuple):
    """Messages in order that are sent with the same properties."""

    numbers: Sequence[int]
    items: Sequence[tuple[bytes, bytes]]  # topic, payload
    retain: bool
    properties: PublishProperties | None


class SendWindow:
    """At most `size` messages are sent and not yet confirmed. A step costs the same, however many wait.

    A packet id belongs to the connection and is used again. A number belongs to the sender and is used once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.unconfirmed: set[int] = set()  # numbers, sent or waiting
        self._next_number = 1
        self._waiting: deque[PublishRun] = deque()
        self._sent: dict[int, int] = {}  # by packet id

    def add(
        self, items: Sequence[tuple[bytes, bytes]], retain: bool, properties: PublishProperties | None
    ) -> Sequence[int]:
        """Append (topic, payload) pairs to the queue; return their numbers."""
        first = self._next_number
        self._next_number += len(items)
        numbers = range(first, self._next_number)
        self.unconfirmed.update(numbers)
        for start in range(0, len(items), _MOST_A_RUN):
            at = slice(start, start + _MOST_A_RUN)
            self._waiting.append(PublishRun(numbers[at], items[at], retain, properties))
        return numbers

    def take(self) -> PublishRun | None:
        """Remove and return messages from the head of the queue: as many as may be sent, with the same properties."""
        waiting, free = self._waiting, self.size - len(self._sent)
        if not waiting or free <= 0:
            return None
        retain, properties = waiting[0].retain, waiting[0].properties
        numbers: list[int] = []
        items: list[tuple[bytes, bytes]] = []
        while waiting and len(items) < free and waiting[0].retain == retain and waiting[0].properties is properties:
            run, left = waiting.popleft(), free - len(items)
            if len(run.items) > left:
                waiting.appendleft(PublishRun(run.numbers[left:], run.items[left:], retain, properties))
            numbers += run.numbers[:left]
            items += run.items[:left]
        return PublishRun(numbers, items, retain, properties)

    def note_sent(self, run: PublishRun, packet_ids: Sequence[int]) -> None:
        """The run is sent under these packet ids, or will be after a reconnect."""
        self._sent.update(zip(packet_ids, run.numbers, strict=True))

    def confirm(self, packet_ids: Iterable[int]) -> None:
        """The broker has confirmed these packet ids; ids that the window does not know are ignored."""
        sent = self._sent
        self.unconfirmed.difference_update([sent.pop(packet_id) for packet_id in packet_ids if packet_id in sent])
