"""What a connection publishes: the send window, what is too large for the broker, and what the broker refuses.

The usual path is short: a message enters the window and is sent. Only with a size limit, or while a topic pauses, each
message is looked at.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.mqtt.client.packet_size import publish_bytes, space
from edge_lstm.mqtt.paused_topics import Pause, PausedTopics
from edge_lstm.mqtt.reason_codes import ABOUT_A_MESSAGE, ABOUT_THE_CONNECTION, PACKET_TOO_LARGE
from edge_lstm.mqtt.send_window import Delivery, PublishProperties, PublishRun, SendWindow, SentMessage

log = logging.getLogger(__name__)

_Item = tuple[bytes, bytes]  # topic, payload
_SAME_IN_A_ROW = 3  # connections that ended with the same message unanswered, before it is the cause
_MOST_FAULTS = 10
_TOO_LARGE_LOGGED_EVERY_S = 3600.0

delivery_of = functools.lru_cache(maxsize=64)(Delivery)  # the window compares by identity


class Publisher:
    """The outgoing messages of a connection, over all its clients."""

    def __init__(self, most_unconfirmed: int, version_5: bool, counts: Counter[str], paused: PausedTopics) -> None:
        """`counts` gets: refused (by the broker, or not sent since it refuses their topic), too_large (not sent),
        dropped (of those that waited for a paused topic)."""
        self.window = SendWindow(most_unconfirmed)
        self.paused = paused
        self.faults: deque[Mapping[str, object]] = deque(maxlen=_MOST_FAULTS)  # to be reported by the owner
        self.largest: int | None = None  # bytes of a packet that the broker takes; None: no limit
        self._version_5, self._counts = version_5, counts
        self._logged = RateLimitedLog(log)
        self._logged_size = RateLimitedLog(log, _TOO_LARGE_LOGGED_EVERY_S)
        self._suspect: tuple[int, bytes] | None = None  # the oldest unanswered message of the last lost connection
        self._suspected = 0  # how often in a row
        self._refused_here = False  # on this connection
        # After a connection that ended with messages unanswered: until one is answered, only one is sent. A broker that
        # closes with messages unread resets the connection, and the reason that it sent gets lost.
        self._one_by_one = False
        self._size = most_unconfirmed
        self._last_unkept: SentMessage | None = None  # the last message at QoS 0 of this connection

    @property
    def selects(self) -> bool:
        """Whether not every message may be sent."""
        return self.largest is not None or bool(self.paused)

    @property
    def sends_again(self) -> bool:
        """Whether messages are unanswered that have to be selected, or sent one by one, at the next connection."""
        return (self.selects or self._one_by_one) and bool(self.window.sent)

    def fits(self, topic: bytes, payload: bytes, properties: PublishProperties | None = None) -> bool:
        """Whether the broker takes a message of this size."""
        return self.largest is None or len(topic) + len(payload) <= space(self.largest, properties, self._version_5)

    def connection_made(self, size: int, largest: int | None) -> bool:
        """`size`: of the window; `largest`: bytes that a packet to this broker may have. Returns whether a message that
        was sent on an earlier connection is larger now."""
        self.largest, self._size = largest, size
        self.window.size = size
        self._refused_here, self._last_unkept = False, None
        return largest is not None and any(
            not self.fits(*message.item, message.delivery.properties) for message in self.window.sent
        )

    def take(self) -> PublishRun | None:
        """The next messages to send; None: nothing waits, or the window is full."""
        if self._one_by_one:  # beside a status message, which is never waited for
            self.window.size = 1 + sum(message.number == 0 for message in self.window.sent)
        if self.paused:
            self._attempt()
        while (run := self.window.take()) is not None:
            if not self.selects:
                return run
            allowed = [
                message
                for message in map(SentMessage, run.numbers, run.items, [run.delivery] * len(run.items))
                if self._is_allowed(message)
            ]
            self._drop_oldest()
            if allowed:
                return PublishRun([one.number for one in allowed], [one.item for one in allowed], run.delivery)
        return None

    def allowed_unkept(self, items: Sequence[_Item], delivery: Delivery) -> Sequence[_Item]:
        """Those of the messages at QoS 0 that may be sent."""
        if items:
            self._last_unkept = SentMessage(0, items[-1], delivery)
        if not self.selects:
            return items
        return [item for item in items if self._is_allowed(SentMessage(0, item, delivery))]

    def allows(self, topic: bytes, payload: bytes, delivery: Delivery) -> bool:
        """Whether a message that is sent past the window may be sent."""
        return not self.selects or self._is_allowed(SentMessage(0, (topic, payload), delivery))

    def confirm(self, packet_ids: Sequence[int]) -> None:
        """The broker has confirmed the messages with these packet ids."""
        confirmed = self.window.confirm(packet_ids)
        if self._one_by_one:
            self._note_answer(any(number for number, *_ in confirmed))
        if self.paused:
            for message in confirmed:
                self._note_confirmed(SentMessage(*message))

    def refuse(self, packet_id: int, code: int, reason: str) -> None:
        """The broker refused the message with this packet id."""
        message = self.window.take_back(packet_id)
        if message is not None:
            self._refused_here = True
            self._note_answer(message.number > 0)
            self._refuse(message, code, reason)

    def connection_lost(self, code: int, reason: str) -> str | None:
        """Find out whether a message was the reason. Returns what was sent and not answered, for the log.

        None: a message was the reason, and that is logged.
        """
        attempted = self.paused.fail_attempts()
        unanswered = self.window.sent or ([self._last_unkept] if self._last_unkept is not None else [])
        if not unanswered or attempted or code in ABOUT_THE_CONNECTION:
            self._suspect = None
            return None if attempted or self._refused_here else "nothing"
        self._one_by_one = bool(self.window.sent)
        message = unanswered[0]
        if code == PACKET_TOO_LARGE:
            message = max(unanswered, key=lambda one: len(one.item[1]))
        if code in ABOUT_A_MESSAGE or self._is_suspected(message):
            self._suspect = None
            for packet_id in self.window.ids_of(message):
                self.window.take_back(packet_id)
            self._refuse(message, code, f"it ends the connection ({reason})")
            return None
        return None if self._refused_here else f"{message.item[0].decode()} ({len(message.item[1])} bytes)"

    def _is_suspected(self, message: SentMessage) -> bool:
        """Whether several connections in a row ended with this message as the oldest without an answer."""
        if message is self._last_unkept or message.delivery.family is None:
            return False
        suspect = (message.number, message.item[0])
        self._suspected = self._suspected + 1 if suspect == self._suspect else 1
        self._suspect = suspect
        return self._suspected >= _SAME_IN_A_ROW

    def _note_answer(self, of_kept_message: bool) -> None:
        """The broker answered; messages may be sent together again."""
        if of_kept_message:
            self._one_by_one, self.window.size = False, self._size

    # the unusual path

    def _attempt(self) -> None:
        """Send what waits for a paused topic again, where its pause is over; drop what is too old."""
        message = self.paused.due()
        if message is not None:
            self.window.put_first([message])
        self._drop_oldest()

    def _is_allowed(self, message: SentMessage) -> bool:
        """Whether the message may be sent. If not, it waits, or is given up and counted."""
        if not self.fits(*message.item, message.delivery.properties):
            self._give_up_too_large(message, f"the broker takes {self.largest} bytes")
            return False
        pause = self.paused.of(message)
        if pause is None or self.paused.begins_attempt(pause, message.number):
            return True
        self._let_wait(pause, message)
        return False

    def _let_wait(self, pause: Pause, message: SentMessage) -> None:
        for one in self.paused.keep(pause, message):
            self._counts["refused"] += one.delivery.family is None
            self.window.give_up([one.number])

    def _give_up_too_large(self, message: SentMessage, found: str) -> None:
        self._counts["too_large"] += 1
        self.window.give_up([message.number])
        topic = message.item[0].decode()
        size = publish_bytes(*message.item, message.delivery.properties, self._version_5)
        if self._logged_size.due(message.delivery.family or topic):
            text = f"message of {size} bytes is too large for the broker and is not sent: {found}"
            log.error("%s topic=%s too_large=%d", text, topic, self._counts["too_large"])
            self.faults.append({"topic": topic, "too_large": self._counts["too_large"], "error": text})

    def _refuse(self, message: SentMessage, code: int, reason: str) -> None:
        if code == PACKET_TOO_LARGE:
            self._give_up_too_large(message, reason)
            return
        self._counts["refused"] += message.delivery.family is not None
        pause, is_new = self.paused.refuse(message)
        self._let_wait(pause, message)
        self._drop_oldest()
        topic, size = message.item[0].decode(), len(message.item[1])
        if is_new and self._logged.due(pause.name):
            facts = (topic, reason, size, pause.name, pause.length_s)
            log.error(
                "broker refuses what we publish topic=%s reason=%s bytes=%d paused=%s next_attempt_s=%.0f", *facts
            )
            self.faults.append({"topic": topic, "error": f"broker refuses what we publish: {reason}"})
        elif pause.attempt is None and not is_new and self._logged.due(pause.name):
            text = "broker still refuses what we publish topic=%s reason=%s waiting=%d next_attempt_s=%.0f"
            log.error(text, pause.name, reason, len(pause.kept), pause.length_s)

    def _note_confirmed(self, message: SentMessage) -> None:
        ended = self.paused.confirm(message)
        if ended is not None:
            self.window.put_first(ended.kept)
            log.warning("broker takes what we publish again topic=%s waited=%d", ended.name, len(ended.kept))

    def _drop_oldest(self) -> None:
        """Give up messages that waited for a paused topic, beyond the bound."""
        messages = self.paused.drop_oldest(self.window.next_number) if self.paused else []
        if messages:
            self._counts["dropped"] += len(messages)
            self.window.give_up([message.number for message in messages])
            topic = messages[0].item[0].decode()
            text = "messages dropped, the broker refuses their topic and only the latest are kept topic=%s dropped=%d"
            self._logged_size.log(logging.ERROR, text, topic, self._counts["dropped"], key="dropped")
