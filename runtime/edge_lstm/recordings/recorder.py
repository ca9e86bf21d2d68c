"""Records live readings into a CSV file, ready for training. A message is acknowledged after its readings are on disk.

A file with other columns is refused. A row that a crash left incomplete is removed before the next one is written.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.rate_limited_log import RateLimitedLog
from edge_lstm.foundation.times import format_time
from edge_lstm.messages.arrivals import ArrivalClock
from edge_lstm.messages.decoder import Decoder, InputMapping, PayloadError, payload_parser
from edge_lstm.messages.json_path import Path
from edge_lstm.messages.named_values import NamedValues
from edge_lstm.messages.payloads import shown_bytes
from edge_lstm.messages.stream_names import template_parts
from edge_lstm.mqtt.connection import MqttConnection
from edge_lstm.mqtt.received import Message
from edge_lstm.streaming.reading import Reading

log = logging.getLogger(__name__)

_POLL_S = 0.2
_MOST_A_BATCH = 200  # messages; a broker allows about a thousand unacknowledged ones
_LONGEST_UNSAVED_S = 1.0  # so that a card is not written to for each reading
_LAST_POLL_S = 0.1
_LONGEST_SILENCE_S = 2.0  # of a broker that has more for us
_LONGEST_HEADER = 1_000_000  # bytes; a file that is none of ours may have no lines
_MOST_RECENT = 2000  # messages; more than a broker sends before the first acknowledgement


class RecordingFile:
    """A growing CSV file of readings, with the columns time, stream and one per feature."""

    def __init__(
        self, path: FilePath, features: Sequence[str], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """`categories`: by feature, the texts that its values are indices of; the file gets the texts.

        Raises EdgeLstmError where the file cannot be written, or has other columns.
        """
        self.path, self.features = path, list(features)
        self._categories = categories or {}
        header = _csv_line(["time", "stream", *self.features])
        try:
            # unbuffered: a write that a full disk refused must not be repeated later
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            found = self._file.readline(_LONGEST_HEADER)
            if found and found.rstrip(b"\r\n") != header.rstrip(b"\n"):
                self._file.close()
                raise EdgeLstmError(
                    f"{path}: expected the columns time, stream, {', '.join(self.features)}, found "
                    f"{found.decode('utf-8', 'replace').strip()}",
                    "name another file with -o, or the features of that file",
                )
            self._size = self._whole_rows()
            self._file.truncate(self._size)
            self._file.seek(self._size)
            if not self._size:
                self._write(header)
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the file; every row is on the disk already."""
        self._file.close()

    def append(self, readings: Sequence[Reading]) -> None:
        """Write the readings and fsync. Raises EdgeLstmError where the disk is full; the file then ends as before."""
        try:
            self._write(b"".join(map(self._line, readings)))
        except OSError as error:
            self._file.truncate(self._size)
            raise self._unwritable(error) from None

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
        self._size += len(data)

    def _line(self, reading: Reading) -> bytes:
        cells = [self._cell(name, reading.values.get(name, math.nan)) for name in self.features]
        return _csv_line([format_time(reading.time), reading.stream, *cells])

    def _cell(self, name: str, value: float) -> str:
        if math.isnan(value):
            return ""
        return self._categories[name][int(value)] if name in self._categories else repr(value)

    def _whole_rows(self) -> int:
        """The size of the file up to its last whole row. The broker repeats the reading of an incomplete row."""
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end:
            begin = max(0, end - 65_536)
            self._file.seek(begin)
            at = self._file.read(end - begin).rfind(b"\n")
            if at >= 0:
                end = begin + at + 1
                break
            end = begin
        if end < size:
            log.warning("half a row removed file=%s bytes=%d", self.path, size - end)
        return end

    def _unwritable(self, error: OSError) -> EdgeLstmError:
        return EdgeLstmError(
            f"expected to write {self.path}, found: {error.strerror}", "free some space, or name another place with -o"
        )


