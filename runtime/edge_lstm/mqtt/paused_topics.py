"""Topics whose messages a broker refuses: they pause, and one message after each pause finds out whether it still does.

A topic pauses alone. If a broker refuses several topics of a family (the predictions of several streams, for
instance) and confirms none of it in between, the whole family pauses: mosquitto 2.0.11 ends the connection with every
refusal. The latest messages of a paused family are kept, a bounded number of them.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from edge_lstm.mqtt.send_window import SentMessage

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 960.0
_TOPICS_OF_A_FAMILY = 3  # refused without a confirmation in between, before the whole family pauses
_MOST_KEPT = 1000  # messages
_MOST_TOPICS = 1000  # that pause alone; strangers choose the names of streams
_UNANSWERED_S = 10.0  # after which an attempt that no confirmation follows has succeeded, if the connection lasts
_MOST_NEWER = 5000  # messages that are newer than the oldest kept one: a crash may send those again


class Pause:
    """Messages that wait, and the attempt that follows."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name  # for logs: the topic, or that of the family
        self.length_s = _FIRST_PAUSE_S
        self.until = now + _FIRST_PAUSE_S
        self.attempt: int | None = None  # number of the message that finds out; 0: one that is not kept
        self.attempt_at = 0.0
        self.kept: list[SentMessage] = []  # by number

    def lengthen(self, now: float) -> None:
        """The attempt failed."""
        self.attempt = None
        self.length_s = min(2 * self.length_s, _LONGEST_PAUSE_S)
        self.until = now + self.length_s


class PausedTopics:
    """The pauses of a connection. `bool(paused)`: whether there is one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._topics: dict[bytes, Pause] = {}
        self._families: dict[str, Pause] = {}
        self._refused: dict[str, set[bytes]] = {}  # topics by family, since its last confirmation
        self._next_attempt_at = 0.0  # a failed one, for whatever topic, costs a connection

    def __bool__(self) -> bool:
        return bool(self._topics or self._families)

    def __iter__(self) -> Iterator[Pause]:
        return chain(self._families.values(), self._topics.values())

    def of(self, message: SentMessage) -> Pause | None:
        """The pause that the message falls under."""
        family = message.delivery.family
        pause = None if family is None else self._families.get(family)
        return pause or self._topics.get(message.item[0])

    def begins_attempt(self, pause: Pause, number: int) -> bool:
        """Whether this message may be sent now, to find out whether the broker takes it."""
        now = self._clock()
        if number and pause.attempt == number:
            return True
        if pause.attempt == 0 == number:  # at QoS 0
            return True
        if now < pause.until or not self._may_attempt(now):
            return False
        pause.attempt, pause.attempt_at = number, now
        return True

    def _may_attempt(self, now: float) -> bool:
        """One after the other: a refusal may cost the connection."""
        return now >= self._next_attempt_at and not any(pause.attempt for pause in self)

    def refuse(self, message: SentMessage) -> tuple[Pause, bool]:
        """The broker refused the message, so it has to wait (`keep`). Returns its pause, and whether that is new."""
        now, family = self._clock(), message.delivery.family
        pause = self.of(message)
        if pause is not None:
            if pause.attempt in (message.number, 0):
                pause.lengthen(now)
                self._next_attempt_at = now + _FIRST_PAUSE_S
            return pause, False
        topic = message.item[0]
        pause = self._topics[topic] = Pause(topic.decode(), now)
        if family is not None:
            refused = self._refused.setdefault(family, set())
            refused.add(topic)
            if len(refused) >= _TOPICS_OF_A_FAMILY:
                pause = self._pause_family(family, refused, now)
        return pause, True

    def _pause_family(self, family: str, topics: Iterable[bytes], now: float) -> Pause:
        whole = self._families[family] = Pause(family, now)
        for topic in topics:
            pause = self._topics.pop(topic, None)
            whole.kept += pause.kept if pause is not None else []
        whole.kept.sort(key=lambda kept: kept.number)
        return whole

    def keep(self, pause: Pause, message: SentMessage) -> list[SentMessage]:
        """Let the message wait. Returns those that do not: it, if it has no family, or the ones that it replaces."""
        if message.delivery.family is None:
            return [message]
        if message.number == 0:
            return []
        replaced = []
        if message.delivery.latest:
            replaced = [kept for kept in pause.kept if kept.item[0] == message.item[0]]
            pause.kept = [kept for kept in pause.kept if kept not in replaced]
            latest = max([*replaced, message], key=lambda kept: kept.number)
            replaced, message = [kept for kept in [*replaced, message] if kept is not latest], latest
        bisect.insort(pause.kept, message, key=lambda kept: kept.number)
        return replaced

    def confirm(self, message: SentMessage) -> Pause | None:
        """The broker confirmed the message. Returns the pause that this ends."""
        family = message.delivery.family
        if family is not None:
            self._refused.pop(family, None)
        pause = self.of(message)
        if pause is None or pause.attempt != message.number:
            return None
        self._end(pause)
        return pause

    def fail_attempts(self) -> bool:
        """The connection ended: an attempt whose answer is missing counts as refused. Returns whether there was one."""
        now, failed = self._clock(), False
        for pause in list(self):
            if pause.attempt == 0 and now - pause.attempt_at > _UNANSWERED_S:
                self._end(pause)
            elif pause.attempt is not None:
                pause.lengthen(now)
                self._next_attempt_at = now + _FIRST_PAUSE_S
                failed = True
        return failed

    def _end(self, pause: Pause) -> None:
        for pauses in (self._topics, self._families):
            for name in [name for name, known in pauses.items() if known is pause]:
                del pauses[name]  # type: ignore[arg-type]

    def due(self) -> SentMessage | None:
        """Remove and return the kept message that is the next attempt, and may be sent now."""
        now = self._clock()
        if not self._may_attempt(now):
            return None
        pause = next((pause for pause in self if pause.kept and now >= pause.until), None)
        if pause is None:
            return None
        pause.attempt, pause.attempt_at = pause.kept[0].number, now
        return pause.kept.pop(0)

    def drop_oldest(self, next_number: int) -> list[SentMessage]:
        """Remove and return the kept messages beyond the bound. The pauses of too many topics end, the oldest first."""
        dropped = []
        while len(self._topics) > _MOST_TOPICS:
            dropped += self._topics.pop(next(iter(self._topics))).kept
        kept = self.kept
        for pause in self:
            while pause.kept and next_number - 1 - pause.kept[0].number > _MOST_NEWER:
                dropped.append(pause.kept.pop(0))
                kept -= 1
        while kept > _MOST_KEPT:
            oldest = min((pause for pause in self if pause.kept), key=lambda pause: pause.kept[0].number)
            dropped.append(oldest.kept.pop(0))
            kept -= 1
        return dropped

    @property
    def kept(self) -> int:
        """Messages that wait."""
        return sum(len(pause.kept) for pause in self)
