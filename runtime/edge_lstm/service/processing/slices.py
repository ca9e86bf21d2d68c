"""Messages whose readings are stepped in several slices: what is left of each, and which may be acknowledged.

A slice is committed as a whole, with the identity and the next item of every message that it cuts. A message that comes
again goes on there. Messages are acknowledged in the order of their arrival, as MQTT 5 (4.6) asks.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.message_reader import MessageReader, message_identity
from edge_lstm.streaming.reading import Reading

PROGRESS = "progress"  # the value in the database: JSON, the next item by identity of the message

_MOST_READINGS = 500  # in a slice; the steps that they cause bound it too
_MOST_WAITING = 20_000  # readings
_MOST_MESSAGES = 2000


class Part:
    """A message, and its readings that are not stepped yet."""

    __slots__ = ("batch", "is_cut", "left", "message", "next", "readings", "refused", "streams")

    def __init__(self, message: Message, readings: list[Reading], first: int = 0, refused: Sequence[int] = ()) -> None:
        """`first`: number of the first reading in the message; `refused`: numbers of those that were refused."""
        self.message, self.readings, self.refused = message, readings, frozenset(refused)
        self.streams = {reading.stream for reading in readings}
        self.left = len(readings)
        self.next = first  # number of the next reading
        self.is_cut = False
        self.batch = -1  # which committed its last reading

    def take(self, count: int) -> None:
        """The next `count` readings are stepped."""
        for _ in range(count):
            while self.next in self.refused:
                self.next += 1
            self.next += 1
        self.readings = self.readings[count:]
        self.left -= count


class Slices:
    """Messages in the order of their arrival, from the first one that is not acknowledged on."""

    def __init__(self, progress: Mapping[str, str]) -> None:
        """`progress`: the values of the service in the database."""
        self.progress: dict[str, int] = json.loads(progress.get(PROGRESS) or "{}")  # by identity: the next item
        self._stored = bool(self.progress)
        self._parts: deque[Part] = deque()
        self._repeats_left = 0  # messages to come that may go on

    def __len__(self) -> int:
        """Messages that are not acknowledged."""
        return len(self._parts)

    @property
    def waiting(self) -> int:
        """Readings that are not stepped."""
        return sum(part.left for part in self._parts)

    @property
    def has_room(self) -> bool:
        """Whether more messages may be added."""
        return not self._parts or (len(self._parts) < _MOST_MESSAGES and self.waiting < _MOST_WAITING)

    @property
    def held(self) -> int | None:
        """The first batch with a message that is not acknowledged although all its readings are committed."""
        return min((part.batch for part in self._parts if part.batch >= 0), default=None)

    def add(self, messages: Sequence[Message], readings: list[Reading], reader: MessageReader) -> list[Part]:
        """Messages, with the readings that `reader` has found in them last."""
        begin, parts = 0, []
        for index, (message, end) in enumerate(zip(messages, reader.ends, strict=True)):
            refused = reader.refused_items.get(index, ())
            parts.append(Part(message, readings[begin:end], reader.begun_items.get(index, 0), refused))
            begin = end
        self._parts.extend(parts)
        return parts

    def add_unread(self, message: Message) -> None:
        """A message without readings, which only waits for its acknowledgement."""
        self._parts.append(Part(message, []))

    def drop(self, part: Part) -> None:
        """Leave out the readings of a message that are not stepped."""
        part.readings, part.left = [], 0
        self.progress.pop(message_identity(part.message), None)

    def choose(self, others: bool, alone: bool = False) -> list[Part]:
        """What comes next: the oldest messages, or `others`: of streams that the messages do not have that were cut.

        In every stream the order stays that of arrival. `alone`: one message at most.
        """
        chosen: list[Part] = []
        waiting: set[str] = set()  # streams of messages that come before, and wait
        count = 0
        for part in self._parts:
            if not part.left:
                continue
            if (others and part.is_cut) or not waiting.isdisjoint(part.streams):
                waiting |= part.streams
                continue
            chosen.append(part)
            count += part.left
            if alone or count >= _MOST_READINGS:
                break
        return chosen

    def take(self, parts: Sequence[Part], count: int) -> list[Message]:
        """The first `count` readings of these parts are stepped. Returns the messages that are finished."""
        finished = []
        for part in parts:
            taken = min(count, part.left)
            part.take(taken)
            count -= taken
            if not part.left:
                finished.append(part.message)
                if part.is_cut:
                    self.progress.pop(message_identity(part.message), None)
            elif taken:
                part.is_cut = True
                if part.message.qos:
                    self.progress[message_identity(part.message)] = part.next
        return finished

    @property
    def unacknowledged(self) -> Collection[int]:
        """`id` of the messages that the next commit does not allow to acknowledge."""
        rest = itertools.dropwhile(lambda part: not part.left, self._parts)
        return {id(part.message) for part in rest}

    def values(self) -> dict[str, str]:
        """What the next commit stores."""
        if not self.progress and not self._stored:
            return {}
        self._stored = bool(self.progress)
        return {PROGRESS: json.dumps(self.progress)}

    def committed(self, batch: int) -> list[Message]:
        """The messages to acknowledge, once this batch is committed."""
        for part in self._parts:
            if not part.left and part.batch < 0:
                part.batch = batch
        done = []
        while self._parts and self._parts[0].batch >= 0:
            done.append(self._parts.popleft().message)
        return done

    def expect_repeats(self, connection: int, messages: int) -> None:
        """The connection is new: drop what it sends again. The first of its messages, at most so many, may go on."""
        kept = [part for part in self._parts if part.message.connection == connection or not part.message.qos]
        self._parts = deque(kept)
        self._repeats_left = messages

    def note_received(self, messages: int) -> None:
        """So many messages were received. Forget how far those had come that can no longer come again."""
        if not self.progress or self._repeats_left <= 0:
            return
        self._repeats_left -= messages
        if self._repeats_left <= 0:
            cut = [message_identity(part.message) for part in self._parts if part.is_cut]
            self.progress = {identity: self.progress[identity] for identity in cut if identity in self.progress}
