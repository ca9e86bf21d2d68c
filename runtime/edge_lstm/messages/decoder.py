"""Decodes messages to readings by a typed mapping, and encodes readings; a message that does not fit is an error."""

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
from edge_lstm.foundation.numbers import FLOAT32_MAX
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
from edge_lstm.messages.topics import STREAM, TopicPattern, fill_template, name_fault, topic_faults
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

_MOST_TOPICS = 4096  # whose meaning is kept; strangers can make up any number of them
_new = tuple.__new__  # makes a named tuple in half the time
_CLOCK_WAS_SET = 946_684_800.0  # the year 2000: a device whose clock was never set counts from 1970
_SURROGATES = re.compile("[\ud800-\udfff]")  # lone ones, which no database stores


@dataclass(frozen=True, slots=True)
class _Value:
    """One feature in a message: `path` leads to what `parser` reads (None: the reading itself is the value)."""

    feature: str
    path: Path | None
    parser: ValueParser


@dataclass(frozen=True, slots=True)
class _TopicMeaning:
    """What a topic means: its values, and the stream's name, or the parts of it if the payload has the rest."""

    parts: Mapping[str, str]
    stream: str | None
    values: Sequence[_Value]


class Decoder:
    """Messages to readings, by one mapping, for the given features."""

    def __init__(
        self, mapping: InputMapping, features: Sequence[str], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """`categories`: by feature, the texts that its values stand for.

        Raises ConfigError if the mapping does not fit these features, or needs a package that is not installed.
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
            at_value = _Value(value.feature, _path(mapping.value), value.parser)
            self._by_part.setdefault(part, []).append(at_value)
        self._patterns = [TopicPattern(topic, self._by_part) for topic in mapping.topics if shared]
        self._joins = bool(mapping.join) or bool(self._own) or any("{value}" in topic for topic in mapping.topics)
        paths = [value.path for value in self._shared if value.path is not None]
        self._is_list = mapping.format != "csv" and any(path.begins_with_a_position for path in paths)
        self._meanings: dict[str, _TopicMeaning | None] = {}
        self._flat = self._flat_keys()

    @property
    def timed(self) -> bool:
        """Whether every reading has a time that no other reading of its stream has."""
        return self._mapping.time_from in ("payload", "property") and not (self._mapping.sequence or self._joins)

    def stream_of(self, topic: str) -> str:
        """The stream that a topic means, or the topic itself where the payload has the stream's name."""
        meaning = self._meanings.get(topic)
        return topic if meaning is None or meaning.stream is None else meaning.stream

    def readings(self, topic: str, payload: bytes, properties: Mapping[str, str], arrival: float) -> list[Reading]:
        """The readings in a message that came at `arrival` (seconds since 1970) with these MQTT 5 user properties.

        The list is empty if the message is not for this mapping: another topic, an empty payload (which clears a
        retained message), or no key of any feature. A missing value (null, NaN, or a word or number that means it) is
        left out, or NaN in a partial reading. Raises PayloadError if the message cannot be read: not in the mapping's
        format, no stream or time, or a value that is not a number.
        """
        meaning = self._meanings.get(topic)
        flat = self._flat
        if flat is not None and meaning is not None and meaning.stream is not None and len(payload) <= self._most_bytes:
            # the usual message, a flat object of numbers; `_decode` gives the same, but slower
            load, keys, time, zone = flat
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
                return [
                    _new(Reading, (meaning.stream, parse_time(facts[time], zone), values, None, False, False, False))
                ]
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
        if len(payload) > self._most_bytes:
            expected = f"expected at most {self._most_bytes} bytes (max_bytes)"
            raise PayloadError(f"{expected}, found {len(payload)}: {shown_bytes(payload)}")
        message = self._parse(payload)
        readings: list[Reading] = []
        refused, first = 0, None  # not all errors: a message may hold a million readings
        records = self._split(message)
        for record in records:
            try:
                reading = self._reading(meaning, record, message, properties, arrival)
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

    def _flat_keys(self) -> tuple[Parse, list[tuple[str, str]], str, tzinfo] | None:
        """If messages are flat JSON objects: the loader, (feature, key) of each value, key and zone of the time.

        None if the mapping needs anything else.
        """
        mapping = self._mapping
        asked = mapping.stream or mapping.readings or mapping.sequence or self._joins
        if mapping.format != "json" or mapping.time_from != "payload" or asked:
            return None
        plain = [(value.feature, value.path) for value in self._shared if value.parser.plain]
        keys = [(feature, path.key) for feature, path in plain if path is not None and path.key is not None]
        if len(keys) < len(self._features) or self._time is None or self._time.key is None:
            return None
        return load_json(), keys, self._time.key, self._zone

    def _learn(self, topic: str) -> _TopicMeaning | None:
        """What the topic means, kept for the next message."""
        if len(self._meanings) >= _MOST_TOPICS:
            self._meanings.clear()
        self._meanings[topic] = meaning = self._meaning(topic)
        return meaning

    def _meaning(self, topic: str) -> _TopicMeaning | None:
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
            return _TopicMeaning(parts, None, values)
        name = fill_template(STREAM if self._mapping.name is None else self._mapping.name, parts)
        return None if name_fault(name) else _TopicMeaning({}, name, values)

    def _split(self, message: Any) -> list[Any]:
        """The parts of a message that are readings."""
        if self._records is not None:
            message = self._records.find(message)
            if message is ABSENT:
                return []
            return message if isinstance(message, list) else [message]
        return message if isinstance(message, list) and not self._is_list else [message]

    def _reading(
        self, meaning: _TopicMeaning, record: Any, message: Any, properties: Mapping[str, str], arrival: float
    ) -> Reading | None:
        """The reading in one part of a message; None if it holds no value."""
        values = {}
        for value in meaning.values:
            if value.path is None:
                found = record
            elif isinstance(record, (dict, list)):
                found = value.path.find(record)
            else:
                raise PayloadError(f"expected an object with keys, found {shown(record)}")
            if found is not ABSENT:
                values[value.feature] = value.parser.read(found)
        if not values:
            return None
        partial = self._joins and len(values) < len(self._features)
        if not partial:
            values = {feature: number for feature, number in values.items() if not math.isnan(number)}
        stream = meaning.stream if meaning.stream is not None else self._stream_name(meaning, record, message)
        time = self._time_of(record, message, properties, arrival)
        sequence = self._identity(record, message, properties)
        return Reading(stream, time, values, sequence, partial, arrived=time is arrival)

    def _stream_name(self, meaning: _TopicMeaning, record: Any, message: Any) -> str:
        """The stream's name, if the payload holds it."""
        found = _find(self._stream, record, message)
        label = _label(found)
        if label is None:
            raise PayloadError(
                f'expected the stream\'s name under "{self._mapping.stream}", found {_shown_or_none(found)}'
            )
        name = fill_template(self._mapping.name or STREAM, {**meaning.parts, "stream": label})
        if fault := name_fault(name):
            raise PayloadError(f'"{self._mapping.stream}": expected {fault}')
        return name

    def _time_of(self, record: Any, message: Any, properties: Mapping[str, str], arrival: float) -> float:
        """The time of a reading, seconds since 1970."""
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
        """The device's own identity of the reading within its stream, if the mapping names one."""
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
        if text is None or not 0 < len(text) <= 200 or _SURROGATES.search(text):
            raise PayloadError(f'expected a number or a short text under "{name}", found {shown(found)}')
        return text


def _check(mapping: InputMapping, features: Sequence[str]) -> None:
    """Raises ConfigError with every fault if the mapping does not fit the bundle's features."""
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
        raise ConfigError(
            "the mapping does not fit the bundle:\n  " + "\n  ".join(faults), "correct the service config"
        )


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
    parser = ValueParser(
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
    return _Value(feature, path, parser)


def _find(path: Path | None, record: Any, message: Any) -> Any:
    """What the path leads to in the reading, or else in the message around it."""
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


def _shown_or_none(found: Any) -> str:
    return "none" if found is ABSENT else shown(found)


def encode_reading(reading: Reading, categories: Mapping[str, Sequence[str]] | None = None) -> str:
    """A reading as `InputMapping()` takes it: {"time": "2016-07-01T07:00:00Z", "ac_power": -2.86}.

    `categories`: by feature, the texts that its values stand for.
    """
    known = categories or {}
    values = {name: known[name][int(value)] if name in known else value for name, value in reading.values.items()}
    return json.dumps({"time": format_time(reading.time), **values}, separators=(",", ":"))
