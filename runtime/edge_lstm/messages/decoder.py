"""Messages to readings by a typed mapping, and readings to messages; what does not fit is refused, in words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from edge_lstm.foundation.config import suggestion
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.foundation.extras import require
from edge_lstm.foundation.numbers import LARGEST
from edge_lstm.foundation.times import format_time, parse_time
from edge_lstm.messages.json_path import ABSENT, Path
from edge_lstm.messages.mapping import InputMapping, ValueMapping
from edge_lstm.messages.payloads import (
    Parse,
    PayloadError,
    csv_parser,
    load_json,
    parse_json,
    parse_msgpack,
    parse_text,
    shown,
    shown_bytes,
)
from edge_lstm.messages.presets import preset
from edge_lstm.messages.topics import STREAM, TopicPattern, filled, name_fault, topic_faults
from edge_lstm.messages.value_parser import ValueParser
from edge_lstm.streaming.reading import Reading

__all__ = [
    "STREAM",
    "Decoder",
    "InputMapping",
    "PayloadError",
    "encode_reading",
    "topic_faults",
]

_MOST_PLACES = 4096  # topics whose meaning is kept; strangers can make up any number of them
_new = tuple.__new__  # half of what a named tuple's own takes
_CLOCK_WAS_SET = 946_684_800.0  # the year 2000: a device that never heard what time it is counts from 1970
_UNKEPT = re.compile("[\ud800-\udfff]")  # lone surrogates, which no database stores


@dataclass(frozen=True, slots=True)
class _Value:
    """One feature in a message: `path` leads to what `numeral` reads (None: the reading itself is the value)."""

    feature: str
    path: Path | None
    numeral: ValueParser


@dataclass(frozen=True, slots=True)
class _Place:
    """What a topic says: the name where the topic alone says it, else its parts, and which values."""

    parts: Mapping[str, str]
    stream: str | None
    values: Sequence[_Value]


class Decoder:
    """Messages to readings, by one mapping, for the given features."""

    def __init__(
        self, mapping: InputMapping, features: Sequence[str], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """`categories`: by feature, the texts that its values stand for.

        Raises ConfigError where the mapping cannot serve these features, or needs a package that is not here.
        """
        _check(mapping, features)
        self._mapping = mapping
        self._features = features
        self._most_bytes = mapping.max_bytes
        self._parse = _parser(mapping)
        self._zone = mapping.zone()
        self._stream, self._records = _path(mapping.stream), _path(mapping.readings)
        self._time = _path(mapping.time) if mapping.time_from.startswith("payload") else None
        self._sequence = _path(mapping.sequence) if mapping.sequence_from == "payload" else None
        values = [_value(mapping, feature, (categories or {}).get(feature, ())) for feature in features]
        sources = [mapping.source(feature) for feature in features]
        self._own = [
            (TopicPattern(source.topic), value)
            for source, value in zip(sources, values, strict=True)
            if source.topic is not None
        ]
        shared = [(s.path or v.feature, v) for s, v in zip(sources, values, strict=True) if s.topic is None]
        self._shared = [value for _, value in shared]
        self._by_part: dict[str, list[_Value]] = {}
        for part, value in shared:
            at_value = _Value(value.feature, _path(mapping.value), value.numeral)
            self._by_part.setdefault(part, []).append(at_value)
        self._patterns = [TopicPattern(topic, self._by_part) for topic in mapping.topics if shared]
        self._joins = mapping.join or bool(self._own) or any("{value}" in topic for topic in mapping.topics)
        paths = [value.path for value in self._shared if value.path is not None]
        self._is_list = mapping.format != "csv" and any(path.begins_with_a_position for path in paths)
        self._places: dict[str, _Place | None] = {}
        self._short = self._short_way()

    @property
    def timed(self) -> bool:
        """Whether every reading carries a time of its own, which nothing else of its stream has."""
        return self._mapping.time_from in ("payload", "property") and not (self._mapping.sequence or self._joins)

    def readings(self, topic: str, payload: bytes, properties: Mapping[str, str], arrival: float) -> list[Reading]:
        """The readings in a message that came at `arrival` (seconds since 1970) with these MQTT 5 user properties.

        None are in a message that is not for this mapping: another topic, an empty payload (which clears a retained
        message), or no key of any feature. A value that is null, NaN or a word or number for it is missing: left out,
        or NaN in a partial reading. Raises PayloadError where the message cannot be read: not in the mapping's format,
        no stream or time, or something that is no number.
        """
        place = self._places.get(topic)
        short = self._short
        if short is not None and place is not None and place.stream is not None and len(payload) <= self._most_bytes:
            # the usual message, all of it numbers, without the steps that it does not need; the long way does the same
            load, keys, time, zone = short
            try:
                facts = load(payload)
                values = {}
                for feature, name in keys:
                    value = facts[name]
                    if type(value) is not float:
                        value = _whole(value)
                    if not -LARGEST <= value <= LARGEST:
                        raise ValueError
                    values[feature] = value
                return [_new(Reading, (place.stream, parse_time(facts[time], zone), values, None, False))]
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                pass  # NaN, a missing value or a fault, for the long way to tell
        return self._long(topic, payload, properties, arrival)

    def _long(self, topic: str, payload: bytes, properties: Mapping[str, str], arrival: float) -> list[Reading]:
        """`readings`, for whatever the mapping may say."""
        try:
            place = self._places[topic]
        except KeyError:
            place = self._learn(topic)
        if place is None or not payload:
            return []
        if len(payload) > self._most_bytes:
            expected = f"expected at most {self._most_bytes} bytes (max_bytes)"
            raise PayloadError(f"{expected}, found {len(payload)}: {shown_bytes(payload)}")
        message = self._parse(payload)
        readings: list[Reading] = []
        refused, first = 0, None  # not all of them: a message may hold a million
        records = self._split(message)
        for record in records:
            try:
                reading = self._reading(place, record, message, properties, arrival)
            except PayloadError as error:
                refused, first = refused + 1, first or error
            else:
                if reading is not None:
                    readings.append(reading)
        if first is not None:
            if len(records) == 1:
                raise first
            raise PayloadError(f"{refused} of {len(records)} readings do not fit, the first: {first}", readings)
        return readings

    def _short_way(self) -> tuple[Parse, list[tuple[str, str]], str, tzinfo] | None:
        """How to load, (feature, key) of each value, key and zone of the time, where a message is one flat JSON object.

        None where the mapping asks for anything else.
        """
        mapping = self._mapping
        asked = mapping.stream or mapping.readings or mapping.sequence or self._joins
        if mapping.format != "json" or mapping.time_from != "payload" or asked:
            return None
        plain = [(value.feature, value.path) for value in self._shared if value.numeral.plain]
        keys = [(feature, path.key) for feature, path in plain if path is not None and path.key is not None]
        if len(keys) < len(self._features) or self._time is None or self._time.key is None:
            return None
        return load_json(), keys, self._time.key, self._zone

    def _learn(self, topic: str) -> _Place | None:
        """What the topic says, kept for the next message."""
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[topic] = place = self._place(topic)
        return place

    def _place(self, topic: str) -> _Place | None:
        values: list[_Value] = []
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
        if self._mapping.stream is not None:
            return _Place(parts, None, values)
        name = filled(STREAM if self._mapping.name is None else self._mapping.name, parts)
        return None if name_fault(name) else _Place({}, name, values)

    def _split(self, message: Any) -> list[Any]:
        """The parts of a message that are readings."""
        if self._records is not None:
            message = self._records.find(message)
            if message is ABSENT:
                return []
            return message if isinstance(message, list) else [message]
        return message if isinstance(message, list) and not self._is_list else [message]

    def _reading(
        self, place: _Place, record: Any, message: Any, properties: Mapping[str, str], arrival: float
    ) -> Reading | None:
        """The reading in one part of a message; None where no value is spoken of."""
        values = {}
        for value in place.values:
            if value.path is None:
                found = record
            elif isinstance(record, (dict, list)):
                found = value.path.find(record)
            else:
                raise PayloadError(f"expected an object with keys, found {shown(record)}")
            if found is not ABSENT:
                values[value.feature] = value.numeral.read(found)
        if not values:
            return None
        partial = self._joins and len(values) < len(self._features)
        if not partial:
            values = {feature: number for feature, number in values.items() if not math.isnan(number)}
        stream = place.stream if place.stream is not None else self._named(place, record, message)
        time = self._moment(record, message, properties, arrival)
        return Reading(stream, time, values, self._identity(record, message, properties), partial)

    def _named(self, place: _Place, record: Any, message: Any) -> str:
        """The stream's name where the payload says it."""
        found = _find(self._stream, record, message)
        label = _label(found)
        if label is None:
            raise PayloadError(f'expected the stream\'s name under "{self._mapping.stream}", found {_told(found)}')
        name = filled(self._mapping.name or STREAM, {**place.parts, "stream": label})
        if fault := name_fault(name):
            raise PayloadError(f'"{self._mapping.stream}": expected {fault}')
        return name

    def _moment(self, record: Any, message: Any, properties: Mapping[str, str], arrival: float) -> float:
        """Seconds since 1970 of a reading, from where the mapping says."""
        mapping = self._mapping
        if mapping.time_from == "arrival":
            return arrival
        if mapping.time_from == "property":
            found: Any = properties.get(mapping.time, ABSENT)
        else:
            found = _find(self._time, record, message)
        either = mapping.time_from == "payload-or-arrival"
        if either and (found is ABSENT or found is None):
            return arrival
        if found is ABSENT:
            where = " in the user properties" if mapping.time_from == "property" else ""
            raise PayloadError(f'expected the time under "{mapping.time}"{where}, found none')
        try:
            time = parse_time(found, self._zone)
        except ValueError as error:
            raise PayloadError(f'"{mapping.time}": {error}') from None
        return arrival if either and time < _CLOCK_WAS_SET else time

    def _identity(self, record: Any, message: Any, properties: Mapping[str, str]) -> str | None:
        """What tells the reading from all others of its stream, where the device says so."""
        name = self._mapping.sequence
        if name is None:
            return None
        if self._mapping.sequence_from == "property":
            found: Any = properties.get(name, ABSENT)
        else:
            found = _find(self._sequence, record, message)
        if found is ABSENT or found is None:
            return None
        text = _label(found)
        if text is None or not 0 < len(text) <= 200 or _UNKEPT.search(text):
            raise PayloadError(f'expected a number or a short text under "{name}", found {shown(found)}')
        return text


