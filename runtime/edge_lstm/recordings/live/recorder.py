"""Records live readings into a CSV file, ready for training; acknowledges a message after its readings are on disk."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.messages.decoder import Decoder, InputMapping, PayloadError
from edge_lstm.messages.discovery.found_keys import found_keys, is_read
from edge_lstm.messages.formats.payloads import shown_bytes
from edge_lstm.mqtt.client.received import Message
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.recordings.live.chosen_columns import ChosenColumns, chosen_columns, columns_of_file, given_columns
from edge_lstm.recordings.live.recorded_forecasts import RecordedForecasts
from edge_lstm.recordings.live.recording_file import RecordingFile
from edge_lstm.recordings.live.unrecorded import UnrecordedKeys
from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

SETTLE_S = 10.0
_POLL_S = 0.2
_MOST_A_BATCH = 200  # messages
_MOST_EARLY = 800  # messages before the columns are chosen; a broker allows about a thousand unacknowledged ones
_LONGEST_UNSAVED_S = 1.0  # so that a card is not written to for each reading
_LAST_POLL_S = 0.1
_LONGEST_SILENCE_S = 2.0  # of a broker that has more for us
_MOST_RECENT = 2000  # messages; more than a broker sends before the first acknowledgement


class Recorder:
    """Records the readings of a connection, decoded as a service with the same mapping would decode them."""

    def __init__(
        self,
        connection: MqttConnection,
        mapping: InputMapping,
        path: Path,
        features: Sequence[str] = (),
        categories: Mapping[str, Sequence[str]] | None = None,
        settle_s: float = SETTLE_S,
        forecasts: RecordedForecasts | None = None,
    ) -> None:
        """`features`: the columns; empty: those of the file, or else all values that come within `settle_s` seconds.

        `categories`: by feature, the texts that its values are indices of. `forecasts` takes the messages that hold
        some, and fills columns of its own.
        """
        self._forecasts = forecasts
        self._categories = categories or {}
        self._mqtt, self._mapping, self._path, self._settle_s = connection, mapping, path, settle_s
        self._stops = 0
        self._arrivals = ArrivalClock()
        self._refusals = RateLimitedLog(log)
        self._joining: dict[str, Reading] = {}  # by stream: values that came apart and wait for the others
        self._recent: dict[tuple[int, str, bytes], None] = {}  # messages that are in the file, the newest last
        self._retained: list[Message] = []  # they have keys too
        self.streams: set[str] = set()
        self.counts: Counter[str] = Counter(readings=0, refused=0, ignored=0, retained=0)
        self.unrecorded = UnrecordedKeys()
        self._output: RecordingFile | None = None
        self._columns = given_columns(features) if features else columns_of_file(path)
        self._tells_unrecorded = not features
        if self._columns is not None:
            self._begin(self._columns)

    def stop(self) -> None:
        """Ask `run` to return; a second call, to return at once. Safe in a signal handler."""
        self._stops += 1

    def run(self) -> None:
        """Record until `stop`. The file then holds everything that the broker had. The connection may break meanwhile.

        If the broker keeps the session, messages that it has not sent by then come in the next run.
        """
        unsaved: list[Message] = []
        since = time.monotonic()
        try:
            while not self._stops:
                unsaved += self._mqtt.poll(_POLL_S)
                now = time.monotonic()
                most, longest_s = (
                    (_MOST_EARLY, self._settle_s) if self._output is None else (_MOST_A_BATCH, _LONGEST_UNSAVED_S)
                )
                if not unsaved:
                    since = now
                elif len(unsaved) >= most or now - since >= longest_s:
                    self._save(unsaved)
                    unsaved, since = [], now
            self._save([*unsaved, *self._mqtt.poll(0.0)])
            self._save_queued()
            if self._joining and self._output is not None:
                columns = self._columns
                self._append([] if columns is None else [self._row(one, columns) for one in self._joining.values()])
        finally:
            if self._output is not None:
                self._output.close()

    def _save_queued(self) -> None:
        """Unsubscribe, and save the messages that the broker still has queued: it would drop them at the disconnect.

        It sends them in parts, each after an acknowledgement. So this unsubscribes again until no message comes before
        the broker's answer.
        """
        last_message, more = time.monotonic(), True
        while more and self._mqtt.unsubscribe():
            more = False
            while not self._mqtt.unsubscribed:
                if self._stops > 1 or time.monotonic() - last_message > _LONGEST_SILENCE_S:
                    return
                if found := self._mqtt.poll(_LAST_POLL_S):
                    self._save(found)
                    last_message, more = time.monotonic(), True

    def _save(self, messages: Sequence[Message]) -> None:
        """Write the readings of the messages to the disk, then acknowledge the messages."""
        if self._output is None:
            self._choose_columns(messages)
        rows = []  # each with what was known before it
        for reading in (reading for message in messages for reading in self._readings(message)):
            if (whole := self._completed(reading)) is not None and self._columns is not None:
                rows.append(self._row(whole, self._columns))
        self._append(rows)
        for message in messages:
            self._recent[message.packet_id, message.topic, message.payload] = None
        while len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        self._mqtt.acknowledge(messages)

    def _append(self, readings: Sequence[Reading]) -> None:
        if readings and self._output is not None:
            self._output.append(readings)
            self.streams.update(reading.stream for reading in readings)
            self.counts["readings"] += len(readings)

    def _row(self, reading: Reading, columns: ChosenColumns) -> Reading:
        """The reading with the names of columns; a value that fits none is left out, and said."""
        values = {}
        for key, value in reading.values.items():
            if (name := columns.of(reading.stream, key, value)) is not None:
                values[name] = value
            elif not math.isnan(value):
                self.unrecorded.add(key, reading.stream, "its values have another size")
        row = reading._replace(values=values)
        return row if self._forecasts is None else self._forecasts.filled(row)

    def _choose_columns(self, messages: Sequence[Message]) -> None:
        """Choose the columns by these messages and the retained ones. None of them has a value: choose none yet."""
        keys: dict[str, None] = dict.fromkeys(self._mapping.values)
        examples = [*self._retained, *messages]
        for message in examples:
            try:
                keys.update(dict.fromkeys(found_keys(self._mapping, message.topic, message.payload)))
            except PayloadError:
                continue  # refused below, where it is decoded
        if not keys:
            return
        decoder = Decoder(_with_paths(self._mapping, keys), list(keys), self._categories)
        readings: list[Reading] = []
        for message in examples:
            try:
                readings += decoder.readings(message.topic, message.payload, message.properties, 0.0)
            except PayloadError as error:
                readings += error.readings
        columns = chosen_columns(readings)
        if columns.names:
            for key, names in columns.separated.items():
                log.warning("devices send %s in different sizes, so it has several columns: %s", key, ", ".join(names))
            self._begin(columns)

    def _begin(self, columns: ChosenColumns) -> None:
        self._columns = columns
        self._decoder = Decoder(_with_paths(self._mapping, columns.keys), columns.keys, self._categories)
        ahead = [] if self._forecasts is None else self._forecasts.names
        self._output = RecordingFile(self._path, [*columns.names, *ahead], self._categories)
        log.info("recording file=%s features=%s", self._path, ",".join(columns.names))

    def _readings(self, message: Message) -> list[Reading]:
        """The readings of a message; empty after counting the reason, or for a forecast."""
        if self._forecasts is not None and self._forecasts.is_for(message.topic):
            try:
                self._forecasts.take(message.topic, message.payload, self._arrivals.next())
            except PayloadError as error:
                self._refuse(message, str(error))
            return []
        if message.retained:
            self.counts["retained"] += 1  # an old value, not a new reading
            if self._output is None and len(self._retained) < _MOST_EARLY:
                self._retained.append(message)
            return []
        if message.repeated and (message.packet_id, message.topic, message.payload) in self._recent:
            return []  # the connection broke before the broker received the acknowledgement
        if self._output is None and not is_read(self._mapping, message.topic):
            self.counts["ignored"] += 1
            return []
        if self._output is None:
            self._refuse(
                message,
                f"expected keys with numbers, for the columns, found {shown_bytes(message.payload)}: "
                "name them (--feature NAME, or --feature NAME=PATH)",
            )
            return []
        try:
            arrival = self._arrivals.next()
            readings = self._decoder.readings(message.topic, message.payload, message.properties, arrival)
        except PayloadError as error:
            self._refuse(message, str(error))
            arrival, readings = self._arrivals.latest, error.readings
        else:
            self.counts["ignored"] += not readings
        if self._tells_unrecorded:
            self._look_for_other_keys(message, readings)
        return [self._arrivals.with_own_time(reading, arrival) for reading in readings]

    def _look_for_other_keys(self, message: Message, readings: Sequence[Reading]) -> None:
        """Say which keys came after the columns were chosen. Not every message of a topic is examined."""
        if self._columns is None or not self.unrecorded.is_due(message.topic):
            return
        try:
            keys = found_keys(self._mapping, message.topic, message.payload)
        except PayloadError:
            return
        device = readings[0].stream if readings else message.topic
        for key in keys.keys() - set(self._columns.keys):
            self.unrecorded.add(key, device, "it came after the columns were chosen")

    def _completed(self, reading: Reading) -> Reading | None:
        """The reading; for a partial one, the whole reading that it completes, or None. A NaN counts as received.

        A row is complete when it has every key of the device. If a key comes again before, the incomplete row ends.
        """
        if not reading.partial or self._columns is None:
            return reading
        waiting = self._joining.pop(reading.stream, None)
        ended = waiting if waiting is not None and waiting.values.keys() & reading.values.keys() else None
        values = {**(waiting.values if waiting is not None and ended is None else {}), **reading.values}
        whole = Reading(reading.stream, reading.time, values)
        if ended is None and self._columns.keys_of(reading.stream) <= values.keys():
            return whole
        self._joining[reading.stream] = whole
        return ended

    def _refuse(self, message: Message, found: str) -> None:
        self.counts["refused"] += 1
        facts = (message.topic, self.counts["refused"], found)
        self._refusals.log(logging.WARNING, "payload refused topic=%s refused=%d: %s", *facts)


def _with_paths(mapping: InputMapping, keys: Sequence[str] | Mapping[str, None]) -> InputMapping:
    """The mapping, in which a key like `DHT11.Temperature` is the path to its value."""
    paths = {key: key for key in keys if key not in mapping.values and any(sign in key for sign in '."[')}
    return dataclasses.replace(mapping, values={**mapping.values, **paths})
