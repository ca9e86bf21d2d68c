"""Published predictions that the broker has not confirmed, and incoming messages that may still come again.

A batch is done when the broker has confirmed all its predictions. Then the store may forget it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

Outgoing = tuple[str, bytes]  # topic, payload


class Outbox:
    """Batches of outgoing messages, in order, with the identities of the incoming messages that caused each.

    An acknowledged message may come again while the acknowledgement could have got lost. A batch is acknowledged before
    the predictions of the next batch are sent, on the same connection. So once one of those is confirmed, earlier
    batches cannot come again. On a new connection the broker first repeats messages of the earlier one. So their
    identities are kept until enough messages have come (`expect_repeats`). After as many messages of one connection,
    a batch cannot come again either, even if no prediction was published.
    """

    def __init__(
        self,
        publish: Callable[[Sequence[Outgoing]], Sequence[int]],
        unconfirmed: Callable[[], AbstractSet[int]],
        batch: int,
    ) -> None:
        """`publish` sends messages and returns a number for each. `unconfirmed` returns the numbers that the broker has
        not confirmed. `batch`: the number of the last batch."""
        self._publish, self._unconfirmed = publish, unconfirmed
        self._last = batch
        self._open: dict[int, set[int]] = {}  # batch -> unconfirmed messages, in the order of batches
        self._count = 0  # of these
        self._identities: dict[str, int] = {}  # -> batch
        self._by_batch: deque[tuple[int, Sequence[str]]] = deque()
        self._identity_count = 0  # in `_by_batch`
        self._acknowledged = -1  # the last batch whose acknowledgements the broker has
        self._most_repeated = math.inf  # messages; known from the first connection on
        self._repeats_left = 0  # messages to come on this connection before anything is forgotten
        self._forgotten = 0  # the last batch that was forgettable before that
        self._held: int | None = None  # the first batch with messages that are not acknowledged yet
        self._released: list[tuple[int, int]] = []  # former such batches, and after which ones that ended

    def __len__(self) -> int:
        """Messages that the broker has not confirmed."""
        return self._count

    def put(self, batch: int, messages: Sequence[Outgoing], identities: Sequence[str], received: int = 0) -> None:
        """Publish a committed batch, and remember the identities of the messages that caused it.

        `received`: how many messages these were, if they have no identities.
        """
        self._last = batch
        self._repeats_left -= max(received, len(identities))
        if identities:  # none if readings have times of their own: such entries would never be removed
            self._identities.update(dict.fromkeys(identities, batch))
            self._by_batch.append((batch, identities))
            self._identity_count += len(identities)
            self._forget_old()
        if messages:
            self._open[batch] = set(self._publish(messages))
            self._count += len(messages)

    def restore(self, unsent: Sequence[tuple[int, Sequence[Outgoing]]], identities: Sequence[str]) -> None:
        """Publish again what an earlier process left, by batch, and remember the messages that it acknowledged."""
        last = self._last
        for batch, messages in unsent:
            self.put(batch, messages, ())
        self.put(last, (), identities)

    def expect_repeats(self, messages: int) -> None:
        """The connection is new: its first messages, at most so many, may be repeats. Forget nothing before."""
        self._forgotten = self.forgettable
        self._repeats_left = self._most_repeated = messages

    def hold(self, batch: int | None) -> None:
        """Messages of this batch and later ones are not acknowledged yet; None: all are."""
        if self._held is not None and batch != self._held:
            self._released.append((self._held, self._last))
        self._held = batch

    def knows(self, identity: str) -> bool:
        """Whether this message was processed and may have come again."""
        return identity in self._identities

    def take_confirmations(self) -> None:
        """Note what the broker has confirmed."""
        unconfirmed = self._unconfirmed()
        for numbers in self._open.values():
            numbers &= unconfirmed
        self._count = sum(map(len, self._open.values()))
        for batch in [batch for batch, numbers in self._open.items() if not numbers]:
            self._close(batch)

    @property
    def confirmed(self) -> int:
        """The last batch that is confirmed together with all batches before it."""
        return next(iter(self._open)) - 1 if self._open else self._last

    @property
    def forgettable(self) -> int:
        """The last batch whose incoming messages cannot come again."""
        return self._forgotten if self._repeats_left > 0 else self._acknowledged

    def _close(self, batch: int) -> None:
        del self._open[batch]
        known = batch - 1
        if self._held is not None:
            known = min(known, self._held - 1)
        if self._released:  # seldom
            known = min([known, *(held - 1 for held, last in self._released if batch <= last)])
            self._released = [one for one in self._released if one[1] > known]
        self._acknowledged = max(self._acknowledged, known)
        self._forget_old()

    def _forget_old(self) -> None:
        """Forget the identities of messages that cannot come again."""
        while self._by_batch:
            batch, identities = self._by_batch[0]
            newer = self._identity_count - len(identities)
            if self._repeats_left <= 0 and newer >= self._most_repeated:
                self._acknowledged = max(self._acknowledged, batch)
            if batch > self.forgettable:
                return
            self._by_batch.popleft()
            self._identity_count = newer
            for identity in identities:
                if self._identities.get(identity) == batch:  # a later batch may have had the same one
                    del self._identities[identity]