def _check(mapping: InputMapping, features: Sequence[str]) -> None:
    """Raise ConfigError where the mapping does not fit the bundle's features, with all that is wrong."""
    faults = []
    from_preset = preset(mapping.preset).get("values", {}) if mapping.preset else {}
    for name in mapping.values:
        if name not in features and name not in from_preset:
            faults.append(f"input.values.{name}: no feature of the bundle; {suggestion(name, features)}")
    whole = [name for name in features if mapping.source(name).topic is None]
    if mapping.format == "text" and len(whole) > 1:
        several = [topic for topic in mapping.topics if "{value}" not in topic]
        faults += [
            f"input.topic: expected {{value}} in it, since a text is one value and the bundle takes {len(whole)} "
            f'({", ".join(whole)}), found "{topic}"'
            for topic in several
        ]
    if whole and not mapping.topics:
        faults.append(f"input.topic: expected one that holds {', '.join(whole)}, found none")
    if faults:
        raise ConfigError("the mapping does not fit the bundle:\n  " + "\n  ".join(faults), "mend the service config")


def _parser(mapping: InputMapping) -> Parse:
    if mapping.format == "msgpack":
        require("msgpack", "msgpack")
    csv = csv_parser(mapping.columns, mapping.separator)
    parsers: dict[str, Parse] = {"json": parse_json, "text": parse_text, "csv": csv, "msgpack": parse_msgpack}
    return parsers[mapping.format]


