"""Messages to readings: decodes them, and counts, logs and reports those that hold no usable reading."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edge_lstm.foundation.hashing import sha256
from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.messages.decoder import Decoder, NameRefusedError, PayloadError
from edge_lstm.messages.formats.payloads import shown_bytes
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.time_judge import TimeJudge
from edge_lstm.streaming.reading import Reading, Refusal
from edge_lstm.streaming.stream_watch import StreamWatch

log = logging.getLogger(__name__)

_IGNORED_LOGGED_EVERY_S = 3600.0


class Forecasts(Protocol):
    """What takes messages with forecasts (`kept_forecasts`)."""

    def is_for(self, topic: str) -> bool: ...
    def begin_batch(self) -> None: ...
    def undo(self) -> None: ...
    def take(self, message: Message, arrival: float) -> None: ...
    def filled(self, reading: Reading) -> Reading: ...


class MessageReader:
    """Reads messages, in order. `counts` says how many were refused, ignored, retained and repeated."""

    def __init__(
        self,
        decoder: Decoder,
        arrivals: ArrivalClock,
        times: TimeJudge,
        is_processed: Callable[[str], bool],
        report: Callable[[Mapping[str, object]], None],
        watch: StreamWatch,
        progress: Callable[[], Mapping[str, int]] = dict,
        forecasts: Forecasts | None = None,
    ) -> None:
        """`arrivals` gives the times of arrival, `times` judges the readings' times.

        `is_processed`: whether a message of this identity was processed before. `report` gets the facts of a refusal,
        at most once a minute. `watch` counts the refusals of each stream. `progress`: by identity, how many readings
        of a message were stepped before it came again. `forecasts` takes the messages that hold some, and fills
        readings.
        """
        self.counts: Counter[str] = Counter(refused=0, ignored=0, retained=0, repeated=0, names_refused=0)
        self.refusals: list[Refusal] = []  # in the messages that were read last
        self.redelivered: set[str] = set()  # streams in them of which the broker has sent a message again
        self.ends: list[int] = []  # how many readings those up to each message have
        self.refused_items: dict[int, list[int]] = {}  # by index of the message: numbers of its refused readings
        self.begun_items: dict[int, int] = {}  # by index of the message: how many of its readings are left out
        self._decoder, self._arrivals, self._times = decoder, arrivals, times
        self._is_processed, self._report, self._watch, self._progress = is_processed, report, watch, progress
        self._forecasts = forecasts
        self._refusals = RateLimitedLog(log)
        self._ignored = RateLimitedLog(log, _IGNORED_LOGGED_EVERY_S)

    def readings(self, messages: Sequence[Message]) -> list[Reading]:
        """The readings in the messages."""
        timed, decode = self._decoder.timed, self._decoder.readings
        arrival = self._arrivals.next()
        usual = self._times.begin_batch(arrival)
        self.refusals, self.redelivered, self.refused_items, self.begun_items = [], set(), {}, {}
        self.ends = []
        end = self.ends.append
        readings: list[Reading] = []
        forecasts = self._forecasts
        if forecasts is not None:
            forecasts.begin_batch()
        for message in messages:
            if forecasts is not None and forecasts.is_for(message.topic):
                self._take_forecast(forecasts, message, arrival)
                end(len(readings))
                continue
            if (message.retained or message.repeated) and self._is_old(message):
                end(len(readings))
                continue
            if not timed:
                arrival = self._arrivals.another()
            try:
                found = decode(message.topic, message.payload, message.properties, arrival)
            except PayloadError as error:
                self._refuse(message, error)
                found = error.readings
            else:
                if not found:
                    self._ignore(message)
            if message.repeated:
                self.redelivered.update(reading.stream for reading in found)
                found = self._rest(message, found)
            for reading in found:
                if reading.time < usual:
                    readings.append(reading if forecasts is None else forecasts.filled(reading))
                elif (judged := self._judged(message, reading, arrival)) is not None:
                    readings.append(judged if forecasts is None else forecasts.filled(judged))
                    usual = min(usual, self._times.needs_none_below(arrival))
                else:
                    self._note_refused(len(readings))
            end(len(readings))
        return readings

    def undo(self) -> None:
        """The messages that were read last are read again: forget what they brought besides readings."""
        if self._forecasts is not None:
            self._forecasts.undo()

    def _take_forecast(self, forecasts: Forecasts, message: Message, arrival: float) -> None:
        if message.repeated and self._is_processed(message_identity(message)):
            self.counts["repeated"] += 1
            return
        try:
            forecasts.take(message, arrival)
        except PayloadError as error:
            self._refuse(message, error)

    def _rest(self, message: Message, found: list[Reading]) -> list[Reading]:
        """The readings of a repeated message that were not stepped before."""
        progress = self._progress()
        begun = progress.get(message_identity(message), 0) if progress else 0
        if begun:
            self.begun_items[len(self.ends)] = begun
        return found[begun:]

    def _note_refused(self, readings: int) -> None:
        """A reading of the present message is refused, after so many of all messages that are not."""
        index, before = len(self.ends), self.ends[-1] if self.ends else 0
        items = self.refused_items.setdefault(index, [])
        items.append(self.begun_items.get(index, 0) + readings - before + len(items))

    def _is_old(self, message: Message) -> bool:
        """Whether the message is retained, or repeats a processed one. Such a message is counted."""
        if message.retained:
            self.counts["retained"] += 1
            return True
        processed = self._is_processed(message_identity(message))
        self.counts["repeated"] += processed
        return processed

    def _judged(self, message: Message, reading: Reading, arrival: float) -> Reading | None:
        """The reading as it has to be stepped; None where it is refused for its time."""
        if reading.time == arrival:
            return self._times.arrival_timed(self._arrivals.with_own_time(reading, arrival))
        judged = self._times.own_timed(reading, self._arrivals.latest)
        if isinstance(judged, Reading):
            return judged
        self.refusals.append(judged)
        self._refuse(message, judged.reason, judged.stream)
        return None

    def _ignore(self, message: Message) -> None:
        """Count and log a message without any key of the mapping. Devices send such; a mistyped key looks the same."""
        self.counts["ignored"] += 1
        if message.payload and self._ignored.due():  # an empty one only clears a retained message
            log.warning(
                "message ignored, it has no key of [input] topic=%s ignored=%d payload=%s",
                message.topic,
                self.counts["ignored"],
                shown_bytes(message.payload),
            )

    def _refuse(self, message: Message, found: str | PayloadError, stream: str | None = None) -> None:
        """Count, log and report a message that cannot be read, or a reading of `stream` that is refused for its time.

        The first one of a stream is logged, and others at most once a minute.
        """
        self.counts["refused"] += 1
        topic, refused = message.topic, self.counts["refused"]
        if isinstance(found, NameRefusedError):  # no line and no count for each: strangers make up any number of names
            self.counts["names_refused"] += 1
            is_first = False
        else:
            is_first = self._watch.refused(stream or self._decoder.stream_of(topic))
        if self._refusals.due() or is_first:
            log.warning("payload refused topic=%s refused=%d: %s", topic, refused, found)
            self._report({"topic": topic, "refused": refused, "error": str(found)})


def message_identity(message: Message) -> str:
    """The same for a message and its repetition within a session (MQTT 5, 4.4), and different for all others."""
    return f"{message.packet_id}:{message_digest(message.topic, message.payload)}"


def message_digest(topic: str, payload: bytes) -> str:
    """The part of a message's identity that does not depend on the session."""
    digest: str = sha256(topic.encode() + b"\0" + payload).hexdigest()[:16]
    return digest