class Recorder:
    """Records the readings of a connection, decoded as a service with the same mapping would decode them."""

    def __init__(
        self,
        connection: MqttConnection,
        mapping: InputMapping,
        path: FilePath,
        features: Sequence[str] = (),
        categories: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`features`: the columns; empty: those of the file, or else all numbers of the first message.

        `categories`: by feature, the texts that its values are indices of.
        """
        self._categories = categories or {}
        self._mqtt, self._mapping, self._path = connection, mapping, path
        self._stops = 0
        self._arrivals = ArrivalClock()
        self._refusals = RateLimitedLog(log)
        self._joining: dict[str, Reading] = {}  # by stream: values that came apart and wait for the others
        self._recent: dict[tuple[int, str, bytes], None] = {}  # messages that are in the file, the newest last
        self.streams: set[str] = set()
        self.counts: Counter[str] = Counter(readings=0, refused=0, ignored=0, retained=0)
        self._output: RecordingFile | None = None
        self._decoder: Decoder | None = None
        features = features or _features_of(path)
        if features:
            self._begin(features)

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
                if not unsaved:
                    since = now
                elif len(unsaved) >= _MOST_A_BATCH or now - since >= _LONGEST_UNSAVED_S:
                    self._save(unsaved)
                    unsaved, since = [], now
            self._save([*unsaved, *self._mqtt.poll(0.0)])
            self._save_queued()
            if self._joining and self._output is not None:
                self._append(list(self._joining.values()))
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
        readings = [reading for message in messages for reading in self._readings(message)]
        self._append([whole for reading in readings if (whole := self._completed(reading)) is not None])
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

    def _begin(self, features: Sequence[str]) -> Decoder:
        self._decoder = Decoder(self._mapping, features, self._categories)
        self._output = RecordingFile(self._path, features, self._categories)
        log.info("recording file=%s features=%s", self._path, ",".join(features))
        return self._decoder

    def _readings(self, message: Message) -> list[Reading]:
        """The readings of a message; empty after counting the reason."""
        if message.retained:
            self.counts["retained"] += 1  # an old value, not a new reading
            return []
        if message.repeated and (message.packet_id, message.topic, message.payload) in self._recent:
            return []  # the connection broke before the broker received the acknowledgement
        try:
            decoder = self._decoder or self._begin(numbers_in(self._mapping, message.payload))
            arrival = self._arrivals.next()
            readings = decoder.readings(message.topic, message.payload, message.properties, arrival)
        except PayloadError as error:
            self._refuse(message, str(error))
            arrival, readings = self._arrivals.latest, error.readings
        else:
            self.counts["ignored"] += not readings
        return [self._arrivals.with_own_time(reading, arrival) for reading in readings]

    def _completed(self, reading: Reading) -> Reading | None:
        """The reading; for a partial one, the whole reading that it completes, or None. A NaN counts as received."""
        if not reading.partial or self._output is None:
            return reading
        waiting = self._joining.pop(reading.stream, None)
        values = {**(waiting.values if waiting else {}), **reading.values}
        whole = Reading(reading.stream, reading.time, values)
        if all(name in values for name in self._output.features):
            return whole
        self._joining[reading.stream] = whole
        return None

    def _refuse(self, message: Message, found: str) -> None:
        self.counts["refused"] += 1
        facts = (message.topic, self.counts["refused"], found)
        self._refusals.log(logging.WARNING, "payload refused topic=%s refused=%d: %s", *facts)


def numbers_in(mapping: InputMapping, payload: bytes) -> list[str]:
    """The keys with a number in a message: the features for a mapping that names none.

    Raises PayloadError where the payload is not in the mapping's format, or holds no numbers under keys.
    """
    names: list[str] = []
    if mapping.format == "csv":
        record: object = dict.fromkeys(mapping.columns, 0)
    elif mapping.format == "text":
        record = None
    else:
        record = payload_parser(mapping)(payload)
        if mapping.readings is not None:
            record = Path.parse(mapping.readings).find(record)
        if mapping.names_values:
            names = NamedValues(mapping, ()).names_in(record if isinstance(record, list) else [record])
        record = record[0] if isinstance(record, list) and record else record
    if isinstance(record, dict) and not mapping.names_values:
        others = (mapping.time, mapping.sequence, mapping.stream, *template_parts(mapping.stream or ""))
        names = [name for name, value in record.items() if type(value) in (int, float) and name not in others]
    if not names:
        raise PayloadError(
            f"expected keys with numbers in the first message, for the columns, found {shown_bytes(payload)}: "
            "name them (--feature NAME, or --feature NAME=PATH)"
        )
    return names


def _features_of(path: FilePath) -> list[str]:
    """The features of an existing file; empty where it is not a recording."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # RecordingFile raises the error
    return header[2:] if header[:2] == ["time", "stream"] else []


def _csv_line(cells: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()
