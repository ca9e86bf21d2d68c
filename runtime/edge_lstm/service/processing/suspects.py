"""Messages that may have ended an earlier process: each is tried alone, and one that does it twice is set aside.

Only the death of a process counts, and only while the machine runs on: after a power cut nobody is to blame. A message
is known by topic and payload: its packet id may differ after a restart of the broker.
"""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.database.packed_messages import pack, unpack
from edge_lstm.service.database.store import Store
from edge_lstm.service.intake.message_reader import message_digest, message_identity

log = logging.getLogger(__name__)

DEATHS = 2  # of a process that was processing this message alone
_REFUSED_FOR_S = 86_400  # since a message was set aside: a device that repeats it would end the service again
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Suspects:
    """Records which messages are being processed, where an earlier process ended badly."""

    def __init__(self, store: Store, most: int) -> None:
        """`most`: so many of the first messages may be those of a batch in which an earlier process ended."""
        self._store = store
        self._left = most if store.ended_badly else 0
        self._alone: set[str] = set()  # digests
        self._deaths: dict[str, int] = {}  # by digest
        self._boot = boot_id()
        recent = [content for content, moment in store.poison() if abs(time.time() - moment) < _REFUSED_FOR_S]
        self._set_aside = {message_digest(*message) for message in map(_unpacked, recent) if message is not None}
        if store.begun is not None:
            self._read(store.begun)

    def _read(self, begun: str) -> None:
        log.warning("the service ended while it processed a batch: %.200s", begun)
        facts = json.loads(begun)
        digests = [identity.partition(":")[2] for identity in facts["messages"]]
        self._alone.update(digests)
        self._deaths = {str(digest): int(count) for digest, count in facts.get("deaths", {}).items()}
        if len(digests) == 1 and facts.get("boot") == self._boot:
            self._deaths[digests[0]] = self._deaths.get(digests[0], 0) + 1

    def groups(self, messages: list[Message]) -> Iterator[list[Message]]:
        """The messages in groups that are processed together: usually all."""
        if not self._alone:
            yield messages
            return
        group: list[Message] = []
        for message in messages:
            if self.is_alone(message):
                if group:
                    yield group
                yield [message]
                group = []
            else:
                group.append(message)
        if group:
            yield group

    def is_alone(self, message: Message) -> bool:
        """Whether the message is processed alone."""
        return bool(self._alone) and message_digest(message.topic, message.payload) in self._alone

    def has_faulty(self, messages: Sequence[Message]) -> bool:
        """Whether one of them is set aside without another attempt."""
        return bool(self._set_aside or self._deaths) and any(map(self.fault, messages))

    def fault(self, message: Message) -> str | None:
        """Why the message is set aside without another attempt; None: it is not."""
        if not self._set_aside and not self._deaths:
            return None
        digest = message_digest(message.topic, message.payload)
        if self._deaths.get(digest, 0) >= DEATHS:
            return f"the service ended {DEATHS} times while it processed this message alone"
        return "the same message was set aside in the last 24 hours" if digest in self._set_aside else None

    def begin(self, batch: int, messages: Sequence[Message]) -> None:
        """Record that these messages are being processed, where it may matter."""
        if self._left > 0 or self._alone:
            self._left -= len(messages)
            identities = [message_identity(message) for message in messages]
            self._store.begin(batch, identities, boot=self._boot, deaths=self._deaths)

    def end(self, messages: Sequence[Message], finished: Sequence[Message]) -> None:
        """The messages are processed. What happens at the commit is not their fault."""
        self.interrupt()
        if self._alone and len(messages) == len(finished) == 1:
            digest = message_digest(messages[0].topic, messages[0].payload)
            self._alone.discard(digest)
            self._deaths.pop(digest, None)

    def interrupt(self) -> None:
        """No message is being processed now."""
        self._store.end_attempt()

    def set_aside(self, message: Message, reason: str) -> None:
        """Keep the message in the database, and refuse it from now on."""
        digest = message_digest(message.topic, message.payload)
        if digest not in self._set_aside:
            self._set_aside.add(digest)
            self._store.set_aside_message(pack([(message.topic, message.payload)]), reason)
        self._alone.discard(digest)
        self._deaths.pop(digest, None)


def _unpacked(content: bytes) -> tuple[str, bytes] | None:
    """Topic and payload of a message that was set aside; None if it is damaged."""
    try:
        return next(unpack(content))
    except (struct.error, ValueError, StopIteration):
        log.error("a message that was set aside is damaged, it is not recognized any more")
        return None


def boot_id() -> str:
    """Differs after each start of the machine; empty where the kernel does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def facts_of(message: Message, reason: str, count: int) -> Mapping[str, object]:
    """What the errors topic says about a message that was set aside."""
    return {
        "topic": message.topic,
        "error": f"message set aside: {reason}",
        "hint": "the table poison of the state database keeps it; report it with the bundle and the backend",
        "set_aside": count,
    }