def _whole(value: object) -> float:
    if type(value) is int:
        return float(value)
    raise TypeError


def _path(text: str | None) -> Path | None:
    return None if text is None else Path.parse(text)


def _value(mapping: InputMapping, feature: str, categories: Sequence[str]) -> _Value:
    source: ValueMapping = mapping.source(feature)
    if mapping.format == "text":
        path = None
    elif source.topic is not None:
        path = _path(source.path or mapping.value)
    else:
        path = Path.of_key(feature) if source.path is None else Path.parse(source.path)
    words = {**dict.fromkeys(map(str.lower, mapping.missing), math.nan), **source.words}
    numeral = ValueParser(
        path.text if path else feature,
        scale=source.scale,
        offset=source.offset,
        least=source.least,
        most=source.most,
        ignore=[*mapping.ignore, *source.ignore],
        words={word.lower(): number for word, number in words.items()},
        decimal_comma=mapping.decimal == "comma",
        categories=categories,
    )
    return _Value(feature, path, numeral)


def _find(path: Path | None, record: Any, message: Any) -> Any:
    """What the path leads to in a reading, or else in the message around it."""
    if path is None:
        return ABSENT
    found = path.find(record)
    return path.find(message) if found is ABSENT and record is not message else found


def _label(found: Any) -> str | None:
    """A text, or a whole number as its digits; None for anything else."""
    if isinstance(found, str):
        return found
    # beyond 64 bits orjson would give the digits of the nearest float
    whole = isinstance(found, int) and not isinstance(found, bool) and -(2**63) <= found < 2**64
    return str(found) if whole else None


def _told(found: Any) -> str:
    return "none" if found is ABSENT else shown(found)


def encode_reading(reading: Reading, categories: Mapping[str, Sequence[str]] | None = None) -> str:
    """A reading as `InputMapping()` takes it: {"time": "2016-07-01T07:00:00Z", "ac_power": -2.86}.

    `categories`: by feature, the texts that its values stand for.
    """
    known = categories or {}
    values = {name: known[name][int(value)] if name in known else value for name, value in reading.values.items()}
    return json.dumps({"time": format_time(reading.time), **values}, separators=(",", ":"))
