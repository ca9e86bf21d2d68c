"""Decodes messages to readings by a typed mapping, and encodes readings; a message that does not fit is an error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from sys import getsizeof
from typing import Any

from edge_lstm.foundation.extras import require
from edge_lstm.foundation.limited_dict import LimitedDict
from edge_lstm.foundation.numbers import FLOAT32_MAX
from edge_lstm.foundation.times.text import format_time
from edge_lstm.messages.feature_sources import FeatureSource, check, feature_source
from edge_lstm.messages.formats.json_path import ABSENT, Path, find_in
from edge_lstm.messages.formats.line_protocol import line_protocol_parser
from edge_lstm.messages.formats.named_values import NamedValues
from edge_lstm.messages.formats.payloads import (
    Parse,
    PayloadError,
    csv_parser,
    load_json,
    parse_json,
    parse_msgpack,
    parse_text,
    recoded,
    shown,
    shown_bytes,
)
from edge_lstm.messages.formats.senml import absolute_time, parse_senml
from edge_lstm.messages.mapping import InputMapping
from edge_lstm.messages.payload_times import PayloadTimes, ToTime
from edge_lstm.messages.stream_names import NameRefusedError, StreamName, label_of
from edge_lstm.messages.topics import STREAM, TopicPattern, topic_faults
from edge_lstm.streaming.reading import Reading

__all__ = [
    "STREAM",
    "Decoder",
    "InputMapping",
    "NameRefusedError",
    "PayloadError",
    "encode_reading",
    "topic_faults",
]

# Of flat messages: the loader, (feature, key) of each value, the time's key, parser and zone, and from when to when
# what the parser gives is right as it is.
_Flat = tuple[Parse, list[tuple[str, str]], str, ToTime, tzinfo, float, float]

_MOST_BYTES = 1 << 21  # of topics whose meaning is kept
_PART_BYTES = 300  # of a topic's meaning, beside its texts
_new = tuple.__new__  # makes a named tuple in half the time
_SURROGATES = re.compile("[\ud800-\udfff]")  # lone ones, which no database stores


@dataclass(frozen=True, slots=True)
class _TopicMeaning:
    """What a topic means: its values, and the stream's name, or the parts of it if the payload has the rest."""

    parts: Mapping[str, str]
    stream: str | None
    values: Sequence[FeatureSource]
    fault: str | None = None  # of the stream's name


