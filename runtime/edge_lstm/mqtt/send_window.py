"""The send window for QoS 1: how many messages may be unconfirmed; the others wait in order."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
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


class Delivery(NamedTuple):
    """How messages are sent, and what happens to those that the broker refuses."""

    retain: bool = False
    properties: PublishProperties | None = None
    family: str | None = None  # what their topics have in common; None: a message that is refused is dropped
    latest: bool = False  # a message replaces an earlier one of its topic that waits


class PublishRun(NamedTuple):
    """Messages in order that are sent in the same way."""

    numbers: Sequence[int]
    items: Sequence[tuple[bytes, bytes]]  # topic, payload
    delivery: Delivery


class SentMessage(NamedTuple):
    """A message that was sent."""

    number: int  # 0: one that is not kept
    item: tuple[bytes, bytes]  # topic, payload
    delivery: Delivery


class SendWindow:
    """At most `size` messages are sent and not yet confirmed. A step costs the same, however many wait.

    A packet id belongs to the connection and is used again. A number belongs to the sender and is used once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.unconfirmed: set[int] = set()  # numbers, sent or waiting
        self.next_number = 1
        self._waiting: deque[PublishRun] = deque()
        # by packet id, in the order of sending: SentMessage as a plain tuple, since one is made for every message
        self._sent: dict[int, tuple[int, tuple[bytes, bytes], Delivery]] = {}

    def add(self, items: Sequence[tuple[bytes, bytes]], delivery: Delivery) -> Sequence[int]:
        """Append (topic, payload) pairs to the queue; return their numbers."""
        first = self.next_number
        self.next_number += len(items)
        numbers = range(first, self.next_number)
        self.unconfirmed.update(numbers)
        for start in range(0, len(items), _MOST_A_RUN):
            at = slice(start, start + _MOST_A_RUN)
            self._waiting.append(PublishRun(numbers[at], items[at], delivery))
        return numbers

    def take(self) -> PublishRun | None:
        """Remove and return messages from the head of the queue: as many as may be sent, in the same way."""
        waiting, free = self._waiting, self.size - len(self._sent)
        if not waiting or free <= 0:
            return None
        delivery = waiting[0].delivery
        numbers: list[int] = []
        items: list[tuple[bytes, bytes]] = []
        while waiting and len(items) < free and waiting[0].delivery is delivery:
            run, left = waiting.popleft(), free - len(items)
            if len(run.items) > left:
                waiting.appendleft(PublishRun(run.numbers[left:], run.items[left:], delivery))
            numbers += run.numbers[:left]
            items += run.items[:left]
        return PublishRun(numbers, items, delivery)

    def note_sent(self, run: PublishRun, packet_ids: Sequence[int]) -> None:
        """The run is sent under these packet ids, or will be after a reconnect."""
        messages = zip(run.numbers, run.items, repeat(run.delivery), strict=False)
        self._sent.update(zip(packet_ids, messages, strict=True))

    def confirm(self, packet_ids: Iterable[int]) -> list[tuple[int, tuple[bytes, bytes], Delivery]]:
        """The broker has confirmed these packet ids. Returns their messages; ids that are unknown are ignored."""
        sent = self._sent
        confirmed = [sent.pop(packet_id) for packet_id in packet_ids if packet_id in sent]
        self.unconfirmed.difference_update([message[0] for message in confirmed])
        return confirmed

    # the unusual path

    @property
    def sent(self) -> list[SentMessage]:
        """What is sent and not confirmed, the oldest first."""
        return [SentMessage(*message) for message in self._sent.values()]

    def take_back(self, packet_id: int) -> SentMessage | None:
        """The message that was sent under this id, which it has no longer; its number stays unconfirmed."""
        found = self._sent.pop(packet_id, None)
        return None if found is None else SentMessage(*found)

    def put_first(self, messages: Iterable[SentMessage]) -> None:
        """Put messages at the head of the queue, in this order."""
        for message in reversed(list(messages)):
            self._waiting.appendleft(PublishRun([message.number], [message.item], message.delivery))

    def send_again(self) -> None:
        """Put what is sent and not confirmed back at the head of the queue: the client forgets it."""
        self.put_first(message for message in self.sent if message.number)
        self._sent.clear()

    def give_up(self, numbers: Iterable[int]) -> None:
        """Expect no confirmation of these any more."""
        self.unconfirmed.difference_update(numbers)

    def ids_of(self, message: SentMessage) -> list[int]:
        """The packet ids under which the message was sent."""
        return [packet_id for packet_id, sent in self._sent.items() if sent == message]
