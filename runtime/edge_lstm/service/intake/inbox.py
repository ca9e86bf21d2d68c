"""Received messages that wait to be processed, in order and in batches; a full inbox stops reading."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from edge_lstm.mqtt.client.received import Message

_MOST_A_BATCH = 500
_MOST_BATCH_BYTES = 1 << 18
_MOST_WAITING = 1000
_MOST_WAITING_BYTES = 1 << 22  # of payload: the mapping bounds a message's length


class Inbox:
    """A queue that reports when it is full. Then its owner reads no more, and the broker keeps the rest."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether to read no more messages for now."""
        return len(self._messages) >= _MOST_WAITING or self._bytes >= _MOST_WAITING_BYTES

    @property
    def has_full_batch(self) -> bool:
        """Whether a batch would not grow by waiting."""
        return len(self._messages) >= _MOST_A_BATCH or self._bytes >= _MOST_BATCH_BYTES

    def add(self, messages: Iterable[Message]) -> None:
        """Append what one poll returned; that may exceed the bound."""
        for message in messages:
            self._messages.append(message)
            self._bytes += len(message.payload)

    def batch(self) -> list[Message]:
        """Remove and return the oldest messages: up to a full batch, and at least one if any waits."""
        taken: list[Message] = []
        size = 0
        while self._messages and len(taken) < _MOST_A_BATCH and size < _MOST_BATCH_BYTES:
            taken.append(self._messages.popleft())
            size += len(taken[-1].payload)
        self._bytes -= size
        return taken

    def keep_only(self, connection: int) -> None:
        """Drop QoS 1 messages of earlier connections: they were not acknowledged, so they come again."""
        kept = [message for message in self._messages if message.connection == connection or not message.qos]
        self._messages.clear()
        self._bytes = 0
        self.add(kept)
