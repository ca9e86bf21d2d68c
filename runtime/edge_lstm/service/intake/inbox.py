"""Received messages that wait to be processed, in order and in batches; a full inbox stops reading.

While the broker's confirmations are waited for, reading goes on: they come over the same connection. So more messages
are kept then, but at a bound nothing more of this connection: what would be kept after a gap would make the messages of
the gap late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge_lstm.mqtt.client.received import Message, bytes_of, message_bytes

_MOST_A_BATCH = 500
_MOST_BATCH_BYTES = 1 << 18
_MOST_WAITING = 1000
_MOST_WAITING_BYTES = 1 << 22
_MOST_KEPT = 10_000  # while reading goes on; a reconnect costs less, the more are kept before it
_MOST_KEPT_BYTES = 1 << 23


class Inbox:
    """A queue that reports when it is full. Then its owner reads no more, and the broker keeps the rest."""

    def __init__(self, sends_again: bool = True, apart: str | None = None) -> None:
        """`sends_again`: whether the broker sends what is not acknowledged again after a reconnect.

        `apart`: a topic whose messages are each a batch of their own; None: there is none.
        """
        self.closed = False  # whether nothing more of this connection is kept
        self.lost = 0  # messages that were not kept and do not come again: those at QoS 0
        self._sends_again, self._apart = sends_again, apart
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether to read no more messages for now."""
        return len(self._messages) >= _MOST_WAITING or self._bytes >= _MOST_WAITING_BYTES

    @property
    def next_is_apart(self) -> bool:
        """Whether the next batch is a message of the topic that is apart."""
        return self._apart is not None and bool(self._messages) and self._messages[0].topic == self._apart

    @property
    def has_full_batch(self) -> bool:
        """Whether a batch would not grow by waiting."""
        return len(self._messages) >= _MOST_A_BATCH or self._bytes >= _MOST_BATCH_BYTES

    def add(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Append what one poll returned; that may exceed the bound. Beyond it, or once closed, none of it is kept.

        Returns the messages that are lost, which the caller has to acknowledge.
        """
        if not messages:
            return ()
        if self.closed or len(self._messages) >= _MOST_KEPT or self._bytes >= _MOST_KEPT_BYTES:
            return self._leave(messages)
        self._append(messages)
        return ()

    def _append(self, messages: Sequence[Message]) -> None:
        self._messages.extend(messages)
        self._bytes += bytes_of(messages)

    def _leave(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Leave the messages to the broker, as far as it sends them again. Returns the others."""
        lost = [message for message in messages if not (message.qos and self._sends_again)]
        self.closed = self.closed or len(lost) < len(messages)
        self.lost += sum(not message.retained for message in lost)
        return lost

    def batch(self) -> list[Message]:
        """Remove and return the oldest messages: up to a full batch, and at least one if any waits."""
        size, waiting = 0, self._messages
        taken: list[Message] = []
        if self._apart is not None:
            return self._batch_apart(self._apart)
        if len(waiting) <= _MOST_A_BATCH and self._bytes < _MOST_BATCH_BYTES:  # all of them
            taken += waiting
            waiting.clear()
            size = self._bytes
        while waiting and len(taken) < _MOST_A_BATCH and size < _MOST_BATCH_BYTES:
            message = waiting.popleft()
            taken.append(message)
            size += message_bytes(message)
        self._bytes -= size
        return taken

    def _batch_apart(self, topic: str) -> list[Message]:
        """A batch that ends before a message of the topic, or is one."""
        size, waiting = 0, self._messages
        taken: list[Message] = []
        while waiting and len(taken) < _MOST_A_BATCH and size < _MOST_BATCH_BYTES:
            is_apart = waiting[0].topic == topic
            if is_apart and taken:
                break
            message = waiting.popleft()
            taken.append(message)
            size += message_bytes(message)
            if is_apart:
                break
        self._bytes -= size
        return taken

    def keep_only(self, connection: int) -> None:
        """Open it for a new connection. Drop QoS 1 messages of earlier ones: not acknowledged, they come again."""
        kept = [message for message in self._messages if message.connection == connection or not message.qos]
        self.closed = False
        self._messages.clear()
        self._bytes = 0
        self._append(kept)
