"""Predictions on their way: which of them the broker has, and which incoming messages may still come again.

A batch is done when all its predictions are confirmed. What it knows of batches is what a store may forget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

Outgoing = tuple[str, bytes]  # topic, payload


class Outbox:
    """Batches of outgoing messages, in order; the identities of the incoming messages that caused each.

    A message that was acknowledged may come again as long as the acknowledgement could have got lost. Acknowledgements
    of a batch go out before the predictions of the next on the same connection, so once one of those is confirmed, the
    batches before it cannot come again. What an earlier connection brought may: a broker repeats it first on a new one,
    so it is known until enough has come there (`hold`).
    """

    def __init__(
        self,
        publish: Callable[[Sequence[Outgoing]], Sequence[int]],
        unconfirmed: Callable[[], AbstractSet[int]],
        batch: int,
    ) -> None:
        """`publish` sends messages and gives each a number; `unconfirmed`: those of them that the broker has not
        confirmed; `batch`: the last batch's number."""
        self._publish, self._unconfirmed = publish, unconfirmed
        self._last = batch
        self._open: dict[int, set[int]] = {}  # batch -> messages not confirmed, in the order of batches
        self._count = 0  # of these
        self._identities: dict[str, int] = {}  # -> batch
        self._by_batch: deque[tuple[int, Sequence[str]]] = deque()
        self._settled = 0  # the last batch whose predictions, at least one, were all confirmed
        self._held = 0  # messages to come on this connection before anything is forgotten
        self._forgotten = 0  # the last batch that was forgettable before that

    def __len__(self) -> int:
        """Messages that the broker has not confirmed."""
        return self._count

    def put(self, batch: int, messages: Sequence[Outgoing], identities: Sequence[str]) -> None:
        """Publish a committed batch, and remember the identities of the messages that caused it."""
        self._last = batch
        self._held -= len(identities)
        if identities:  # none where readings say themselves which they are; nothing would ever take these entries away
            self._identities.update(dict.fromkeys(identities, batch))
            self._by_batch.append((batch, identities))
        if messages:
            self._open[batch] = set(self._publish(messages))
            self._count += len(messages)

    def hold(self, messages: int) -> None:
        """A connection is new: forget nothing before so many messages have come over it."""
        self._forgotten = self.forgettable
        self._held = messages

    def knows(self, identity: str) -> bool:
        """Whether this message was processed and may have come again."""
        return identity in self._identities

    def settle(self) -> None:
        """Take note of what the broker has confirmed."""
        unconfirmed = self._unconfirmed()
        for numbers in self._open.values():
            numbers &= unconfirmed
        self._count = sum(map(len, self._open.values()))
        for batch in [batch for batch, numbers in self._open.items() if not numbers]:
            self._close(batch)

    @property
    def confirmed(self) -> int:
        """The last batch of which, and of all before it, the broker has everything."""
        return next(iter(self._open)) - 1 if self._open else self._last

    @property
    def forgettable(self) -> int:
        """The last batch whose incoming messages cannot come again."""
        return self._forgotten if self._held > 0 else self._settled - 1

    def _close(self, batch: int) -> None:
        del self._open[batch]
        self._settled = max(self._settled, batch)
        while self._by_batch and self._by_batch[0][0] <= self.forgettable:
            number, identities = self._by_batch.popleft()
            self._forget(number, identities)

    def _forget(self, batch: int, identities: Iterable[str]) -> None:
        for identity in identities:
            if self._identities.get(identity) == batch:  # a later batch may have had the same one
                del self._identities[identity]