class Decoder:
    """Messages to readings, by one mapping, for the given features."""

    def __init__(
        self,
        mapping: InputMapping,
        features: Sequence[str],
        categories: Mapping[str, Sequence[str]] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> None:
        """`categories`: by feature, the texts that its values stand for. `units`: by feature, its unit in the bundle.

        Raises ConfigError if the mapping does not fit these features, or needs a package that is not installed.
        """
        check(mapping, features)
        self._mapping = mapping
        self._features = features
        self._most_bytes = mapping.max_bytes
        self._records = _path(mapping.readings)
        self._times = PayloadTimes(mapping)
        self._time = mapping.time_path if mapping.time_from.startswith("payload") else None
        self._sequence = _path(mapping.sequence) if mapping.sequence_from == "payload" else None
        self._name = StreamName(mapping)
        self._sources = {
            name: feature_source(mapping, name, (categories or {}).get(name, ()), (units or {}).get(name, ""))
            for name in features
        }
        topics = {name: mapping.source(name).topic for name in features}
        self._own = [(TopicPattern(topic), self._sources[name]) for name, topic in topics.items() if topic is not None]
        self._shared = [self._sources[name] for name, topic in topics.items() if topic is None]
        self._by_part: dict[str, list[FeatureSource]] = {}
        for value in self._shared:
            at_value = FeatureSource(value.feature, _path(mapping.value), value.parser)
            self._by_part.setdefault(mapping.source(value.feature).path or value.feature, []).append(at_value)
        self._patterns = [TopicPattern(topic, self._by_part) for topic in mapping.topics if self._shared]
        self._ignored = [TopicPattern(topic) for topic in mapping.ignored_topics]
        self._names = NamedValues(mapping, features) if mapping.names_values else None
        self._is_simple = self._names is None and self._records is None
        self._merges = mapping.names_values or mapping.format == "influx"
        one_each = bool(self._own) or any("{value}" in topic for topic in mapping.topics)
        self._joins = bool(mapping.join) or self._merges or one_each
        paths = [value.path for value in self._shared if value.path is not None]
        self._parse = payload_parser(mapping, [path.text for path in paths])
        self._is_list = mapping.format in ("json", "msgpack") and any(path.begins_with_a_position for path in paths)
        self._meanings: LimitedDict[str, _TopicMeaning | None] = LimitedDict(most_bytes=_MOST_BYTES)
        # by topic, where the topic is all that names the stream
        self._streams: LimitedDict[str, str] = LimitedDict(most_bytes=_MOST_BYTES)
        self._flat = self._flat_keys()

    @property
    def timed(self) -> bool:
        """Whether every reading has a time that no other reading of its stream has."""
        return self._mapping.time_from in ("payload", "property") and not (self._mapping.sequence or self._joins)

    def stream_of(self, topic: str) -> str:
        """The stream that a topic means, or the topic itself where the payload has the stream's name."""
        meaning = self._meanings.get(topic)
        return topic if meaning is None or meaning.stream is None or meaning.fault is not None else meaning.stream

    def readings(self, topic: str, payload: bytes, properties: Mapping[str, str], arrival: float) -> list[Reading]:
        """The readings in a message that came at `arrival` (seconds since 1970) with these MQTT 5 user properties.

        The list is empty if the message is not for this mapping: another topic, an empty payload (which clears a
        retained message), or no key of any feature. A missing value (null, NaN, or a word or number that means it) is
        left out, or NaN in a partial reading. Raises PayloadError if the message cannot be read: not in the mapping's
        format, no stream or time, or a value that is not a number.
        """
        flat, stream = self._flat, self._streams.get(topic)
        if flat is not None and stream is not None and len(payload) <= self._most_bytes:
            # the usual message, a flat object of numbers; `_decode` gives the same, but slower
            load, keys, time, to_time, zone, low, high = flat
            try:
                facts = load(payload)
                values = {}
                for feature, name in keys:
                    value = facts[name]
                    if type(value) is not float:
                        value = _whole(value)
                    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:
                        raise ValueError
                    values[feature] = value
                seconds = to_time(facts[time], zone)
                if low <= seconds < high:
                    return [_new(Reading, (stream, seconds, values, None, False, False, False))]
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                pass  # NaN, a missing value or a fault: `_decode` finds out
        return self._decode(topic, payload, properties, arrival)

    def _decode(self, topic: str, payload: bytes, properties: Mapping[str, str], arrival: float) -> list[Reading]:
        """`readings`, for any mapping."""
        try:
            meaning = self._meanings[topic]
        except KeyError:
            meaning = self._learn(topic)
        if meaning is None or not payload:
            return []
        if meaning.fault is not None:
            raise NameRefusedError(f"expected {meaning.fault}")
        if len(payload) > self._most_bytes:
            expected = f"expected at most {self._most_bytes} bytes (max_bytes)"
            raise PayloadError(f"{expected}, found {len(payload)}: {shown_bytes(payload)}")
        message = self._parse(payload)
        readings: list[Reading] = []
        refused, first = 0, None  # not all errors: a message may hold a million readings
        if self._is_simple and not isinstance(message, list):
            parts = [(message, message)]
        else:
            parts = [(part, batch) for batch in self._batches(message) for part in self._parts(batch)]
        for part, batch in parts:
            if isinstance(part, PayloadError):  # a line or record that its format does not allow
                refused, first = refused + 1, first or part
                continue
            try:
                reading = self._reading(meaning, part, batch, properties, arrival)
            except PayloadError as error:
                refused, first = refused + 1, first or error
            else:
                if reading is not None:
                    readings.append(reading)
        if self._flat is not None and self._times.is_local and self._flat[-2:] != self._times.certain:
            self._flat = self._flat_keys()
        if self._merges:
            readings = self._merged(readings)
        if first is not None:
            if len(parts) == 1:
                raise first
            things = "readings" if self._names is None else "values"
            raise PayloadError(f"{refused} of {len(parts)} {things} do not fit, the first: {first}", readings)
        return readings

    def _flat_keys(self) -> _Flat | None:
        """How to read messages that are flat JSON objects; None if the mapping needs anything else."""
        mapping = self._mapping
        asked = mapping.stream or mapping.readings or mapping.sequence or self._joins or mapping.encoding != "utf-8"
        if mapping.format != "json" or mapping.time_from != "payload" or asked:
            return None
        plain = [(value.feature, value.path) for value in self._shared if value.parser.plain]
        keys = [(feature, path.key) for feature, path in plain if path is not None and path.key is not None]
        if len(keys) < len(self._features) or self._time is None or self._time.key is None:
            return None
        times = self._times
        return load_json(), keys, self._time.key, times.to_time, times.zone, *times.certain

    def _learn(self, topic: str) -> _TopicMeaning | None:
        """What the topic means, kept for the next message."""
        size = getsizeof(topic)  # and the texts of its parts are not longer
        meaning = self._meanings.remember(topic, self._meaning(topic), 2 * size + _PART_BYTES)
        if meaning is not None and meaning.stream is not None and meaning.fault is None:
            self._streams.remember(topic, meaning.stream, size + getsizeof(meaning.stream))
        return meaning

    def _meaning(self, topic: str) -> _TopicMeaning | None:
        if any(pattern.match(topic) is not None for pattern in self._ignored):
            return None
        values: list[FeatureSource] = []
        parts: dict[str, str] = {}
        for pattern, value in self._own:
            if (found := pattern.match(topic)) is not None:
                parts.update(found)
                values.append(value)
        for pattern in self._patterns:
            if (found := pattern.match(topic)) is not None:
                parts.update(found)
                values += self._by_part.get(found["value"], []) if "value" in found else self._shared
                break
        if not values:
            return None
        name = self._name.of_topic(parts)
        if name is None:
            return _TopicMeaning(parts, None, values)
        return _TopicMeaning({}, name, values, self._name.fault(name))

    def _batches(self, message: Any) -> Sequence[Any]:
        """The message, or if it is a list of objects that each hold readings, these."""
        within = self._records is not None and isinstance(message, list) and self._records.find(message) is ABSENT
        return message if within else [message]

    def _parts(self, batch: Any) -> Sequence[Any]:
        """The parts of a message that are readings, or values that say their own name."""
        found = batch if self._records is None else self._records.find(batch)
        if found is ABSENT:
            return []
        is_list = isinstance(found, list) and (self._records is not None or not self._is_list)
        records = found if is_list else [found]
        return records if self._names is None else self._names.parts(records)

    def _reading(
        self, meaning: _TopicMeaning, part: Any, message: Any, properties: Mapping[str, str], arrival: float
    ) -> Reading | None:
        """The reading in one part of a message; None if it holds no value."""
        if self._names is None:
            places: tuple[Any, ...] = (part,) if part is message else (part, message)
            parts, values = meaning.parts, _values(meaning.values, part)
        else:
            named = self._names.read(part)
            if named is None:
                return None
            places, parts = (*named.places, message), {**meaning.parts, **named.parts}
            values = {
                feature: self._sources[feature].parser.read(named.value, named.unit) for feature in named.features
            }
        if not values:
            return None
        partial = self._joins and len(values) < len(self._features)
        if not partial:
            values = _without_nan(values)
        stream = meaning.stream if meaning.stream is not None else self._name.name(parts, *places)
        time = self._time_of(places, properties, stream, arrival)
        sequence = self._identity(places, properties)
        return Reading(stream, time, values, sequence, partial, arrived=time is arrival)

    def _time_of(self, places: Sequence[Any], properties: Mapping[str, str], stream: str, arrival: float) -> float:
        """The time of a reading, seconds since 1970."""
        mapping = self._mapping
        if mapping.time_from == "arrival":
            return arrival
        if mapping.time_from == "property":
            found: Any = properties.get(mapping.time, ABSENT)
        else:
            found = find_in(self._time, *places)
        is_senml = mapping.format == "senml" and mapping.time_from != "property"
        if found is ABSENT and (is_senml or mapping.time_from == "payload-or-arrival"):
            return arrival
        if is_senml:
            found = absolute_time(found, arrival)
        elif found is None and mapping.time_from == "payload-or-arrival":
            return arrival
        if found is ABSENT:
            where = " in the user properties" if mapping.time_from == "property" else ""
            raise PayloadError(f'expected the time under "{mapping.time}"{where}, found none')
        return self._times.read(found, stream, arrival)

    def _identity(self, places: Sequence[Any], properties: Mapping[str, str]) -> str | None:
        """The device's own identity of the reading within its stream, if the mapping names one."""
        name = self._mapping.sequence
        if name is None:
            return None
        if self._mapping.sequence_from == "property":
            found: Any = properties.get(name, ABSENT)
        else:
            found = find_in(self._sequence, *places)
        if found is ABSENT or found is None:
            return None
        text = label_of(found)
        if text is None or not 0 < len(text) <= 200 or _SURROGATES.search(text):
            raise PayloadError(f'expected a number or a short text under "{name}", found {shown(found)}')
        return text

    def _merged(self, readings: Sequence[Reading]) -> list[Reading]:
        """One reading for all values of the same stream, time and sequence, in the order of time."""
        merged: dict[tuple[str, float, str | None, bool], dict[str, float]] = {}
        for reading in readings:
            identity = reading.stream, reading.time, reading.sequence, reading.arrived
            merged.setdefault(identity, {}).update(reading.values)
        found = []
        for (stream, time, sequence, arrived), values in merged.items():
            partial = len(values) < len(self._features)
            kept = values if partial else _without_nan(values)
            found.append(Reading(stream, time, kept, sequence, partial, arrived=arrived))
        return sorted(found, key=lambda reading: reading.time)


def _values(sources: Sequence[FeatureSource], record: Any) -> dict[str, float]:
    """By feature, the numbers in a part of a message."""
    values = {}
    for value in sources:
        if value.path is None:
            found = record
        elif isinstance(record, (dict, list)):
            found = value.path.find(record)
        else:
            raise PayloadError(f"expected an object with keys, found {shown(record)}")
        if found is not ABSENT:
            values[value.feature] = value.parser.read(found)
    return values


def _without_nan(values: Mapping[str, float]) -> dict[str, float]:
    return {feature: number for feature, number in values.items() if not math.isnan(number)}


def _whole(value: object) -> float:
    if type(value) is int:
        return float(value)
    raise TypeError


def payload_parser(mapping: InputMapping, paths: Sequence[str] = ()) -> Parse:
    """The parser of the mapping's format; `paths` are those of values.

    Raises EdgeLstmError if it needs a package that is not installed.
    """
    if mapping.format == "msgpack":
        require("msgpack", "msgpack")
    parsers: dict[str, Parse] = {
        "json": parse_json,
        "text": parse_text,
        "csv": csv_parser(mapping.columns, mapping.separator),
        "msgpack": parse_msgpack,
        "senml": parse_senml,
        "influx": line_protocol_parser(paths),
    }
    parse = parsers[mapping.format]
    return parse if mapping.encoding == "utf-8" else recoded(parse, mapping.encoding)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path.parse(text)


def encode_reading(reading: Reading, categories: Mapping[str, Sequence[str]] | None = None) -> str:
    """A reading as `InputMapping()` takes it: {"time": "2016-07-01T07:00:00Z", "ac_power": -2.86}.

    `categories`: by feature, the texts that its values stand for.
    """
    known = categories or {}
    values = {name: known[name][int(value)] if name in known else value for name, value in reading.values.items()}
    return json.dumps({"time": format_time(reading.time), **values}, separators=(",", ":"))
