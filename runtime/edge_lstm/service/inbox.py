"""Messages that were taken in and wait to be processed: in order, given out in batches, refused beyond a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from edge_lstm.mqtt.received import Message

_MOST_A_BATCH = 500
_MOST_BATCH_BYTES = 1 << 18
_MOST_WAITING = 1000
_MOST_WAITING_BYTES = 1 << 22  # of payload: a message may be as long as the mapping lets it be


class Inbox:
    """A queue that says when it is full; whoever fills it leaves the rest with the broker until then."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether nothing more is to be taken in for now."""
        return len(self._messages) >= _MOST_WAITING or self._bytes >= _MOST_WAITING_BYTES

    @property
    def has_a_whole_batch(self) -> bool:
        """Whether a batch would not grow by waiting."""
        return len(self._messages) >= _MOST_A_BATCH or self._bytes >= _MOST_BATCH_BYTES

    def add(self, messages: Iterable[Message]) -> None:
        """What the door gave; it may be more than there is room for, by what one poll takes."""
        for message in messages:
            self._messages.append(message)
            self._bytes += len(message.payload)

    def batch(self) -> list[Message]:
        """The oldest, off the queue: as many as go well together, one at least where any waits."""
        taken: list[Message] = []
        size = 0
        while self._messages and len(taken) < _MOST_A_BATCH and size < _MOST_BATCH_BYTES:
            taken.append(self._messages.popleft())
            size += len(taken[-1].payload)
        self._bytes -= size
        return taken

    def keep_only(self, connection: int) -> None:
        """Forget what an earlier connection brought at QoS 1: it was not acknowledged, so it comes again."""
        kept = [message for message in self._messages if message.connection == connection or not message.qos]
        self._messages.clear()
        self._bytes = 0
        self.add(kept)
