"""What goes out at QoS 1: a number for its sender, a place in the broker's window, and the rest waiting in order."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_MOST_A_RUN = 500  # messages: what cutting a piece off costs, whatever was given at once


@dataclass(frozen=True)
class PublishProperties:
    """What MQTT 5 lets a message say beside its payload; MQTT 3.1.1 leaves it out."""

    expiry_s: int | None = None  # after which the broker gives it to nobody any more
    content_type: str = ""  # as "application/json"
    user: tuple[tuple[str, str], ...] = ()


@functools.lru_cache(maxsize=64)
def paho_properties(properties: PublishProperties) -> Properties:
    """The same in paho's words."""
    packed = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if properties.expiry_s is not None:
        packed.MessageExpiryInterval = properties.expiry_s
    if properties.content_type:
        packed.ContentType = properties.content_type
    if properties.user:
        packed.UserProperty = list(properties.user)
    return packed


class PublishRun(NamedTuple):
    """Messages on their way, in order, that go out with the same properties."""

    numbers: Sequence[int]
    items: Sequence[tuple[bytes, bytes]]  # topic, payload
    retain: bool
    properties: PublishProperties | None


class SendWindow:
    """At most `size` messages are at the broker without its word; every step costs the same, whatever waits.

    A packet id is the connection's and comes round again; a number is the sender's and never does.
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
        """(topic, payload) pairs join the queue; their numbers."""
        first = self._next_number
        self._next_number += len(items)
        numbers = range(first, self._next_number)
        self.unconfirmed.update(numbers)
        for start in range(0, len(items), _MOST_A_RUN):
            at = slice(start, start + _MOST_A_RUN)
            self._waiting.append(PublishRun(numbers[at], items[at], retain, properties))
        return numbers

    def take(self) -> PublishRun | None:
        """Off the queue's head what the window has room for, as long as it goes out with the same properties."""
        waiting, room = self._waiting, self.size - len(self._sent)
        if not waiting or room <= 0:
            return None
        retain, properties = waiting[0].retain, waiting[0].properties
        numbers: list[int] = []
        items: list[tuple[bytes, bytes]] = []
        while waiting and len(items) < room and waiting[0].retain == retain and waiting[0].properties is properties:
            run, left = waiting.popleft(), room - len(items)
            if len(run.items) > left:
                waiting.appendleft(PublishRun(run.numbers[left:], run.items[left:], retain, properties))
            numbers += run.numbers[:left]
            items += run.items[:left]
        return PublishRun(numbers, items, retain, properties)

    def note_sent(self, run: PublishRun, packet_ids: Sequence[int]) -> None:
        """They are at the broker, or will be after a reconnect, under these ids."""
        self._sent.update(zip(packet_ids, run.numbers, strict=True))

    def confirm(self, packet_ids: Iterable[int]) -> None:
        """The broker has them; ids that are not of this window are somebody else's."""
        sent = self._sent
        self.unconfirmed.difference_update([sent.pop(packet_id) for packet_id in packet_ids if packet_id in sent])
